"""DeepSpeed on CPUs without compiling what is not used.

When its process group is made on a CPU, DeepSpeed compiles an all-reduce over shared memory: a minute of the first
start on a machine, and a wait for ever after a start that was killed in it. Only inference calls it; training does not.

Upstream: deepspeed.comm.torch, build_shm_op, in 0.19. To be removed when tests/runtime/parallel/test_deepspeed.py
compiles nothing without it.
"""

from importlib import import_module


def apply() -> None:
    """For the process groups that are made afterwards."""
    # Not by `import deepspeed.comm.torch`: that name of the package is torch itself.
    import_module("deepspeed.comm.torch").build_shm_op = lambda: None  # type: ignore[attr-defined]
