"""Which evaluation was the best so far, and whether it is time to stop. What is remembered is part of the progress."""

from collections.abc import Mapping
from dataclasses import dataclass

from ftl.config.evaluation import EvaluationSection
from ftl.errors import ConfigError
from ftl_runtime.train.progress import Progress

_LOWER_IS_BETTER = ("loss", "perplexity", "ter")
"""How the names end of what is better when there is less of it."""


@dataclass(frozen=True)
class Judgement:
    is_best: bool
    is_exhausted: bool
    """No evaluation has been better for as long as the patience lasts."""


class Selection:
    """Judges evaluations by one of their numbers. All ranks see the same numbers, so they judge alike."""

    def __init__(self, evaluation: EvaluationSection, progress: Progress, *, saves_best: bool) -> None:
        """`saves_best` is what save_strategy says; a model that is to be loaded at the end is saved in any case."""
        self.saves_best = saves_best or evaluation.loads_best
        self._evaluation = evaluation
        self._progress = progress

    @property
    def metric(self) -> str:
        return self._evaluation.metric.removeprefix("eval_")

    @property
    def patience(self) -> int | None:
        return self._evaluation.early_stopping_patience

    def check(self, metrics: Mapping[str, float]) -> None:
        """Raises ConfigError when an evaluation does not have the number that it is to be judged by."""
        if self.metric not in metrics and (self.saves_best or self.patience is not None):
            raise ConfigError(
                f"metric_for_best_model: {self.metric}: is not among what an evaluation gives; "
                f"it gives {', '.join(sorted(metrics))}"
            )

    def judge(self, step: int, metrics: Mapping[str, float]) -> Judgement:
        """Take note of the evaluation after `step`. One that is no number is never the best."""
        value = metrics.get(self.metric)
        if value is None:
            return Judgement(is_best=False, is_exhausted=False)
        progress = self._progress
        is_best = value == value and (progress.best_value is None or self._is_better(value, progress.best_value))
        if is_best:
            progress.best_value, progress.best_step, progress.num_worse = value, step, 0
        else:
            progress.num_worse += 1
        progress.is_exhausted = self.patience is not None and progress.num_worse >= self.patience
        return Judgement(is_best, progress.is_exhausted)

    def _is_better(self, value: float, best: float) -> bool:
        prefers_greater = self._evaluation.greater_is_better
        if prefers_greater is None:
            prefers_greater = not self.metric.endswith(_LOWER_IS_BETTER)
        return value > best if prefers_greater else value < best
