"""Repositories of the Hub: which commit a revision is, and why one cannot be read, in a sentence each."""

import errno
import json
import re
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from ftl.errors import ConfigError, FtlError, Problem
from ftl.sources.retry import DELAYS_S, PassingError, UnreachableError, causes, with_retries

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

_REPO_ID = re.compile(r"(?:[\w.-]{1,96}/)?[\w.-]{1,96}")
_UPLOAD_OF = re.compile(r"Error while uploading '(.+)' to the Hub\.")
_ADDRESS = re.compile(r"\(?https?://\S+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Repo:
    """A repository and the keys that name it, for the sentences about it."""

    id: str
    revision: str | None = None
    kind: Literal["dataset", "model"] = "dataset"
    key: str = "path"
    revision_key: str = "revision"
    file: str | None = None
    """The file in it that is asked for or sent, for the sentences."""

    @property
    def shown(self) -> str:
        return f"{self.id}: {self.file}" if self.file else self.id


def is_repo_id(given: str) -> bool:
    """Whether it could be `org/name` or `name`."""
    return _REPO_ID.fullmatch(given) is not None


def is_commit(revision: str | None) -> bool:
    """Whether it is a commit, which never becomes another one as a branch or a tag may."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def resolve_commit(repo: Repo, *, delays_s: tuple[float, ...] = DELAYS_S) -> str:
    """The commit that the branch or tag (the default branch when None) is now; a commit is itself, unasked.

    Where the Hub does not answer, or HF_HUB_OFFLINE is set, it is the commit seen last on this machine. Raises
    ConfigError where the repository or revision does not exist or may not be read, and UnreachableError.
    """
    from huggingface_hub import HfApi

    api = HfApi()

    def resolve() -> str:
        return api.resolve_revision(repo.id, repo_type=repo.kind, revision=repo.revision).resolved

    return ask_hub(repo, resolve, delays_s=delays_s)


def check_access(repo: Repo, *, delays_s: tuple[float, ...] = DELAYS_S) -> None:
    """Raises ConfigError where the files of the repository may not be read, and UnreachableError."""
    from huggingface_hub import HfApi

    ask_hub(repo, lambda: HfApi().auth_check(repo.id, repo_type=repo.kind), delays_s=delays_s)


def check_revision(repo: Repo) -> None:
    """Raises ConfigError where its commit, branch or tag is not there or may not be read, and UnreachableError."""
    from huggingface_hub import HfApi

    ask = HfApi().repo_info
    ask_hub(repo, lambda: ask(repo.id, repo_type=repo.kind, revision=repo.revision), delays_s=())


def read_file(repo: Repo, name: str) -> bytes | None:
    """The content of a small file of the repository; None when it has none of that name. Raises as `check_access`."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RemoteEntryNotFoundError

    def ask() -> bytes | None:
        try:
            return Path(
                HfApi().hf_hub_download(repo.id, name, repo_type=repo.kind, revision=repo.revision)
            ).read_bytes()
        except RemoteEntryNotFoundError:
            return None

    return ask_hub(repo, ask, delays_s=())


def download(repo: Repo, dest: Path, *, below: str | None = None, without: tuple[str, ...] = ()) -> None:
    """Copy the files of the repository to `dest`, or those of a directory in it; none that a pattern of `without` fits.

    Raises as `check_access`, and ConfigError where there are none.
    """
    from huggingface_hub import HfApi

    wanted = None if below is None else [f"{below}/*"]
    dest.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=dest.parent, prefix=".fetch-") as folder:

        def ask() -> None:
            HfApi().snapshot_download(
                repo.id,
                repo_type=repo.kind,
                revision=repo.revision,
                local_dir=folder,
                allow_patterns=wanted,
                ignore_patterns=list(without),
            )

        ask_hub(repo, ask)
        shutil.rmtree(Path(folder) / ".cache", ignore_errors=True)  # what the client notes about the download
        source = Path(folder) / (below or "")
        if not source.is_dir() or not any(source.iterdir()):
            raise ConfigError(Problem(repo.key, repo.id, f"holds no files {f'below {below}' if below else 'at all'}"))
        shutil.copytree(source, dest)


def readable_commit(repo: Repo) -> str:
    """As `resolve_commit`, once it is known that the files may be read; without a second try."""
    check_access(repo, delays_s=())
    return resolve_commit(repo, delays_s=())


