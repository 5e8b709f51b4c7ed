import pytest

from ftl.config.data import DataSection
from ftl.formats.example import Example, Segment
from ftl.inspect.fit import fit
from ftl.inspect.tally import Digests, Lengths, Tally
from ftl.tokens import MASKED, Tokens

EXAMPLE = Example((Segment("a", False), Segment("b", True)))


@pytest.mark.parametrize(
    ("percent", "length"), [(50, 2), (90, 9), (95, 10), (100, 10)], ids=["half", "tail", "rounded up", "all"]
)
def test_percentile_is_the_length_that_so_many_do_not_exceed(percent: float, length: int) -> None:
    lengths = Lengths()
    for each in [1, 1, 2, 2, 2, 3, 3, 3, 9, 10]:
        lengths.add(each)
    assert lengths.percentile(percent) == length


def test_lengths_tell_mean_longest_and_what_fits() -> None:
    lengths = Lengths()
    for each in [2, 4, 4, 10]:
        lengths.add(each)
    assert (lengths.mean, lengths.longest, lengths.share_within(4)) == (5, 10, 0.75)


def test_no_lengths_are_zero() -> None:
    assert (Lengths().mean, Lengths().longest, Lengths().percentile(50)) == (0, 0, 0)


def test_duplicates_are_samples_with_the_same_ids_and_labels() -> None:
    digests = Digests()
    for parts in [([1, 2], [1, 2]), ([1, 2], [1, 2]), ([1, 2], [MASKED, 2]), ([1], [1]), ([1, 2], [1, 2])]:
        digests.add((Tokens(*parts),))
    assert digests.num_duplicates == 2


def test_samples_shared_with_another_set_are_counted_once() -> None:
    train, test = Digests(), Digests()
    for id in (1, 2, 3):
        train.add((Tokens([id], [id]),))
    for id in (3, 3, 4):
        test.add((Tokens([id], [id]),))
    assert test.num_shared(train) == 1


def tallied(*labels: list[int], example: Example = EXAMPLE, **keys: object) -> Tally:
    data = DataSection.model_validate({"sequence_len": 4, **keys})
    tally = Tally()
    for each in labels:
        parts = (Tokens([7] * len(each), each),)
        tally.add(example, parts, fit(example, parts, data), frozenset({9}))
    return tally


def test_tokens_and_trained_tokens_are_those_that_are_left() -> None:
    tally = tallied([MASKED, 7, 7], [MASKED] * 5 + [7], [MASKED])
    assert (tally.samples, tally.tokens, tally.trained) == (1, 3, 2)
    assert (tally.too_long, tally.too_short) == (1, 1)


def test_sample_without_a_label_is_untrained() -> None:
    assert tallied([MASKED, MASKED], [7, 7]).untrained == 1


def test_turns_behind_the_cut_are_untrained_turns() -> None:
    chat = Example(tuple(Segment(text, text.isupper()) for text in ("q", "AA", "q", "BB", "q", "C")))
    tally = tallied([MASKED, 7, 7, MASKED, 7, 7, MASKED, 7], example=chat, excess_length="truncate")
    assert (tally.truncated, tally.untrained_turns) == (1, 2)


@pytest.mark.parametrize(("label", "trains_eos"), [(9, True), (MASKED, False)])
def test_end_of_text_counts_when_it_is_a_label(label: int, trains_eos: bool) -> None:
    assert tallied([7, label]).trains_eos is trains_eos
