"""What only the machine itself can answer before training: GPUs, number formats, kernels, disk.

Every problem is one sentence, and all are told at once.
"""

import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch

from ftl.config.harness import HarnessSection
from ftl.config.parallel import ParallelSection
from ftl.config.train import TrainConfig
from ftl.contract import Gpu, JobSpec
from ftl.errors import BackendError, ConfigError, StorageError
from ftl_runtime.context import Context, Device, rank_of_process, rank_on_machine
from ftl_runtime.models.compile import compiler_problem
from ftl_runtime.models.quantize import missing_package
from ftl_runtime.train.optim import optimizer_problems

_GIB = 2**30
_KEPT_AT_ONCE = 2
"""An old checkpoint goes only once a newer one is verified, so two must fit."""


def probe(job: JobSpec, parallel: ParallelSection) -> Device:
    """What this rank will compute on. Raises BackendError when the machine lacks the GPUs the job asks for, and
    ConfigError where its ranks do not share out."""
    rank, num_ranks = rank_of_process()
    ranks_per_copy = parallel.tensor_size * parallel.context_size if job.task == "train" else 1
    if num_ranks % ranks_per_copy:
        key = "tensor_parallel_size" if parallel.tensor_size > 1 else "context_parallel_size"
        raise ConfigError(f"{key}: {ranks_per_copy}: must divide the {num_ranks} processes that train together")
    if job.resources.gpus == 0:
        return Device("cpu", has_bf16=True, rank=rank, num_ranks=num_ranks, ranks_per_copy=ranks_per_copy)
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = _num_wanted(job.resources.gpus)
    if present < wanted:
        raise BackendError(
            f"gpu: {job.resources.gpus}: this machine shows {present} GPUs to torch {torch.__version__}; "
            "check the driver with nvidia-smi, and that the image is a CUDA one"
        )
    torch.cuda.set_device(rank_on_machine()[0] % present)
    capability = torch.cuda.get_device_capability()
    is_ampere = capability >= (8, 0)
    return Device(
        "cuda",
        has_bf16=is_ampere,
        rank=rank,
        num_ranks=num_ranks,
        has_flash=is_ampere,
        is_hopper=capability == (9, 0),
        ranks_per_copy=ranks_per_copy,
    )


def check(cfg: TrainConfig, ctx: Context) -> None:
    """Raises BackendError with one sentence for each thing the config asks of the machine in vain."""
    problems = []
    if ctx.device.kind == "cuda" and cfg.precision.compute == "bf16" and not ctx.device.has_bf16:
        problems.append("precision: bf16: this GPU has none (it needs compute capability 8.0); use fp16 or auto")
    if ctx.device.kind == "cpu" and cfg.precision.compute == "fp16":
        problems.append("precision: fp16: trains on GPUs only; without one use auto, fp32 or bf16")
    if cfg.precision.fp8 and not _has_fp8(ctx.device):
        problems.append("fp8: true: needs a GPU of compute capability 8.9, such as an H100; remove it")
    if cfg.precision.tf32 and ctx.device.kind == "cpu":
        problems.append("tf32: true: is a format of NVIDIA GPUs, and the job has none; remove it")
    if cfg.model.attention == "flash_attention_2" and not ctx.device.has_flash:
        problems.append(
            "attn_implementation: flash_attention_2: runs on GPUs of compute capability 8.0 and above only; use sdpa, "
            "or remove it"
        )
    if cfg.model.attention == "flash_attention_3" and not ctx.device.is_hopper:
        problems.append("attn_implementation: flash_attention_3: runs on Hopper GPUs only; remove it")
    if cfg.model.attention == "flex_attention" and ctx.device.kind == "cpu":
        problems.append("attn_implementation: flex_attention: has no backward pass without a GPU; use sdpa")
    if cfg.trained.lisa_num_layers is not None and ctx.device.num_ranks > 1:
        problems.append("lisa_n_layers: trains on one GPU only: ranks would wait for gradients of frozen layers")
    if missing := missing_package(cfg.quant):
        problems.append(missing)
    if missing := missing_harness(cfg.harness):
        problems.append(missing)
    if cfg.parallel.deepspeed and find_spec("deepspeed") is None:
        problems.append("deepspeed: needs the 'deepspeed' package: pip install 'ftl-launcher[scale]'")
    if told := compiler_problem(cfg.kernels):
        problems.append(told)
    problems += optimizer_problems(cfg.optim, ctx.device)
    if problems:
        raise BackendError(*problems)


def missing_harness(harness: HarnessSection) -> str | None:
    """Why this machine cannot measure what the config asks for; None where it can."""
    if not harness.tasks or find_spec("lm_eval") is not None:
        return None
    return (
        "lm_eval_tasks: needs the package lm-eval, which is not installed here; pip install 'ftl-launcher[harness]', "
        "or remove the key"
    )


def _has_fp8(device: Device) -> bool:
    return device.kind == "cuda" and torch.cuda.get_device_capability() >= (8, 9)


def limit_memory(limit_gib: float | None, device: Device) -> None:
    """Have this rank run out of memory where it asks its GPU for more than the limit."""
    if limit_gib is not None and device.kind == "cuda":
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_gib * _GIB / total))


def check_disk(num_trainable: int, ctx: Context) -> None:
    """Raises StorageError when two checkpoints would not fit: fp32 weights and two Adam moments for what is trained."""
    needed = _KEPT_AT_ONCE * num_trainable * 4 * 3
    free = shutil.disk_usage(ctx.run_dir).free
    if free < needed:
        raise StorageError(
            f"{ctx.run_dir}: {free / _GIB:.1f} GiB free, but two checkpoints of {num_trainable / 1e6:.0f} M trained "
            f"parameters take about {needed / _GIB:.1f} GiB; free some space, then resume"
        )


def versions() -> dict[str, str]:
    """Versions of what trains, for the result."""
    found = {"python": ".".join(str(part) for part in sys.version_info[:3]), "torch": torch.__version__}
    for name in ("transformers", "peft", "accelerate", "bitsandbytes", "deepspeed"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # no training needs all of them
    from ftl import __version__

    return found | {"ftl": __version__}


def _num_wanted(gpus: Gpu) -> int:
    if gpus == "all":
        return 1
    return gpus if isinstance(gpus, int) else len(gpus)
