"""What is minimised."""

from typing import Annotated, Literal

from ftl.config.marker import Flat
from ftl.section import Section

ObjectiveKind = Literal["sft", "dpo", "ipo", "orpo", "kto", "simpo", "cpo", "reward", "prm"]

BUILT: tuple[ObjectiveKind, ...] = ("sft",)
"""What the runtime trains. The data of the others can be checked and looked at."""


class ObjectiveSection(Section):
    kind: Annotated[ObjectiveKind, Flat("objective")] = "sft"
    """sft is next-token cross-entropy over the tokens that the format marks as trained."""
