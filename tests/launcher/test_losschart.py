import pytest

from ftl.losschart import loss_chart


def lines(points, **options):
    return loss_chart(points, **options).plain.split("\n")


def test_falling_line_in_ascii():
    drawn = lines([(1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)], width=22, height=4, is_ascii=True)
    # Labels take 4 columns and the axis 2, so the curve has 16 and falls a row every five.
    assert drawn == [
        "4.00 |***             ",
        "     |   *****        ",
        "2.00 |        *****   ",
        "1.00 |             ***",
        "     +----------------",
        "      1   ** train   4",
    ]


def test_rising_line_in_braille_starts_low_and_ends_high():
    drawn = lines([(0, 0.0), (1, 1.0)], width=14, height=2)
    # 8 characters are 16 x 8 dots: the first dot is at the bottom left, the last at the top right.
    assert drawn[1][6] in "⡠⣀⡀⠤"
    assert drawn[0][13] in "⠉⠈⠊⠁"


def test_eval_points_are_marks_over_the_line():
    drawn = lines([(0, 1.0), (10, 1.0)], evals=[(10, 2.0)], width=40, height=4, is_ascii=True)
    assert drawn[0].endswith("o")
    assert "o eval" in drawn[-1]


def test_chart_without_evals_has_no_eval_legend():
    assert "eval" not in lines([(0, 1.0), (10, 2.0)], width=40, height=4)[-1]


@pytest.mark.parametrize(
    "points",
    [[(5, 2.0)], [(1, 2.0), (2, 2.0)], [(1, float("nan")), (2, 1.0)], [(1, 1e30), (2, -1e-30)]],
    ids=["one", "constant", "nan", "wide"],
)
@pytest.mark.parametrize("is_ascii", [True, False])
def test_chart_of_odd_points_keeps_its_size(points, is_ascii):
    drawn = lines(points, width=60, height=5, is_ascii=is_ascii)
    assert len(drawn) == 7
    assert all(len(line) <= 60 for line in drawn)


def test_chart_of_nothing_says_so():
    assert lines([], width=40, height=5) == ["no loss was reported"]


def test_ascii_chart_is_ascii():
    assert loss_chart([(1, 3.0), (9, 1.0)], evals=[(5, 2.0)], width=50, height=6, is_ascii=True).plain.isascii()
