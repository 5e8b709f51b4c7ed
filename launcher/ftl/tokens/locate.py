"""Where the texts of each turn stand in what a chat template printed.

The template is rendered once more with a mark in the place of every text. If the real text is the marked one with
each mark replaced by its text, possibly stripped, all places are known. Templates that look into the texts print
something else then; there a turn's place is where the real text changes when that turn alone is replaced by a mark.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from ftl.formats.example import RowError, Turn
from ftl.formats.pictures import MARK

Render = Callable[[Sequence[Turn]], str]

Span = tuple[int, int]  # first character, and the one after the last


@dataclass(frozen=True)
class Place:
    """Where a turn stands: all of it, and its texts by their keys."""

    span: Span
    texts: Mapping[str, "Shown"] = field(default_factory=dict)


@dataclass(frozen=True)
class Shown:
    """A text where it is printed; its first `num_stripped` characters are not."""

    span: Span
    num_stripped: int | None
    """None where the template prints something else than a part of the text."""


@dataclass(frozen=True)
class Skeleton:
    """A marked text: what stands before each mark and after the last one, and whose marks they are."""

    pieces: tuple[str, ...]
    owners: tuple[tuple[int, str], ...]
    """Turn and key of each mark, in the order of the text."""


def texts_of(turn: Turn, thinking_key: str) -> dict[str, str]:
    """The texts of a turn that are located, by key; blank ones have no place, and those with pictures are more."""
    texts = {"content": turn.content, thinking_key: turn.extra.get(thinking_key)}
    return {key: text for key, text in texts.items() if isinstance(text, str) and text.strip() and MARK not in text}


def skeleton(turns: Sequence[Turn], thinking_key: str, render: Render) -> Skeleton | None:
    """The marked text; None when the template refuses it, or prints a mark twice."""
    keys = ("content", thinking_key)
    marked = [
        _with_texts(turn, {key: _mark(position, keys.index(key)) for key in texts_of(turn, thinking_key)})
        for position, turn in enumerate(turns)
    ]
    try:
        pieces = _MARK.split(render(marked))
    except RowError:
        return None
    owners = tuple((int(turn), keys[int(key)]) for turn, key in zip(pieces[1::3], pieces[2::3], strict=True))
    return Skeleton(tuple(pieces[::3]), owners) if len(set(owners)) == len(owners) else None


def match(text: str, skeleton: Skeleton, turns: Sequence[Turn]) -> dict[int, Place] | None:
    """The places by turn, if the text is the skeleton with the texts in it, possibly stripped; else None."""
    end = len(skeleton.pieces[0])
    if not text.startswith(skeleton.pieces[0]):
        return None
    found: dict[int, dict[str, Shown]] = {}
    for (position, key), following in zip(skeleton.owners, skeleton.pieces[1:], strict=True):
        turn = turns[position]
        shown = _shown(text, end, turn.content if key == "content" else turn.extra[key], following)
        if shown is None:
            return None
        found.setdefault(position, {})[key] = shown
        end = shown.span[1] + len(following)
    if end != len(text):
        return None
    return {position: Place(_hull(texts), texts) for position, texts in found.items()}


def differ(text: str, turns: Sequence[Turn], position: int, thinking_key: str, render: Render) -> Place | None:
    """Where the text changes when one turn is replaced; None when it is not printed, or more than it changes."""
    turn = turns[position]
    texts = texts_of(turn, thinking_key)
    span = _changed(text, turns, position, {**dict.fromkeys(texts, ""), "content": _mark(position, 0)}, render)
    if span is None:
        return None
    shown = {}
    for key in turn.parts.keys() & texts.keys():
        part = _changed(text, turns, position, {key: _mark(position, 0)}, render, keeps_calls=True)
        if part is not None:
            found = texts[key].find(text[part[0] : part[1]])
            shown[key] = Shown(part, None if found == -1 else found)
    return Place(span, shown)


def apart(places: Mapping[int, Place], turns: Sequence[Turn]) -> dict[int, Place]:
    """The places without those that reach into a trained turn's: of turns that decide how others are printed.

    Raises RowError when two trained turns reach into each other.
    """
    trained = sorted((place.span, position) for position, place in places.items() if turns[position].train)
    for (span, position), (following, other) in pairwise(trained):
        if following[0] < span[1]:
            raise RowError(
                f"messages {position} and {other} are to be trained, but the chat template mixes them: "
                "train one of them, or use another chat_template"
            )
    spans = [span for span, _ in trained]
    return {
        position: place
        for position, place in places.items()
        if turns[position].train or all(place.span[1] <= start or end <= place.span[0] for start, end in spans)
    }


def with_calls(
    text: str, turns: Sequence[Turn], position: int, thinking_key: str, render: Render, places: Mapping[int, Place]
) -> Place | None:
    """The place of a turn with its calls of tools; None when they are not found between its neighbours' places."""
    known = places.get(position)
    others = [place.span for number, place in places.items() if number != position]
    start = max((end for number, place in places.items() if number < position for end in place.span), default=0)
    stop = min((begin for begin, _ in others if begin >= start), default=len(text))
    texts = known.texts if known is not None else {}
    changed = differ(text, turns, position, thinking_key, render)
    printed_last = _printed_last(turns, position, thinking_key, render)
    if changed is not None and start <= changed.span[0] and changed.span[1] <= stop:
        begin, end = changed.span
        # What follows may name the call, as the results of gpt-oss do, and change with it.
        ends = [begin + len(printed) for printed in printed_last if text.startswith(printed, begin)]
        return Place((begin, min([end, *ends])), texts or changed.texts)
    for printed in printed_last:
        begin = text.find(printed, start, stop)
        if begin != -1:
            return Place((begin, begin + len(printed)), texts)
    return None


