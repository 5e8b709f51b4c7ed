import json
from pathlib import Path
from typing import Any

import pytest

from ftl.commands.explain import run
from ftl.config.flat import DATASET, TRAIN
from ftl.errors import ConfigError
from ftl.manual.effect import Effect, Explained, explain, left_out
from ftl.manual.entries import entries, find
from ftl.manual.page import page

MINIMAL = "base_model: x\nlearning_rate: 1e-4\ndatasets:\n  - path: a.jsonl\n    type: alpaca\n"


@pytest.fixture
def explained(tmp_path: Path):
    """Explain the minimal config followed by the lines."""

    def explained(lines: str = "", base: str = MINIMAL) -> Explained:
        config = tmp_path / "cfg.yml"
        config.write_text(base + lines)
        return explain(config)

    return explained


def effect(found: Explained, name: str) -> Effect:
    (one,) = (effect for effect in found.effects if effect.name == name)
    return one


@pytest.mark.parametrize(
    ("line", "kind", "why"),
    [
        ("sequence_len: 64", "honoured", "Tokens in a row at most."),
        ("bf16: true", "translated", "precision = 'bf16': one key holds the number format"),
        ("warmup_steps: 0.1", "translated", "warmup_ratio = 0.1: "),
        ("hub_strategy: best", "wrong", "must be "),
        ("quantize_moe_experts: false", "no effect", "false asks for nothing; anything else is not built yet: "),
        ("fp16:", "no effect", "without a value it is as if it were not there"),
        ("lora_r: 8", "no effect", "has no effect without `adapter: lora`"),
        ("strict: false", "ignored", "ftl always refuses keys it does not know"),
        ("gpu_count: 2", "refused", "belongs in the cloud file"),
        ("sequence_lenn: 8", "wrong", "unknown key; did you mean `sequence_len`?"),
        ("sequence_len: 1", "wrong", "must be at least 2"),
        ("special_tokens: {pad_tokn: x}", "wrong", "pad_tokn: unknown key; did you mean `pad_token`?"),
        ("save_steps: 10\nsaves_per_epoch: 1", "honoured", ""),
    ],
)
def test_each_key_has_its_effect_and_the_reason(line: str, kind: str, why: str, explained) -> None:
    one = effect(explained(line), line.partition(":")[0])
    assert (one.kind, one.line) == (kind, 6)
    assert one.why.startswith(why)


def test_effects_are_in_the_order_of_the_file(explained) -> None:
    names = [one.name for one in explained("seed: 1\n").effects]
    assert names == ["base_model", "learning_rate", "datasets.0.path", "datasets.0.type", "seed"]


def test_keys_of_datasets_are_explained_each(explained) -> None:
    lines = "test_datasets:\n  path: b.jsonl\n  type: sharegpt\n  shard: 2\n"
    found = explained(lines)
    assert effect(found, "datasets.0.type").kind == "honoured"
    assert effect(found, "test_datasets.type").why.startswith("type = 'chat_template', field_messages = ")
    assert effect(found, "test_datasets.shard").why == "unknown key; did you mean `shards`?"


def test_problems_of_several_keys_stand_at_one_of_them(explained) -> None:
    found = explained("save_steps: 10\nsaves_per_epoch: 1\n")
    assert effect(found, "saves_per_epoch").why == "cannot be given together with `save_steps`; keep one of them"


def test_missing_key_stands_at_no_key(explained) -> None:
    found = explained(base="base_model: x\n")
    assert any("`learning_rate` is missing" in other for other in found.others)
    assert found.config is None


def test_defaults_are_those_that_do_something(explained) -> None:
    names = {entry.name for entry in left_out(explained("bf16: true\n"))}
    assert {"sequence_len", "optimizer", "num_epochs"} <= names
    assert not names & {"learning_rate", "precision", "tf32", "sample_packing", "lora_alpha", "adapter"}


def test_defaults_of_an_adapter_hold_once_it_is_there(explained) -> None:
    assert "lora_alpha" in {entry.name for entry in left_out(explained("adapter: lora\n"))}


def test_defaults_without_effect_are_left_out(explained) -> None:
    assert "num_epochs" not in {entry.name for entry in left_out(explained("max_steps: 9\n"))}


def test_all_defaults_are_every_key_that_is_not_given(explained) -> None:
    names = {entry.name for entry in left_out(explained(), everything=True)}
    assert names == TRAIN.derived - {"base_model", "learning_rate", "datasets"}


def test_json_is_one_object_a_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "cfg.yml"
    config.write_text(MINIMAL + "lora_rr: 8\n")
    assert run(config, key=None, everything=False, as_json=True) == 0
    records: list[dict[str, Any]] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert records[0] == {
        "key": "base_model",
        "line": 1,
        "value": "x",
        "effect": "honoured",
        "why": "A directory, or a Hub repository id.",
    }
    by_key = {record["key"]: record for record in records}
    assert by_key["lora_rr"]["effect"] == "wrong"
    assert by_key["sequence_len"] == {
        "key": "sequence_len",
        "effect": "default",
        "value": 512,
        "why": "Tokens in a row at most.",
    }


@pytest.mark.parametrize("width", [80, 120])
def test_table_keeps_names_whole_and_fits(
    width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftl.commands.explain.console.width", width)
    config = tmp_path / "cfg.yml"
    config.write_text(MINIMAL + "dataset_prepared_path: x\n")
    run(config, key=None, everything=False, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.startswith("6     dataset_prepared_path: 'x'") and "ignored" in line for line in lines)
    assert any(line.strip().startswith("sequence_len: 512") for line in lines)


def test_every_honoured_key_says_what_it_does() -> None:
    assert [entry.name for entry in entries().values() if entry.table == "derived" and not entry.meaning] == []


def test_every_key_of_the_dialect_has_an_entry() -> None:
    assert {*TRAIN.names(), *(f"datasets.{name}" for name in DATASET.names())} <= set(entries())


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("lora_r", "lora_r"),
        ("lora-r", "lora_r"),
        ("roles_to_train", "datasets.roles_to_train"),
        ("datasets.0.path", "datasets.path"),
        ("test_datasets.1.type", "datasets.type"),
        ("pad_token", "special_tokens.pad_token"),
        ("fsdp_config.offload_params", "fsdp_config.offload_params"),
        ("optim_args.betas", "optim_args.*"),
    ],
)
def test_key_is_found_by_its_name_or_the_last_part_of_it(name: str, full: str) -> None:
    assert find(name).name == full


def test_unknown_key_gets_the_closest_names() -> None:
    with pytest.raises(
        ConfigError, match=r"^--key: rols_to_train: unknown key; did you mean `datasets.roles_to_train`"
    ):
        find("rols_to_train")


def test_page_of_a_key_has_all_that_is_known() -> None:
    assert dict(page(find("objective")))["also as"] == "rl, reward_model, process_reward_model, kd_trainer"
    assert dict(page(find("datasets.shards"))) == {
        "meaning": "Take one of so many equal parts of the shuffled rows.",
        "takes": "a whole number, at least 1",
        "default": "none",
        "part": "One dataset",
        "example": "datasets:\n  - shards: 10",
    }


def test_page_of_an_older_key_says_what_to_write() -> None:
    assert dict(page(find("adam_eps"))) == {"today": "adam_epsilon", "why": "another spelling"}


def test_nothing_to_explain_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="give a config, or `--key lora_r`"):
        run(None, key=None, everything=False, as_json=False)
