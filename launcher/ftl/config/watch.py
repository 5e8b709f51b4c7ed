"""What is watched while training goes on."""

from typing import Annotated

from pydantic import Field

from ftl.config.marker import Flat
from ftl.section import Section


class WatchSection(Section):
    loss_threshold: Annotated[float | None, Flat("loss_watchdog_threshold"), Field(gt=0)] = None
    """A loss above it is a training gone wrong, which ends with exit code 71."""
    loss_patience: Annotated[int, Flat("loss_watchdog_patience"), Field(ge=1)] = 3
    """Losses in a row, as they are logged, that must be above loss_watchdog_threshold."""
    profiler_steps: Annotated[int, Flat("profiler_steps"), Field(ge=0)] = 0
    """So many steps, from the second on, are traced to the run's profile/: by torch.profiler, and the GPU's memory."""
    gc_steps: Annotated[int, Flat("gc_steps"), Field(ge=-1)] = 0
    """Collect Python's garbage and free the GPU's unused memory every so many steps; -1 is after each epoch."""
    retries_smaller: Annotated[bool, Flat("auto_find_batch_size")] = True
    """When memory runs out, go on from the newest checkpoint with half the micro_batch_size and twice the
    gradient_accumulation_steps, at one row a batch with gradient_checkpointing, then activation_offloading."""
