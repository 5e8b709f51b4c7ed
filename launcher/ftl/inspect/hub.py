"""Tier 3 of `ftl check`: what the Hub says of the repositories that a config names."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Any

from ftl.errors import ConfigError, Problem
from ftl.sources.hubrepo import Repo, ask_hub, check_access, resolve_commit
from ftl.sources.retry import UnreachableError

_BUDGET_S = 10.0
_REACH_S = 3.0
_WRITING_ROLES = {"admin", "write", "contributor"}


@dataclass(frozen=True)
class Wanted:
    """A repository that must be there and readable, or one that must be writable."""

    repo: Repo
    """Its `key` is the key of the config that names it."""
    is_written: bool = False


def hub_problems(wanted: Sequence[Wanted], *, budget_s: float = _BUDGET_S) -> tuple[list[Problem], list[str]]:
    """A problem for each repository that will not do, `where` being its key; and the ones that the Hub did not tell of.

    All are asked at once; takes at most `budget_s` seconds.
    """
    if not is_reachable():
        return [], [one.repo.id for one in wanted]
    answers: dict[int, list[Problem]] = {}

    def ask(number: int) -> None:
        try:
            _check(wanted[number])
            answers[number] = []
        except UnreachableError:
            return
        except ConfigError as e:
            answers[number] = [problem for problem in e.problems if isinstance(problem, Problem)]

    threads = [Thread(target=ask, args=(number,), daemon=True) for number in range(len(wanted))]
    deadline = time.monotonic() + budget_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    told = dict(sorted(answers.items()))
    problems = [problem for found in told.values() for problem in found]
    return problems, [one.repo.id for number, one in enumerate(wanted) if number not in told]


def is_reachable() -> bool:
    """Whether the Hub answers at all; asked before all else, because a repository is asked for again and again."""
    import httpx2
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    try:
        get_session().head(ENDPOINT, timeout=_REACH_S)
    except (httpx2.TransportError, ConnectionError):  # the latter where HF_HUB_OFFLINE is set
        return False
    return True


def _check(wanted: Wanted) -> None:
    """Raises ConfigError when the repository will not do, and UnreachableError when no answer comes."""
    if wanted.is_written:
        _check_writable(wanted.repo)
    else:
        resolve_commit(wanted.repo)
        check_access(wanted.repo)


def _check_writable(repo: Repo) -> None:
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        remedy = "set HF_TOKEN to a token that can write, or run `hf auth login`"
        raise ConfigError(Problem(repo.key, f"{repo.id}: pushing needs a token, and there is none", remedy=remedy))
    me = ask_hub(repo, lambda: HfApi().whoami())
    may_write = ask_hub(repo, lambda: _may_write(repo))
    reason = f"the token of {me['name']} may not write to it" if may_write is False else None
    if may_write is None:  # it will be made by the first push
        reason = _cannot_create(me, repo.id)
    if reason is not None:
        remedy = "set HF_TOKEN to a token with write access, or name a repository of yours"
        raise ConfigError(Problem(repo.key, f"{repo.id}: {reason}", remedy=remedy))


def _may_write(repo: Repo) -> bool | None:
    """None for a repository that is not there."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        HfApi().auth_check(repo.id, repo_type=repo.kind, write=True)
    except RepositoryNotFoundError:
        return None
    except HfHubHTTPError as e:
        if e.response.status_code != 403:
            raise
        return False
    return True


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
