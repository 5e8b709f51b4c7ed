"""A loss curve drawn with characters."""

import math
from collections.abc import Sequence
from itertools import pairwise

from rich.text import Text

Points = Sequence[tuple[int, float]]

_TRAIN_STYLE, _EVAL_STYLE, _AXIS_STYLE = "cyan", "bold yellow", "dim"
_BRAILLE_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""[column][row from the top] of the eight dots of a character."""


def loss_chart(points: Points, *, evals: Points = (), width: int, height: int, is_ascii: bool = False) -> Text:
    """The losses over the steps, as `height` + 2 lines of at most `width` columns.

    `points` of training are a line of braille dots (of `*` in ASCII), `evals` are single marks over it. Points whose
    loss is not finite are left out.
    """
    train, scored = _finite(points), _finite(evals)
    both = train + scored
    if not both:
        return Text("no loss was reported", _AXIS_STYLE)
    low, high = min(loss for _, loss in both), max(loss for _, loss in both)
    first, last = min(step for step, _ in both), max(step for step, _ in both)
    labels = _tick_labels(low, high, height)
    margin = max(len(label) for label in labels) + 2
    columns = max(width - margin, 8)
    dots = (1, 1) if is_ascii else (2, 4)
    frame = _Frame(first, last, low, high, columns * dots[0], height * dots[1])
    cells = _line_cells(frame.trace(train), columns, height, is_ascii)
    marks = {(x // dots[0], y // dots[1]) for x, y in (frame.place(step, loss) for step, loss in scored)}
    chart = Text(no_wrap=True)
    for row in range(height):
        chart.append(f"{labels[row]:>{margin - 2}} {'|' if is_ascii else '┤' if labels[row] else '│'}", _AXIS_STYLE)
        for column in range(columns):
            if (column, row) in marks:
                chart.append("o" if is_ascii else "●", _EVAL_STYLE)
            else:
                chart.append(cells[row][column], _TRAIN_STYLE)
        chart.append("\n")
    return chart.append_text(_bottom(first, last, margin, columns, is_ascii, has_evals=bool(scored)))


class _Frame:
    """Places steps and losses on a grid of dots, (0, 0) at the top left."""

    def __init__(self, first: int, last: int, low: float, high: float, width: int, height: int) -> None:
        self._first, self._low = first, low
        self._steps, self._range = max(last - first, 1), (high - low) or 1.0
        self._width, self._height = width, height

    def place(self, step: int, loss: float) -> tuple[int, int]:
        x = round((step - self._first) / self._steps * (self._width - 1))
        return x, round((1 - (loss - self._low) / self._range) * (self._height - 1))

    def trace(self, points: Points) -> list[tuple[int, int]]:
        """The dots of a line through the points; points that share a column are averaged."""
        columns: dict[int, list[int]] = {}
        for step, loss in points:
            x, y = self.place(step, loss)
            columns.setdefault(x, []).append(y)
        knots = [(x, round(sum(ys) / len(ys))) for x, ys in sorted(columns.items())]
        dots = knots[:1]
        for (x0, y0), (x1, y1) in pairwise(knots):
            count = max(x1 - x0, abs(y1 - y0))
            dots += [
                (x0 + round((x1 - x0) * n / count), y0 + round((y1 - y0) * n / count)) for n in range(1, count + 1)
            ]
        return dots


def _line_cells(dots: list[tuple[int, int]], columns: int, height: int, is_ascii: bool) -> list[list[str]]:
    if is_ascii:
        drawn = set(dots)
        return [["*" if (x, y) in drawn else " " for x in range(columns)] for y in range(height)]
    bits = [[0] * columns for _ in range(height)]
    for x, y in dots:
        bits[y // 4][x // 2] |= _BRAILLE_BITS[x % 2][y % 4]
    return [[chr(0x2800 + cell) if cell else " " for cell in row] for row in bits]


def _tick_labels(low: float, high: float, height: int) -> list[str]:
    digits = 2 if high - low >= 0.1 else 4
    labels = [""] * height
    for row in {0, height // 2, height - 1} if high > low else {height - 1}:
        labels[row] = f"{high - (high - low) * row / max(height - 1, 1):.{digits}f}"
    if high == low:
        labels[0], labels[-1] = f"{high:.{digits}f}", ""
    return labels


def _bottom(first: int, last: int, margin: int, columns: int, is_ascii: bool, *, has_evals: bool) -> Text:
    corner, dash = ("+", "-") if is_ascii else ("└", "─")
    text = Text(f"{' ' * (margin - 1)}{corner}{dash * columns}\n", _AXIS_STYLE)
    left, right = f"{first}", f"{last}" if last != first else ""
    legend = [("**" if is_ascii else "⠒⠒", _TRAIN_STYLE), (" train", _AXIS_STYLE)]
    if has_evals:
        legend += [("   ", ""), ("o" if is_ascii else "●", _EVAL_STYLE), (" eval", _AXIS_STYLE)]
    legend += [("   loss by step", _AXIS_STYLE)] if columns > 40 else []
    middle = Text.assemble(*legend)
    space = max(columns - len(left) - len(right) - middle.cell_len, 2)
    text.append(f"{' ' * margin}{left}{' ' * (space // 2)}")
    return text.append_text(middle).append(f"{' ' * (space - space // 2)}{right}")


def _finite(points: Points) -> list[tuple[int, float]]:
    return sorted((step, loss) for step, loss in points if math.isfinite(loss))
