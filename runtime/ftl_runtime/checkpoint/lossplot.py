"""The losses of a run as a picture."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Point = tuple[float, float]

_WIDTH, _HEIGHT = 720, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 16, 40
_SCALE = 2
"""Drawn so many times larger, for screens with fine pixels."""
_TRAIN, _EVAL, _AXIS, _GRID = "#2166ac", "#d6604d", "#444444", "#dddddd"


def losses_of(events_file: Path) -> tuple[list[Point], list[Point]]:
    """(step, loss) of training and of evaluation; of a step that was trained again the last one."""
    train: dict[int, float] = {}
    scored: dict[int, float] = {}
    for line in events_file.read_text(errors="replace").splitlines():
        try:
            event = json.loads(line)
            if event["event"] == "history":
                add_history(event["data"], train, scored)
            place = {"step": train, "eval": scored}.get(event["event"])
            if place is not None and math.isfinite(event["data"]["loss"]):
                place[int(event["data"]["step"])] = float(event["data"]["loss"])
        except (ValueError, KeyError, TypeError):
            continue  # a line torn by a kill, or a loss that is null
    return sorted(train.items()), sorted(scored.items())


def add_history(told: Mapping[str, Any], train: dict[int, float], scored: dict[int, float]) -> None:  # Any: JSON
    """Put the losses of a `history` event, or of the file of a checkpoint, into the two.

    Raises ValueError, KeyError or TypeError where it is of another shape.
    """
    for name, place in (("train", train), ("eval", scored)):
        place.update((int(step), float(loss)) for step, loss in told[name] if math.isfinite(loss))


def draw(train: Sequence[Point], scored: Sequence[Point], dest: Path) -> bool:
    """Write a PNG of both curves; False where there is nothing to draw, or pillow is missing."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        return False
    both = [*train, *scored]
    if not both:
        return False
    steps, values = [step for step, _ in both], [loss for _, loss in both]
    span_x, span_y = _span(steps), _span(values)
    picture = Image.new("RGB", (_WIDTH * _SCALE, _HEIGHT * _SCALE), "white")
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(12 * _SCALE)

    def place(point: Point) -> Point:
        x = _LEFT + (point[0] - span_x[0]) / (span_x[1] - span_x[0]) * (_WIDTH - _LEFT - _RIGHT)
        y = _HEIGHT - _BOTTOM - (point[1] - span_y[0]) / (span_y[1] - span_y[0]) * (_HEIGHT - _TOP - _BOTTOM)
        return x * _SCALE, y * _SCALE

    for value in _ticks(*span_y):
        y = place((span_x[0], value))[1]
        pen.line([(_LEFT * _SCALE, y), ((_WIDTH - _RIGHT) * _SCALE, y)], _GRID, _SCALE)
        pen.text(((_LEFT - 8) * _SCALE, y), f"{value:.4g}", _AXIS, font, anchor="rm")
    for step in _ticks(*span_x):
        pen.text((place((step, span_y[0]))[0], (_HEIGHT - _BOTTOM + 8) * _SCALE), f"{step:g}", _AXIS, font, anchor="mt")
    if len(train) > 1:
        pen.line([place(point) for point in train], _TRAIN, 2 * _SCALE, joint="curve")
    for point in scored if scored and len(train) > 1 else both:
        x, y = place(point)
        pen.ellipse([x - 4 * _SCALE, y - 4 * _SCALE, x + 4 * _SCALE, y + 4 * _SCALE], _EVAL if scored else _TRAIN)
    told = [("training loss", _TRAIN), *([("evaluation loss", _EVAL)] if scored else [])]
    for row, (name, colour) in enumerate(told):
        pen.text(((_WIDTH - _RIGHT - 4) * _SCALE, (_TOP + 4 + 18 * row) * _SCALE), name, colour, font, anchor="rt")
    pen.text((_WIDTH * _SCALE / 2, (_HEIGHT - 6) * _SCALE), "step", _AXIS, font, anchor="mb")
    picture.save(dest, "PNG", optimize=True)
    return True


def _span(values: Iterable[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between the two, four to eight of them."""
    raw = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]
