"""What the keys of the data must keep to, among themselves and with the objective."""

from collections.abc import Mapping, Sequence

from ftl.config.address import is_address, is_whole_address
from ftl.config.data import DatasetSection
from ftl.config.rules.rule import DatasetRule, Rule
from ftl.config.split import parse_split
from ftl.config.train import TrainConfig
from ftl.errors import ConfigError, Problem
from ftl.formats.example import FAMILIES
from ftl.formats.format import ABSENT, INLINE, MASK_KEYS, TEMPLATE_KEYS, Format
from ftl.formats.render import FORMATS

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")
_LOADERS_WITHOUT_ROWS = ("sql", "webdataset", "imagefolder", "audiofolder", "videofolder", "pandas", "xml", "hdf5")
"""Names that `datasets` takes in place of a path."""
_STREAM_TYPES = ("pretrain", "completion")


def training_rows_have_one_source(config: TrainConfig) -> Problem | None:
    data = config.data
    if not data.datasets and not data.pretraining_dataset:
        remedy = "list what to train on, or give texts to stream as `pretraining_dataset`"
        return Problem("datasets", given="datasets", allowed="is missing", remedy=remedy)
    if data.datasets and data.pretraining_dataset:
        remedy = "keep one of them: tokenised before training starts, or streamed"
        allowed = "cannot be given together with `datasets`"
        return Problem("pretraining_dataset", allowed=allowed, remedy=remedy)
    return None


def ordered_rows_are_packed_in_order(config: TrainConfig) -> Problem | None:
    data = config.data
    if not data.keep_order or not data.sample_packing or data.pack_in_order:
        return None
    allowed = (
        "needs `sample_packing_sequentially` beside `sample_packing`, which else fills rows from all over the data"
    )
    return Problem("curriculum_sampling", allowed=allowed, remedy="write `sample_packing_sequentially: true`")


def stream_has_an_end(config: TrainConfig) -> Problem | None:
    if not config.data.pretraining_dataset or config.optim.max_steps is not None:
        return None
    remedy = "say how many steps to train: nobody knows how long a stream is"
    return Problem("max_steps", given="max_steps", allowed="must be given with `pretraining_dataset`", remedy=remedy)


def stream_is_not_split(config: TrainConfig) -> Problem | None:
    if not config.data.pretraining_dataset or not config.data.val_set_size:
        return None
    allowed = "cannot be taken out of a `pretraining_dataset`, which is streamed"
    return Problem("val_set_size", allowed=allowed, remedy="give `test_datasets`")


def stream_is_plain_text(config: TrainConfig) -> Problem | None:
    if not config.data.pretraining_dataset or config.objective.kind == "sft":
        return None
    allowed = "holds texts, and `objective` wants more than that"
    return Problem("pretraining_dataset", allowed=allowed, remedy="give them as `datasets`, or remove `rl`")


def eval_rows_have_one_source(config: TrainConfig) -> Problem | None:
    if not config.data.test_datasets or not config.data.val_set_size:
        return None
    remedy = "keep one of them: a share of the training rows, or datasets of their own"
    return Problem("val_set_size", allowed="cannot be given together with `test_datasets`", remedy=remedy)


def val_set_size_counts_rows(config: TrainConfig) -> Problem | None:
    size = config.data.val_set_size
    if size < 1 or size == int(size):
        return None
    return Problem("val_set_size", allowed="must be a share below 1, or a whole number of rows")


def merged_part_exists(config: TrainConfig) -> Problem | None:
    data = config.data
    return _part_problem("dataset_shard_idx", data.shard_idx, "dataset_shard_num", data.shard_num)


def packing_is_for_single_texts(config: TrainConfig) -> Problem | None:
    if not config.data.sample_packing or config.objective.trains_texts:
        return None
    allowed = f"cannot be used with `objective` {config.objective.kind}, whose rows are compared one with another"
    return Problem("sample_packing", allowed=allowed, remedy="set sample_packing: false")


def flattening_is_for_single_texts(config: TrainConfig) -> Problem | None:
    if config.data.batch_flattening is not True or config.objective.kind == "sft":
        return None
    allowed = f"lays texts end to end, and those of `objective` {config.objective.kind} are compared row by row"
    return Problem("batch_flattening", allowed=allowed, remedy="write `batch_flattening: auto`, or remove it")


def chat_template_is_given(config: TrainConfig) -> Problem | None:
    if config.data.chat_template != "jinja" or config.data.chat_template_jinja is not None:
        return None
    return Problem("chat_template", allowed="needs the template itself", remedy="give it as `chat_template_jinja`")


