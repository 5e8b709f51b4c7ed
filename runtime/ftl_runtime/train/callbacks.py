"""Tells the Trainer, at the end of each step, what is due."""

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftl_runtime.train.schedule import Schedule


class Conductor(TrainerCallback):
    """Takes the place of transformers' DefaultFlowCallback: the schedule decides, and a request to stop overrides it.

    A stop saves at the step just finished and evaluates no more: the grace is for the checkpoint.
    """

    def __init__(self, schedule: Schedule, must_stop: Callable[[], bool]) -> None:
        self._schedule = schedule
        self._must_stop = must_stop

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:  # Any: the Trainer passes its parts, none of which is used
        step = state.global_step
        is_last = step >= self._schedule.max_steps
        is_stopping = self._must_stop() and not is_last
        control.should_log = self._schedule.logs_at(step)
        control.should_evaluate = self._schedule.evaluates_at(step) and not is_stopping
        control.should_save = self._schedule.saves_at(step) or is_stopping
        control.should_training_stop = is_last or is_stopping
        return control
