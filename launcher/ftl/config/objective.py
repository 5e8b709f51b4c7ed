"""What is minimised."""

from typing import Literal

from ftl.section import Section


class ObjectiveSection(Section):
    kind: Literal["sft"] = "sft"
    """Next-token cross-entropy over the tokens that the format marks as trained."""
