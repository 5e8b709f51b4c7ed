"""How the learning rate moves, and which parameters have one of their own."""

from typing import Annotated

from pydantic import Field

from ftl.config.marker import Flat
from ftl.section import Section


class RateGroup(Section):
    """Parameters that are trained at a rate of their own."""

    name: str
    """What to call the group in messages."""
    modules: tuple[str, ...] = Field(min_length=1)
    """Pieces of parameter names: a parameter whose name holds one of them belongs to the group."""
    lr: float = Field(gt=0)
    """The highest rate of the group; it moves as learning_rate does."""


class RatesSection(Section):
    scheduler_options: Annotated[dict[str, str | bool | int | float], Flat("lr_scheduler_kwargs")] = {}
    """Options of the schedule, by name."""
    cosine_min_ratio: Annotated[float | None, Flat("cosine_min_lr_ratio"), Field(ge=0, le=1)] = None
    """Share of learning_rate that cosine and rex end at."""
    cosine_constant_ratio: Annotated[float | None, Flat("cosine_constant_lr_ratio"), Field(gt=0, lt=1)] = None
    """Share of all steps after which cosine stays at cosine_min_lr_ratio."""
    quadratic_warmup: Annotated[bool, Flat("lr_quadratic_warmup")] = False
    """Let the rate of cosine rise with the square of the steps."""
    sweep_min: Annotated[float, Flat("log_sweep_min_lr"), Field(gt=0)] = 1e-10
    """The rate that log_sweep begins with."""
    sweep_max: Annotated[float, Flat("log_sweep_max_lr"), Field(gt=0)] = 10.0
    """The rate that log_sweep ends with."""
    restart_steps: Annotated[int | None, Flat("jagged_restart_steps"), Field(ge=2)] = None
    """Every so many steps the rate falls to a thousandth of the schedule's and rises again."""
    restart_warmup_steps: Annotated[int, Flat("jagged_restart_warmup_steps"), Field(ge=0)] = 10
    """Steps over which it rises after each restart."""
    restart_anneal_steps: Annotated[int, Flat("jagged_restart_anneal_steps"), Field(ge=0)] = 1
    """Steps over which it falls before each restart."""
    loraplus_ratio: Annotated[float | None, Flat("loraplus_lr_ratio"), Field(gt=0)] = None
    """LoRA+: the B matrices learn this many times faster than the A matrices; its authors advise 16."""
    loraplus_embedding_rate: Annotated[float | None, Flat("loraplus_lr_embedding"), Field(gt=0)] = None
    """LoRA+: the rate of adapters on embeddings; 1e-6 when absent."""
    groups: Annotated[tuple[RateGroup, ...], Flat("lr_groups")] = ()
    """Parameters with a rate of their own; the first group that names a parameter has it."""
    embedding_rate: Annotated[float | None, Flat("embedding_lr"), Field(gt=0)] = None
    """The rate of the embeddings and of the output head, where they are trained."""
    embedding_rate_scale: Annotated[float | None, Flat("embedding_lr_scale"), Field(gt=0)] = None
    """The same as a share of learning_rate."""
