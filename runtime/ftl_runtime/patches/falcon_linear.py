"""Falcon's linear layers are linear layers, so that they can be quantised.

transformers gives Falcon a class of its own for them, which computes the same, and replaces only nn.Linear itself when
it quantises: `load_in_4bit` then leaves every weight as it was, and only a log line says so.

Upstream: transformers.models.falcon.modeling_falcon, FalconLinear, in 5.23. To be removed when
tests/runtime/models/test_support.py passes for falcon without it.
"""

from torch import nn
from transformers.models.falcon import modeling_falcon


def apply() -> None:
    """For the Falcon models that are made afterwards."""
    modeling_falcon.FalconLinear = nn.Linear  # type: ignore[assignment, misc]
