import pytest

from ftl.formats.example import ConversationPair, FormatOptions, Preference, RowError, Turn
from ftl.formats.render import FORMATS, find_format

DPO = FormatOptions(family="dpo")
ORPO = FormatOptions(family="orpo")


def render(type, row, options=DPO):
    return find_format(type, options.family).read(row, options)


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@pytest.mark.parametrize("style", ["chatml", "llama3"])
@pytest.mark.parametrize(
    "columns", ["", ".argilla", ".argilla_chat", ".icr", ".intel", ".prompt_pairs", ".ultra"], ids=lambda name: name
)
def test_dpo_has_every_documented_type_of_both_styles(style: str, columns: str) -> None:
    assert style + columns in FORMATS["dpo"]


def test_first_column_with_a_value_is_the_prompt() -> None:
    row = {"prompt": None, "input": "i", "question": "q", "chosen": None, "chosen_response": "a", "rejected": "b"}
    assert render("chatml", row) == Preference(
        "<|im_start|>user\ni<|im_end|>\n<|im_start|>assistant\n", "a<|im_end|>", "b<|im_end|>"
    )


def test_answers_of_a_chat_template_type_stay_turns() -> None:
    row = {
        "messages": [message("human", "q")],
        "chosen": message("gpt", "good"),
        "rejected": [message("assistant", "bad")],
    }
    assert render("chat_template.default", row) == ConversationPair(
        (Turn("user", "q", False),), (Turn("assistant", "good", True),), (Turn("assistant", "bad", True),)
    )


def test_own_columns_are_read_by_every_type_with_conversations() -> None:
    options = FormatOptions(family="dpo", field_chosen="good", field_rejected="bad")
    row = {
        "good": [message("user", "q"), message("assistant", "a")],
        "bad": [message("user", "q"), message("assistant", "b")],
    }
    pair = render("chat_template.argilla_chat", row, options)
    assert isinstance(pair, ConversationPair)
    assert (pair.chosen[0].content, pair.rejected[0].content) == ("a", "b")


def test_messages_may_be_json_text() -> None:
    row = {"chosen": '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]'}
    row["rejected"] = row["chosen"].replace('"a"', '"b"')
    assert render("llama3.argilla_chat", row) == Preference(
        "<|start_header_id|>user<|end_header_id|>\n\nq<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "a<|eot_id|>",
        "b<|eot_id|>",
    )


def test_nectar_prefers_rank_1_to_rank_2_in_any_order() -> None:
    answers = [{"answer": text, "rank": rank} for text, rank in (("worst", 3), ("good", 2), ("best", 1))]
    preference = render("zephyr.nectar", {"prompt": "q", "answers": answers})
    assert isinstance(preference, Preference)
    assert (preference.chosen, preference.rejected) == ("best", "good")


def test_prompt_column_stands_for_the_only_user_message() -> None:
    short = [message("user", "q1"), message("assistant", "a1")]
    long = [*short, message("user", "q2"), message("assistant", "a2")]
    pairs = [
        render("chat_template", {"prompt": "p", "chosen": turns, "rejected": turns}, ORPO) for turns in (short, long)
    ]
    assert [[turn.content for turn in pair.prompt] for pair in pairs] == [["p"], ["q1", "a1", "q2"]]


@pytest.mark.parametrize(
    "roles",
    [
        pytest.param(["user", "assistant", "assistant"], id="odd"),
        pytest.param(["assistant", "user", "user", "assistant"], id="assistant first"),
        pytest.param(["system", "user", "user", "assistant"], id="system"),
    ],
)
def test_orpo_turns_must_alternate(roles: list[str]) -> None:
    turns = [message(role, "x") for role in roles]
    with pytest.raises(RowError, match="must be of user and assistant by turns, an even number"):
        render("chat_template.argilla", {"chosen": turns, "rejected": turns}, ORPO)


def test_own_wording_may_be_flat_or_a_mapping() -> None:
    keys = {"field_prompt": "q", "prompt_format": "{system}|{prompt}", "chosen_format": "<{chosen}>"}
    row = {"q": "{chosen}", "system": "s", "chosen": "a", "rejected": "b"}
    flat = render(
        "user_defined.default", row, FormatOptions.read({"type": "user_defined.default", **keys}, family="dpo")
    )
    nested = render(keys, row, FormatOptions.read({"type": keys}, family="dpo"))
    assert flat == nested == Preference("s|{chosen}", "<a>", "b")


@pytest.mark.parametrize("template", ["{prompt.__class__}", "{prompt[0]}", "{0}", "{}"])
def test_own_wording_never_reaches_into_a_text(template: str) -> None:
    options = FormatOptions.read({"type": {"prompt_format": template}}, family="dpo")
    with pytest.raises(RowError, match="must hold plain names in braces"):
        render({}, {"prompt": "p", "chosen": "a", "rejected": "b"}, options)


def test_unknown_slot_names_the_key_and_the_slots() -> None:
    options = FormatOptions.read({"type": {"chosen_format": "{answer}"}}, family="dpo")
    with pytest.raises(RowError, match=r"^`chosen_format` has the slot \{answer\}: must be \{chosen\};"):
        render({}, {"prompt": "p", "chosen": "a", "rejected": "b"}, options)


@pytest.mark.parametrize(
    ("keys", "roles", "system"),
    [
        ({"default_system_message": "d"}, ["user"], "d"),
        ({"default_system_message": "d"}, ["system", "user"], "x"),
        ({"drop_system_message": True}, ["system", "user"], None),
        ({"drop_system_message": True, "default_system_message": "d"}, ["system", "user"], "d"),
    ],
    ids=["default", "own one wins", "dropped", "replaced"],
)
def test_system_message_of_a_chat_template_type(keys: dict[str, object], roles: list[str], system: str | None) -> None:
    options = FormatOptions(family="dpo", **keys)
    row = {"messages": [message(role, "x") for role in roles]}
    row |= {"chosen": message("assistant", "a"), "rejected": message("assistant", "b")}
    pair = render("chat_template", row, options)
    assert isinstance(pair, ConversationPair)
    assert [turn.content for turn in pair.prompt if turn.role == "system"] == ([system] if system else [])
    assert pair.prompt[-1].role == "user"


def test_system_message_alone_is_no_prompt() -> None:
    row = {"messages": [message("system", "s")], "chosen": message("assistant", "a"), "rejected": message("gpt", "b")}
    with pytest.raises(RowError, match="no message but the system's comes before the answer"):
        render("chat_template", row, FormatOptions(family="dpo", drop_system_message=True))
