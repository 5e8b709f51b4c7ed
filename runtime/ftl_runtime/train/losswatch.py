"""Ends a training whose loss has gone through the roof, before it has cost the rest of its time."""

from ftl.config.watch import WatchSection
from ftl.errors import DivergedError
from ftl_runtime.train.progress import Progress


class LossWatch:
    """Sees every logged loss. How many in a row were too high is part of the progress."""

    def __init__(self, watch: WatchSection, progress: Progress) -> None:
        self._watch = watch
        self._progress = progress

    def see(self, step: int, loss: float) -> None:
        """Raises DivergedError for the last of so many losses in a row above the threshold."""
        threshold, patience = self._watch.loss_threshold, self._watch.loss_patience
        if threshold is None:
            return
        self._progress.num_too_high = self._progress.num_too_high + 1 if loss > threshold else 0
        if self._progress.num_too_high >= patience:
            times = f"for {patience} logged losses in a row, the last of them" if patience > 1 else "with"
            raise DivergedError(
                f"the loss was above loss_watchdog_threshold {threshold:g} {times} {loss:.4f} at step {step}; "
                "lower learning_rate, lengthen the warmup, or look for broken rows"
            )
