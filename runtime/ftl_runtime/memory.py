"""Too little memory: how it is told, and how the same training is tried again in smaller pieces.

Imported before torch, so it must stay light.
"""

import json
from pathlib import Path

from ftl.config.precision import PrecisionSection
from ftl.config.train import TrainConfig
from ftl.contract import FIT_FILE
from ftl.errors import TrainingError
from ftl_runtime.checkpoint.manifest import replace_synced

_SIGNS = ("CUDA out of memory", "DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


class BatchTooLargeError(TrainingError):
    """Memory ran out in a training step or an evaluation, where a smaller micro-batch helps."""


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def memory_of(error: BaseException) -> str:
    """Which memory an error speaks of."""
    return "GPU" if "CUDA" in str(error) or "CUBLAS" in str(error) else "main"


def shrunk(cfg: TrainConfig, *, has_gpu: bool = True) -> TrainConfig | None:
    """The same training with less at a time: its steps take the same rows. None where nothing is left to try.

    First smaller micro-batches and as many more of them, by a divisor so that no row is left over; at one row each,
    activations are recomputed, and at last what that keeps of them goes to main memory.
    """
    rows = cfg.optim.micro_batch_size
    if rows == 1:
        name = _next_saving(cfg.precision, has_gpu=has_gpu)
        return cfg.model_copy(update={"precision": cfg.precision.model_copy(update={name: True})}) if name else None
    fewer = next(number for number in range(rows // 2, 0, -1) if rows % number == 0)
    changes = {
        "micro_batch_size": fewer,
        "gradient_accumulation_steps": cfg.optim.gradient_accumulation_steps * (rows // fewer),
    }
    if cfg.optim.eval_batch_size is not None:
        changes["eval_batch_size"] = max(1, cfg.optim.eval_batch_size // 2)
    return cfg.model_copy(update={"optim": cfg.optim.model_copy(update=changes)})


def _next_saving(precision: PrecisionSection, *, has_gpu: bool) -> str | None:
    if precision.activation_offloading:
        return None
    if not precision.gradient_checkpointing:
        return "gradient_checkpointing"
    return "activation_offloading" if has_gpu else None


def fitted(cfg: TrainConfig, run_dir: Path) -> TrainConfig:
    """The config as this run trains it: after memory ran out, in smaller pieces."""
    file = run_dir / FIT_FILE
    if not file.exists():
        return cfg
    record = json.loads(file.read_text())
    return cfg.model_copy(
        update={
            section: getattr(cfg, section).model_copy(update=changes)
            for section, changes in record.items()
            if section in ("optim", "precision")
        }
    )


def keep_fit(cfg: TrainConfig, run_dir: Path) -> str:
    """Have all later attempts train as `cfg` says; gives what that is, in words."""
    optim, precision = cfg.optim, cfg.precision
    sizes = {
        "micro_batch_size": optim.micro_batch_size,
        "gradient_accumulation_steps": optim.gradient_accumulation_steps,
        "eval_batch_size": optim.eval_batch_size,
    }
    names = ("gradient_checkpointing", "activation_offloading")
    record = {"optim": sizes, "precision": {name: getattr(precision, name) for name in names}}
    replace_synced(run_dir / FIT_FILE, json.dumps(record).encode())
    told = f"micro_batch_size {optim.micro_batch_size}, gradient_accumulation_steps {optim.gradient_accumulation_steps}"
    return told + "".join(f", {name} true" for name in names if getattr(precision, name))
