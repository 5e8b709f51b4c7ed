"""What the keys of FSDP say, in those of torch's FSDP2: many settings of its predecessor have no counterpart."""

from typing import Any, get_args

from ftl.config.dialect import NotBuiltError, Values
from ftl.config.parallel import StateDict

_RESHARDS = {"FULL_SHARD": True, "SHARD_GRAD_OP": False, "1": True, "2": False}
_WITHOUT_COUNTERPART = (
    *("limit_all_gathers", "sync_module_states", "use_orig_params", "backward_prefetch", "forward_prefetch"),
    *("cpu_ram_efficient_loading", "version"),
)
"""FSDP2 decides these itself; and every process reads the weights, which the files' pages are shared for."""
_HYBRID = "is said with `dp_shard_size`, the GPUs of a machine, and `dp_replicate_size`, the number of machines"


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
            settings["offload_params"] = True
        elif mode != "auto_wrap":
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
    kind = _kind(value)
    is_sharded = given.get("fsdp") or given.get("fsdp_config")
    return {"fsdp_config": {"final_state_dict_type": kind}} if is_sharded else {}


def _check_others(given: Values) -> None:
    """Raises ValueError for what cannot be trained in shards, NotBuiltError for what has not been yet."""
    if given.get("load_in_8bit"):
        raise ValueError(_EIGHT)
    for key, told in _UNSHARDED.items():
        if given.get(key) not in (None, False, "", [], {}):
            raise NotBuiltError(f"not built yet beside `{key}`: {told}")
    if "fp16" in (given.get("precision"), given.get("weights_dtype")) or given.get("fp16") is True:
        raise NotBuiltError("not built yet in fp16, whose gradients are scaled: use bf16")


def _strategy(value: Any) -> dict[str, Any]:  # Any: what YAML holds
    name = str(value).upper()
    if name in _RESHARDS:
        return {"reshard_after_forward": _RESHARDS[name]}
    if name.startswith(("HYBRID_SHARD", "4", "5")):
        raise ValueError(f"{value}: {_HYBRID}")
    if name in ("NO_SHARD", "3"):
        raise ValueError("NO_SHARD is a copy in each process, which is what trains without fsdp: remove it")
    raise ValueError(f"{value}: must be full_shard or shard_grad_op")


def _kind(value: Any) -> str:  # Any: what YAML holds
    if value in get_args(StateDict):
        return str(value)
    raise ValueError(f"{value}: must be FULL_STATE_DICT or SHARDED_STATE_DICT")


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
_GPTQ = "a base that GPTQ quantised is whole in each process so far; take the unquantised one and `adapter: qlora`"
_EIGHT = (
    "cannot be used together with `load_in_8bit`: bitsandbytes keeps those weights beside the parameters, where they "
    "cannot be cut; use `load_in_4bit`"
)
_PAIRS = "shards train on texts alone so far; remove fsdp, and every process has a copy"
_PARTS = "shards are trained as a whole so far, or with an adapter"
_UNSHARDED = {
    "gptq": _GPTQ,
    **dict.fromkeys(("rl", "objective", "reward_model", "process_reward_model"), _PAIRS),
    **dict.fromkeys(("unfrozen_parameters", "spectrum_top_fraction", "lisa_n_layers"), _PARTS),
    **dict.fromkeys(("grokfast_alpha", "grokfast_lamb"), "it has not been tried on shards"),
    **dict.fromkeys(("relora", "relora_steps", "jagged_restart_steps"), "it merges into whole weights"),
    **dict.fromkeys(_WRITES, "the whole model is needed to write; remove it"),
    "load_best_model_at_end": "weights are not read back into shards so far; the best checkpoint is kept all the same",
}
_KEPT = ("reshard_after_forward", "transformer_layer_cls_to_wrap", "activation_checkpointing", "offload_params")
_READ = {
    "sharding_strategy": _strategy,
    "state_dict_type": lambda value: {"state_dict_type": _kind(value)},
    "final_state_dict_type": lambda value: {"final_state_dict_type": _kind(value)},
    "auto_wrap_policy": _wrapping,
    "mixed_precision_policy": _number_format,
    "min_num_params": _least,
}
