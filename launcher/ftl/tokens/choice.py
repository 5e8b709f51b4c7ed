"""Which chat template a dataset uses."""

from pathlib import Path

from ftl.config.data import DataSection, DatasetSection
from ftl.errors import ConfigError, Problem
from ftl.formats.templates import TEMPLATES
from ftl.tokens.view import TokenizerView

_FALLBACK = "tokenizer_default_fallback_"


def chat_template_source(data: DataSection, dataset: DatasetSection | None, view: TokenizerView) -> str:
    """The text of the chat template that a dataset uses, or the whole config where `dataset` is None.

    Raises ConfigError when the name is unknown, or names a template that is not there.
    """
    name, jinja = data.chat_template, data.chat_template_jinja
    if dataset is not None and (dataset.chat_template or dataset.chat_template_jinja):
        name, jinja = dataset.chat_template, dataset.chat_template_jinja or jinja
    name = name or ("jinja" if jinja else "tokenizer_default")
    if name == "jinja":
        if jinja:
            return _text_or_file(jinja)
        raise ConfigError(
            Problem("chat_template = jinja", "no chat_template_jinja", remedy="give the template's text there")
        )
    if name == "tokenizer_default" or name.startswith(_FALLBACK):
        if view.chat_template:
            return view.chat_template
        if name == "tokenizer_default":
            remedy = f"set chat_template to one of {', '.join(TEMPLATES)}, or jinja"
            raise ConfigError(
                Problem("chat_template = tokenizer_default", "the tokenizer has no chat template", remedy=remedy)
            )
        name = name.removeprefix(_FALLBACK)
    if name not in TEMPLATES:
        allowed = f"must be tokenizer_default, jinja, {_FALLBACK}NAME or one of {', '.join(TEMPLATES)}"
        raise ConfigError(Problem(f"chat_template = {name}", allowed=allowed))
    return TEMPLATES[name]


def _text_or_file(jinja: str) -> str:
    """The template itself: one line that ends in .jinja is the path of a file with it."""
    if "\n" in jinja or not jinja.endswith(".jinja"):
        return jinja
    try:
        return Path(jinja).read_text("utf-8")
    except OSError as e:
        raise ConfigError(Problem("chat_template_jinja", jinja, f"cannot be read: {e.strerror}")) from e
    except UnicodeDecodeError as e:
        raise ConfigError(Problem("chat_template_jinja", jinja, "is not UTF-8")) from e
