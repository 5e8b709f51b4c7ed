import pytest

from ftl.formats.example import ConversationPair, Example, FormatOptions, Pair, RowError, Segment, Turn
from ftl.formats.render import FORMATS, find_format

REWARD = FormatOptions(family="reward")


def render(type, row):
    return find_format(type, "reward").read(row, REWARD)


def test_every_styled_preference_type_is_there_for_reward_models() -> None:
    styled = {name for name in FORMATS["dpo"] if name.startswith(("chatml", "llama3"))}
    assert set(FORMATS["reward"]) == {f"bradley_terry.{name}" for name in (*styled, "chat_template")}


def test_styled_pair_is_prompt_and_answer_in_one_text_each() -> None:
    start = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
    pair = render("bradley_terry.chatml.icr", {"input": "q", "chosen": "a", "rejected": "b"})
    assert pair == Pair(
        Example((Segment(f"{start}a<|im_end|>", True),), num_eos=0),
        Example((Segment(f"{start}b<|im_end|>", True),), num_eos=0),
    )


@pytest.mark.parametrize("system", [{}, {"system": ""}, {"system": None}], ids=["absent", "empty", "null"])
def test_system_turn_is_left_out_where_there_is_no_text(system: dict[str, str | None]) -> None:
    row = {**system, "input": "q", "chosen": "a", "rejected": "b"}
    question = Turn("user", "q", False)
    assert render("bradley_terry.chat_template", row) == ConversationPair(
        (question,), (Turn("assistant", "a", False),), (Turn("assistant", "b", False),)
    )


def test_missing_answer_is_a_sentence_about_the_row() -> None:
    with pytest.raises(RowError, match="no column `rejected`: the row has `input`, `chosen`;"):
        render("bradley_terry.chat_template", {"input": "q", "chosen": "a"})
