"""A model that is built, as those that prepare its training take it."""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from ftl_runtime.data.layout import Collate
from ftl_runtime.parallel import deepspeed
from ftl_runtime.train.scoring import Inputs


@dataclass(frozen=True)
class Built:
    base: PreTrainedModel
    model: nn.Module
    """`base`, or the adapter around it."""
    inputs: Inputs
    collate: Collate
    zero: deepspeed.Plan | None
    """How DeepSpeed is to hold it in training."""
