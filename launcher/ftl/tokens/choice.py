"""Which chat template a dataset uses."""

from pathlib import Path

from ftl.config.data import DataSection, DatasetSection
from ftl.errors import ConfigError, Problem
from ftl.formats.templates import TEMPLATES, is_template_path
from ftl.tokens.view import TokenizerView

_DEFAULT = "tokenizer_default"
_FALLBACK = "tokenizer_default_fallback_"


def chat_template_source(data: DataSection, dataset: DatasetSection | None, view: TokenizerView) -> str:
    """The text of the chat template that a dataset uses, or the whole config where `dataset` is None.

    Raises ConfigError when the name is unknown, or names a template that is not there.
    """
    name = _name(data, dataset)
    if view.chat_template and (name == _DEFAULT or name.startswith(_FALLBACK)):
        return view.chat_template
    source = configured_template(data, dataset)
    if source is None:
        remedy = f"set chat_template to one of {', '.join(TEMPLATES)}, or jinja"
        raise ConfigError(Problem(f"chat_template = {_DEFAULT}", "the tokenizer has no chat template", remedy=remedy))
    return source


def configured_template(data: DataSection, dataset: DatasetSection | None) -> str | None:
    """The text of the chat template that the config itself names; None where it leaves that to the tokenizer.

    Raises ConfigError as `chat_template_source`.
    """
    name = _name(data, dataset)
    if name == _DEFAULT:
        return None
    if name == "jinja":
        jinja = (dataset and dataset.chat_template_jinja) or data.chat_template_jinja
        if jinja:
            return _text_or_file(jinja)
        raise ConfigError(
            Problem("chat_template = jinja", "no chat_template_jinja", remedy="give the template's text there")
        )
    name = name.removeprefix(_FALLBACK)
    if name not in TEMPLATES:
        allowed = f"must be {_DEFAULT}, jinja, {_FALLBACK}NAME or one of {', '.join(TEMPLATES)}"
        raise ConfigError(Problem(f"chat_template = {name}", allowed=allowed))
    return TEMPLATES[name]


def _name(data: DataSection, dataset: DatasetSection | None) -> str:
    """What `chat_template` is or stands for: the dataset's own keys come first."""
    chosen = dataset if dataset is not None and (dataset.chat_template or dataset.chat_template_jinja) else data
    jinja = (dataset and dataset.chat_template_jinja) or data.chat_template_jinja
    return chosen.chat_template or ("jinja" if jinja else _DEFAULT)


def _text_or_file(jinja: str) -> str:
    """The template itself, or what the file holds that it names."""
    if not is_template_path(jinja):
        return jinja
    try:
        return Path(jinja.strip()).read_text("utf-8")
    except OSError as e:
        raise ConfigError(Problem("chat_template_jinja", jinja, f"cannot be read: {e.strerror}")) from e
    except UnicodeDecodeError as e:
        raise ConfigError(Problem("chat_template_jinja", jinja, "is not UTF-8")) from e
