import pytest

from ftl.formats.example import FormatOptions, Judged, RowError
from ftl.formats.render import FORMATS, find_format

KTO = FormatOptions(family="kto")


def render(type, row, options=KTO):
    return find_format(type, options.family).read(row, options)


@pytest.mark.parametrize("style", ["chatml", "llama3"])
@pytest.mark.parametrize("columns", ["argilla", "argilla_chat", "intel", "prompt_pairs", "ultra"])
def test_kto_has_every_documented_type_of_both_styles(style: str, columns: str) -> None:
    assert f"{style}.{columns}" in FORMATS["kto"]


@pytest.mark.parametrize(
    ("label", "spellings"),
    [(True, [True, 1, 1.0, "true", "True", "1"]), (False, [False, 0, 0.0, "false", "FALSE", "0"])],
)
def test_label_may_be_written_in_many_ways(label: bool, spellings: list[object]) -> None:
    rows = [{"prompt": "p", "completion": "c", "label": given} for given in spellings]
    assert [render(None, row) for row in rows] == [Judged("p", "c", label)] * len(spellings)


@pytest.mark.parametrize("given", [None, 2, -1, "good", "", [True], {}])
def test_label_of_another_kind_is_a_sentence_about_the_row(given: object) -> None:
    with pytest.raises(RowError, match=r"^`label` = .*: must be true or false, or 1 or 0$"):
        render(None, {"prompt": "p", "completion": "c", "label": given})


def test_missing_label_says_what_it_is_for() -> None:
    with pytest.raises(RowError, match=r"no column `label`: .* true for a good answer or false for a bad one"):
        render("chatml.intel", {"question": "q", "completion": "c"})


def test_label_column_is_named_by_the_config() -> None:
    options = FormatOptions(family="kto", field_label="is_good")
    assert render("user_defined.default", {"prompt": "p", "completion": "c", "is_good": 0}, options) == Judged(
        "p", "c", False
    )


def test_question_may_be_in_chosen_and_the_answer_in_completion() -> None:
    row = {
        "chosen": [{"role": "user", "content": "q"}],
        "completion": [{"role": "assistant", "content": "a"}],
        "label": True,
    }
    assert render("chatml.argilla_chat", row) == Judged(
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n", "a<|im_end|>", True
    )


def test_answer_after_an_answer_is_refused() -> None:
    answer = {"role": "assistant", "content": "a"}
    with pytest.raises(RowError, match="no message comes before the answer"):
        render("llama3.argilla_chat", {"completion": [answer, answer], "label": True})
