"""Datasets: where rows come from, how each becomes text with a mask, and how texts become rows of tokens."""

from typing import Annotated, Literal

from pydantic import Field

from ftl.config.marker import Flat
from ftl.section import Section

DATASET_KEYS = ("datasets", "test_datasets", "pretraining_dataset")
"""The keys that hold lists of datasets; fields of DataSection have the same names."""

Share = Annotated[float, Field(gt=0)]
Pixels = Annotated[int, Field(ge=1)]
ImageSize = Pixels | Annotated[tuple[Pixels, ...], Field(min_length=2, max_length=2)]
TrainOn = Literal["all", "turn", "last", "none"]


class InlineType(Section):
    """A format written into the config: `type:` as a mapping. Texts with {slots}, and the columns that fill them."""

    system_prompt: str = ""
    """The system text of rows that bring none."""
    system_format: str = "{system}"
    """How a system text is written, with {system}."""
    format: str | None = None
    """The prompt, with {instruction}, {input} and {system}."""
    no_input_format: str | None = None
    """The prompt of rows whose input is empty; without {input}."""
    field: str | None = None
    """A column with a whole text; nothing else is read then."""
    field_system: str | None = None
    """The column with the system text; `system` when absent."""
    field_instruction: str | None = None
    """The column with the instruction; `instruction` when absent."""
    field_input: str | None = None
    """The column with the input; `input` when absent."""
    field_output: str | None = None
    """The column with the answer; `output` when absent."""
    field_prompt: str | None = None
    """The column with the prompt; `prompt` when absent."""
    field_chosen: str | None = None
    """The column with the better answer; `chosen` when absent."""
    field_rejected: str | None = None
    """The column with the worse answer; `rejected` when absent."""
    field_completion: str | None = None
    """The column with the answer; `completion` when absent."""
    field_label: str | None = None
    """The column that says whether the answer is good; `label` when absent."""
    prompt_format: str | None = None
    """Preference and unpaired data: the prompt, with {prompt} and {system}."""
    chosen_format: str | None = None
    """The better answer, with {chosen}."""
    rejected_format: str | None = None
    """The worse answer, with {rejected}."""
    completion_format: str | None = None
    """Unpaired data: the answer, with {completion}."""


