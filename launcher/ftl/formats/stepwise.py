"""A prompt and the steps towards its answer, each right or wrong."""

from typing import Any

from ftl.formats.example import FormatOptions, RowError, Steps
from ftl.formats.format import Format
from ftl.formats.rows import Row, list_of, shorten, text_of


def read_steps(row: Row, options: FormatOptions) -> Steps:
    """`prompt`, the texts in `completions`, and for each of them true or false in `labels`."""
    steps = list_of(row, "completions")
    for position, step in enumerate(steps):
        if not isinstance(step, str):
            raise RowError(f"completions[{position}] = {shorten(step)}: must be text")
    labels = [_label(value, position) for position, value in enumerate(list_of(row, "labels"))]
    if len(labels) != len(steps):
        raise RowError(f"`labels` holds {len(labels)} and `completions` {len(steps)}: must be as many")
    if options.train_on_last_step_only:
        labels = [*[None] * len(labels[:-1]), *labels[-1:]]
    return Steps(
        text_of(row, "prompt"), tuple(steps), tuple(labels), options.step_separator, options.max_completion_length
    )


def _label(value: Any, position: int) -> int | None:
    if value not in (0, 1):
        raise RowError(f"labels[{position}] = {shorten(value)}: must be true or false")
    return int(value)


PRM = {
    "stepwise_supervised": Format(read_steps, ("step_separator", "max_completion_length", "train_on_last_step_only"))
}
