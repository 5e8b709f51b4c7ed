"""What the keys of FSDP say, in those of torch's FSDP2: many settings of its predecessor have no counterpart."""

from typing import Any

from ftl.config.dialect import NotBuiltError, Values

_RESHARDS = {"FULL_SHARD": True, "SHARD_GRAD_OP": False, "1": True, "2": False}
_WITHOUT_COUNTERPART = (
    *("limit_all_gathers", "sync_module_states", "use_orig_params", "backward_prefetch", "forward_prefetch"),
    *("cpu_ram_efficient_loading", "version"),
)
"""FSDP2 decides these itself; and every process reads the weights, which the files' pages are shared for."""
_OFFLOAD = "not built yet: shards stay on the GPUs; more GPUs, or an adapter on a base in 4 bits, take less of each"
_HYBRID = "not built yet: the shards of one model span all processes"


def from_modes(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    """`fsdp: [full_shard, auto_wrap]`."""
    modes = value.split() if isinstance(value, str) else value
    if modes in (None, False, []):
        return {}
    if not isinstance(modes, list) or not all(isinstance(mode, str) for mode in modes):
        raise ValueError("must be a list such as [full_shard, auto_wrap]")
    _check_others(given)
    settings: dict[str, Any] = {}
    for mode in modes:
        if mode == "offload":
            raise NotBuiltError(_OFFLOAD)
        if mode != "auto_wrap":
            settings |= _strategy(mode)
    return {"fsdp_config": settings}


def from_settings(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    """`fsdp_config`, each key with fsdp_ in front or without."""
    if not isinstance(value, dict) or not value:
        return {"fsdp_config": value} if value else {}
    _check_others(given)
    settings: dict[str, Any] = {}
    for key, setting in value.items():
        name = str(key).removeprefix("fsdp_")
        if name not in _WITHOUT_COUNTERPART:
            said = _READ[name](setting) if name in _READ else {name if name in _KEPT else key: setting}
            if any(settings.get(other, item) != item for other, item in said.items()):
                raise ValueError(f"{key} contradicts what another key of it says; keep one of them")
            settings |= said
    if not settings and not given.get("fsdp"):
        settings = {"reshard_after_forward": True}  # the keys that were left out ask for shards all the same
    return {"fsdp_config": settings}


def from_version(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    if isinstance(value, bool) or value not in (1, 2):
        raise ValueError("must be 1 or 2")
    return {}


def from_final_kind(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    _kind(value)
    return {}


def _check_others(given: Values) -> None:
    """Raises NotBuiltError for what has not been trained in shards yet."""
    for key, told in _UNSHARDED.items():
        if given.get(key) not in (None, False, "", [], {}) and (key != "adapter" or given[key] == "qlora"):
            raise NotBuiltError(f"not built yet beside `{key}`: {told}")
    if "fp16" in (given.get("precision"), given.get("weights_dtype")) or given.get("fp16") is True:
        raise NotBuiltError("not built yet in fp16, whose gradients are scaled: use bf16")


def _strategy(value: Any) -> dict[str, Any]:  # Any: what YAML holds
    name = str(value).upper()
    if name in _RESHARDS:
        return {"reshard_after_forward": _RESHARDS[name]}
    if name.startswith(("HYBRID_SHARD", "4", "5")):
        raise NotBuiltError(_HYBRID)
    if name in ("NO_SHARD", "3"):
        raise ValueError("NO_SHARD is a copy in each process, which is what trains without fsdp: remove it")
    raise ValueError(f"{value}: must be full_shard or shard_grad_op")


def _offload(value: Any) -> dict[str, Any]:  # Any: what YAML holds
    if value:
        raise NotBuiltError(_OFFLOAD)
    return {}


def _kind(value: Any) -> dict[str, Any]:  # Any: what YAML holds
    if value == "FULL_STATE_DICT":
        return {}
    if value == "SHARDED_STATE_DICT":
        raise NotBuiltError(
            "SHARDED_STATE_DICT is not built yet: checkpoints are whole, and go on in any number of processes; "
            "write FULL_STATE_DICT"
        )
    raise ValueError(f"{value}: must be FULL_STATE_DICT")


def _wrapping(value: Any) -> dict[str, Any]:  # Any: what YAML holds
    if value == "TRANSFORMER_BASED_WRAP":
        return {}
    raise NotBuiltError(f"{value} is not built yet: must be TRANSFORMER_BASED_WRAP, a layer at a time")


def _number_format(value: Any) -> dict[str, Any]:  # Any: what YAML holds
    raise ValueError("mixed_precision_policy: the key `precision` says it; remove it")


def _least(value: Any) -> dict[str, Any]:  # Any: what YAML holds
    if value in (0, None):
        return {}
    raise NotBuiltError("min_num_params is not built yet: a layer at a time is gathered, whatever its size")


_WRITES = ("generate_samples", "do_causal_lm_eval", "eval_causal_lm_metrics", "eval_table_size", "do_bench_eval")
_BITS = "a base in few bits is whole in each process so far; remove fsdp"
_PAIRS = "shards train on texts alone so far; remove fsdp, and every process has a copy"
_PARTS = "shards are trained as a whole so far, or with an adapter"
_UNSHARDED = {
    **dict.fromkeys(("load_in_4bit", "load_in_8bit", "gptq", "adapter"), _BITS),
    **dict.fromkeys(("rl", "objective", "reward_model", "process_reward_model"), _PAIRS),
    **dict.fromkeys(("unfrozen_parameters", "spectrum_top_fraction", "lisa_n_layers"), _PARTS),
    **dict.fromkeys(("grokfast_alpha", "grokfast_lamb"), "it has not been tried on shards"),
    **dict.fromkeys(("relora", "relora_steps", "jagged_restart_steps"), "it merges into whole weights"),
    **dict.fromkeys(_WRITES, "the whole model is needed to write; remove it"),
    "load_best_model_at_end": "weights are not read back into shards so far; the best checkpoint is kept all the same",
}
_KEPT = ("reshard_after_forward", "transformer_layer_cls_to_wrap", "activation_checkpointing")
_READ = {
    "sharding_strategy": _strategy,
    "offload_params": _offload,
    "state_dict_type": _kind,
    "final_state_dict_type": _kind,
    "auto_wrap_policy": _wrapping,
    "mixed_precision_policy": _number_format,
    "min_num_params": _least,
}
