"""What the keys of the optimizer and of the learning rate must keep to together."""

from collections.abc import Iterator, Mapping
from typing import Literal

from ftl.config.optim import Optimizer, Scheduler
from ftl.config.rules.rule import Rule
from ftl.config.rules.schedule import has_eval_rows
from ftl.config.train import TrainConfig
from ftl.errors import Problem

Kind = Literal["number", "switch"] | tuple[str, ...]
"""What an option may be; a tuple has the words to choose from."""
Options = Mapping[str, Kind]

_PROJECTIONS = ("std", "reverse_std", "right", "left", "full")
_GALORE: Options = {"rank": "number", "update_proj_gap": "number", "scale": "number", "proj_type": _PROJECTIONS}
_BNB: Options = {"min_8bit_size": "number"}
_ADEMAMIX: Options = {**_BNB, "alpha": "number", "t_alpha": "number", "t_beta3": "number"}
_RMSPROP: Options = {"alpha": "number", "momentum": "number", "centered": "switch"}
_TORCHAO: Options = {"block_size": "number", "bf16_stochastic_round": "switch"}
_SCHEDULE_FREE: Options = {"r": "number", "weight_lr_power": "number"}
_OPTIMI: Options = {"decouple_lr": "switch", "max_lr": "number", "kahan_sum": "switch"}

OPTIMIZER_OPTIONS: Mapping[Optimizer, Options] = {
    "adamw_torch": {"amsgrad": "switch"},
    "adamw_torch_fused": {"amsgrad": "switch"},
    "sgd": {"momentum": "number", "dampening": "number", "nesterov": "switch"},
    "adagrad": {"lr_decay": "number", "eps": "number"},
    "rmsprop": {**_RMSPROP, "eps": "number"},
    "muon": {
        "momentum": "number",
        "nesterov": "switch",
        "ns_steps": "number",
        "adjust_lr_fn": ("original", "match_rms_adamw"),
    },
    "adafactor": {"clip_threshold": "number", "decay_rate": "number"},
    "came_pytorch": {"clip_threshold": "number"},
    **dict.fromkeys(("adamw_bnb_8bit", "paged_adamw_32bit", "paged_adamw_8bit"), _BNB),
    **dict.fromkeys(("lion_32bit", "lion_8bit", "paged_lion_32bit", "paged_lion_8bit"), _BNB),
    **dict.fromkeys(("ademamix", "ademamix_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit"), _ADEMAMIX),
    "rmsprop_bnb_32bit": {**_BNB, **_RMSPROP},
    "rmsprop_bnb_8bit": {**_BNB, **_RMSPROP},
    **dict.fromkeys(("adamw_torch_8bit", "adamw_torch_4bit", "ao_adamw_fp8"), _TORCHAO),
    **dict.fromkeys(("galore_adamw", "galore_adamw_8bit", "galore_adafactor"), _GALORE),
    "apollo_adamw": {**_GALORE, "proj": ("random", "svd"), "scale_type": ("channel", "tensor")},
    **dict.fromkeys(("schedule_free_adamw", "schedule_free_sgd"), _SCHEDULE_FREE),
    "schedule_free_radam": {**_SCHEDULE_FREE, "silent_sgd_phase": "switch"},
    **dict.fromkeys(("optimi_adamw", "stable_adamw"), _OPTIMI),
}

_LEAST: Options = {"min_lr": "number", "min_lr_rate": "number", "num_cycles": "number"}
_SHAPES = ("linear", "cosine", "1-sqrt")

SCHEDULER_OPTIONS: Mapping[Scheduler, Options] = {
    "cosine": _LEAST,
    "cosine_with_min_lr": _LEAST,
    "cosine_warmup_with_min_lr": {**_LEAST, "warmup_lr": "number", "warmup_lr_rate": "number"},
    "cosine_with_restarts": {"num_cycles": "number"},
    "polynomial": {"lr_end": "number", "power": "number"},
    "inverse_sqrt": {"timescale": "number"},
    "warmup_stable_decay": {
        "num_stable_steps": "number",
        "num_decay_steps": "number",
        "min_lr_ratio": "number",
        "num_cycles": "number",
        "warmup_type": _SHAPES,
        "decay_type": _SHAPES,
    },
    "one_cycle": {
        "div_factor": "number",
        "final_div_factor": "number",
        "pct_start": "number",
        "anneal_strategy": ("cos", "linear"),
        "three_phase": "switch",
    },
    "rex": {"min_lr": "number", "min_lr_rate": "number"},
    "reduce_lr_on_plateau": {
        "factor": "number",
        "patience": "number",
        "threshold": "number",
        "threshold_mode": ("rel", "abs"),
        "cooldown": "number",
        "min_lr": "number",
        "eps": "number",
    },
}


