"""Formats without a prompt: whole texts, segments with a mask, rows that are tokens already."""

from typing import Any

from ftl.formats.example import Example, FormatOptions, RowError, Segment, TokenRow
from ftl.formats.rows import Row, list_of, shorten, text_of

_MASKED = -100


def read_completion(row: Row, options: FormatOptions) -> Example:
    """A text that is trained whole, and split where it is longer than a row of tokens."""
    return whole(text_of(row, options.field or "text", "set `field` to the column with the text"))


def read_pretraining(row: Row, options: FormatOptions) -> Example:
    """As `read_completion`, of `pretraining_dataset`."""
    return whole(text_of(row, options.text_column or "text", "set `text_column` to the column with the text"))


def read_segments(row: Row, options: FormatOptions) -> Example:
    """Texts that say for themselves whether they are trained. Nothing is added, neither BOS nor EOS."""
    segments = []
    for position, segment in enumerate(list_of(row, "segments")):
        where = f"segments[{position}]"
        if not isinstance(segment, dict) or not {"text", "label"} <= set(segment):
            raise RowError(f"{where} = {shorten(segment)}: must be an object with `text` and `label`")
        if not isinstance(segment["text"], str):
            raise RowError(f"{where}.text = {shorten(segment['text'])}: must be text")
        if not isinstance(segment["label"], bool):
            raise RowError(f"{where}.label = {shorten(segment['label'])}: must be true or false")
        segments.append(Segment(segment["text"], segment["label"] or options.train_on_inputs))
    return Example(tuple(segments), bos=False, num_eos=0)


def read_tokens(row: Row, options: FormatOptions) -> TokenRow:
    """`input_ids` and `labels`, without the positions where `attention_mask`, if there, is 0."""
    remedy = "set `type` to the format of the data; without it rows must be tokens already"
    ids, labels = (list_of(row, column, remedy) for column in ("input_ids", "labels"))
    mask = list_of(row, "attention_mask") if row.get("attention_mask") is not None else [1] * len(ids)
    for column, values in (("labels", labels), ("attention_mask", mask)):
        if len(values) != len(ids):
            raise RowError(f"`{column}` holds {len(values)} and `input_ids` {len(ids)}: must be as many")
    for position, (id, label, seen) in enumerate(zip(ids, labels, mask, strict=True)):
        _check_token(position, id, label, seen)
    kept = [(id, label) for id, label, seen in zip(ids, labels, mask, strict=True) if seen]
    return TokenRow(tuple(id for id, _ in kept), tuple(label for _, label in kept))


def whole(text: str) -> Example:
    """A text without a prompt, trained from its first token on."""
    return Example((Segment(text, True),), may_split=True)


def _check_token(position: int, id: Any, label: Any, seen: Any) -> None:
    if type(id) is not int or id < 0:
        raise RowError(f"input_ids[{position}] = {shorten(id)}: must be a token id")
    if type(label) is not int or label not in (id, _MASKED):
        raise RowError(f"labels[{position}] = {shorten(label)}: must be {_MASKED}, or {id} as input_ids[{position}]")
    if seen not in (0, 1):
        raise RowError(f"attention_mask[{position}] = {shorten(seen)}: must be 0 or 1")
