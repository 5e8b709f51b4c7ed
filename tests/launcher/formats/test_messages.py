import json
from typing import Any

import pytest

from ftl.formats.example import Conversation, FormatOptions, RowError, Turn
from ftl.formats.messages import read_conversation
from ftl.formats.thinking import split_reasoning


def read(messages: Any, row: dict[str, Any] | None = None, **options: Any) -> Conversation:
    return read_conversation({"messages": messages, **(row or {})}, FormatOptions(**options))


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


CHAT = [said("system", "s"), said("human", "u"), said("gpt", "a1"), said("user", "v"), said("assistant", "a2")]


def trained(conversation: Conversation) -> list[str]:
    return [turn.content for turn in conversation.turns if turn.train]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["a1", "a2"]),
        ({"roles_to_train": ()}, []),
        ({"roles_to_train": ("human",)}, ["u", "v"]),
        ({"roles_to_train": ("gpt", "system")}, ["s", "a1", "a2"]),
        ({"train_on_inputs": True}, ["s", "u", "a1", "v", "a2"]),
        ({"last_message_only": True}, ["a2"]),
        ({"drop_system_message": True, "roles_to_train": ("system", "user")}, ["u", "v"]),
    ],
)
def test_roles_decide_what_is_trained(options: dict[str, Any], expected: list[str]) -> None:
    assert trained(read(CHAT, **options)) == expected


def test_own_flag_of_a_message_wins_over_roles_ranges_and_parts() -> None:
    whole = [{"begin_offset": 0, "end_offset": 0, "train": True}]
    messages = [
        said("user", "u", train=True),
        said("assistant", "a", train=0),
        said("assistant", "b", train=False, detail=whole),
        said("assistant", [{"type": "text", "text": "c", "train": True}], train=False),
        said("assistant", "d", train=None),
    ]
    read_turns = read(messages, message_field_training="train", message_field_training_detail="detail")
    assert trained(read_turns) == ["u", "d"]


def test_ranges_of_a_message_win_over_its_role() -> None:
    detail = [{"begin_offset": 3, "end_offset": 4, "train": True}, {"begin_offset": 0, "end_offset": 1, "train": False}]
    (turn,) = read([said("user", "abcde", detail=detail)], message_field_training_detail="detail").turns
    assert (turn.train, turn.parts) == (True, {"content": ((3, 5),)})


@pytest.mark.parametrize("begin, end", [(0, 3), (2, 1), (-1, 1), (0, None)])
def test_range_outside_the_text_is_an_error(begin: int, end: int | None) -> None:
    detail = [{"begin_offset": begin, "end_offset": end, "train": True}]
    with pytest.raises(RowError, match=r"messages\[0\].detail has the range .* within the 3 characters"):
        read([said("user", "abc", detail=detail)], message_field_training_detail="detail")


def test_ranges_that_overlap_are_an_error() -> None:
    detail = [{"begin_offset": 0, "end_offset": 1, "train": True}, {"begin_offset": 1, "end_offset": 2, "train": False}]
    with pytest.raises(RowError, match="not overlap"):
        read([said("user", "abc", detail=detail)], message_field_training_detail="detail")


def test_parts_are_joined_and_those_without_a_flag_are_as_their_message() -> None:
    parts = [{"type": "text", "text": "ab", "train": False}, {"type": "text", "text": "c"}, "d"]
    (turn,) = read([said("assistant", parts)]).turns
    assert turn == Turn("assistant", "abcd", True, {}, {"content": ((2, 3), (3, 4))})


def test_parts_without_flags_are_a_text() -> None:
    assert read([said("assistant", ["a", {"type": "text", "text": "b"}])]).turns == (Turn("assistant", "ab", True),)


def test_part_that_is_an_image_is_an_error() -> None:
    with pytest.raises(RowError, match=r"messages\[0\].content\[0\] is of type image: only parts of type text"):
        read([said("user", [{"type": "image", "url": "x"}])])


