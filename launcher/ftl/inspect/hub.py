"""Tier 3 of `ftl check`: what the Hub says of the repositories that a config names."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal

from ftl.errors import Problem

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_BUDGET_S = 10.0
_REQUEST_S = 5.0
_WRITING_ROLES = {"admin", "write", "contributor"}


@dataclass(frozen=True)
class Wanted:
    """A repository that must be there and readable, or one that must be writable."""

    key: str
    """The key of the config that names it."""
    repo: str
    kind: Literal["model", "dataset"]
    revision: str | None = None
    is_written: bool = False


def hub_problems(wanted: Sequence[Wanted], *, budget_s: float = _BUDGET_S) -> tuple[list[Problem], list[str]]:
    """A problem for each repository that will not do, `where` being its key; and the ones that the Hub did not tell of.

    All are asked at once; takes at most `budget_s` seconds.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # what its transport raises

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    answers: dict[int, Problem | None] = {}

    def ask(number: int) -> None:
        try:
            answers[number] = _check(api, wanted[number])
        except (OSError, HTTPError):
            return

    threads = [Thread(target=ask, args=(number,), daemon=True) for number in range(len(wanted))]
    deadline = time.monotonic() + budget_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    problems = [problem for number in sorted(answers) if (problem := answers[number]) is not None]
    return problems, [one.repo for number, one in enumerate(wanted) if number not in answers]


def _check(api: "HfApi", wanted: Wanted) -> Problem | None:
    """What is wrong with a repository, or nothing. Raises what the Hub's client raises when no answer comes."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    def problem(given: str, remedy: str | None = None) -> Problem:
        return Problem(wanted.key, f"{wanted.repo}: {given}", remedy=remedy)

    try:
        if wanted.is_written:
            return _write_problem(api, wanted)
        info = api.repo_info(wanted.repo, repo_type=wanted.kind, revision=wanted.revision, timeout=_REQUEST_S)
        if info.gated:
            api.auth_check(wanted.repo, repo_type=wanted.kind)
    except RevisionNotFoundError:
        return problem(f"has no revision {wanted.revision!r}")
    except GatedRepoError:
        remedy = f"ask for it at {api.endpoint}/{_page(wanted)}, and set HF_TOKEN to a token of the account that got it"
        return problem("is gated, and access has not been granted", remedy)
    except RepositoryNotFoundError:
        remedy = "correct the name" + ("" if _has_token() else ", or set HF_TOKEN if it is private")
        return problem(f"no such {wanted.kind} on {api.endpoint}, or none this token may see", remedy)
    except HfHubHTTPError as e:
        status = e.response.status_code
        if status == 401:
            return problem("the Hub refuses the token", "set HF_TOKEN to a valid one, or run `hf auth login`")
        if status >= 500:
            raise
        return problem(f"the Hub answers {status}")
    return None


def _write_problem(api: "HfApi", wanted: Wanted) -> Problem | None:
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    if not _has_token():
        remedy = "set HF_TOKEN to a token that can write, or run `hf auth login`"
        return Problem(wanted.key, f"{wanted.repo}: pushing needs a token, and there is none", remedy=remedy)
    me = api.whoami()
    try:
        api.auth_check(wanted.repo, repo_type=wanted.kind, write=True)
        return None
    except RepositoryNotFoundError:
        reason = _cannot_create(me, wanted.repo)  # it will be made by the first push
    except HfHubHTTPError as e:
        if e.response.status_code != 403:
            raise
        reason = f"the token of {me['name']} may not write to it"
    if reason is None:
        return None
    remedy = "set HF_TOKEN to a token with write access, or name a repository of yours"
    return Problem(wanted.key, f"{wanted.repo}: {reason}", remedy=remedy)


def _cannot_create(me: dict[str, Any], repo: str) -> str | None:  # Any: the Hub's JSON
    """Why a repository of that name cannot be made with this token, or nothing."""
    token = me.get("auth", {}).get("accessToken", {})
    if token.get("role") == "read":
        return f"the token of {me['name']} can only read"
    owner = repo.partition("/")[0] if "/" in repo else me["name"]
    if owner == me["name"]:
        return None
    role = next((org.get("roleInOrg") for org in me.get("orgs", []) if org.get("name") == owner), None)
    if role is None:
        return f"{me['name']} is not a member of {owner}"
    return None if role in _WRITING_ROLES else f"{me['name']} may not write in {owner}: the role there is {role}"


def _has_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def _page(wanted: Wanted) -> str:
    return wanted.repo if wanted.kind == "model" else f"datasets/{wanted.repo}"
