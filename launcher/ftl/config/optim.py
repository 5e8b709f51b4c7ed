"""Steps, batches, optimizer and learning rate."""

from typing import Annotated, Literal

from pydantic import Field

from ftl.config.marker import Flat
from ftl.section import Section

Optimizer = Literal["adamw_torch_fused", "adamw_torch", "sgd", "adafactor"]
Scheduler = Literal["cosine", "linear", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"]


class OptimSection(Section):
    learning_rate: Annotated[float, Flat("learning_rate"), Field(gt=0)]
    """The highest rate of the schedule."""
    optimizer: Annotated[Optimizer, Flat("optimizer")] = "adamw_torch_fused"
    """What turns gradients into steps."""
    weight_decay: Annotated[float, Flat("weight_decay"), Field(ge=0)] = 0.0
    """Each step takes this share, times the learning rate, off every weight."""
    adam_beta1: Annotated[float, Flat("adam_beta1"), Field(ge=0, lt=1)] = 0.9
    """How much of the mean gradient is kept from step to step."""
    adam_beta2: Annotated[float, Flat("adam_beta2"), Field(ge=0, lt=1)] = 0.999
    """How much of the mean squared gradient is kept from step to step."""
    adam_epsilon: Annotated[float, Flat("adam_epsilon"), Field(gt=0)] = 1e-8
    """Added to the root of the mean squared gradient, against division by 0."""
    max_grad_norm: Annotated[float, Flat("max_grad_norm"), Field(ge=0)] = 1.0
    """Gradients are scaled down to this norm; 0 leaves them as they are."""
    scheduler: Annotated[Scheduler, Flat("lr_scheduler")] = "cosine"
    """How the learning rate goes down after the warmup."""
    warmup_steps: Annotated[int | None, Flat("warmup_steps"), Field(ge=0)] = None
    """Steps over which the learning rate rises from 0."""
    warmup_ratio: Annotated[float | None, Flat("warmup_ratio"), Field(ge=0, le=1)] = None
    """Share of all steps. Without either key: 3 % of the steps, at most 100."""
    num_epochs: Annotated[float, Flat("num_epochs"), Field(gt=0)] = 1.0
    """How often all rows are trained on."""
    max_steps: Annotated[int | None, Flat("max_steps"), Field(ge=1)] = None
    """Optimizer steps; wins over num_epochs."""
    micro_batch_size: Annotated[int, Flat("micro_batch_size"), Field(ge=1)] = 1
    """Rows a GPU takes at a time."""
    gradient_accumulation_steps: Annotated[int, Flat("gradient_accumulation_steps"), Field(ge=1)] = 1
    """Batches whose gradients are added up to one step."""
    eval_batch_size: Annotated[int | None, Flat("eval_batch_size"), Field(ge=1)] = None
    """As micro_batch_size when absent."""
    seed: Annotated[int, Flat("seed"), Field(ge=0, lt=2**32)] = 42
    """Of the new weights, the shuffles and dropout."""
