"""Prompt styles: how an instruction and an optional input are put before the answer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """Two prompts with the slots {instruction} and {input}; the second one is for rows whose input is empty."""

    with_input: str
    without_input: str


# Source: github.com/tatsu-lab/stanford_alpaca, train.py, PROMPT_DICT; the line break after "Response:" is axolotl's.
ALPACA = Style(
    with_input=(
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
    ),
    without_input=(
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Response:\n"
    ),
)
