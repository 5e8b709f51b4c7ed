"""Datasets: where rows come from, how each becomes text with a mask, and how texts become rows of tokens."""

from typing import Annotated, Literal

from pydantic import Field

from ftl.config.marker import Flat
from ftl.section import Section


class DatasetSection(Section):
    """One dataset. Its YAML keys are its field names."""

    path: Annotated[str, Field(min_length=1)]
    """A local .json or .jsonl file, or a directory of them."""
    type: Literal["alpaca", "completion", "chat_template"]
    """The format of a row: alpaca (instruction, input, output), completion (a text), chat_template (messages)."""
    ds_type: Literal["json"] | None = None
    """The file type; told by the ending when absent."""
    field: str | None = None
    """completion: the column with the text; `text` when absent."""
    field_messages: str = "messages"
    """chat_template: the column with the list of messages."""
    message_property_mappings: dict[Literal["role", "content"], str] = {}
    """chat_template: the keys of a message, `role` and `content` when absent."""
    roles: dict[str, tuple[str, ...]] = {}
    """chat_template: role of the template -> names the data uses for it, e.g. assistant: [gpt]."""
    roles_to_train: tuple[str, ...] = ("assistant",)
    """chat_template: the roles whose text is trained."""
    train_on_eos: Literal["all", "turn", "last", "none"] = "turn"
    """chat_template: the end-of-turn tokens trained: of every turn, of trained turns, the last one, none."""
    chat_template: str | None = None
    """chat_template: overrides the config's own, for this dataset."""


class DataSection(Section):
    datasets: Annotated[tuple[DatasetSection, ...], Flat("datasets"), Field(min_length=1)]
    test_datasets: Annotated[tuple[DatasetSection, ...], Flat("test_datasets")] = ()
    """Evaluated on; not together with val_set_size."""
    val_set_size: Annotated[float, Flat("val_set_size"), Field(ge=0)] = 0
    """Share of the rows held out for evaluation if below 1, else their number."""
    sequence_len: Annotated[int, Flat("sequence_len"), Field(ge=2)] = 512
    """Tokens in a row at most."""
    excess_length: Annotated[Literal["drop", "truncate"], Flat("excess_length_strategy")] = "drop"
    """What happens to an example longer than sequence_len; completion texts are split instead."""
    sample_packing: Annotated[bool, Flat("sample_packing")] = False
    """Fill each row with several examples, kept apart in attention and positions."""
    eval_sample_packing: Annotated[bool | None, Flat("eval_sample_packing")] = None
    """As sample_packing when absent."""
    pad_to_sequence_len: Annotated[bool, Flat("pad_to_sequence_len")] = False
    """Pad every row to sequence_len rather than to the longest of its batch."""
    train_on_inputs: Annotated[bool, Flat("train_on_inputs")] = False
    """Train on the prompt too."""
    shuffle: Annotated[bool, Flat("shuffle_merged_datasets")] = True
    """Mix the datasets before the evaluation split; batches are drawn in random order either way."""
    chat_template: Annotated[str | None, Flat("chat_template")] = None
    """tokenizer_default, a built-in name, or jinja. The tokenizer's own when absent."""
    chat_template_jinja: Annotated[str | None, Flat("chat_template_jinja")] = None
    """The template itself; implies chat_template: jinja."""
