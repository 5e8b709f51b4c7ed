"""The formats of supervised fine-tuning, by name."""

from collections.abc import Mapping

from ftl.formats.dialogues import DIALOGUES
from ftl.formats.format import ABSENT, INLINE, MASK_KEYS, TEMPLATE_KEYS, Format
from ftl.formats.inline import check_inline, read_inline
from ftl.formats.messages import read_conversation
from ftl.formats.singleturn import single_turn
from ftl.formats.table import SINGLE_TURN
from ftl.formats.text import read_completion, read_pretraining, read_segments, read_tokens

SFT: Mapping[str, Format] = {
    **{name: Format(single_turn(layout)) for name, layout in SINGLE_TURN.items()},
    **DIALOGUES,
    "completion": Format(read_completion, ("field",)),
    "pretrain": Format(read_pretraining, ("text_column",)),
    "pretraining": Format(read_pretraining, ("text_column",)),
    "input_output": Format(read_segments),
    "chat_template": Format(
        read_conversation, ("field_messages", "field_system", *TEMPLATE_KEYS, *MASK_KEYS), needs_template=True
    ),
    INLINE: Format(read_inline, check=check_inline),
    ABSENT: Format(read_tokens),
}
