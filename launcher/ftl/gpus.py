"""The GPUs that people ask for in cloud files, and what each can compute: known before one is rented.

Sources: compute capabilities from developer.nvidia.com/cuda-gpus, memory from NVIDIA's data sheets, number formats
from the CUDA programming guide (bf16 and TF32 from 8.0 on, fp8 from 8.9 on), attention from flash-attention's README.
"""

import re
from dataclasses import dataclass

from ftl.errors import Problem
from ftl.yamlfile import suggestion


@dataclass(frozen=True)
class GpuKind:
    name: str
    capability: tuple[int, int]
    """Compute capability, major and minor."""
    memory_gb: int
    aliases: tuple[str, ...] = ()

    @property
    def has_bf16(self) -> bool:
        return self.capability >= (8, 0)

    @property
    def has_tf32(self) -> bool:
        return self.capability >= (8, 0)

    @property
    def has_fp8(self) -> bool:
        return self.capability >= (8, 9)

    @property
    def has_flash_attention_2(self) -> bool:
        return self.capability >= (8, 0)

    @property
    def has_flash_attention_3(self) -> bool:
        """Its kernels are written for Hopper alone."""
        return self.capability == (9, 0)


KINDS: tuple[GpuKind, ...] = (
    GpuKind("P100", (6, 0), 16),
    GpuKind("V100", (7, 0), 16, ("V100-16GB",)),
    GpuKind("V100-32GB", (7, 0), 32),
    GpuKind("T4", (7, 5), 16),
    GpuKind("A100-40GB", (8, 0), 40, ("A100",)),
    GpuKind("A100-80GB", (8, 0), 80),
    GpuKind("A10", (8, 6), 24),
    GpuKind("A10G", (8, 6), 24),
    GpuKind("RTX3090", (8, 6), 24),
    GpuKind("RTXA6000", (8, 6), 48),
    GpuKind("L4", (8, 9), 24),
    GpuKind("L40", (8, 9), 48),
    GpuKind("L40S", (8, 9), 48),
    GpuKind("RTX4090", (8, 9), 24),
    GpuKind("RTX6000-Ada", (8, 9), 48, ("RTX6000-Ada-Generation",)),
    GpuKind("H100", (9, 0), 80, ("H100-80GB",)),
    GpuKind("H200", (9, 0), 141),
    GpuKind("GH200", (9, 0), 96),
    GpuKind("B200", (10, 0), 180),
    GpuKind("B300", (10, 3), 288),
    GpuKind("RTX5090", (12, 0), 32),
)


def find_gpu(name: str) -> GpuKind | None:
    """The kind of that name, however it is spelt: `A100-80GB`, `nvidia-a100-sxm4-80gb`, `H100:8`, `RTX 4090`."""
    return _BY_NAME.get(_plain(name))


def misspelt(name: str) -> Problem | None:
    """The problem of a name that is no GPU but close to one; a kind that is merely unknown here is none."""
    remedy = None if find_gpu(name) else suggestion(name, [kind.name for kind in KINDS])
    return Problem("gpu", repr(name), "is no GPU", remedy) if remedy else None


def with_memory(least_gb: float, most_gb: float | None = None) -> list[GpuKind]:
    """The kinds with so much memory, the smallest first."""
    fitting = [kind for kind in KINDS if least_gb <= kind.memory_gb and (most_gb is None or kind.memory_gb <= most_gb)]
    return sorted(fitting, key=lambda kind: kind.memory_gb)


def _plain(name: str) -> str:
    kind = name.lower().partition(":")[0]
    return re.sub(r"nvidia|tesla|geforce|rtx|sxm\d?|pcie|hbm\d?e?|[^a-z0-9]", "", kind)


_BY_NAME = {_plain(name): kind for kind in KINDS for name in (kind.name, *kind.aliases)}
