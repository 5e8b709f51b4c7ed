"""The table of single-turn formats: which columns of a row fill which slot of which style."""

from dataclasses import dataclass

from ftl.formats.styles import ALPACA, Style


@dataclass(frozen=True)
class SingleTurn:
    """A question and its answer. Each slot is text with {column} in it.

    The columns of `instruction` must be in every row; those of `input` and `answer` may be absent or null, which is
    an empty text. A row with an empty answer is kept and trains nothing.
    """

    style: Style
    instruction: str
    answer: str
    input: str = ""


SINGLE_TURN: dict[str, SingleTurn] = {
    "alpaca": SingleTurn(ALPACA, instruction="{instruction}", input="{input}", answer="{output}"),
}
