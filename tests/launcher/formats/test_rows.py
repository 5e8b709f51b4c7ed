from decimal import Decimal

import pytest

from ftl.formats.columns import with_evaluation
from ftl.formats.example import RowError
from ftl.formats.rows import fill, list_of, text_of


def test_fill_puts_texts_in_as_they_are() -> None:
    row = {"a": "{b} {{c}} %s {0}", "b": "\\n"}
    assert fill("<{a}>{b}{{a}}", row, required=True) == "<{b} {{c}} %s {0}>\\n{a}"


@pytest.mark.parametrize("row", [{}, {"a": None}], ids=["absent", "null"])
def test_column_that_need_not_be_there_is_an_empty_text(row: dict[str, None]) -> None:
    assert fill("[{a}]", row, required=False) == "[]"


@pytest.mark.parametrize(
    "template",
    ["{a.__class__}", "{a[0]}", "{a!r}", "{a:>9}", "{}", "{0}", "{a b}"],
)
def test_template_with_more_than_names_is_refused(template: str) -> None:
    with pytest.raises(RowError, match=r"must hold plain names in braces, such as \{instruction\}"):
        fill(template, {"a": "x"}, required=False)


@pytest.mark.parametrize("template", ["{a", "a}"])
def test_brace_without_its_partner_is_refused(template: str) -> None:
    with pytest.raises(RowError, match=r"has a brace without its partner: write \{\{ and \}\} for braces"):
        fill(template, {"a": "x"}, required=False)


def test_missing_column_names_what_the_row_has() -> None:
    with pytest.raises(RowError, match="no column `a`: the row has `b`, `c`; rename a column"):
        text_of({"b": 1, "c": 2}, "a")


def test_text_where_a_list_belongs_is_refused() -> None:
    with pytest.raises(RowError, match="`a` = 'x': must be a list"):
        list_of({"a": "x"}, "a")


def test_value_that_no_json_holds_is_a_problem_of_the_row() -> None:
    with pytest.raises(RowError, match=r"`scores` = .*1.5.*: must be texts and plain numbers"):
        with_evaluation({"scores": Decimal("1.5"), "critiques": "good"})