def _printed_last(turns: Sequence[Turn], position: int, thinking_key: str, render: Render) -> list[str]:
    """What the template prints for a turn at the end of a conversation, with its reasoning and without."""
    before, turn = turns[:position], turns[position]
    silent = _with_texts(turn, dict.fromkeys(texts_of(turn, thinking_key).keys() - {"content"}, ""))
    found = []
    for version in (turn, silent):
        try:
            text = render([*before, version])
        except RowError:
            continue
        span = _changed(text, [*before, version], position, {"content": _mark(position, 0)}, render)
        found += [text[span[0] : span[1]]] if span is not None else []
    return found


_MARK = re.compile("\ue000([0-9]+)\ue001([01])\ue002")


def _mark(turn: int, key: int) -> str:
    """Private use characters are in nobody's template, and no filter changes them or a digit."""
    return f"\ue000{turn}\ue001{key}\ue002"


def _with_texts(turn: Turn, texts: Mapping[str, str]) -> Turn:
    others = {key: text for key, text in texts.items() if key != "content"}
    return replace(turn, content=texts.get("content", turn.content), extra={**turn.extra, **others})


def _shown(text: str, start: int, content: str, following: str) -> Shown | None:
    """The content where it begins at `start`, as it is or stripped, if the rest comes after it."""
    left = content.lstrip()
    num_stripped = len(content) - len(left)
    for num, form in (0, content), (num_stripped, left.rstrip()), (num_stripped, left), (0, content.rstrip()):
        end = start + len(form)
        if text.startswith(form, start) and text.startswith(following, end):
            return Shown((start, end), num)
    return None


def _hull(texts: Mapping[str, Shown]) -> Span:
    return min(shown.span[0] for shown in texts.values()), max(shown.span[1] for shown in texts.values())


def _changed(
    text: str, turns: Sequence[Turn], position: int, texts: Mapping[str, str], render: Render, keeps_calls: bool = False
) -> Span | None:
    """What of the text is not in the rendering of the turn with other texts, and without its calls of tools."""
    other = _with_texts(turns[position], texts)
    if not keeps_calls:
        other = replace(other, extra={key: value for key, value in other.extra.items() if key != "tool_calls"})
    try:
        rendered = render([*turns[:position], other, *turns[position + 1 :]])
    except RowError:
        return None
    if not any(mark in rendered for mark in texts.values() if mark):
        return None
    start = _num_common(text, rendered)
    most = min(len(text), len(rendered)) - start
    end = len(text) - min(most, _num_common(text[::-1], rendered[::-1]))
    return (start, end) if start < end else None


def _num_common(a: str, b: str) -> int:
    """How many characters two texts have in common at their beginning."""
    known, most = 0, min(len(a), len(b))
    while known < most:
        middle = (known + most + 1) // 2
        if a[known:middle] == b[known:middle]:
            known = middle
        else:
            most = middle - 1
    return known
