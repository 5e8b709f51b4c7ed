"""Data of reward models: two whole texts, of which the first is the better one."""

from collections.abc import Mapping

from ftl.formats.example import ConversationPair, Example, FormatOptions, Pair, Preference, Segment, Turn
from ftl.formats.format import Format
from ftl.formats.preference import STYLED, templated
from ftl.formats.rows import Row, text_of
from ftl.formats.turns import opening


def read_texts(row: Row, options: FormatOptions) -> ConversationPair:
    """`input` with `system` before it, and two answers to it, each a text."""
    answers = [(Turn("assistant", text_of(row, column), False),) for column in ("chosen", "rejected")]
    return ConversationPair(opening(row, text_of(row, "input")), *answers)


def _whole(format: Format) -> Format:
    """The format of the same rows that gives prompt and answer as one text, for each answer."""

    def read(row: Row, options: FormatOptions) -> Pair:
        preference = format.read(row, options)
        assert isinstance(preference, Preference), "a type named after a style gives texts"
        chosen, rejected = (
            Example((Segment(preference.prompt + answer, True),), num_eos=0)
            for answer in (preference.chosen, preference.rejected)
        )
        return Pair(chosen, rejected)

    return Format(read, format.keys)


REWARD: Mapping[str, Format] = {
    "bradley_terry.chat_template": templated(read_texts, ("drop_system_message",)),
    **{f"bradley_terry.{name}": _whole(format) for name, format in STYLED.items()},
}
