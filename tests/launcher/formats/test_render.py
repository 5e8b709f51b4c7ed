from dataclasses import replace

import pytest

from ftl.formats.example import Conversation, Example, FormatOptions, RowError, Segment, Turn
from ftl.formats.render import find_format


def render(type, row, options):
    return find_format(type, options.family).read(row, options)


OPTIONS = FormatOptions()
SHAREGPT = FormatOptions(field_messages="conversations", message_property_mappings={"role": "from", "content": "value"})


def test_alpaca_with_input_fills_the_published_prompt() -> None:
    row = {"instruction": "Add {x}", "input": "{0}", "output": "ok"}
    prompt = (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd {x}\n\n### Input:\n{0}\n\n### Response:\n"
    )
    assert render("alpaca", row, OPTIONS) == Example((Segment(prompt, False), Segment("ok", True)))


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Hi", "output": "ok"},
        {"instruction": "Hi", "input": "", "output": "ok"},
        {"instruction": "Hi", "input": None, "output": "ok"},
    ],
    ids=["absent", "empty", "null"],
)
def test_alpaca_without_input_has_a_prompt_of_its_own(row: dict[str, str | None]) -> None:
    prompt = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nHi\n\n### Response:\n"
    )
    assert render("alpaca", row, OPTIONS) == Example((Segment(prompt, False), Segment("ok", True)))


def test_alpaca_null_answer_is_an_empty_text() -> None:
    example = render("alpaca", {"instruction": "Hi", "output": None}, OPTIONS)
    assert isinstance(example, Example)
    assert example.segments[-1] == Segment("", True)


def test_train_on_inputs_marks_the_prompt() -> None:
    example = render("alpaca", {"instruction": "Hi", "output": "ok"}, replace(OPTIONS, train_on_inputs=True))
    assert isinstance(example, Example)
    assert [segment.train for segment in example.segments] == [True, True]


def test_completion_takes_the_named_column_and_may_split() -> None:
    example = render("completion", {"body": "a text"}, replace(OPTIONS, field="body"))
    assert example == Example((Segment("a text", True),), may_split=True)


def test_messages_are_mapped_and_unknown_keys_kept() -> None:
    row = {
        "conversations": [
            {"from": "human", "value": "q", "mood": "sad", "name": None},
            {"from": "gpt", "value": "a"},
            {"from": "critic", "value": "c"},
        ]
    }
    turns = (Turn("user", "q", False, {"mood": "sad"}), Turn("assistant", "a", True), Turn("critic", "c", False))
    assert render("chat_template", row, SHAREGPT) == Conversation(turns, "turn")


def test_roles_to_train_may_use_the_names_of_the_data() -> None:
    options = FormatOptions(roles={"user": ("customer",), "assistant": ("agent",)}, roles_to_train=("agent",))
    row = {"messages": [{"role": "customer", "content": "q"}, {"role": "agent", "content": "a"}]}
    conversation = render("chat_template", row, options)
    assert isinstance(conversation, Conversation)
    assert [(turn.role, turn.train) for turn in conversation.turns] == [("user", False), ("assistant", True)]


def test_messages_may_be_json_text() -> None:
    conversation = render("chat_template", {"messages": '[{"role": "user", "content": "é"}]'}, OPTIONS)
    assert conversation == Conversation((Turn("user", "é", False),), "turn")


@pytest.mark.parametrize(
    ("type", "row", "said"),
    [
        ("alpaca", {"prompt": "x", "output": "y"}, "no column `instruction`: the row has `prompt`, `output`;"),
        ("alpaca", {"instruction": 5, "output": "y"}, "`instruction` = 5: must be text"),
        ("alpaca", {"instruction": None, "output": "y"}, "`instruction` = null: must be text"),
        ("alpaca", {"instruction": "x", "input": [1], "output": "y"}, "`input` = [1]: must be text"),
        ("completion", {"body": "x"}, "set `field` to the column with the text"),
        ("completion", {"text": None}, "`text` = null: must be text"),
        ("chat_template", {"conversations": []}, "set `field_messages` to the column with the messages"),
        ("chat_template", {"messages": []}, "must hold at least one message"),
        ("chat_template", {"messages": 3}, "`messages` is a number: must be a list of messages"),
        ("chat_template", {"messages": "hello"}, "a text that is not JSON"),
        ("chat_template", {"messages": ["x"]}, "messages[0] is a text: must be an object"),
        ("chat_template", {"messages": [{"from": "a", "content": "b"}]}, "message_property_mappings: {role: ...}"),
        (
            "chat_template",
            {"messages": [{"role": "user", "content": None}]},
            "messages[0].content is null: must be text",
        ),
        ("chat_template", {"messages": [{"role": 1, "content": "b"}]}, "messages[0].role is a number: must be text"),
    ],
)
def test_bad_row_is_one_sentence_about_the_row(type: str, row: dict[str, object], said: str) -> None:
    with pytest.raises(RowError) as told:
        render(type, row, OPTIONS)
    assert said in str(told.value)
    assert "\n" not in str(told.value)
