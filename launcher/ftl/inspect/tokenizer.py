"""The tokenizer of a config, found on this machine or fetched alone from the Hub."""

from pathlib import Path

from ftl.config.load import Loaded
from ftl.errors import ConfigError, Problem
from ftl.inspect.hub import is_reachable
from ftl.references import locate, may_be_repository
from ftl.tokens import TokenizerView

_FILES = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "chat_template.json"]
_ETAG_TIMEOUT_S = 5.0


class NoTokenizerError(ConfigError):
    """There is no tokenizer on this machine that ftl can read; where the training runs there may be one."""


def load_view(loaded: Loaded, *, network: bool) -> TokenizerView:
    """The tokenizer that the config names. Raises NoTokenizerError where none is here, ConfigError for a broken one."""
    model = loaded.config.model
    given = model.tokenizer or model.base
    directory = locate(given, loaded.path)
    if directory is None:
        directory = _fetch(given, model.revision if model.tokenizer is None else None, network=network)
    try:
        return TokenizerView.load(directory, model.special_tokens, model.tokens, model.renamed_tokens)
    except ConfigError as e:
        if (directory / "tokenizer.json").is_file():
            raise
        raise NoTokenizerError(*e.problems) from e
    except Exception as e:  # tokenizers raises no narrower kind
        given = f"the tokenizer cannot be read: {e}"
        raise ConfigError(Problem(str(directory), given, remedy="save the tokenizer again")) from e


def _fetch(repo: str, revision: str | None, *, network: bool) -> Path:
    """The tokenizer files of a Hub repository, in the Hub's own cache."""
    if not may_be_repository(repo):
        raise NoTokenizerError(Problem(repo, "no such directory"))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    is_online = network and is_reachable()
    try:
        return Path(
            snapshot_download(
                repo,
                revision=revision,
                allow_patterns=_FILES,
                local_files_only=not is_online,
                etag_timeout=_ETAG_TIMEOUT_S,
            )
        )
    except LocalEntryNotFoundError as e:
        why = "the Hub does not answer" if network else "the network is not used"
        raise NoTokenizerError(Problem(repo, f"its tokenizer is not on this machine, and {why}")) from e
    except (HFValidationError, OSError) as e:
        raise NoTokenizerError(
            Problem(repo, f"its tokenizer cannot be fetched: {str(e).strip().splitlines()[0]}")
        ) from e
