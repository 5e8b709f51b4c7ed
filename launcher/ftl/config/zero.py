"""The settings of a DeepSpeed file that ftl trains with, read strictly: DeepSpeed itself takes no notice of a slip.

`"auto"` leaves a setting to the config, or to the size of the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ftl.config.dialect import NotBuiltError, Values
from ftl.yamlfile import suggestion

AUTO = (None, "auto")
_TUNING = (
    *("contiguous_gradients", "reduce_scatter", "reduce_bucket_size", "use_multi_rank_bucket_allreduce"),
    *("allgather_partitions", "allgather_bucket_size", "overlap_comm", "round_robin_gradients", "sub_group_size"),
    *("ignore_unused_parameters", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold"),
    *("stage3_model_persistence_threshold", "stage3_max_live_parameters", "stage3_max_reuse_distance"),
    *("stage3_module_granularity_threshold", "stage3_use_all_reduce_for_fetch_params", "stage3_allgather_sequential"),
    *("memory_efficient_linear", "log_trace_cache_warnings"),
)
"""Settings of `zero_optimization` that change how fast it goes and what it takes, not what is computed."""

_WITHOUT_EFFECT = (
    *("steps_per_print", "wall_clock_breakdown", "dump_state", "memory_breakdown", "zero_allow_untested_optimizer"),
    *("zero_force_ds_cpu_optimizer", "seed"),
)
"""ftl tells of steps itself, makes the optimizer itself, and has its own seed."""

_OF_SAVING = (
    *("stage3_gather_16bit_weights_on_model_save", "stage3_gather_fp16_weights_on_model_save", "elastic_checkpoint"),
    *("load_from_fp32_weights", "pipeline_loading_checkpoint", "override_module_apply"),
)
"""Checkpoints are ftl's own, and whole."""

_UNBUILT = {
    "amp": "write `precision` in the config",
    "torch_autocast": "write `precision` in the config",
    "activation_checkpointing": "write `gradient_checkpointing: true` in the config",
    "compile": "models run uncompiled under it; take the file without torch_compile in its name",
    "flops_profiler": "write `profiler_steps` in the config",
    **dict.fromkeys(
        ("tensorboard", "wandb", "comet", "csv_monitor", "comms_logger"), "trackers are keys of the config"
    ),
    **dict.fromkeys(
        (
            *("sparse_attention", "sparse_gradients", "data_efficiency", "curriculum_learning", "data_types"),
            *("compression_training", "aio", "elasticity", "autotuning", "pipeline", "checkpoint", "tensor_parallel"),
            *("sequence_parallel_size", "data_parallel_size", "prescale_gradients", "gradient_predivide_factor"),
            *("hybrid_engine", "zenflow", "expert_parallel", "nebula", "use_node_local_storage"),
        ),
        "ftl trains with its ZeRO stages alone so far; remove it",
    ),
}
_UNBUILT_ZERO = {
    **dict.fromkeys(
        ("zero_hpz_partition_size", "zero_quantized_weights", "zero_quantized_gradients", "mics_shard_size"),
        "ZeRO++ and MiCS round what they send; remove it",
    ),
    **dict.fromkeys(("zero_quantized_nontrainable_weights", "zenflow", "leaf_module"), "remove it"),
    **dict.fromkeys(("mics_hierarchical_params_gather", "parameter_alignment", "compute_grad_norm"), "remove it"),
}
_RENAMED = {
    "cpu_offload": "offload_optimizer",
    "cpu_offload_param": "offload_param",
    "cpu_offload_params": "offload_param",
    "cpu_offload_use_pin_memory": "offload_optimizer",
}
_OF_NVME = ("nvme_path", "buffer_count", "buffer_size", "max_in_cpu", "pipeline_read", "pipeline_write", "fast_init")
_TOP = ("zero_optimization", "communication_data_type", "optimizer", "scheduler", "bf16", "bfloat16", "fp16")
COUNTS = ("gradient_accumulation_steps", "gradient_clipping", "train_micro_batch_size_per_gpu", "train_batch_size")
"""Settings that keys of the config decide; given, they must agree."""


@dataclass(frozen=True)
class Offload:
    """What is kept in main memory, and moved to the GPU when it is needed."""

    pin_memory: bool = False


@dataclass(frozen=True)
class Zero:
    """Which part of a training is in shards, and where it is kept."""

    stage: Literal[1, 2, 3]
    """1: the optimizer's states; 2: gradients too; 3: weights too."""
    offload_optimizer: Offload | None = None
    """The optimizer's states, and their step."""
    offload_param: Offload | None = None
    """Weights, in stage 3."""
    tuning: Mapping[str, bool | int] = field(default_factory=dict)
    """Settings of `zero_optimization` that DeepSpeed gets as they are."""
    communication: Literal["bf16", "fp32"] = "fp32"
    """What gradients are summed over the processes in."""
    bf16: bool = False
    """The file asks for bf16, as `precision: bf16` does."""


