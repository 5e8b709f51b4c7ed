"""What the emulated Modal's servers refuse of a function, which the client does not look at.

Each limit is what Modal's documentation or its users report; the sentences are ours.
"""

from collections.abc import Iterator

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api

MAX_GPUS = {
    "T4": 8,
    "L4": 8,
    "A10": 4,
    "A10G": 4,
    "L40S": 8,
    "A100": 8,
    "A100-40GB": 8,
    "A100-80GB": 8,
    "RTX-PRO-6000": 8,
    "H100": 8,
    "H100!": 8,
    "H200": 8,
    "B200": 8,
    "B200+": 8,
    "B300": 8,
}
"""https://modal.com/docs/guide/gpu, and B300 of https://modal.com/docs/guide/multi-node-clusters."""
MAX_TIMEOUT_S = 24 * 3600
MAX_RETRIES = 10
MIN_DISK_MIB, MAX_DISK_MIB = 512 * 1024, 3 * 1024 * 1024
MAX_MEMORY_MIB = 336 * 1024
MAX_MILLI_CPU = 64_000
MAX_NODES = 32


def refuse(request: api.FunctionCreateRequest) -> None:
    """Raises INVALID_ARGUMENT with the first thing that is wrong."""
    variants = [r.function for r in request.function_data.ranked_functions] or [request.function]
    for function in variants:
        for problem in _problems(function):
            raise GRPCError(Status.INVALID_ARGUMENT, problem)


def _problems(function: api.Function) -> Iterator[str]:
    gpu, disk = function.resources.gpu_config, function.resources.ephemeral_disk_mb
    has_gpu = bool(gpu.gpu_type or gpu.count)
    if not 1 <= function.timeout_secs <= MAX_TIMEOUT_S:
        yield f"timeout must be between 1 and {MAX_TIMEOUT_S} seconds, got {function.timeout_secs}"
    if function.startup_timeout_secs > MAX_TIMEOUT_S:
        yield f"startup_timeout must be at most {MAX_TIMEOUT_S} seconds, got {function.startup_timeout_secs}"
    if function.retry_policy.retries > MAX_RETRIES:
        yield f"retries must be at most {MAX_RETRIES}, got {function.retry_policy.retries}"
    if has_gpu and gpu.gpu_type not in MAX_GPUS:
        if gpu.gpu_type.removesuffix("!") in MAX_GPUS:
            yield f"GPU type {gpu.gpu_type.removesuffix('!')} is never upgraded: write it without '!'"
        yield f"unknown GPU type {gpu.gpu_type!r}"
    if has_gpu and not 1 <= gpu.count <= MAX_GPUS.get(gpu.gpu_type, 8):
        yield f"a container has at most {MAX_GPUS[gpu.gpu_type]} {gpu.gpu_type}, got {gpu.count}"
    if has_gpu and function.scheduler_placement.nonpreemptible:
        yield "nonpreemptible is not supported for functions with a GPU"
    if disk and not MIN_DISK_MIB <= disk <= MAX_DISK_MIB:
        yield f"ephemeral_disk must be between {MIN_DISK_MIB} and {MAX_DISK_MIB} MiB, got {disk}"
    if (memory := max(function.resources.memory_mb, function.resources.memory_mb_max)) > MAX_MEMORY_MIB:
        yield f"memory must be at most {MAX_MEMORY_MIB} MiB, got {memory}"
    if (cpu := max(function.resources.milli_cpu, function.resources.milli_cpu_max)) > MAX_MILLI_CPU:
        yield f"cpu must be at most {MAX_MILLI_CPU / 1000:g} cores, got {cpu / 1000:g}"
    if function._experimental_group_size > MAX_NODES:
        yield f"a cluster has at most {MAX_NODES} containers, got {function._experimental_group_size}"
