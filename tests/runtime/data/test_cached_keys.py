"""What every key of the data does to the cache: which tokenise again, and which only choose other rows."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftl.config.data import DataSection, DatasetSection
from ftl.sources import Source, open_source
from ftl.tokens import Recipe, TokenizerView
from ftl_runtime.data.cache import token_key
from ftl_runtime.data.dataset import build_splits

CHAT = "{% for m in messages %}{{ m.role[0] }}{{ m.content }}{{ eos_token }}{% endfor %}"
ROWS = [
    {
        "messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a" * n}],
        "other": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "other"}],
    }
    for n in range(8)
]
INDEX, TOKENS, NOTHING = "index", "tokens", "nothing"

DATASET_KEYS: dict[str, tuple[str, Any]] = {
    # What another value does, and one.
    "path": (TOKENS, "b.jsonl"),
    "data_files": (TOKENS, ["b.jsonl"]),  # path is a loader then
    "ds_type": (NOTHING, "jsonl"),
    "name": (NOTHING, "subset"),  # of a repository: the source says which rows it gives
    "split": (TOKENS, "train[:5]"),
    "revision": (NOTHING, "main"),  # as name
    "shards": (TOKENS, 2),
    "shards_idx": (TOKENS, 1),
    "weight": (NOTHING, 2.0),
    "skip": (TOKENS, 1),
    "type": (TOKENS, "completion"),
}
"""Those of the source, and of streams. Every other key of a dataset says what becomes of a row, so it tokenises."""

ROW_KEYS: dict[str, Any] = {
    "field": "text",
    "text_column": "text",
    "chat_template": "chatml",
    "chat_template_jinja": CHAT + "!",
    "field_messages": "other",
    "field_tools": "other_tools",
    "field_system": "system",
    "message_property_mappings": {"name": "name"},
    "message_field_training": "training",
    "message_field_training_detail": "detail",
    "field_thinking": "thinking",
    "template_thinking_key": "thought",
    "split_thinking": True,
    "roles": {"assistant": ["assistant"], "user": ["user"]},
    "roles_to_train": ["user"],
    "last_message_only": True,
    "train_on_eos": "all",
    "train_on_eot": "all",
    "drop_system_message": True,
    "field_prompt": "p",
    "field_chosen": "c",
    "field_rejected": "r",
    "field_completion": "c",
    "field_label": "l",
    "prompt_format": "{prompt}",
    "chosen_format": "{chosen}",
    "rejected_format": "{rejected}",
    "completion_format": "{completion}",
    "step_separator": "\n\n",
    "max_completion_length": 5,
    "train_on_last_step_only": True,
    "logprobs_field": "teacher",
    "temperature": 2.0,
}

DATA_KEYS: dict[str, tuple[str, Any]] = {
    "test_datasets": (INDEX, [{"path": "a.jsonl", "type": "chat_template"}]),
    "pretraining_dataset": (NOTHING, [{"path": "a.jsonl"}]),
    "pretraining_sample_concatenation": (NOTHING, True),
    "pretrain_multipack_attn": (NOTHING, False),
    "pretrain_multipack_buffer_size": (NOTHING, 7),
    "val_set_size": (INDEX, 2),
    "data_seed": (NOTHING, 7),  # build_splits is given the seed that counts
    "exact_deduplication": (INDEX, True),
    "shard_num": (INDEX, 2),
    "shard_idx": (INDEX, 1),
    "push_to_hub": (NOTHING, "me/prepared"),
    "sequence_len": (INDEX, 32),
    "min_sample_len": (INDEX, 8),
    "excess_length": (INDEX, "truncate"),
    "sample_packing": (INDEX, True),
    "eval_sample_packing": (INDEX, True),
    "pad_to_sequence_len": (NOTHING, True),
    "group_by_length": (NOTHING, True),
    "pack_in_order": (INDEX, True),
    "keep_order": (INDEX, True),
    "drop_last": (NOTHING, True),
    "batch_flattening": (NOTHING, True),
    "image_size": (NOTHING, 64),  # pictures are opened when their batch is made
    "image_resampling": (NOTHING, "lanczos"),
    "processor": (TOKENS, "AutoProcessor"),
    "train_on_inputs": (TOKENS, True),
    "shuffle": (INDEX, False),
    "chat_template": (TOKENS, "chatml"),
    "chat_template_jinja": (TOKENS, CHAT + "!"),
    "chat_template_kwargs": (TOKENS, {"thinking": False}),
    "eot_tokens": (TOKENS, ["<pad>"]),
    "default_system_message": (TOKENS, "Be kind."),
}


BESIDE: dict[str, dict[str, Any]] = {
    "shard_idx": {"shard_num": 2},
    "shards_idx": {"shards": 2},
    "data_files": {"path": "json", "data_files": ["a.jsonl"]},
}
"""Keys that mean nothing alone, with what must stand beside them."""


@pytest.fixture
def find(tmp_path: Path, write_jsonl: Callable[..., Path]) -> Callable[[DatasetSection], Source]:
    write_jsonl("a.jsonl", ROWS)
    write_jsonl("b.jsonl", ROWS[:-1])
    return lambda dataset: open_source(dataset, lambda path: tmp_path / path, seed=0, download_dir=None)


def section(dataset: dict[str, Any], **keys: Any) -> DataSection:
    entry = {"path": "a.jsonl", "type": "chat_template", **dataset}
    return DataSection.model_validate({"datasets": [entry], "chat_template_jinja": CHAT, "sequence_len": 64, **keys})


def tokens_of(data: DataSection, find: Callable[[DatasetSection], Source], view: TokenizerView) -> str:
    """The name that the tokens of the only dataset have in the cache."""
    (dataset,) = data.datasets
    return token_key(find(dataset).identity(), Recipe.of(dataset, data, "sft", view).identity, view)


def test_every_key_of_the_data_is_here() -> None:
    assert set(DATASET_KEYS) | set(ROW_KEYS) == set(DatasetSection.model_fields)
    assert not set(DATASET_KEYS) & set(ROW_KEYS)
    assert {"datasets", *DATA_KEYS} == set(DataSection.model_fields)


@pytest.mark.parametrize("key", [*ROW_KEYS, *DATASET_KEYS])
def test_key_of_a_dataset(key: str, find: Callable[[DatasetSection], Source], byte_view: TokenizerView) -> None:
    effect, value = DATASET_KEYS.get(key) or (TOKENS, ROW_KEYS[key])
    beside = BESIDE.get(key, {})
    before, after = section(beside), section({**beside, key: value})
    assert getattr(before.datasets[0], key) != getattr(after.datasets[0], key)
    is_same = tokens_of(before, find, byte_view) == tokens_of(after, find, byte_view)
    assert is_same == (effect != TOKENS)


@pytest.mark.parametrize("key", DATA_KEYS)
def test_key_of_all_data(
    key: str, find: Callable[[DatasetSection], Source], byte_view: TokenizerView, tmp_path: Path
) -> None:
    effect, value = DATA_KEYS[key]
    beside = BESIDE.get(key, {})
    before, after = section({}, **beside), section({}, **{**beside, key: value})
    assert getattr(before, key) != getattr(after, key)
    assert (tokens_of(before, find, byte_view) == tokens_of(after, find, byte_view)) == (effect != TOKENS)
    if effect == TOKENS:
        return
    cache_dir = tmp_path / "cache"
    for data, num_new in ((before, 2), (after, {INDEX: 1, NOTHING: 0}[effect])):
        had = set(cache_dir.iterdir()) if cache_dir.exists() else set()
        splits = build_splits(data, byte_view, seed=0, open=find, cache_dir=cache_dir, emit=lambda event, fields: None)
        assert len(set(cache_dir.iterdir()) - had) == num_new
    assert all(use.was_cached for use in splits.used)


def test_seed_chooses_other_rows_and_tokenises_nothing(
    find: Callable[[DatasetSection], Source], byte_view: TokenizerView, tmp_path: Path
) -> None:
    splits = [
        build_splits(section({}), byte_view, seed=seed, open=find, cache_dir=tmp_path / "cache", emit=lambda *_: None)
        for seed in (0, 1, 0)
    ]
    assert [one.used[0].was_cached for one in splits] == [False, True, True]
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_same_rows_elsewhere_are_not_tokenised_again(
    find: Callable[[DatasetSection], Source], byte_view: TokenizerView, tmp_path: Path
) -> None:
    shutil.copy(tmp_path / "a.jsonl", tmp_path / "c.jsonl")
    assert tokens_of(section({}), find, byte_view) == tokens_of(section({"path": "c.jsonl"}), find, byte_view)