def zero_of(settings: Values) -> Zero:
    """Raises ValueError for what is no setting or contradicts another, NotBuiltError for what ftl cannot train."""
    _check_names(settings, (*_TOP, *COUNTS, *_WITHOUT_EFFECT), _UNBUILT, "")
    if is_enabled(settings, "fp16"):
        raise NotBuiltError("fp16 is not built yet, whose gradients are scaled: use bf16")
    zero = settings.get("zero_optimization")
    if not isinstance(zero, Mapping):
        raise ValueError("has no zero_optimization, a mapping that says which stage of ZeRO: {stage: 2}")
    kind = settings.get("communication_data_type")
    return Zero(
        **_zero(zero),
        communication="fp32" if kind in AUTO else _choice("communication_data_type", kind, ("bf16", "fp32")),
        bf16=is_enabled(settings, "bf16") or is_enabled(settings, "bfloat16"),
    )


def is_enabled(value: Values, name: str) -> bool:
    block = value.get(name)
    if block is None:
        return False
    if not isinstance(block, Mapping):
        raise ValueError(f'{name} must be a mapping such as {{enabled: "auto"}}')
    return _choice(f"{name}.enabled", block.get("enabled", False), (True, False, "auto")) is True


def _check_names(found: Values, known: tuple[str, ...], unbuilt: Mapping[str, str], where: str) -> None:
    """Raises ValueError for a setting that DeepSpeed does not have, NotBuiltError for one that changes too much."""
    for name, value in found.items():
        if name in unbuilt:
            if value not in (None, False, 0, {}, "auto") and not _is_off(value):
                raise NotBuiltError(f"{where}{name} is not built yet: {unbuilt[name]}")
        elif name not in known:
            remedy = suggestion(str(name), (*known, *unbuilt))
            raise ValueError(
                f"{where}{name} is no setting of DeepSpeed that ftl knows" + (f"; {remedy}" if remedy else "")
            )


def _is_off(value: Any) -> bool:  # Any: what YAML holds
    return isinstance(value, Mapping) and (value.get("enabled") is False or value.get("disable") is True)


def _zero(zero: Values) -> dict[str, Any]:  # Any: fields of Zero
    known = ("stage", "offload_optimizer", "offload_param", *_TUNING, *_OF_SAVING)
    where = "zero_optimization."
    for old, new in _RENAMED.items():
        if zero.get(old):
            raise ValueError(f"{where}{old} is an older word: write {new}: {{device: cpu}}")
    _check_names(zero, (*known, *_RENAMED), _UNBUILT_ZERO, where)
    stage = zero.get("stage")
    if stage == 0 and not isinstance(stage, bool):
        raise ValueError(
            "zero_optimization.stage 0 puts nothing in shards: remove deepspeed, and every process has a copy"
        )
    settings = {"stage": _choice(f"{where}stage", stage, (1, 2, 3))}
    for name in ("offload_optimizer", "offload_param"):
        offload = _offload(f"{where}{name}", zero.get(name))
        if offload is not None:
            settings[name] = offload
    if "offload_param" in settings and stage != 3:
        raise ValueError(f"zero_optimization.offload_param needs stage 3, and the stage is {stage}: remove it")
    settings["tuning"] = {name: _number(where + name, zero[name]) for name in _TUNING if zero.get(name) not in AUTO}
    return settings


def _offload(where: str, value: Any) -> Offload | None:  # Any: what YAML holds
    if value in AUTO:
        return None
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be a mapping such as {{device: cpu}}")
    _check_names(
        value, ("device", "pin_memory", *_OF_NVME), {"ratio": "all of it is kept there; remove it"}, f"{where}."
    )
    device = _choice(f"{where}.device", value.get("device", "none"), ("cpu", "nvme", "none"))
    if device == "nvme":
        raise NotBuiltError(f"{where}.device nvme is not built yet: checkpoints are not gathered from there; write cpu")
    if device == "none":
        return None
    pinned = value.get("pin_memory", False)
    return Offload(_choice(f"{where}.pin_memory", pinned, (True, False)))


def _number(where: str, value: Any) -> bool | int:  # Any: what YAML holds
    """2e8 is a whole number in JSON's eyes too."""
    if isinstance(value, bool) or (isinstance(value, int) and value >= 0):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if number < 0 or number != int(number):
        raise ValueError(f'{where} is {value}: must be true, false, a whole number or "auto"')
    return int(number)


def _choice(where: str, value: Any, allowed: tuple[Any, ...]) -> Any:  # Any: what YAML holds
    if not any(value == item and type(value) is type(item) for item in allowed):
        shown = ", ".join(str(item).lower() if isinstance(item, bool) else str(item) for item in allowed)
        raise ValueError(f"{where} is {value}: must be one of {shown}")
    return value
