"""Prompt styles: how a system text, an instruction and an optional input are put before the answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Style:
    """Texts with the slots {system}, {instruction} and {input}."""

    system: str
    """Comes first, unless the system text is empty."""
    with_input: str
    without_input: str
    """For rows whose input is empty."""


# The headings are those of github.com/tatsu-lab/stanford_alpaca, train.py; what is around them is axolotl's.
INSTRUCT = Style(
    system="{system}\n\n",
    with_input="### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
    without_input="### Instruction:\n{instruction}\n\n### Response:\n",
)
CHAT = Style(
    system="SYSTEM: {system}\n",
    with_input="USER: {instruction}\n{input}\nASSISTANT:",
    without_input="USER: {instruction}\nASSISTANT:",
)
CHATML = Style(
    system="<|im_start|>system\n{system}<|im_end|>\n",
    with_input="<|im_start|>user\n{instruction}\n{input}<|im_end|>\n<|im_start|>assistant\n",
    without_input="<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n",
)
PHI = Style(
    system="<|system|>\n{system}<|end|>\n",
    with_input="<|user|>\n{instruction}<|end|>{input}<|assistant|>",
    without_input="<|user|>\n{instruction}<|end|>\n<|assistant|>\n",
)
STYLES: Mapping[str, Style] = MappingProxyType({"chat": CHAT, "chatml": CHATML, "instruct": INSTRUCT, "phi": PHI})
"""The styles that may be named after a colon: `alpaca:chat`."""

PLAIN = Style(system="{system}", with_input="{instruction}\n{input}", without_input="{instruction}")
UNLABELLED_CHAT = Style("{system}\n\n", CHAT.with_input, CHAT.without_input)
"""CHAT without a word before the system text."""
NARROW_CHAT = Style("{system}\n", CHAT.with_input, CHAT.without_input)

OPEN_ORCA = Style(
    system="### System:\n{system}\n",
    with_input="### Human:\n{instruction}\n### Additional Context:\n{input}\n### Assistant:\n",
    without_input="### Human:\n{instruction}\n### Assistant:\n",
)
# Source: huggingface.co/psmathur/orca_mini_v2_7b. The heading stays where the system text is empty.
ORCA_MINI = Style(
    system="",
    with_input="### System:\n{system}\n\n### User:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
    without_input="### System:\n{system}\n\n### User:\n{instruction}\n\n### Response:\n",
)
# Source: github.com/jondurbin/qlora, train.py: a space after the last heading.
QLORA = Style(
    system=INSTRUCT.system,
    with_input="### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response: ",
    without_input="### Instruction:\n{instruction}\n\n### Response: ",
)
# Source: github.com/taprosoft/llm_finetuning, templates/: nothing after the last heading.
LEGACY = Style(
    system=INSTRUCT.system,
    with_input="### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:",
    without_input="### Instruction:\n{instruction}\n\n### Response:",
)
VICUNA = Style(
    system=INSTRUCT.system,
    with_input="USER:\n{instruction}\n\n### Input:\n{input}\n\nASSISTANT:\n",
    without_input="USER:\n{instruction}\n\nASSISTANT:\n",
)
