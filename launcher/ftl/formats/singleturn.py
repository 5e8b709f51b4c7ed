"""A question and its answer, by the table of single-turn formats."""

from collections.abc import Callable

from ftl.formats.example import Example, FormatOptions, Segment
from ftl.formats.rows import Row, fill
from ftl.formats.table import SingleTurn


def single_turn(layout: SingleTurn) -> Callable[[Row, FormatOptions], Example]:
    """The reader of rows with that layout."""
    return lambda row, options: _read(layout, row, options)


def _read(layout: SingleTurn, row: Row, options: FormatOptions) -> Example:
    slots = {
        "instruction": fill(layout.instruction, row, required=True),
        "input": fill(layout.input, row, required=False),
    }
    style = layout.style.with_input if slots["input"] else layout.style.without_input
    prompt = Segment(fill(style, slots, required=True), options.train_on_inputs)
    return Example((prompt, Segment(fill(layout.answer, row, required=False), True)))
