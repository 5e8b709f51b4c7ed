"""What the keys of the model and its adapter must keep to together."""

from ftl.config.rules.rule import Rule
from ftl.config.train import TrainConfig
from ftl.errors import Problem


def target_modules_are_said_one_way(config: TrainConfig) -> Problem | None:
    adapter = config.adapter
    if adapter is None or not adapter.target_linear or not isinstance(adapter.target_modules, str):
        return None
    allowed = "is one regular expression, which nothing can be added to"
    return Problem("lora_target_modules", allowed=allowed, remedy="make it a list, or remove `lora_target_linear`")


def quantised_weights_are_trained_ones(config: TrainConfig) -> Problem | None:
    if not config.model.reinit_weights or config.quant.num_bits is None:
        return None
    allowed = f"draws weights at random, and `load_in_{config.quant.num_bits}bit` freezes them"
    return Problem("reinit_weights", allowed=allowed, remedy="remove one of them")


MODEL_RULES: tuple[Rule, ...] = (target_modules_are_said_one_way, quantised_weights_are_trained_ones)
