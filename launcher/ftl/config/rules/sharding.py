"""How the weights are spread over GPUs, and what else that rules out."""

import re
from typing import Any

from ftl.config.dialect import Values
from ftl.config.rules.rule import Holds, KeyRule, both, is_given, is_on, on_and

_OLD_FALCON = re.compile(r"falcon-(rw-)?\d+b", re.I)

FSDP = ("fsdp", "fsdp_config")
"""The keys that may switch FSDP on."""


def _is_eight_bit(given: Values) -> bool:
    return "8bit" in str(given.get("optimizer"))


def _is_of_bitsandbytes(given: Values) -> bool:
    """torch's own 8-bit optimizers, adamw_torch_8bit and ao_adamw_8bit, are not."""
    name = str(given.get("optimizer"))
    return name.startswith("paged_") or "_bnb_" in name or name in ("adamw_8bit", "lion_8bit", "ademamix_8bit")


def _fsdp_setting(given: Values, name: str) -> Any:  # Any: what YAML holds
    """A setting of `fsdp_config`, by today's name or by the one with fsdp_ in front."""
    settings = given.get("fsdp_config")
    return settings.get(name, settings.get(f"fsdp_{name}")) if isinstance(settings, dict) else None


def offloads(given: Values) -> bool:
    modes = given.get("fsdp")
    return bool(_fsdp_setting(given, "offload_params")) or (isinstance(modes, list | str) and "offload" in modes)


def _is_told_with_offload(given: Values) -> bool:
    return _is_eight_bit(given) and offloads(given)


def recomputes_by_layer(given: Values) -> bool:
    return bool(_fsdp_setting(given, "activation_checkpointing"))


def shards_by(key: str) -> Holds:
    """Whether `key` is what switches FSDP on: `fsdp`, or the `fsdp_config` of a file in today's form."""
    if key == "fsdp":
        return is_given("fsdp")
    return lambda given: is_on(given, "fsdp_config") and not is_on(given, "fsdp")


def _has_fsdp(given: Values) -> bool:
    return any(is_on(given, key) for key in FSDP)


def _is_falcon(given: Values) -> bool:
    is_named = _OLD_FALCON.search(str(given.get("base_model"))) or str(given.get("model_type")).startswith("Falcon")
    return bool(is_named) or is_on(given, "is_falcon_derived_model")


def _projects_gradients(given: Values) -> bool:
    return str(given.get("optimizer")).startswith(("galore", "apollo"))


_SHARDED = ("adamw_torch_fused", "adamw_torch", "sgd")
"""Optimizers that tests/runtime/parallel trains in shards."""


def _is_untried(given: Values) -> bool:
    name = given.get("optimizer", _SHARDED[0])
    return not (name in _SHARDED or _is_of_bitsandbytes(given) or _projects_gradients(given))


def _saves_in_shards(given: Values) -> bool:
    kinds = (_fsdp_setting(given, name) for name in ("state_dict_type", "final_state_dict_type"))
    return "SHARDED_STATE_DICT" in (*kinds, given.get("fsdp_final_state_dict_type"))


def _is_above_one(key: str) -> Holds:
    return lambda given: (given.get(key) or 1) != 1


SHARDING: tuple[KeyRule, ...] = (
    KeyRule(
        "save_safetensors",
        on_and("save_safetensors", _saves_in_shards),
        "contradicts SHARDED_STATE_DICT of `fsdp_config`, which is written by torch's DCP",
        "remove it, and make safetensors of the shards with `ftl merge-sharded-fsdp-weights`",
    ),
    *(
        KeyRule(
            key,
            on_and(key, _is_above_one(other)),
            f"cannot be used together with `{other}`, which says how many copies there are",
            "remove it: the processes that are left train copies, or share one with `fsdp_config`",
        )
        for key in ("dp_shard_size", "dp_replicate_size")
        for other in ("tensor_parallel_size", "context_parallel_size")
    ),
    KeyRule(
        "dp_shard_size",
        lambda given: _is_above_one("dp_shard_size")(given) and not _has_fsdp(given),
        "needs `fsdp_config` beside it, which cuts the model into shards",
        "add `fsdp_config: {reshard_after_forward: true}`",
    ),
    KeyRule(
        "optimizer",
        lambda given: _projects_gradients(given) and _has_fsdp(given),
        "projects the gradients of whole weights, and `fsdp` or `fsdp_config` cut them to pieces",
        "use adamw_torch_fused, or train data parallel",
    ),
    KeyRule(
        "optimizer",
        lambda given: (_projects_gradients(given) or given.get("optimizer") == "muon") and is_on(given, "deepspeed"),
        "works on matrices, and `deepspeed` lays them end to end",
        "use adamw_torch_fused, or train without it",
    ),
    KeyRule(
        "deepspeed",
        lambda given: is_on(given, "deepspeed") and _has_fsdp(given),
        "cannot be used together with `fsdp` or `fsdp_config`: both shard the same weights",
        "keep one of them",
    ),
    KeyRule(
        "optimizer",
        _is_told_with_offload,
        "keeps its 8-bit states on the GPU, and `fsdp_config` offloads the parameters to main memory",
        "use adamw_torch_fused, or do not offload",
    ),
    KeyRule(
        "optimizer",
        lambda given: _is_of_bitsandbytes(given) and _has_fsdp(given) and not _is_told_with_offload(given),
        "does not know the sharded weights of `fsdp` or `fsdp_config`",
        "use adamw_torch_fused",
    ),
    KeyRule(
        "optimizer",
        lambda given: _has_fsdp(given) and _is_untried(given) and not _is_told_with_offload(given),
        "has not been tried on the sharded weights of `fsdp` or `fsdp_config`",
        f"use {', '.join(_SHARDED)}",
    ),
    KeyRule(
        "gradient_checkpointing",
        on_and("gradient_checkpointing", recomputes_by_layer),
        "recomputes the same activations as activation_checkpointing of `fsdp_config`",
        "keep one of them",
    ),
    *(
        KeyRule(
            key,
            both(shards_by(key), _is_falcon),
            "cannot shard the Falcon model that `base_model` names",
            "use deepspeed, or plain data parallel training",
        )
        for key in FSDP
    ),
    KeyRule(
        "torch_compile",
        lambda given: given.get("torch_compile") is True and is_on(given, "deepspeed"),
        "has not been tried on the engine of `deepspeed`",
        "remove one of them",
    ),
)
