import pytest

from ftl.config.data import DataSection
from ftl.formats.example import Example, Pair, Preference, Segment
from ftl.inspect.fit import fit
from ftl.tokens import MASKED, Tokens

EXAMPLE = Example((Segment("abc", True),))
BOOK = Example((Segment("abc", True),), may_split=True)


def tokens(length: int, num_masked: int = 0) -> Tokens:
    ids = list(range(length))
    return Tokens(ids, [MASKED] * num_masked + ids[num_masked:])


def lengths(fitted) -> list[list[int]]:  # type: ignore[no-untyped-def]
    return [[len(part.ids) for part in parts] for parts in fitted.samples]


def test_sample_of_sequence_len_is_left_as_it_is() -> None:
    fitted = fit(EXAMPLE, (tokens(4),), DataSection(sequence_len=4))
    assert fitted.samples == ((tokens(4),),)
    assert fitted.dropped is None
    assert not fitted.is_truncated


@pytest.mark.parametrize("strategy", ["drop", "raise"])
def test_longer_sample_is_left_out(strategy: str) -> None:
    fitted = fit(EXAMPLE, (tokens(5),), DataSection(sequence_len=4, excess_length=strategy))
    assert (fitted.samples, fitted.dropped) == ((), "too long")


def test_shorter_sample_is_left_out() -> None:
    fitted = fit(EXAMPLE, (tokens(2),), DataSection(sequence_len=4, min_sample_len=3))
    assert (fitted.samples, fitted.dropped) == ((), "too short")


def test_truncated_sample_keeps_its_beginning() -> None:
    fitted = fit(EXAMPLE, (tokens(9, num_masked=3),), DataSection(sequence_len=4, excess_length="truncate"))
    assert fitted.samples == ((Tokens([0, 1, 2, 3], [MASKED, MASKED, MASKED, 3]),),)
    assert fitted.is_truncated


def test_text_that_may_split_gives_a_sample_for_each_piece() -> None:
    fitted = fit(BOOK, (tokens(10),), DataSection(sequence_len=4))
    assert [parts[0].ids for parts in fitted.samples] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_last_piece_that_is_too_short_is_left_out() -> None:
    assert lengths(fit(BOOK, (tokens(9),), DataSection(sequence_len=4))) == [[4], [4]]


def test_every_example_is_split_where_the_config_says_so() -> None:
    fitted = fit(EXAMPLE, (tokens(6),), DataSection(sequence_len=4, excess_length="split"))
    assert lengths(fitted) == [[4], [2]]


def test_pair_is_cut_whatever_the_strategy() -> None:
    fitted = fit(Pair(EXAMPLE, EXAMPLE), (tokens(3), tokens(6)), DataSection(sequence_len=4))
    assert lengths(fitted) == [[3, 4]]
    assert fitted.is_truncated


def test_preference_without_a_word_of_an_answer_is_left_out() -> None:
    data = DataSection(sequence_len=4, excess_length="truncate")
    fitted = fit(Preference("p", "c", "r"), (tokens(6, num_masked=4), tokens(6, num_masked=3)), data)
    assert (fitted.samples, fitted.dropped) == ((), "too long")
