"""The formats of supervised fine-tuning, by name."""

from ftl.formats.format import Format
from ftl.formats.messages import read_conversation
from ftl.formats.singleturn import single_turn
from ftl.formats.table import SINGLE_TURN
from ftl.formats.text import read_completion

SFT = {
    **{name: Format(single_turn(layout)) for name, layout in SINGLE_TURN.items()},
    "completion": Format(read_completion),
    "chat_template": Format(read_conversation, needs_template=True),
}