def chat_template_is_one(config: TrainConfig) -> Problem | None:
    if config.data.chat_template_jinja is None or config.data.chat_template in (None, "jinja"):
        return None
    allowed = "cannot be given together with another `chat_template`"
    return Problem("chat_template_jinja", allowed=allowed, remedy="write `chat_template: jinja`, or remove one")


DATA_RULES: tuple[Rule, ...] = (
    training_rows_have_one_source,
    ordered_rows_are_packed_in_order,
    stream_has_an_end,
    stream_is_not_split,
    stream_is_plain_text,
    eval_rows_have_one_source,
    val_set_size_counts_rows,
    merged_part_exists,
    packing_is_for_single_texts,
    flattening_is_for_single_texts,
    chat_template_is_given,
    chat_template_is_one,
)


def dataset_has_a_source(dataset: DatasetSection, config: TrainConfig) -> Problem | None:
    if dataset.path is not None or dataset.data_files:
        return None
    remedy = "name a file, a directory or a Hub repository, or local files as `data_files`"
    return Problem("path", given="path", allowed="is missing", remedy=remedy)


def dataset_source_can_be_read(dataset: DatasetSection, config: TrainConfig) -> Problem | None:
    given = [(dataset.path, "path"), *((file, "data_files") for file in dataset.data_files)]
    for place, key in given:
        if place is not None and (refused := _unread(place, is_loader=key == "path")):
            return Problem(key, allowed=refused[0], remedy=refused[1])
    return None


def _unread(given: str, *, is_loader: bool) -> tuple[str, str] | None:
    """Why rows are not read from there, and what to do; nothing where they are."""
    scheme, separator, _ = given.partition("://")
    if separator and not is_address(given):
        remedy = (
            "export its rows as parquet or jsonl" if "sql" in scheme else "copy the files there, or to this machine"
        )
        return f"rows are read from https:, s3:, gs: and hf: addresses, not from {scheme}:", remedy
    if separator and not is_whole_address(given):
        return "is an address without a host or a bucket", "write https://host/rows.jsonl or s3://bucket/rows.jsonl"
    if is_loader and given in _LOADERS_WITHOUT_ROWS:
        return "is a loader that gives no rows of text here", "export its rows as parquet or jsonl"
    if any("**" in part and part != "**" for part in given.split("/")):
        return "is no pattern", "write ** as a directory of its own"
    if given.lower().endswith(_ARCHIVES):
        return "is an archive, which is not unpacked", "unpack it, and name the files or their directory"
    return None


def dataset_split_is_readable(dataset: DatasetSection, config: TrainConfig) -> Problem | None:
    try:
        parse_split(dataset.split)
    except ConfigError as e:
        (problem,) = e.problems
        return Problem("split", allowed=problem.allowed) if isinstance(problem, Problem) else None
    return None


def dataset_part_exists(dataset: DatasetSection, config: TrainConfig) -> Problem | None:
    return _part_problem("shards_idx", dataset.shards_idx, "shards", dataset.shards)


def dataset_template_is_given(dataset: DatasetSection, config: TrainConfig) -> Problem | None:
    if dataset.chat_template != "jinja" or dataset.chat_template_jinja or config.data.chat_template_jinja:
        return None
    return Problem("chat_template", allowed="needs the template itself", remedy="give it as `chat_template_jinja`")


def dataset_template_is_used(dataset: DatasetSection, config: TrainConfig) -> Problem | None:
    given = [key for key in ("chat_template", "chat_template_jinja") if key in dataset.model_fields_set]
    formats = FORMATS[FAMILIES[config.objective.kind]]
    if not given or not isinstance(dataset.type, str) or dataset.type not in formats:
        return None
    format = formats[dataset.type]
    if format.needs_template is not False and format.template is None:
        return None
    allowed = f"belongs to types of conversations{_so_do(given[1:])}"
    return Problem(given[0], allowed=allowed, remedy=f"remove it, or correct `type`, which is {dataset.type}")


def dataset_type_fits_objective(dataset: DatasetSection, config: TrainConfig) -> Problem | None:
    family = FAMILIES[config.objective.kind]
    if not isinstance(dataset.type, str) or dataset.type in FORMATS[family]:
        return None
    others = [kind for kind, other in FAMILIES.items() if dataset.type in FORMATS[other]]
    if not others:
        return None
    allowed = f"is a format for `objective` {', '.join(others)}, and this trains {config.objective.kind}"
    return Problem("type", allowed=allowed, remedy="correct one of them")


