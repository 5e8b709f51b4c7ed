"""What a command on a finished model takes for it, and what it says where there is none."""

import json
from pathlib import Path

import pytest

from ftl.commands import finished
from ftl.config.load import Loaded, load_train
from ftl.errors import ConfigError


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    (tmp_path / "base").mkdir()
    keys = {
        "base_model": "./base",
        "datasets": [{"path": "./rows.jsonl", "type": "alpaca"}],
        "learning_rate": 1e-4,
        "adapter": "qlora",
        "load_in_4bit": True,
        "lora_r": 64,
        "output_dir": "./out",
    }
    (tmp_path / "cfg.yml").write_text(json.dumps(keys))
    return load_train(tmp_path / "cfg.yml")


def adapter_in(directory: Path) -> Path:
    directory.mkdir()
    (directory / "adapter_config.json").write_text("{}")
    return directory


def test_adapter_in_output_dir_is_taken_as_it_is_and_rows_are_not(loaded: Loaded, tmp_path: Path) -> None:
    adapter_in(tmp_path / "out")
    config = finished.on_adapter(loaded, None)
    assert config.adapter is not None
    assert config.adapter.model_dump(exclude_unset=True) == {"kind": "qlora", "initial": str(tmp_path / "out")}
    assert config.quant.in_4bit
    assert config.data.datasets == ()


def test_named_adapter_is_looked_for_beside_the_config(loaded: Loaded, tmp_path: Path) -> None:
    adapter_in(tmp_path / "older")
    config = finished.on_adapter(loaded, Path("older"))
    assert config.adapter is not None
    assert config.adapter.initial == str(tmp_path / "older")


def test_config_that_was_not_trained_says_so(loaded: Loaded) -> None:
    with pytest.raises(ConfigError, match=r"output_dir: .*/out: no such directory; train first"):
        finished.on_adapter(loaded, None)


def test_whole_model_has_nothing_to_merge(loaded: Loaded, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/config.json").write_text("{}")
    with pytest.raises(ConfigError, match="is a whole model already"):
        finished.on_adapter(loaded, None)


def test_finished_model_is_an_adapter_on_the_base_of_the_config(loaded: Loaded, tmp_path: Path) -> None:
    adapter_in(tmp_path / "out")
    config = finished.on_model(loaded, None, "lm_eval_model")
    assert config.adapter is not None
    assert (config.model.base, config.adapter.initial) == ("./base", str(tmp_path / "out"))


def test_whole_finished_model_stands_for_the_base(loaded: Loaded, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole/config.json").write_text("{}")
    config = finished.on_model(loaded, "./whole", "lm_eval_model")
    assert config.model.base == str(tmp_path / "whole")
    assert config.adapter is None
    assert not config.quant.in_4bit


def test_model_that_is_not_there_is_told_by_its_key(loaded: Loaded) -> None:
    with pytest.raises(ConfigError, match=r"lm_eval_model: ./nowhere: no such directory"):
        finished.on_model(loaded, "./nowhere", "lm_eval_model")


def shards_in(directory: Path) -> Path:
    (directory / "pytorch_model_fsdp_0").mkdir(parents=True)
    (directory / "pytorch_model_fsdp_0/.metadata").write_bytes(b"")
    return directory


def test_finished_shards_are_a_base_with_their_own_tokenizer(loaded: Loaded, tmp_path: Path) -> None:
    (shards_in(tmp_path / "out") / "tokenizer_config.json").write_text("{}")
    config = finished.on_shards(loaded, None)
    assert (config.model.base, config.model.tokenizer) == (str(tmp_path / "out"), None)
    assert (config.adapter, config.quant.in_4bit, config.data.datasets) == (None, False, ())


def test_shards_of_a_checkpoint_have_the_tokenizer_of_the_base(loaded: Loaded, tmp_path: Path) -> None:
    shards_in(tmp_path / "pulled")
    config = finished.on_shards(loaded, Path("pulled"))
    assert (config.model.base, config.model.tokenizer) == (str(tmp_path / "pulled"), "./base")


def test_whole_model_names_the_directories_that_have_shards(loaded: Loaded, tmp_path: Path) -> None:
    adapter_in(tmp_path / "out")
    shards_in(tmp_path / "out-checkpoint")
    with pytest.raises(ConfigError, match=r"output_dir: .*/out: has no weights in shards; name one .*/out-checkpoint$"):
        finished.on_shards(loaded, None)


def test_shards_that_are_not_there_are_told_with_what_writes_them(loaded: Loaded) -> None:
    with pytest.raises(ConfigError, match=r"--shards-dir: nowhere: no such directory; SHARDED_STATE_DICT as final"):
        finished.on_shards(loaded, Path("nowhere"))
