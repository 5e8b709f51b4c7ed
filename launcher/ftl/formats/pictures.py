"""Pictures in conversations: read out of the messages of a row, which keep a mark in the place of each."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ftl.formats.example import Conversation, FormatOptions, Picture, RowError
from ftl.formats.format import Format
from ftl.formats.jsontext import kind_of, parse_json
from ftl.formats.messages import read_conversation

MARK = "\ue010"
"""Stands for a picture in the content of a message; a private character, which is in nobody's text."""
COLUMNS = ("images", "image")
_LITERAL = re.compile("<image>\n|\n<image>|<image>")
"""What rows in LLaVA's form hold in the place of a picture; on a line of its own mostly."""
Json = Any  # Any: JSON of the user's


def with_pictures(format: Format) -> Format:
    """The format for rows with pictures; one that reads no messages is as it is."""
    return replace(format, read=read_pictured) if format.read is read_conversation else format


def read_pictured(row: Mapping[str, Json], options: FormatOptions) -> Conversation:
    """The conversation in a row, with its pictures in the order of their marks. Raises RowError.

    A content may be a list with parts {type: image}, which name their picture by path, base64 or image, or take the
    next one of the column `images` or `image`. Pictures of the column that no part takes stand where the texts say
    <image>, if there are as many of those, else at the beginning of the first message of the user.
    """
    column = list(_column_pictures(row))
    messages = parse_json(row.get(options.field_messages), f"`{options.field_messages}`", list, "a list of messages")
    reader = _Reader(options, column)
    marked = [reader.marked(message, f"{options.field_messages}[{i}]") for i, message in enumerate(messages)]
    if reader.num_left:
        marked = reader.with_column(marked)
    conversation = read_conversation({**row, options.field_messages: marked}, options)
    if sum(turn.content.count(MARK) for turn in conversation.turns) != len(reader.pictures):
        raise RowError(
            "a message with a picture is left out of the conversation: keep system messages without pictures"
        )
    return replace(conversation, pictures=tuple(reader.pictures))


def parts_of(content: str) -> list[dict[str, str]]:
    """A content as the list of parts that chat templates of models with pictures print."""
    parts: list[dict[str, str]] = []
    for number, text in enumerate(content.split(MARK)):
        parts += [{"type": "image"}] if number else []
        parts += [{"type": "text", "text": text}] if text else []
    return parts or [{"type": "text", "text": ""}]


class _Reader:
    """Takes pictures out of messages, those of the column as they are asked for."""

    def __init__(self, options: FormatOptions, column: list[Picture]) -> None:
        self._key = options.content_key
        self._roles = options.role_names
        self._role_key = options.role_key
        self._column = column
        self.num_left = len(column)
        self.pictures: list[Picture] = []

    def marked(self, message: Json, where: str) -> Json:
        """The message with a text in the place of each picture."""
        content = message.get(self._key) if isinstance(message, dict) else None
        if MARK in str(content):
            raise RowError(f"{where} holds the character U+E010, which stands for pictures: remove it")
        if not isinstance(content, list):
            return message
        parts = [self._marked_part(part, f"{where}.{self._key}[{i}]") for i, part in enumerate(content)]
        return {**message, self._key: parts}

    def with_column(self, messages: list[Json]) -> list[Json]:
        """The messages with marks for the pictures of the column that none of their parts took."""
        rest = self._column[len(self._column) - self.num_left :]
        if self.pictures:
            given = f"{len(self._column)} pictures in its column, and {len(self.pictures)} places in its messages"
            raise RowError(f"the row has {given}: must be as many")
        texts = [message.get(self._key) for message in messages]
        self.pictures, self.num_left = rest, 0
        if sum(len(_LITERAL.findall(text)) for text in texts if isinstance(text, str)) == len(rest):
            return [
                {**message, self._key: _LITERAL.sub(MARK, text)} if isinstance(text, str) else message
                for message, text in zip(messages, texts, strict=True)
            ]
        names = ("user", *self._roles.get("user", ()))
        first = next((i for i, message in enumerate(messages) if message.get(self._role_key) in names), None)
        if first is None:
            raise RowError("no message of the user is there for the pictures of the row")
        marks, content = MARK * len(rest), texts[first]
        content = [{"type": "text", "text": marks}, *content] if isinstance(content, list) else marks + (content or "")
        return [{**message, self._key: content} if i == first else message for i, message in enumerate(messages)]

    def _marked_part(self, part: Json, where: str) -> Json:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("image", "image_url"):
            return part
        picture = _picture_of(part, where)
        if picture is None:
            picture = self._next(where)
        self.pictures.append(picture)
        return {"type": "text", "text": MARK}

    def _next(self, where: str) -> Picture:
        if not self.num_left:
            raise RowError(f"{where} names no picture: must have `path`, `base64` or `image`, or a column `images`")
        self.num_left -= 1
        return self._column[len(self._column) - self.num_left - 1]


def _column_pictures(row: Mapping[str, Json]) -> Iterator[Picture]:
    name = next((name for name in COLUMNS if row.get(name) is not None), None)
    if name is None:
        return
    value = row[name]
    for position, item in enumerate(value if isinstance(value, list) else [value]):
        yield _read(item, f"`{name}`[{position}]")


def _picture_of(part: Mapping[str, Json], where: str) -> Picture | None:
    """None where the part does not say which."""
    for key in ("path", "base64", "image", "url", "image_url"):
        value = part.get(key)
        if value is not None:
            return _content(value, where) if key == "base64" else _read(value, f"{where}.{key}")
    return None


def _read(value: Json, where: str) -> Picture:
    """A path, a data: address, or what `datasets` makes of a picture: {bytes, path}."""
    if isinstance(value, dict):
        inner = next((value[key] for key in ("bytes", "base64", "path", "url") if value.get(key) is not None), None)
        if inner is None:
            raise RowError(f"{where} has neither `path` nor `bytes` nor `base64`")
        return _content(inner, where) if value.get("bytes") is None and "base64" in value else _read(inner, where)
    if isinstance(value, bytes):
        return Picture(content=value)
    if not isinstance(value, str):
        raise RowError(
            f"{where} is {kind_of(value)}: must be the path of a picture, or an object with `path` or `bytes`"
        )
    if value.startswith("data:"):
        return _content(value.partition(",")[2], where)
    if "://" in value and not value.startswith("file://"):
        raise RowError(f"{where} is an address, and pictures are not fetched: download them, and give their paths")
    return Picture(path=value.removeprefix("file://"))


def _content(text: Json, where: str) -> Picture:
    try:
        return Picture(content=base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, TypeError) as e:
        raise RowError(f"{where} is not base64") from e
