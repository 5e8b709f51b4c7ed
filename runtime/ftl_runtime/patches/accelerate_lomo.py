"""Whether lomo-optim is installed is looked up once, not twice in every step.

accelerate asks for it before each step of an optimizer, and reads the package's metadata from disk to answer: half a
millisecond to a whole one.

Upstream: accelerate.optimizer, AcceleratedOptimizer.step, in 1.15. To be removed when benchmarks/overhead.py is as fast
without it where lomo-optim is installed.
"""

from functools import cache

from accelerate import optimizer  # type: ignore[import-untyped]

_is_available = cache(optimizer.is_lomo_available)


def apply() -> None:
    """Called twice, it is as if called once."""
    optimizer.is_lomo_available = _is_available
