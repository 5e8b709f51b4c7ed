"""A question and its answer, by the table of single-turn formats."""

from collections.abc import Callable

from ftl.formats.example import Example, FormatOptions, Segment
from ftl.formats.rows import Row, fill, pieces
from ftl.formats.styles import Style
from ftl.formats.table import SingleTurn


def single_turn(layout: SingleTurn) -> Callable[[Row, FormatOptions], Example]:
    """The reader of rows with that layout."""
    return lambda row, options: _read(layout, row, options)


def prompt_text(style: Style, instruction: str, input: str, system: str) -> str:
    """What a style makes of the texts."""
    slots = {"system": system, "instruction": instruction, "input": input}
    beginning = fill(style.system, slots, required=True) if system else ""
    return beginning + fill(style.with_input if input else style.without_input, slots, required=True)


def _read(layout: SingleTurn, row: Row, options: FormatOptions) -> Example:
    columns = row if layout.derive is None else layout.derive(row)
    instruction = fill(layout.instruction, columns, required=True)
    input = fill(layout.input, columns, required=False)
    system = layout.system if not input or layout.system_with_input is None else layout.system_with_input
    prompt = prompt_text(layout.style, instruction, input, fill(system, columns, required=False))
    segments = Segment(prompt, options.train_on_inputs), Segment(_answer(layout, columns), True)
    return Example(segments, num_eos=layout.num_eos, empty_ends=layout.empty_ends)


def _answer(layout: SingleTurn, columns: Row) -> str:
    """By the first of the answer's templates whose columns are there, else by the first one."""
    there = (template for template in layout.answers if all(_is_there(columns, name) for _, name in pieces(template)))
    return fill(next(there, layout.answers[0]), columns, required=False)


def _is_there(columns: Row, name: str | None) -> bool:
    return name is None or columns.get(name) is not None
