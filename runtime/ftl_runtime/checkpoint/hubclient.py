"""The client of the Hub as checkpoints are sent with it: to a repository that is there, with patience that ends."""

import os
from typing import TYPE_CHECKING

from ftl.contract import HubRef
from ftl.errors import ConfigError, Problem
from ftl.sources.hubrepo import Repo, ask_hub

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub import HfApi

_SILENCE_S = float(os.environ.get("FTL_STORE_SILENCE_S", "120"))
"""Seconds without a byte after which a request has failed."""
_MAX_WAIT_S = 30
"""A server that asks for more patience between two tries is not obeyed longer than this."""


def open_repository(ref: HubRef, repo: Repo) -> "tuple[HfApi, str]":
    """The repository, made if it is not there, ready to be written to, under its full name. Raises as `ask_hub`."""
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        remedy = "set HF_TOKEN to a token that may write there, and name it under `secrets` of the cloud file"
        raise ConfigError(
            Problem("hub_model_id", f"{ref.repo}: pushing needs a token, and there is none", None, remedy)
        )
    make_patient()
    api = HfApi()
    made = ask_hub(
        repo, lambda: api.create_repo(ref.repo, private=ref.is_private is not False, exist_ok=True), delays_s=()
    )
    id = str(made.repo_id)
    # Where the token may not make the repository, `create_repo` is content with one that it may read.
    ask_hub(repo, lambda: api.auth_check(id, write=True), delays_s=())
    if ref.is_private and not ask_hub(repo, lambda: api.model_info(id), delays_s=()).private:
        given = f"{ref.repo}: is public, and hub_private_repo is true"
        raise ConfigError(Problem("hub_model_id", given, None, "make it private in its settings, or name another"))
    if ref.branch is not None:
        ask_hub(repo, lambda: api.create_branch(id, branch=str(ref.branch), exist_ok=True), delays_s=())
    return api, id


def make_patient() -> None:
    """Have the client of this process wait for nothing without end, and draw no bars."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils.tqdm import disable_progress_bars

    set_client_factory(_patient_client)
    disable_progress_bars()


def _patient_client() -> "httpx2.Client":
    """The Hub client's own, but nothing is waited for without end."""
    import httpx2
    from huggingface_hub.utils._http import default_client_factory

    def bound(response: httpx2.Response) -> None:
        told = response.headers.get("Retry-After", "")
        if told.isdigit() and int(told) > _MAX_WAIT_S:
            response.headers["Retry-After"] = str(_MAX_WAIT_S)
        response.headers.pop("ratelimit", None)  # the same in another header, which comes first

    client = default_client_factory()
    client.timeout = httpx2.Timeout(_SILENCE_S, connect=min(10.0, _SILENCE_S))
    client.event_hooks = {**client.event_hooks, "response": [*client.event_hooks.get("response", ()), bound]}
    return client