@pytest.mark.parametrize(
    ("row", "options", "expected"),
    [
        ({"system": "c"}, {}, "c"),
        ({"intro": "c", "system": "no"}, {"field_system": "intro"}, "c"),
        ({"system": ""}, {"default_system_message": "d"}, "d"),
        ({"system": "c"}, {"drop_system_message": True}, None),
        ({"system": "c"}, {"drop_system_message": True, "default_system_message": "d"}, "d"),
        ({}, {}, None),
    ],
)
def test_system_text_of_a_conversation_without_one(
    row: dict[str, Any], options: dict[str, Any], expected: str | None
) -> None:
    first = read([said("user", "u")], row, **options).turns[0]
    assert first == (Turn("user", "u", False) if expected is None else Turn("system", expected, False))


def test_system_message_wins_over_the_column_and_the_default() -> None:
    turns = read([said("system", "s"), said("user", "u")], {"system": "c"}, default_system_message="d").turns
    assert [turn.content for turn in turns] == ["s", "u"]


def test_conversation_of_nothing_but_a_dropped_system_message_is_an_error() -> None:
    with pytest.raises(RowError, match="`messages` holds a system message alone"):
        read([said("system", "s")], drop_system_message=True)


def test_other_properties_reach_the_template_by_its_own_names() -> None:
    messages = [{"from": "gpt", "value": "a", "feeling": "calm", "name": "x", "none": None}]
    mappings = {"role": "from", "content": "value", "mood": "feeling"}
    (turn,) = read(messages, message_property_mappings=mappings).turns
    assert turn == Turn("assistant", "a", True, {"mood": "calm", "name": "x"})


def test_arguments_of_calls_become_objects_without_nulls_of_other_rows() -> None:
    calls = [
        {"id": "1", "function": {"name": "f", "arguments": '{"x": null, "y": 1}'}},
        {"id": "2", "function": {"name": "g", "arguments": {"x": None, "y": 1}}, "index": None},
        {"name": "h", "arguments": ""},
    ]
    (turn,) = read([said("assistant", None, tool_calls=json.dumps(calls))]).turns
    assert turn.content == ""
    assert turn.extra["tool_calls"] == [
        {"id": "1", "function": {"name": "f", "arguments": {"x": None, "y": 1}}},
        {"id": "2", "function": {"name": "g", "arguments": {"y": 1}}},
        {"name": "h", "arguments": {}},
    ]


@pytest.mark.parametrize("tools", [[{"name": "f", "other": None}], '[{"name": "f"}]', ['{"name": "f"}']])
def test_tools_may_be_objects_or_their_json_text(tools: Any) -> None:
    assert read([said("user", "u")], {"tools": tools}).tools == ({"name": "f"},)


def test_tools_that_are_no_list_are_an_error() -> None:
    with pytest.raises(RowError, match="`tools` is an object: must be a list of tools"):
        read([said("user", "u")], {"tools": {"name": "f"}})


def test_content_of_null_is_an_error() -> None:
    with pytest.raises(RowError, match=r"messages\[0\].content is null: must be text or a list of texts"):
        read([said("assistant", None)])


def test_flag_that_is_no_boolean_is_an_error() -> None:
    with pytest.raises(RowError, match=r"messages\[0\].train is 'yes': must be true or false"):
        read([said("user", "u", train="yes")], message_field_training="train")


def test_reasoning_is_given_by_the_name_that_the_template_uses() -> None:
    messages = [said("assistant", "a", thoughts="r")]
    (turn,) = read(messages, field_thinking="thoughts", template_thinking_key="thinking").turns
    assert turn == Turn("assistant", "a", True, {"thinking": "r"})


def test_reasoning_in_the_text_is_split_off() -> None:
    (turn,) = read([said("assistant", "<think>\nr\n</think>\n\na")], split_thinking=True).turns
    assert turn == Turn("assistant", "a", True, {"reasoning_content": "r"})


def test_ranges_in_a_text_that_is_split_are_an_error() -> None:
    parts = [{"type": "text", "text": "<think>r</think>a", "train": True}]
    with pytest.raises(RowError, match="`split_thinking` moves the text"):
        read([said("assistant", parts)], split_thinking=True)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<think>r</think> a", ("r", "a")),
        (" <reasoning>r</reasoning>a", ("r", "a")),
        ("<|begin_of_thought|>r<|end_of_thought|>\n<|begin_of_solution|> a <|end_of_solution|>b", ("r", "a")),
        ("a <think>r</think>", None),
        ("<think>r", None),
    ],
)
def test_split_reasoning(content: str, expected: tuple[str, str] | None) -> None:
    assert split_reasoning(content) == expected
