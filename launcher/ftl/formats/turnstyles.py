"""Turn styles: how a conversation is written down by the types that use no chat template."""

from collections.abc import Iterable
from dataclasses import dataclass

from ftl.formats.example import Turn


@dataclass(frozen=True)
class TurnStyle:
    """The pieces around the role and the content of a turn."""

    begin: str
    after_role: str
    end: str
    between: str

    def prompt(self, turns: Iterable[Turn]) -> str:
        """The turns, and the header of the answer that is to follow."""
        written = (f"{self._header(turn.role)}{turn.content}{self.end}{self.between}" for turn in turns)
        return "".join(written) + self._header("assistant")

    def answer(self, text: str) -> str:
        """The answer with what ends it."""
        return text + self.end

    def _header(self, role: str) -> str:
        return f"{self.begin}{role}{self.after_role}"


CHATML = TurnStyle(begin="<|im_start|>", after_role="\n", end="<|im_end|>", between="\n")
# Without <|begin_of_text|>, which the tokenizer adds where it begins texts so.
LLAMA3 = TurnStyle(begin="<|start_header_id|>", after_role="<|end_header_id|>\n\n", end="<|eot_id|>", between="")
ZEPHYR = TurnStyle(begin="<|", after_role="|>\n", end="</s>", between="\n")

STYLES = {"chatml": CHATML, "llama3": LLAMA3}
"""Those that types are named after."""
