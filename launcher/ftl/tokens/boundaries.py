"""Which tokens of a text hold which of its characters, mostly without the offsets, which cost half as much again.

Added tokens (<|im_end|> and the like) cut a text into pieces, and the ids at them. A character within a piece is on
the edge of a token if the piece's ids begin with the ids of what is before it: what is before a trained text is
mostly the header of a turn, tokenised once. Where this does not hold, the tokenizer is asked for the offsets.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from tokenizers import Encoding

from ftl.tokens.view import TokenizerView

_Range = tuple[int, int]  # the first one, and the one after the last

_MAX_HEAD_CHARS = 64  # longer ones are no headers, so they are not kept


class Boundaries:
    """The boundaries of one tokenizer."""

    def __init__(self, view: TokenizerView) -> None:
        self._tokenizer = view.tokenizer
        self._id_of = {str(token.content): id for id, token in view.tokenizer.get_added_tokens_decoder().items()}
        longest_first = sorted(self._id_of, key=len, reverse=True)
        self._added = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._heads: dict[str, list[int]] = {"": []}
        unknown = (getattr(view.tokenizer.model, "unk_token", None), view.named_tokens.get("unk_token"))
        self._unknown = {view.tokenizer.token_to_id(token) for token in unknown if isinstance(token, str)}

    def token_ranges(self, text: str, ids: list[int], spans: Sequence[_Range]) -> list[_Range]:
        """The tokens that hold any of the characters of each span; the spans are in order and do not overlap."""
        found = self._without_offsets(text, ids, spans)
        if found is not None:
            return found
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return [_holding(encoding, start, end, len(text)) for start, end in spans]

    def _without_offsets(self, text: str, ids: list[int], spans: Sequence[_Range]) -> list[_Range] | None:
        matches = list(self._added.finditer(text))
        positions = _positions(ids, [self._id_of[match.group()] for match in matches])
        if positions is None:
            return None
        begins = [match.start() for match in matches]
        ends = [match.end() for match in matches]
        edges = []
        for char in (char for span in spans for char in span):
            number = bisect_right(ends, char)  # of the first added token that ends after the character
            if number < len(begins) and begins[number] <= char:
                edge = positions[number] if begins[number] == char else None  # else within an added token
            elif char == len(text):
                edge = len(ids)
            else:
                last = number - 1
                edge = self._within(text[ends[last] if number else 0 : char], ids, positions[last] + 1 if number else 0)
            if edge is None:
                return None
            edges.append(edge)
        return list(zip(edges[::2], edges[1::2], strict=True))

    def _within(self, head: str, ids: list[int], start: int) -> int | None:
        """The position after the tokens of `head`, which a piece begins with at `start`; None where it is not sure."""
        head_ids = self._heads.get(head)
        if head_ids is None:
            (encoding,) = self._tokenizer.encode_batch_fast([head], add_special_tokens=False)
            head_ids = encoding.ids
            if len(head) <= _MAX_HEAD_CHARS:
                self._heads[head] = head_ids
        end = start + len(head_ids)
        if head_ids and head_ids[-1] in self._unknown:  # one token may stand for what is before and behind the edge
            return None
        return end if ids[start:end] == head_ids else None


def _positions(ids: list[int], wanted: Sequence[int]) -> list[int] | None:
    """Where each of `wanted` stands, in order; None if they stand there in another order, or more often."""
    if any(ids.count(id) != wanted.count(id) for id in set(wanted)):
        return None
    positions = []
    position = -1
    try:
        for id in wanted:
            position = ids.index(id, position + 1)
            positions.append(position)
    except ValueError:
        return None
    return positions


def _holding(encoding: Encoding, start: int, end: int, num_chars: int) -> _Range:
    first = _first_token(encoding, range(start, end))
    if first is None:
        return 0, 0
    stop = _first_token(encoding, range(end, num_chars))
    if stop is None:
        return first, len(encoding)
    begins = encoding.token_to_chars(stop)
    return first, stop + 1 if begins is not None and begins[0] < end else stop


def _first_token(encoding: Encoding, chars: Iterable[int]) -> int | None:
    """The first token of the first character that has one; some tokenizers leave characters out."""
    return next((token for token in map(encoding.char_to_token, chars) if token is not None), None)
