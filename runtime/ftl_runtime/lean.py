"""Leaves out what a training does not use: transformers and peft import every optional package they find.

Of the seconds between the start of a process and its first step, most are imports. In doubt a package stays: what is
left out cannot be imported afterwards.
"""

import json
import sys
from pathlib import Path

from ftl.config.train import TrainConfig
from ftl.contract import BUNDLE_CONFIG, BUNDLE_SCHEME, MOUNT_SCHEME, JobSpec
from ftl_runtime.context import resolved

_OF_TORCH = ("adamw_torch", "adamw_torch_fused", "sgd", "adafactor")
"""Optimizers that come with torch or transformers."""


def leave_out_unused(job: JobSpec) -> None:
    """Called before torch and transformers are imported; packages that are imported already stay."""
    assert job.paths is not None, "the supervisor refuses a job without paths"
    cfg = TrainConfig.read_json((Path(job.paths.bundle) / BUNDLE_CONFIG).read_bytes())
    # Two seconds, and patches all over torch; ftl_runtime.tracking.comet takes it back in.
    unused = ["comet_ml"]
    if cfg.parallel.deepspeed is None:
        unused += ["deepspeed"]  # accelerate looks for its wrapper around every model that it unwraps
    if not _has_few_bits(cfg, job):
        unused += ["bitsandbytes", "torchao"]
    if _is_all_local(cfg) and not cfg.harness.tasks:
        unused += ["datasets"]
    for package in unused:
        sys.modules.setdefault(package, None)  # type: ignore[arg-type]  # None: importing it is an ImportError


def _has_few_bits(cfg: TrainConfig, job: JobSpec) -> bool:
    """Whether weights or optimizer states may be quantised; of a base that is not here nobody knows."""
    rounding = cfg.rounding
    is_rounded = (
        cfg.precision.fp8 or rounding.qat is not None or (job.task == "quantize" and rounding.quantization is not None)
    )
    is_asked_for = is_rounded or cfg.quant.num_bits is not None or "loftq" in cfg.model_dump_json()
    if is_asked_for or cfg.optim.optimizer not in _OF_TORCH:
        return True
    assert job.paths is not None
    try:
        config = json.loads((resolved(cfg.model.base, job.paths) / "config.json").read_bytes())
    except (OSError, ValueError):
        return True
    return "quantization_config" in config


def _is_all_local(cfg: TrainConfig) -> bool:
    """Whether no row comes from, or goes to, a dataset repository."""
    data = cfg.data
    sources = (*data.datasets, *data.test_datasets, *data.pretraining_dataset)
    is_local = all((source.path or "").startswith((BUNDLE_SCHEME, MOUNT_SCHEME)) for source in sources)
    return is_local and data.push_to_hub is None
