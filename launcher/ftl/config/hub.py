"""The repository of the Hub that a training goes to: its checkpoints while it trains, its model at the end."""

from typing import Annotated, Literal

from pydantic import Field

from ftl.config.marker import Flat
from ftl.section import Section

_NAME = "[A-Za-z0-9_.-]{1,96}"  # with \\w, the letters of every script, compiling the pattern takes a tenth of a second


class HubSection(Section):
    repo: Annotated[str | None, Flat("hub_model_id"), Field(pattern=rf"^({_NAME}/)?{_NAME}$")] = None
    """The model repository, as user/name, or as name of your own; made if it is not there. Needs HF_TOKEN."""
    pushes: Annotated[bool | None, Flat("push_to_hub")] = None
    """false leaves hub_model_id without effect; true needs it."""
    strategy: Annotated[Literal["end", "every_save", "checkpoint", "all_checkpoints"], Flat("hub_strategy")] = (
        "checkpoint"
    )
    """What is sent. end: the finished model. every_save: at each checkpoint also the weights so far. checkpoint: also
    the checkpoints that are kept here, so that any machine can go on with the run. all_checkpoints: every one of them,
    for good."""
    is_private: Annotated[bool | None, Flat("hub_private_repo")] = None
    """A new repository is private unless this is false; true refuses one that is public."""
    branch: Annotated[str | None, Flat("hub_revision")] = None
    """The branch that is written to, made if it is not there; main when absent."""