@cache
def make_patient() -> None:
    """Have the Hub's client in this process wait for nothing without end, and draw no bars."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils.tqdm import disable_progress_bars

    from ftl.sources.patientclient import PatientClient

    set_client_factory(PatientClient)
    disable_progress_bars()


def ask_hub(repo: Repo, call: Callable[[], _Result], *, delays_s: tuple[float, ...] = DELAYS_S) -> _Result:
    """What `call` gives, tried again after each of `delays_s` where a failure may pass.

    Raises ConfigError where asking again is of no use, and UnreachableError where it was of none.
    """

    make_patient()

    def told() -> _Result:
        with _in_words(repo):
            return call()

    try:
        return with_retries(told, delays_s)
    except PassingError as e:
        raise UnreachableError(Problem(repo.key, f"{_about(repo, e).shown}: {e}", None, "try again later")) from e


def _about(repo: Repo, error: Exception) -> Repo:
    """The repository with the file that the client names, where it has sent several at a time."""
    found = [match[1] for cause in causes(error) if (match := _UPLOAD_OF.search(str(cause)))]
    return replace(repo, file=found[0]) if found else repo


@contextmanager
def _in_words(repo: Repo) -> Iterator[None]:
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except (FtlError, PassingError):
        raise
    except Exception as e:
        repo = _about(repo, e)
        for cause in causes(e):
            if isinstance(cause, errors.OfflineModeIsEnabled):
                given = f"{repo.id}: is not on this machine, and HF_HUB_OFFLINE is set"
                raise UnreachableError(Problem(repo.key, given)) from e
            if isinstance(cause, errors.HfHubHTTPError):
                raise _refusal(repo, cause) from e
            if isinstance(cause, errors.HFValidationError):
                allowed = "is no file here, and no repository id (org/name)"
                raise ConfigError(Problem(repo.key, repo.id, allowed)) from e
            if isinstance(cause, httpx2.TransportError | ConnectionError | TimeoutError):
                raise PassingError(f"{_endpoint()} does not answer ({type(cause).__name__})") from e
            if isinstance(cause, json.JSONDecodeError):  # a page of some proxy on the way
                raise PassingError(f"{_endpoint()} answered what is no JSON") from e
        if isinstance(e, errors.LocalEntryNotFoundError):
            raise PassingError(f"{_endpoint()} answered what is not understood") from e
        if function := client_function(e):
            if function == "xet_get" and "No space left" in str(e):
                raise OSError(errno.ENOSPC, "No space left on device") from e
            said = _ADDRESS.sub("", str(e)).strip()[:200]
            raise PassingError(f"the client of the Hub failed ({type(e).__name__}: {said})") from e
        raise


def client_function(error: Exception, clients: tuple[str, ...] = ("huggingface_hub",)) -> str | None:
    """The function of a client in which an error of no kind of its own was raised; None for any other.

    It comes to that when an answer is not understood; and hf_xet, compiled code without frames, raises RuntimeError or
    an OSError without a number for whatever happens to it.
    """
    has_kind = isinstance(error, FileNotFoundError) or (isinstance(error, OSError) and error.errno is not None)
    if has_kind or not isinstance(error, RuntimeError | OSError | ValueError | LookupError | TypeError):
        return None
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package in (*clients, "ftl", "ftl_runtime"):
            return frame.f_code.co_name if package in clients else None
    return None


def _refusal(repo: Repo, error: "HfHubHTTPError") -> Exception:
    """What to raise for an answer that is not what was asked for."""
    from huggingface_hub import errors, get_token

    has_token, status = get_token() is not None, error.response.status_code
    login = None if has_token else "log in with `hf auth login` or set HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return ConfigError(Problem(repo.revision_key, repo.revision, f"is no branch, tag or commit of {repo.id}"))
    if isinstance(error, errors.GatedRepoError):
        place = f"{_endpoint()}/{'datasets/' if repo.kind == 'dataset' else ''}{repo.id}"
        given = f"{repo.id}: is gated, and {'your token has no access' if has_token else 'you are not logged in'}"
        remedy = f"ask for access at {place}" + (f", then {login}" if login else "")
        return ConfigError(Problem(repo.key, given, None, remedy))
    if isinstance(error, errors.RepositoryNotFoundError):
        hidden = "or your token may not see it" if has_token else "or it is private"
        return ConfigError(Problem(repo.key, f"{repo.id}: no such {repo.kind} on the Hub, {hidden}", None, login))
    if status == 429 or status >= 500:
        return PassingError(f"{_endpoint()} answered {status}", _seconds(error.response.headers.get("Retry-After")))
    if status == 401:
        return ConfigError(Problem(repo.key, f"{repo.id}: the Hub does not know your token", None, "log in again"))
    advice = "set HF_TOKEN to a token with that right" if status == 403 else None
    said = (error.server_message or "").rstrip(".") or None
    if status == 413 or "storage" in (said or ""):
        advice = "make room there, or have it pushed elsewhere"
    return ConfigError(Problem(repo.key, f"{repo.shown}: the Hub answered {status}", said, advice))


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdigit() else None


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)