def optimizer_options_are_its_own(config: TrainConfig) -> Problem | None:
    name = config.optim.optimizer
    return _option_problem(
        "optim_args", config.optim.optimizer_options, OPTIMIZER_OPTIONS.get(name, {}), "optimizer", name
    )


def scheduler_options_are_its_own(config: TrainConfig) -> Problem | None:
    name = config.optim.scheduler or "cosine"
    options = config.rates.scheduler_options
    return _option_problem("lr_scheduler_kwargs", options, SCHEDULER_OPTIONS.get(name, {}), "lr_scheduler", name)


def projected_optimizer_has_whole_weights(config: TrainConfig) -> Problem | None:
    if config.adapter is None or not projects_gradients(config.optim.optimizer):
        return None
    allowed = "makes the gradients of whole weights small, and `adapter` trains matrices that are small already"
    return Problem("optimizer", allowed=allowed, remedy="use adamw_bnb_8bit, or remove the adapter")


def schedule_free_has_no_schedule(config: TrainConfig) -> Problem | None:
    name = config.optim.scheduler
    if not config.optim.optimizer.startswith("schedule_free") or name in (None, "constant"):
        return None
    allowed = f"cannot be used with `optimizer` {config.optim.optimizer}, which averages weights instead"
    return Problem("lr_scheduler", allowed=allowed, remedy="remove it; warmup_steps and warmup_ratio still hold")


def plateau_is_seen(config: TrainConfig) -> Problem | None:
    if config.optim.scheduler != "reduce_lr_on_plateau":
        return None
    if has_eval_rows(config) and config.output.eval_strategy != "no":
        return None
    allowed = "follows the loss of the evaluations, and there are none"
    return Problem("lr_scheduler", allowed=allowed, remedy="give `val_set_size` or `test_datasets`, or use cosine")


def constant_end_has_a_rate(config: TrainConfig) -> Problem | None:
    if config.rates.cosine_constant_ratio is None or config.rates.cosine_min_ratio is not None:
        return None
    allowed = "needs `cosine_min_lr_ratio` beside it: the rate to stay at"
    return Problem("cosine_constant_lr_ratio", allowed=allowed, remedy="give it, or remove this")


def embedding_rate_is_given_once(config: TrainConfig) -> Problem | None:
    if config.rates.embedding_rate is None or config.rates.embedding_rate_scale is None:
        return None
    return Problem("embedding_lr_scale", allowed="cannot be given together with `embedding_lr`", remedy="keep one")


def loraplus_has_lora(config: TrainConfig) -> Problem | None:
    if config.rates.loraplus_ratio is None or config.adapter is not None:
        return None
    return Problem(
        "loraplus_lr_ratio", allowed="needs `adapter: lora`, whose B matrices it speeds up", remedy="remove it"
    )


def sweep_goes_up(config: TrainConfig) -> Problem | None:
    if config.optim.scheduler != "log_sweep" or config.rates.sweep_min < config.rates.sweep_max:
        return None
    return Problem("log_sweep_max_lr", allowed=f"must be above `log_sweep_min_lr`, which is {config.rates.sweep_min:g}")


def projects_gradients(optimizer: Optimizer) -> bool:
    return optimizer.startswith(("galore", "apollo"))


def _option_problem(
    where: str, given: Mapping[str, object], allowed: Options, chooser: str, name: str
) -> Problem | None:
    found = list(_option_problems(given, allowed, chooser, name))
    return Problem(where, allowed="; ".join(found)) if found else None


def _option_problems(given: Mapping[str, object], allowed: Options, chooser: str, name: str) -> Iterator[str]:
    for option, value in given.items():
        kind = allowed.get(option)
        if kind is None:
            takes = f"takes {', '.join(allowed)}" if allowed else "takes no options"
            yield f"{option} is no option of `{chooser}` {name}, which {takes}"
        elif kind == "number" and (isinstance(value, bool) or not isinstance(value, int | float)):
            yield f"{option} must be a number"
        elif kind == "switch" and not isinstance(value, bool):
            yield f"{option} must be true or false"
        elif isinstance(kind, tuple) and value not in kind:
            yield f"{option} must be {', '.join(kind[:-1])} or {kind[-1]}"


OPTIM_RULES: tuple[Rule, ...] = (
    optimizer_options_are_its_own,
    scheduler_options_are_its_own,
    projected_optimizer_has_whole_weights,
    schedule_free_has_no_schedule,
    plateau_is_seen,
    constant_end_has_a_rate,
    embedding_rate_is_given_once,
    loraplus_has_lora,
    sweep_goes_up,
)