class DatasetSection(Section):
    """One dataset. Its YAML keys are its field names."""

    path: str | None = None
    """A local file or directory, a Hub repository id, an https:, s3: or gs: address, or a loader such as json."""
    data_files: tuple[str, ...] = ()
    """Files of the repository or directory at `path`; with a loader as path, local files."""
    ds_type: Literal["json", "jsonl", "csv", "parquet", "arrow", "text"] | None = None
    """The file type; told by the ending when absent."""
    name: str | None = None
    """The configuration (subset) of a Hub repository."""
    split: str = "train"
    """The split, or a part of it: train[:1%], train[100:200]."""
    revision: str | None = None
    """Branch, tag or commit of the Hub repository."""
    shards: Annotated[int | None, Field(ge=1)] = None
    """Take one of so many equal parts of the shuffled rows."""
    shards_idx: Annotated[int, Field(ge=0)] = 0
    """Which of them, from 0."""
    weight: Annotated[float | None, Field(gt=0)] = None
    """pretraining_dataset: how often its texts are drawn, against those of the others; by default alike."""
    skip: Annotated[int, Field(ge=0)] = 0
    """Leave out so many rows at the beginning."""

    type: str | InlineType | None = None
    """The format of a row; absent where rows are tokens already, or prompt, chosen and rejected already."""
    field: str | None = None
    """completion: the column with the text; `text` when absent."""
    text_column: str | None = None
    """pretraining_dataset: the column with the text; `text` when absent."""

    chat_template: str | None = None
    """chat_template: overrides the config's own, for this dataset."""
    chat_template_jinja: str | None = None
    """chat_template: the template itself, or the path of a .jinja file, for this dataset."""
    field_messages: str = "messages"
    """chat_template: the column with the list of messages."""
    field_tools: str = "tools"
    """chat_template: the column with the tools that the model may call."""
    field_system: str | None = None
    """The column with a system text, where the format has one."""
    message_property_mappings: dict[str, str] = {}
    """chat_template: property that the template uses -> key of a message; role and content are themselves if absent."""
    message_field_training: str | None = None
    """chat_template: the key of a message that says whether it is trained; wins over all else."""
    message_field_training_detail: str | None = None
    """chat_template: the key of a message with the character ranges that are trained."""
    field_thinking: str | None = None
    """chat_template: the key of a message with its reasoning."""
    template_thinking_key: str | None = None
    """chat_template: what the template calls the reasoning; reasoning_content when absent."""
    split_thinking: bool = False
    """chat_template: take <think>...</think> out of the content and give it to the template as reasoning."""
    roles: dict[str, tuple[str, ...]] = {}
    """chat_template: role of the template -> names the data uses for it, e.g. assistant: [gpt]."""
    roles_to_train: tuple[str, ...] = ("assistant",)
    """chat_template: the roles whose text is trained."""
    last_message_only: bool = False
    """chat_template: train the last message and nothing else, what an empty `roles_to_train:` stands for."""
    train_on_eos: TrainOn = "turn"
    """chat_template: the EOS tokens trained: of every turn, of trained turns, the last one, none."""
    train_on_eot: TrainOn | None = None
    """chat_template: the same for `eot_tokens`; as train_on_eos when absent."""
    drop_system_message: bool = False
    """chat_template: leave out a system message at the beginning."""

    field_prompt: str | None = None
    """user_defined: the column with the prompt; `prompt` when absent."""
    field_chosen: str | None = None
    """user_defined: the column with the better answer; `chosen` when absent."""
    field_rejected: str | None = None
    """user_defined: the column with the worse answer; `rejected` when absent."""
    field_completion: str | None = None
    """user_defined: the column with the answer; `completion` when absent."""
    field_label: str | None = None
    """user_defined: the column that says whether the answer is good; `label` when absent."""
    prompt_format: str | None = None
    """user_defined: the prompt, with {prompt} and {system}."""
    chosen_format: str | None = None
    """user_defined: the better answer, with {chosen}."""
    rejected_format: str | None = None
    """user_defined: the worse answer, with {rejected}."""
    completion_format: str | None = None
    """user_defined: the answer, with {completion}."""

    step_separator: str = "\n"
    """stepwise_supervised: put after every step; its last token carries the step's label."""
    max_completion_length: Annotated[int | None, Field(ge=1)] = None
    """stepwise_supervised: tokens of all steps at most."""
    train_on_last_step_only: bool = False
    """stepwise_supervised: only the last step has a label."""

    logprobs_field: str = "logprobs"
    """kd: the column with the teacher's log-probabilities, an entry for each token."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """kd: the temperature at which the teacher gave them."""


class DataSection(Section):
    datasets: Annotated[tuple[DatasetSection, ...], Flat("datasets")] = ()
    """What is trained on, one after another or mixed."""
    test_datasets: Annotated[tuple[DatasetSection, ...], Flat("test_datasets")] = ()
    """Evaluated on; not together with val_set_size."""
    pretraining_dataset: Annotated[tuple[DatasetSection, ...], Flat("pretraining_dataset")] = ()
    """Texts that are read, tokenised and packed while training runs; needs max_steps."""
    pretraining_sample_concatenation: Annotated[bool, Flat("pretraining_sample_concatenation")] = False
    """pretraining_dataset: fill rows with several texts."""
    pretrain_multipack_attn: Annotated[bool, Flat("pretrain_multipack_attn")] = True
    """pretraining_dataset: texts that share a row do not see one another."""
    pretrain_multipack_buffer_size: Annotated[int, Flat("pretrain_multipack_buffer_size"), Field(ge=1)] = 10_000
    """pretraining_dataset: texts that are read ahead to fill rows well."""
    val_set_size: Annotated[float, Flat("val_set_size"), Field(ge=0)] = 0
    """Share of the rows held out for evaluation if below 1, else their number."""
    data_seed: Annotated[int | None, Flat("data_seed"), Field(ge=0, lt=2**32)] = None
    """Seed of the shuffles, the evaluation split and the order of batches; as `seed` when absent."""
    exact_deduplication: Annotated[bool, Flat("dataset_exact_deduplication")] = False
    """Leave out rows whose tokens and labels are those of another; what is in the evaluation set is not trained."""
    shard_num: Annotated[int | None, Flat("dataset_shard_num"), Field(ge=1)] = None
    """Take one of so many equal parts of the merged training rows."""
    shard_idx: Annotated[int, Flat("dataset_shard_idx"), Field(ge=0)] = 0
    """Which of them, from 0."""
    push_to_hub: Annotated[str | None, Flat("push_dataset_to_hub")] = None
    """A private dataset repository that the tokenised rows are pushed to."""
    sequence_len: Annotated[int, Flat("sequence_len"), Field(ge=2)] = 512
    """Tokens in a row at most."""
    min_sample_len: Annotated[int, Flat("min_sample_len"), Field(ge=2)] = 2
    """Shorter examples are left out, and counted."""
    excess_length: Annotated[Literal["drop", "truncate", "split", "raise"], Flat("excess_length_strategy")] = "drop"
    """What happens to an example longer than sequence_len; completion texts are split in any case."""
    sample_packing: Annotated[bool, Flat("sample_packing")] = False
    """Fill each row with several examples, kept apart in attention and positions."""
    eval_sample_packing: Annotated[bool | None, Flat("eval_sample_packing")] = None
    """As sample_packing when absent."""
    pad_to_sequence_len: Annotated[bool, Flat("pad_to_sequence_len")] = False
    """Pad every row to sequence_len rather than to the longest of its batch."""
    batch_flattening: Annotated[Literal["auto"] | bool, Flat("batch_flattening")] = False
    """Lay the rows of a batch end to end in place of padding them, without sample_packing; auto does so where the
    model's attention is told where each begins."""
    group_by_length: Annotated[bool, Flat("group_by_length")] = False
    """Batches of rows of about one length, so that little is padding."""
    pack_in_order: Annotated[bool, Flat("sample_packing_sequentially")] = False
    """Fill a row with examples that follow each other, at the price of more rows."""
    keep_order: Annotated[bool, Flat("curriculum_sampling")] = False
    """Train the rows in the order of the data, every epoch alike."""
    drop_last: Annotated[bool, Flat("dataloader_drop_last")] = False
    """Leave out the rows at the end of an epoch that fill no batch."""
    train_on_inputs: Annotated[bool, Flat("train_on_inputs")] = False
    """Train on the prompt too."""
    shuffle: Annotated[bool, Flat("shuffle_merged_datasets")] = True
    """Mix the datasets before the evaluation split; batches are drawn in random order either way, unless
    curriculum_sampling."""
    chat_template: Annotated[str | None, Flat("chat_template")] = None
    """tokenizer_default, a built-in name, or jinja. The tokenizer's own when absent."""
    chat_template_jinja: Annotated[str | None, Flat("chat_template_jinja")] = None
    """The template itself, or the path of a .jinja file; implies chat_template: jinja."""
    chat_template_kwargs: Annotated[dict[str, str | bool | int | float], Flat("chat_template_kwargs")] = {}
    """Variables given to every chat template."""
    eot_tokens: Annotated[tuple[str, ...], Flat("eot_tokens")] = ()
    """Further tokens that end a turn, besides EOS."""
    processor: Annotated[str | None, Flat("processor_type"), Field(pattern=r"^[A-Za-z0-9_]+$")] = None
    """The transformers class that makes pictures into numbers; AutoProcessor takes the base's own. Rows of
    conversations may hold pictures then, and the base must be a model that sees them."""
    image_size: Annotated[ImageSize | None, Flat("image_size")] = None
    """Pixels that pictures are brought to before the processor sees them: a square, with black beside what does not
    fill it, or [width, height]."""
    image_resampling: Annotated[Literal["bilinear", "bicubic", "lanczos"], Flat("image_resize_algorithm")] = "bilinear"
    """How pixels between pixels are found for image_size."""
    default_system_message: Annotated[str | None, Flat("default_system_message")] = None
    """chat_template: the system text of conversations that begin without one."""

    @property
    def is_packed(self) -> bool:
        """Whether any row, of training or evaluation, holds several documents."""
        is_filled = bool(self.pretraining_dataset) and self.pretraining_sample_concatenation
        return self.sample_packing or bool(self.eval_sample_packing) or is_filled

    def lists(self) -> dict[str, tuple[DatasetSection, ...]]:
        """The datasets by the key that lists them."""
        return dict(zip(DATASET_KEYS, (self.datasets, self.test_datasets, self.pretraining_dataset), strict=True))