def keys_of_a_stream_have_one(dataset: DatasetSection, config: TrainConfig) -> Problem | None:
    given = [key for key in ("weight", "skip") if key in dataset.model_fields_set]
    if not given or any(dataset is stream for stream in config.data.pretraining_dataset):
        return None
    return Problem(given[0], allowed=f"belongs to `pretraining_dataset`{_so_do(given[1:])}", remedy="remove it")


def stream_type_is_a_text(dataset: DatasetSection, config: TrainConfig) -> Problem | None:
    is_streamed = any(dataset is stream for stream in config.data.pretraining_dataset)
    if not is_streamed or dataset.type in (*_STREAM_TYPES, "pretraining"):
        return None
    allowed = f"must be {' or '.join(_STREAM_TYPES)} in `pretraining_dataset`"
    return Problem("type", allowed=allowed, remedy="other rows go to `datasets`")


def masks_are_for_single_texts(dataset: DatasetSection, config: TrainConfig) -> Problem | None:
    given = [key for key in MASK_KEYS if key in dataset.model_fields_set]
    if not given or config.objective.trains_texts:
        return None
    allowed = (
        f"says what a conversation trains{_so_do(given[1:])}, and `objective` {config.objective.kind} trains answers"
    )
    return Problem(given[0], allowed=allowed, remedy="remove it")


_KEYS_OF_FORMATS: tuple[tuple[str, ...], ...] = (
    ("field",),
    ("text_column",),
    ("field_messages", *TEMPLATE_KEYS, *MASK_KEYS),
    ("field_system",),
    ("field_prompt", "field_chosen", "field_rejected", "field_completion", "field_label"),
    ("prompt_format", "chosen_format", "rejected_format", "completion_format"),
    ("step_separator", "max_completion_length", "train_on_last_step_only"),
    ("logprobs_field", "temperature"),
)
"""Keys of a dataset that only some types look at; those of a group are told in one sentence."""


def _keys_are_read(keys: tuple[str, ...]) -> DatasetRule:
    def rule(dataset: DatasetSection, config: TrainConfig) -> Problem | None:
        given = [key for key in keys if key in dataset.model_fields_set]
        name = dataset.type if isinstance(dataset.type, str) else INLINE if dataset.type else ABSENT
        own = FORMATS[FAMILIES[config.objective.kind]]
        if not given or not any(name in formats for formats in FORMATS.values()):
            return None  # a strategy of the user's own may read what it likes
        if name not in own:
            return None  # told by dataset_type_fits_objective
        unread = [key for key in given if key not in own[name].keys]
        if not unread or (not config.objective.trains_texts and set(unread) <= set(MASK_KEYS)):
            return None  # told by masks_are_for_single_texts
        remedy = f"remove it, or correct `type`, which is {_IN_WORDS.get(name, name)}"
        return Problem(unread[0], allowed=f"belongs to {_readers(unread[0], own)}{_so_do(unread[1:])}", remedy=remedy)

    return rule


_IN_WORDS = {INLINE: "a mapping", ABSENT: "absent"}


def _readers(key: str, own: Mapping[str, Format]) -> str:
    """The types that look at a key: those of this objective, or else of the others."""
    if names := _types_with(key, own):
        return f"type {' or '.join(names)}"
    kinds = {kind: names for kind, family in FAMILIES.items() if (names := _types_with(key, FORMATS[family]))}
    return f"type {' or '.join(next(iter(kinds.values())))} of `objective` {' or '.join(kinds)}"


def _types_with(key: str, formats: Mapping[str, Format]) -> list[str]:
    """A type chat_template.default is chat_template; those named after a style are told by what follows it."""
    names = [name for name, format in formats.items() if key in format.keys and name not in _IN_WORDS]
    return list(dict.fromkeys(name.removesuffix(".default") for name in names))


ROW_RULES: tuple[DatasetRule, ...] = (
    dataset_has_a_source,
    dataset_source_can_be_read,
    dataset_split_is_readable,
    dataset_part_exists,
    dataset_template_is_given,
    dataset_type_fits_objective,
    dataset_template_is_used,
    stream_type_is_a_text,
    masks_are_for_single_texts,
    keys_of_a_stream_have_one,
    *(_keys_are_read(keys) for keys in _KEYS_OF_FORMATS),
)


def _part_problem(key: str, index: int, count_key: str, count: int | None) -> Problem | None:
    if index < (count or 1):
        return None
    allowed = f"must be below `{count_key}`, which is {count}" if count else f"needs `{count_key}` beside it"
    return Problem(key, allowed=allowed, remedy="parts are counted from 0" if count else None)


def _so_do(others: Sequence[str]) -> str:
    return f" (so {'do' if len(others) > 1 else 'does'} {', '.join(f'`{key}`' for key in others)})" if others else ""
