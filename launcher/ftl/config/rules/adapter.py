"""What the keys of the adapter and of the weights below it must keep to together."""

from ftl.config.adapter import CHANGES_BASE
from ftl.config.rules.rule import Rule
from ftl.config.train import TrainConfig
from ftl.errors import Problem

_READS_BASE = (*CHANGES_BASE, "mica")


def target_modules_are_said_one_way(config: TrainConfig) -> Problem | None:
    adapter = config.adapter
    if adapter is None or not adapter.target_linear or not isinstance(adapter.target_modules, str):
        return None
    allowed = "is one regular expression, which nothing can be added to"
    return Problem("lora_target_modules", allowed=allowed, remedy="make it a list, or remove `lora_target_linear`")


def layers_are_said_one_way(config: TrainConfig) -> Problem | None:
    adapter = config.adapter
    if adapter is None or not adapter.layers_to_transform or not isinstance(adapter.target_modules, str):
        return None
    allowed = "chooses among modules by name, and `lora_target_modules` is a regular expression"
    return Problem("peft_layers_to_transform", allowed=allowed, remedy="make that a list, or say the layers in it")


def random_base_is_not_quantised(config: TrainConfig) -> Problem | None:
    if not config.model.reinit_weights or config.quant.num_bits is None:
        return None
    allowed = f"draws weights at random, and `load_in_{config.quant.num_bits}bit` freezes them"
    return Problem("reinit_weights", allowed=allowed, remedy="remove one of them")


def start_reads_whole_weights(config: TrainConfig) -> Problem | None:
    adapter, num_bits = config.adapter, config.quant.num_bits
    if adapter is None or num_bits is None or not str(adapter.init_weights).startswith(_READS_BASE):
        return None
    allowed = f"starts from the base's own weights, which `load_in_{num_bits}bit` has rounded"
    return Problem("peft_init_lora_weights", allowed=allowed, remedy="use loftq, or load the base unquantised")


def loftq_has_bits_to_make_up_for(config: TrainConfig) -> Problem | None:
    adapter = config.adapter
    if adapter is None or adapter.init_weights != "loftq" or config.quant.in_4bit:
        return None
    allowed = "loftq starts from what 4 bits lose of the base, and it is not held in 4 bits"
    return Problem("peft_init_lora_weights", allowed=allowed, remedy="add `load_in_4bit: true`")


def dora_keeps_the_base(config: TrainConfig) -> Problem | None:
    adapter = config.adapter
    if adapter is None or not adapter.use_dora or not str(adapter.init_weights).startswith(CHANGES_BASE):
        return None
    allowed = f"takes lengths from the base, and `peft_init_lora_weights` {adapter.init_weights} changes it"
    return Problem("peft_use_dora", allowed=allowed, remedy="remove one of them")


def continued_adapter_has_started(config: TrainConfig) -> Problem | None:
    adapter = config.adapter
    if adapter is None or adapter.initial is None or adapter.init_weights is True:
        return None
    allowed = "cannot be used together with `lora_model_dir`, whose matrices have started already"
    return Problem("peft_init_lora_weights", allowed=allowed, remedy="remove one of them")


def trained_weights_have_a_range(config: TrainConfig) -> Problem | None:
    precision = config.precision
    if precision.weights == "fp16" and config.adapter is None:
        allowed = "cannot train: small updates vanish in fp16"
        return Problem("weights_dtype", allowed=allowed, remedy="use bf16 or fp32, or train an adapter")
    if precision.weights in (None, "fp32") or precision.compute in ("auto", precision.weights):
        return None
    allowed = f"must be fp32 or that of `precision`, which is {precision.compute}"
    return Problem("weights_dtype", allowed=allowed, remedy="correct one of them")


def restarts_have_their_steps(config: TrainConfig) -> Problem | None:
    adapter, rates = config.adapter, config.rates
    if adapter is not None and adapter.restarts and rates.restart_steps is None:
        allowed = "needs `jagged_restart_steps`: how many steps a round has"
        return Problem("relora", allowed=allowed, remedy="add it, or remove this")
    ramps = rates.restart_warmup_steps + rates.restart_anneal_steps
    if rates.restart_steps is None or ramps <= rates.restart_steps:
        return None
    allowed = f"must be at least {ramps}: `jagged_restart_warmup_steps` and `jagged_restart_anneal_steps` together"
    return Problem("jagged_restart_steps", allowed=allowed, remedy="make it more, or one of them less")


def restarts_merge_plain_updates(config: TrainConfig) -> Problem | None:
    adapter = config.adapter
    if adapter is None or not adapter.restarts:
        return None
    others = {
        "peft_use_dora": adapter.use_dora,
        "peft_init_lora_weights": adapter.init_weights is not True,
        "lora_target_parameters": adapter.target_parameters,
        "load_best_model_at_end": config.evaluation.loads_best,
    }
    other = next((key for key, is_used in others.items() if is_used), None)
    if other is None:
        return None
    why = {
        "load_best_model_at_end": "wants the adapter of an earlier base back",
    }.get(other, "is more than the product of two matrices")
    return Problem(
        "relora", allowed=f"changes the base at each restart, and `{other}` {why}", remedy="remove one of them"
    )


def rate_with_restarts_is_planned(config: TrainConfig) -> Problem | None:
    if config.rates.restart_steps is None or config.optim.scheduler != "reduce_lr_on_plateau":
        return None
    allowed = "scales a planned rate, and `lr_scheduler` reduce_lr_on_plateau is none"
    return Problem("jagged_restart_steps", allowed=allowed, remedy="use cosine")


def base_is_chosen_from_when_trained(config: TrainConfig) -> Problem | None:
    given = _choices(config)
    if not given or config.adapter is None:
        return None
    allowed = "chooses among the weights of the base, which an `adapter` leaves frozen"
    return Problem(given[0], allowed=allowed, remedy="remove one of them")


def trained_weights_are_chosen_one_way(config: TrainConfig) -> Problem | None:
    given = _choices(config)
    if "lisa_n_layers" not in given or len(given) == 1:
        return None
    allowed = f"trains all weights in turn, and `{given[0]}` some of them"
    return Problem("lisa_n_layers", allowed=allowed, remedy="keep one of them")


def frozen_rows_do_not_decay(config: TrainConfig) -> Problem | None:
    if not config.optim.weight_decay or not any(pattern.endswith("]") for pattern in config.trained.parameters):
        return None
    allowed = "would shrink the rows that `unfrozen_parameters` leaves out with [...]"
    return Problem("weight_decay", allowed=allowed, remedy="set it to 0")


def _choices(config: TrainConfig) -> list[str]:
    """The keys that say which weights of the base are trained."""
    trained = config.trained
    values = {
        "unfrozen_parameters": trained.parameters,
        "spectrum_top_fraction": trained.spectrum_share,
        "lisa_n_layers": trained.lisa_num_layers,
    }
    return [key for key, value in values.items() if value]


ADAPTER_RULES: tuple[Rule, ...] = (
    target_modules_are_said_one_way,
    layers_are_said_one_way,
    random_base_is_not_quantised,
    start_reads_whole_weights,
    loftq_has_bits_to_make_up_for,
    dora_keeps_the_base,
    continued_adapter_has_started,
    trained_weights_have_a_range,
    restarts_have_their_steps,
    restarts_merge_plain_updates,
    rate_with_restarts_is_planned,
    base_is_chosen_from_when_trained,
    trained_weights_are_chosen_one_way,
    frozen_rows_do_not_decay,
)
