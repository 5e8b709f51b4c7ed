"""Steps, batches, optimizer and learning rate."""

from typing import Annotated, Literal

from pydantic import Field

from ftl.config.marker import Flat
from ftl.section import Section

Optimizer = Literal[
    # torch
    "adamw_torch_fused",
    "adamw_torch",
    "sgd",
    "adagrad",
    "rmsprop",
    "muon",
    # transformers, and ftl itself
    "adafactor",
    "adopt_adamw",
    # bitsandbytes
    "adamw_bnb_8bit",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
    "ademamix",
    "ademamix_8bit",
    "paged_ademamix_32bit",
    "paged_ademamix_8bit",
    "lion_32bit",
    "lion_8bit",
    "paged_lion_32bit",
    "paged_lion_8bit",
    "rmsprop_bnb_32bit",
    "rmsprop_bnb_8bit",
    # torchao
    "adamw_torch_8bit",
    "adamw_torch_4bit",
    "ao_adamw_fp8",
    # one package each
    "galore_adamw",
    "galore_adamw_8bit",
    "galore_adafactor",
    "apollo_adamw",
    "schedule_free_adamw",
    "schedule_free_radam",
    "schedule_free_sgd",
    "optimi_adamw",
    "stable_adamw",
    "came_pytorch",
]
Scheduler = Literal[
    "cosine",
    "linear",
    "constant",
    "constant_with_warmup",
    "polynomial",
    "inverse_sqrt",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "cosine_with_restarts",
    "warmup_stable_decay",
    "one_cycle",
    "rex",
    "log_sweep",
    "reduce_lr_on_plateau",
]


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
    adam_beta3: Annotated[float | None, Flat("adam_beta3"), Field(ge=0, lt=1)] = None
    """What ademamix keeps of its slow mean, and came_pytorch of its mean instability; 0.9999 when absent."""
    adam_epsilon: Annotated[float | None, Flat("adam_epsilon"), Field(gt=0)] = None
    """Added to the root of the mean squared gradient, against division by 0; 1e-8 when absent, with came_pytorch
    1e-30."""
    adam_epsilon2: Annotated[float | None, Flat("adam_epsilon2"), Field(gt=0)] = None
    """Added to the instability of came_pytorch; 1e-16 when absent."""
    optimizer_options: Annotated[dict[str, str | bool | int | float], Flat("optim_args")] = {}
    """Options of the optimizer, by name."""
    low_rank_modules: Annotated[tuple[str, ...] | str | None, Flat("optim_target_modules")] = None
    """Linear layers whose gradients galore and apollo project: pieces of their names, one regular expression, or
    all_linear, which is meant when absent."""
    grokfast_alpha: Annotated[float | None, Flat("grokfast_alpha"), Field(gt=0, lt=1)] = None
    """Grokfast: how much of the mean gradient is kept from step to step; 0.98 when only grokfast_lamb is given."""
    grokfast_lamb: Annotated[float | None, Flat("grokfast_lamb"), Field(gt=0)] = None
    """Grokfast: how many times the mean gradient is added to the gradient; 2 when only grokfast_alpha is given."""
    max_grad_norm: Annotated[float, Flat("max_grad_norm"), Field(ge=0)] = 1.0
    """Gradients are scaled down to this norm; 0 leaves them as they are."""
    scheduler: Annotated[Scheduler | None, Flat("lr_scheduler")] = None
    """How the learning rate moves; cosine when absent, constant with the schedule_free optimizers."""
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

    @property
    def eval_batch_size_or_default(self) -> int:
        return self.eval_batch_size or self.micro_batch_size
