"""A DeepSpeed file beside the keys of the config: what both say must agree, and the config decides."""

from collections.abc import Mapping
from typing import Any

from ftl.config.dialect import Values
from ftl.config.zero import AUTO, zero_of

_COUNTS = {
    "gradient_accumulation_steps": ("gradient_accumulation_steps", 1),
    "gradient_clipping": ("max_grad_norm", 1.0),
    "train_micro_batch_size_per_gpu": ("micro_batch_size", 1),
}
"""Setting -> the key of the config that says it, and what that is when absent."""
_SCHEDULES = {
    "WarmupLR": "constant_with_warmup",
    "WarmupDecayLR": "linear",
    "WarmupCosineLR": "cosine",
    "OneCycle": "one_cycle",
}


def from_settings(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    """`deepspeed`. A path is left as it is: reading.py reads the file before it comes here."""
    if isinstance(value, Mapping) and value:
        zero_of(value)
        _check_others(value, given)
    return {"deepspeed": value} if value else {}


def _check_others(value: Values, given: Values) -> None:
    """Raises ValueError where a setting says other than the key of the config that says the same."""
    for name, (key, default) in _COUNTS.items():
        wanted = value.get(name)
        held = default if given.get(key) is None else given[key]
        if wanted not in AUTO and wanted != held:
            raise ValueError(f'{name} is {wanted}, and `{key}` is {held}: write "auto", which takes it from there')
    if value.get("train_batch_size") not in AUTO:
        raise ValueError('train_batch_size follows from the config and the number of GPUs: write "auto"')
    _check_optimizer(value.get("optimizer"), given)
    _check_scheduler(value.get("scheduler"), given)


def _check_optimizer(block: Any, given: Values) -> None:  # Any: what YAML holds
    if block in AUTO:
        return
    kind, params = _block("optimizer", block)
    name = str(given.get("optimizer") or "adamw_torch_fused")
    if not (kind.lower() in ("adam", "adamw") and name.startswith("adamw_torch")):
        raise ValueError(f"optimizer is {kind}, and `optimizer` is {name}: remove the block, the config decides")
    beta1, beta2 = given.get("adam_beta1") or 0.9, given.get("adam_beta2") or 0.999
    held = {
        "lr": given.get("learning_rate"),
        "betas": [beta1, beta2],
        "eps": given.get("adam_epsilon") or 1e-8,
        "weight_decay": given.get("weight_decay") or 0.0,
    }
    _check_params("optimizer", params, held, ("torch_adam", "adam_w_mode"))


def _check_scheduler(block: Any, given: Values) -> None:  # Any: what YAML holds
    if block in AUTO:
        return
    kind, params = _block("scheduler", block)
    name = given.get("lr_scheduler") or "cosine"
    if _SCHEDULES.get(kind) != name:
        raise ValueError(f"scheduler is {kind}, and `lr_scheduler` is {name}: remove the block, the config decides")
    held = {
        "warmup_num_steps": given.get("warmup_steps"),
        "warmup_max_lr": given.get("learning_rate"),
        "warmup_min_lr": 0,
    }
    _check_params("scheduler", params, held, ("total_num_steps", "warmup_type"))


def _block(where: str, block: Any) -> tuple[str, Values]:  # Any: what YAML holds
    if not isinstance(block, Mapping) or not isinstance(block.get("type"), str):
        raise ValueError(f"{where} must be a mapping with type and params")
    params = block.get("params") or {}
    if not isinstance(params, Mapping):
        raise ValueError(f"{where}.params must be a mapping")
    return block["type"], params


def _check_params(where: str, params: Values, held: Values, passed: tuple[str, ...]) -> None:
    for name, wanted in params.items():
        if wanted in AUTO or name in passed:
            continue
        try:
            agrees = name in held and float(held[name]) == float(wanted)
        except (TypeError, ValueError):
            agrees = held[name] == wanted
        if not agrees:
            told = f", and the config says {held[name]}" if held.get(name) is not None else ""
            raise ValueError(f'{where}.params.{name} is {wanted}{told}: write "auto", the config decides')
