"""The client of the Hub as checkpoints are sent with it: to a repository that is there."""

from typing import TYPE_CHECKING

from ftl.contract import HubRef
from ftl.errors import ConfigError, Problem
from ftl.sources.hubrepo import Repo, ask_hub

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def open_repository(ref: HubRef, repo: Repo) -> "tuple[HfApi, str]":
    """The repository, made if it is not there, ready to be written to, under its full name. Raises as `ask_hub`."""
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        remedy = "set HF_TOKEN to a token that may write there, and name it under `secrets` of the cloud file"
        raise ConfigError(
            Problem("hub_model_id", f"{ref.repo}: pushing needs a token, and there is none", None, remedy)
        )
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
