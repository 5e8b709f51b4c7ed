"""Rows in the terminal: trained text in green, or between {+ and +} where there are no colours."""

import re
from collections.abc import Mapping

from rich.text import Text

from ftl.console import console
from ftl.inspect.datasets import Listed
from ftl.inspect.preview import Pieces, PreviewRow, characters, extent, runs

_MARKS = ("{+", "+}")
# What would move the cursor, change colours or turn the direction of the text.
_UNPRINTED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def show_legend() -> None:
    """Say how trained text is told from the rest."""
    if _has_colours():
        console.print(Text.assemble(("trained", "green"), "  ", ("not trained", "dim")))
    else:
        console.print("trained text stands between {+ and +}", markup=False)


def show_heading(dataset: Listed) -> None:
    """The line above the rows of a dataset."""
    type = dataset.section.type
    kind = type if isinstance(type, str) else "own format" if type else ""
    console.print()
    console.print(Text.assemble((dataset.key, "bold"), f" {dataset.name} ", (kind, "dim")), soft_wrap=True)


def show_row(row: PreviewRow, *, ids: bool) -> None:
    """The row, with a line of facts above it."""
    head = Text.assemble(("row ", "bold cyan"), (str(row.row), "bold cyan"), (f" {row.where}", "dim"))
    console.print()
    if row.error is not None or row.dropped is not None:
        left_out = ("cannot be used", row.error) if row.error is not None else ("dropped", row.dropped)
        console.print(Text.assemble(head, "  ", (left_out[0], "red")), soft_wrap=True)
        console.print(Text(_visible(str(left_out[1]))), soft_wrap=True)
        return
    for number, sample in enumerate(row.samples, start=1):
        of = f" sample {number} of {len(row.samples)}" if len(row.samples) > 1 else ""
        _show_sample(sample, head, of, row, ids=ids)


def _show_sample(sample: Mapping[str, Pieces], head: Text, of: str, row: PreviewRow, *, ids: bool) -> None:
    for name, pieces in sample.items():
        verdict = row.texts.get("label") if row.texts else None
        said = name or ("" if verdict is None else f"label {str(verdict).lower()}")
        facts = f"{of} {said}".rstrip() + f"  {extent(pieces, row)}"
        console.print(Text.assemble(head, facts), soft_wrap=True)
        console.print(_tokens(pieces, row) if ids else _spans(pieces, row), soft_wrap=True)


def _spans(pieces: Pieces, row: PreviewRow) -> Text:
    shown = Text()
    for run, has_labels in runs(pieces):
        is_trained = has_labels and not row.is_scored
        text = _visible("".join(text for text, _ in characters(run)))
        if is_trained and not _has_colours():
            text = text.join(_MARKS)
        shown.append(text, "green" if is_trained else "dim")
    return shown


def _tokens(pieces: Pieces, row: PreviewRow) -> Text:
    """`token(label, id)` of every token: red is masked, green trained, yellow the label 0 of a step."""
    shown = Text()
    for piece in pieces:
        token = _visible(piece.text.decode(errors="backslashreplace")).replace("\n", "\\n").replace("\t", "\\t")
        style = "green" if piece.is_trained else "red"
        if row.has_step_labels and piece.label == 0:
            style = "yellow"
        shown.append(f"{token}({piece.label}, {piece.id})", style)
        shown.append(" ")
    return shown


def _visible(text: str) -> str:
    return _UNPRINTED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _has_colours() -> bool:
    return console.is_terminal and not console.no_color
