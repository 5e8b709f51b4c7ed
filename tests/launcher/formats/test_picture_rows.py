"""Conversations with pictures: where a picture stands, and which one it is. `#` stands for its mark."""

import base64
from typing import Any

import pytest

from ftl.formats.example import FormatOptions, Picture, RowError
from ftl.formats.pictures import MARK, parts_of, read_pictured

A = Picture(path="a.png")
B = Picture(path="b.png")
BYTES = Picture(content=b"BM...")
TEXT = {"type": "text", "text": "what?"}


def read(content: Any, **row: Any) -> tuple[list[str], tuple[Picture, ...] | None]:
    """The contents of a question and its answer, and the pictures."""
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "cat"}]
    conversation = read_pictured({"messages": messages, **row}, FormatOptions())
    return [turn.content.replace(MARK, "#") for turn in conversation.turns], conversation.pictures


@pytest.mark.parametrize(
    ("part", "picture"),
    [
        ({"type": "image", "path": "a.png"}, A),
        ({"type": "image", "path": "file:///a.png"}, Picture(path="/a.png")),
        ({"type": "image", "image": "a.png"}, A),
        ({"type": "image", "image": {"bytes": b"BM...", "path": "x"}}, BYTES),
        ({"type": "image", "base64": base64.b64encode(b"BM...").decode()}, BYTES),
        ({"type": "image", "url": "data:image/bmp;base64," + base64.b64encode(b"BM...").decode()}, BYTES),
        ({"type": "image_url", "image_url": {"url": "a.png"}}, A),
    ],
    ids=["path", "file", "image", "bytes", "base64", "data", "openai"],
)
def test_part_names_its_picture(part: dict[str, Any], picture: Picture) -> None:
    assert read([part, TEXT]) == (["#what?", "cat"], (picture,))


def test_parts_take_pictures_of_the_column_in_order() -> None:
    parts = [{"type": "image"}, {"type": "text", "text": " or "}, {"type": "image"}]
    assert read(parts, images=["a.png", {"path": "b.png"}]) == (["# or #", "cat"], (A, B))


@pytest.mark.parametrize("content", ["<image>\nwhat?", "what?\n<image>"])
def test_pictures_stand_where_texts_say_image(content: str) -> None:
    contents, pictures = read(content, image="a.png")
    assert (sorted(contents[0]), pictures) == (sorted("#what?"), (A,))


def test_other_pictures_of_the_column_stand_before_the_question() -> None:
    assert read("what?", images=["a.png", "b.png"]) == (["##what?", "cat"], (A, B))
    assert read([TEXT], images=["a.png"]) == (["#what?", "cat"], (A,))


def test_conversation_without_pictures_has_an_empty_list_of_them() -> None:
    assert read("<image> is a tag") == (["<image> is a tag", "cat"], ())


@pytest.mark.parametrize(
    ("content", "row", "sentence"),
    [
        ([{"type": "image"}], {}, "names no picture: must have `path`, `base64` or `image`, or a column `images`"),
        ([{"type": "image", "path": "a.png"}], {"images": ["b.png"]}, "1 pictures in its column, and 1 places"),
        ([{"type": "image", "url": "https://x.org/a.png"}], {}, "is an address, and pictures are not fetched"),
        ([{"type": "image", "base64": "?"}], {}, "is not base64"),
        ([{"type": "image", "path": 7}], {}, "is a number: must be the path of a picture"),
        ("a\ue010b", {}, "holds the character U\\+E010"),
        ([{"type": "video", "path": "a.mp4"}], {}, "of type video"),
    ],
    ids=["none", "too many", "address", "base64", "number", "mark", "video"],
)
def test_row_that_cannot_be_used_says_why(content: Any, row: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RowError, match=sentence):
        read(content, **row)


def test_system_message_with_a_picture_is_not_dropped_in_silence() -> None:
    messages = [
        {"role": "system", "content": [{"type": "image", "path": "a.png"}]},
        {"role": "user", "content": "what?"},
        {"role": "assistant", "content": "cat"},
    ]
    with pytest.raises(RowError, match="a message with a picture is left out"):
        read_pictured({"messages": messages}, FormatOptions(drop_system_message=True))


def test_contents_are_given_to_templates_as_parts() -> None:
    image = {"type": "image"}
    assert parts_of(f"{MARK}a{MARK}") == [image, {"type": "text", "text": "a"}, image]
    assert parts_of("") == [{"type": "text", "text": ""}]
