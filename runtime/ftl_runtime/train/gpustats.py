"""What the GPU says of itself."""

import time

import torch

from ftl_runtime.context import Device

_EVERY_S = 1.0


class GpuStats:
    """Asked at most once a second, so that no short step waits for it; nothing without a GPU.

    gpu_percent is the share of the last second in which any kernel ran, gpu_memory_gib what all processes have taken,
    gpu_watts its power. Without NVIDIA's management library (nvidia-ml-py) there is only the memory.
    """

    def __init__(self, device: Device) -> None:
        self._is_cuda = device.kind == "cuda"
        self._has_nvml = True
        self._asked_at = float("-inf")
        self._known: dict[str, float] = {}

    def read(self) -> dict[str, float]:
        if self._is_cuda and time.monotonic() - self._asked_at >= _EVERY_S:
            self._known = self._ask()
            self._asked_at = time.monotonic()
        return self._known

    def _ask(self) -> dict[str, float]:
        free, total = torch.cuda.mem_get_info()
        found = {"gpu_memory_gib": (total - free) / 2**30}
        if self._has_nvml:
            try:
                found |= {"gpu_percent": float(torch.cuda.utilization()), "gpu_watts": torch.cuda.power_draw() / 1000}
            except Exception:  # the library, the driver or a right is missing: each has an exception of its own
                self._has_nvml = False
        return found
