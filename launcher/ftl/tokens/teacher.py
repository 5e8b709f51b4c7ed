"""What a teacher expects, laid on the tokens of a row."""

from collections.abc import Sequence

from ftl.formats.example import RowError, Target, TokenRow
from ftl.tokens.encode import MASKED, Tokens

_FEWEST_SURE = 8
"""So many tokens, of which the teacher expects none: that is no chance."""


def taught_row(tokens: Tokens, targets: Sequence[Target | None]) -> TokenRow:
    """The row with a target for each of its tokens.

    There is an entry for every token, as vLLM's prompt_logprobs have, or for every trained one, or for the last answer,
    with or without what the template prints after it. Raises RowError where the number fits none of these, where the
    teacher says nothing of any trained token, and where it is plainly about other tokens.
    """
    spans = _spans(tokens)
    fitting = [places for places in spans.values() if len(places) == len(targets)]
    if not fitting:
        known = ", ".join(f"{len(places)} ({what})" for what, places in spans.items())
        raise RowError(
            f"the teacher has {len(targets)} entries, and they must be as many as the row has tokens: {known}; "
            "use the tokenizer and chat template of the teacher"
        )
    laid = max((_lay(tokens, targets, places) for places in fitting), key=lambda laid: _num_expected(tokens, laid))
    num_taught = sum(target is not None and label != MASKED for target, label in zip(laid, tokens.labels, strict=True))
    if not num_taught:
        raise RowError("the teacher says nothing of any token that is trained: remove the row")
    if num_taught >= _FEWEST_SURE and not _num_expected(tokens, laid):
        raise RowError(
            f"the teacher expects none of the {num_taught} trained tokens in their places: "
            "its entries belong to other text, or to another tokenizer"
        )
    return TokenRow(tuple(tokens.ids), tuple(tokens.labels), laid)


def _spans(tokens: Tokens) -> dict[str, Sequence[int]]:
    """The tokens that entries may be of, by what they are."""
    trained = [place for place, label in enumerate(tokens.labels) if label != MASKED]
    spans: dict[str, Sequence[int]] = {"all": range(len(tokens.ids)), "trained": trained}
    if trained:
        stop = trained[-1] + 1
        start = next((t + 1 for t in range(stop - 1, -1, -1) if tokens.labels[t] == MASKED), 0)
        spans |= {"last answer": range(start, stop), "from the last answer on": range(start, len(tokens.ids))}
    return spans


def _lay(tokens: Tokens, targets: Sequence[Target | None], places: Sequence[int]) -> tuple[Target | None, ...]:
    laid: list[Target | None] = [None] * len(tokens.ids)
    for place, target in zip(places, targets, strict=True):
        laid[place] = target
    return tuple(laid)


def _num_expected(tokens: Tokens, laid: Sequence[Target | None]) -> int:
    """Trained tokens that are among those that the teacher expects there."""
    return sum(target is not None and label in target.ids for target, label in zip(laid, tokens.labels, strict=True))
