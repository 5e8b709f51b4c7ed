"""What has been trained in DeepSpeed's shards, and what in none."""

from ftl.config.rules.optim import projects_gradients
from ftl.config.rules.rule import Rule
from ftl.config.train import TrainConfig
from ftl.errors import Problem

DIVISIBLE = ("adamw_torch_fused", "adamw_torch", "sgd")
"""Optimizers whose states are those of single weights: checkpoints hold them whole."""
_BY_BLOCK = ("adamw_bnb_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "lion_8bit", "paged_lion_8bit")
"""Those whose states belong to blocks of weights: checkpoints hold them as each process has them."""


def _stage(config: TrainConfig) -> int | None:
    return config.parallel.zero.stage if config.parallel.zero else None


def sharded_weights_are_not_in_few_bits(config: TrainConfig) -> Problem | None:
    if _stage(config) != 3 or config.quant.num_bits is None:
        return None
    allowed = f"stage 3 cuts up weights, and `load_in_{config.quant.num_bits}bit` packs several into a byte"
    return Problem("deepspeed", allowed=allowed, remedy="use stage 2: deepspeed_configs/zero2.json")


def shards_are_computed_in_one_format(config: TrainConfig) -> Problem | None:
    if config.parallel.zero is None:
        return None
    if config.precision.compute == "fp16":
        allowed = "has not been trained in fp16, which `precision` asks for and whose gradients are scaled"
        return Problem("deepspeed", allowed=allowed, remedy="use bf16")
    if config.parallel.zero.bf16 and config.precision.compute == "fp32":
        allowed = "has bf16 enabled, and `precision` says fp32"
        return Problem("deepspeed", allowed=allowed, remedy='write {"enabled": "auto"}, or remove `precision`')
    return None


def shards_decide_what_weights_are_held_in(config: TrainConfig) -> Problem | None:
    if config.parallel.zero is None or config.precision.weights is None:
        return None
    allowed = "is decided by `deepspeed`: weights are in what is computed in, with a copy in fp32 of those trained"
    return Problem("weights_dtype", allowed=allowed, remedy="remove it")


def optimizer_steps_on_shards(config: TrainConfig) -> Problem | None:
    name, zero = config.optim.optimizer, config.parallel.zero
    if zero is None or name in DIVISIBLE or name == "muon" or projects_gradients(name):  # sharding.py tells of these
        return None
    if name not in _BY_BLOCK:
        known = ", ".join((*DIVISIBLE, *_BY_BLOCK))
        return Problem("optimizer", allowed="has not been tried on the shards of `deepspeed`", remedy=f"use {known}")
    if zero.offload_optimizer is not None:
        allowed = "keeps its states on the GPU, and `deepspeed` has offload_optimizer"
        return Problem("optimizer", allowed=allowed, remedy="use adamw_torch_fused, or do not offload")
    return None


def gradients_are_not_filtered_in_shards(config: TrainConfig) -> Problem | None:
    if config.parallel.zero is None:
        return None
    for key, value in (("grokfast_alpha", config.optim.grokfast_alpha), ("grokfast_lamb", config.optim.grokfast_lamb)):
        if value is not None:
            return Problem(key, allowed="has not been tried on the shards of `deepspeed`", remedy="remove one of them")
    return None


def sharded_weights_train_on_texts(config: TrainConfig) -> Problem | None:
    if _stage(config) != 3 or config.objective.kind == "sft":
        return None
    allowed = f"stage 3 trains on texts alone so far, and `objective` is {config.objective.kind}"
    return Problem("deepspeed", allowed=allowed, remedy="use stage 2: deepspeed_configs/zero2.json")


def sharded_weights_have_plain_adapters(config: TrainConfig) -> Problem | None:
    if _stage(config) != 3 or config.adapter is None or not config.adapter.use_dora:
        return None
    allowed = "reads whole weights, which stage 3 of `deepspeed` cuts up"
    return Problem("peft_use_dora", allowed=allowed, remedy="use stage 2: deepspeed_configs/zero2.json")


def best_is_not_read_back_into_shards(config: TrainConfig) -> Problem | None:
    if config.parallel.zero is None or not config.evaluation.loads_best:
        return None
    allowed = (
        "weights are not read back into the shards of `deepspeed` so far; the best checkpoint is kept all the same"
    )
    key = "load_best_model_at_end" if config.evaluation.load_best else "early_stopping_patience"
    return Problem(key, allowed=allowed, remedy="write `load_best_model_at_end: false`")


def sharded_weights_do_not_write(config: TrainConfig) -> Problem | None:
    evaluation = config.evaluation
    if _stage(config) != 3 or not (evaluation.num_samples or evaluation.scores_text):
        return None
    key = "eval_table_size" if evaluation.num_samples else "do_causal_lm_eval"
    return Problem(key, allowed="needs whole weights, which stage 3 of `deepspeed` cuts up", remedy="remove it")


def tiles_are_not_reduced_in_shards(config: TrainConfig) -> Problem | None:
    if config.parallel.zero is None or not config.kernels.tiled_mlp:
        return None
    return Problem("tiled_mlp", allowed="has not been tried on the shards of `deepspeed`", remedy="remove one of them")


DEEPSPEED_RULES: tuple[Rule, ...] = (
    sharded_weights_are_not_in_few_bits,
    shards_are_computed_in_one_format,
    shards_decide_what_weights_are_held_in,
    optimizer_steps_on_shards,
    gradients_are_not_filtered_in_shards,
    sharded_weights_train_on_texts,
    sharded_weights_have_plain_adapters,
    best_is_not_read_back_into_shards,
    sharded_weights_do_not_write,
    tiles_are_not_reduced_in_shards,
)
