"""What rounded weights and activations must keep to."""

from ftl.config.rounding import Scheme
from ftl.config.rules.rule import Rule, sharding_key
from ftl.config.train import TrainConfig
from ftl.errors import Problem


def scheme_problem(scheme: Scheme, key: str) -> Problem | None:
    """What is wrong with one scheme, `where` below `key`."""
    wanted = "fp8" if scheme.weight_dtype == "fp8" else "int8"
    if scheme.activation_dtype not in (None, wanted):
        allowed = f"must be {wanted} beside {scheme.weight_dtype} weights"
        return Problem(f"{key}.activation_dtype", allowed=allowed, remedy="correct one of them, or leave it out")
    if scheme.quantize_embedding and scheme.weight_dtype == "fp8":
        allowed = "rounds embeddings in int8 or int4, and weight_dtype is fp8"
        return Problem(f"{key}.quantize_embedding", allowed=allowed, remedy="remove it")
    return None


def schemes_fit_together(config: TrainConfig) -> Problem | None:
    pairs = (("qat", config.rounding.qat), ("quantization", config.rounding.quantization))
    return next((found for key, scheme in pairs if scheme and (found := scheme_problem(scheme, key))), None)


def rounded_weights_are_trained(config: TrainConfig) -> Problem | None:
    if config.rounding.qat is None or config.adapter is None:
        return None
    allowed = "rounds the weights that are trained, and an `adapter` leaves those of the base frozen"
    return Problem("qat", allowed=allowed, remedy="remove one of them")


def rounded_weights_are_whole(config: TrainConfig) -> Problem | None:
    shards = sharding_key(config)
    if config.rounding.qat is None or shards is None:
        return None
    allowed = f"has not been tried on the sharded weights of `{shards}`"
    return Problem("qat", allowed=allowed, remedy="train data parallel")


def reference_is_not_rounded(config: TrainConfig) -> Problem | None:
    objective = config.objective
    if config.rounding.qat is None or not (objective.is_compared and objective.precompute_reference):
        return None
    allowed = "rounds the model before training too, which `precompute_ref_log_probs` asks for the reference"
    return Problem(
        "qat", allowed=allowed, remedy="remove `precompute_ref_log_probs`, for a second model as the reference"
    )


def trained_scheme_is_kept(config: TrainConfig) -> Problem | None:
    qat, made = config.rounding.qat, config.rounding.quantization
    if qat is None or made is None or made.model_dump() == Scheme.model_validate(_of(qat)).model_dump():
        return None
    allowed = "differs from `qat`, and a model trained for one rounding loses more in another"
    return Problem("quantization", allowed=allowed, remedy="remove it: `ftl quantize` takes what qat says")


def _of(qat: Scheme) -> dict[str, object]:
    return qat.model_dump(exclude={"fake_quant_after_n_steps"})


def fp8_products_are_of_trained_layers(config: TrainConfig) -> Problem | None:
    if not config.precision.fp8:
        return None
    compute, shards = config.precision.compute, sharding_key(config)
    reasons = (
        (config.adapter is not None, "multiplies in layers that are trained, and an `adapter` freezes them"),
        (config.rounding.qat is not None, "replaces the same layers as `qat`"),
        (compute in ("fp16", "fp32"), f"computes all else in bf16, and `precision` is {compute}"),
        (shards is not None, f"has not been tried on the sharded weights of `{shards}`"),
    )
    why = next((why for holds, why in reasons if holds), None)
    return None if why is None else Problem("fp8", allowed=why, remedy="remove one of them")


ROUNDING_RULES: tuple[Rule, ...] = (
    fp8_products_are_of_trained_layers,
    schemes_fit_together,
    rounded_weights_are_trained,
    rounded_weights_are_whole,
    reference_is_not_rounded,
    trained_scheme_is_kept,
)
