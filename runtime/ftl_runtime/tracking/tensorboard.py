"""TensorBoard event files."""

import json
from collections.abc import Sequence

from ftl_runtime.tracking.tracker import End, Run, Sample, Values, as_markdown


class TensorboardTracker:
    """All attempts write to one directory; a later one hides the steps it trains again."""

    def start(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        is_first = not any(run.directory.iterdir())
        purge = 0 if run.resumed_step is None else run.resumed_step + 1
        self._writer = SummaryWriter(str(run.directory), purge_step=None if is_first else purge, flush_secs=10)
        if is_first:
            self._writer.add_text("config", f"```json\n{json.dumps(dict(run.config), indent=1)}\n```")

    def log(self, step: int, values: Values) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def log_samples(self, step: int, samples: Sequence[Sample]) -> None:
        self._writer.add_text("eval/samples", as_markdown(samples), step)

    def finish(self, end: End) -> None:
        self._writer.close()
