"""Whole configs in the shapes people have: what each is read as, or refused for."""

from pathlib import Path

import pytest

from ftl.config.load import load_train
from ftl.errors import ConfigError

CONFIGS = Path(__file__).parent / "configs"


def notes_of(name: str, **kwargs) -> dict[str, str]:
    """Key -> what is told of it, line and value left out."""
    told = (note.partition(": ")[2].partition(": ") for note in load_train(CONFIGS / name, **kwargs).notes)
    return {key.partition(" = ")[0]: rest for key, _, rest in told}


def test_config_of_2023_is_read_in_todays_keys():
    config = load_train(CONFIGS / "llama_2023.yml").config
    (dataset,) = config.data.datasets
    assert (dataset.type, dataset.chat_template, dataset.field_messages) == ("chat_template", "chatml", "conversations")
    assert dataset.message_property_mappings == {"role": "from", "content": "value"}
    assert (config.data.sequence_len, config.data.sample_packing) == (1024, True)
    assert (config.optim.micro_batch_size, config.optim.gradient_accumulation_steps) == (4, 4)
    assert (config.model.attention, config.precision.compute) == ("sdpa", "bf16")
    assert (config.output.eval_strategy, config.output.eval_steps) == ("steps", 100)
    assert config.model.special_tokens.bos_token == "<s>"
    assert config.adapter is not None and config.adapter.target_modules == ("q_proj", "v_proj")


def test_config_of_2023_tells_what_was_read_in_other_words():
    notes = notes_of("llama_2023.yml")
    assert notes["xformers_attention"].startswith("read as attn_implementation = 'sdpa'")
    assert notes["batch_size"].startswith("read as gradient_accumulation_steps = 4")
    assert notes["max_packed_sequence_len"].startswith("read as sample_packing = true, sequence_len = 1024")
    assert notes["datasets.0.type"].startswith("read as type = 'chat_template', field_messages = 'conversations'")
    assert notes["datasets.0.conversation"].startswith("read as chat_template = 'chatml'")
    assert notes["tokens"].startswith("read as special_tokens")
    assert notes["dataset_prepared_path"].startswith("is not used")


def test_config_of_early_2025_is_read():
    loaded = load_train(CONFIGS / "chat_v0_7.yml")
    (dataset,) = loaded.config.data.datasets
    assert dataset.message_property_mappings == {"role": "speaker", "content": "text"}
    assert dataset.roles == {"user": ("person",), "assistant": ("bot",)}
    assert dataset.last_message_only
    assert loaded.config.model.attention == "flash_attention_2"
    assert loaded.config.precision.compute == "auto"
    assert loaded.config.data.val_set_size == 64
    assert loaded.unbuilt == ()


def test_qlora_in_shards_is_read():
    config = load_train(CONFIGS / "qlora_v0_7.yml").config
    assert config.quant.num_bits == 4
    assert config.parallel.fsdp is not None


def test_config_of_2026_is_read():
    config = load_train(CONFIGS / "head.yml").config
    assert config.data.eot_tokens == ("<end_of_turn>",)
    assert config.data.datasets[0].split == "train[:80%]"
    assert config.optim.warmup_ratio == 0.1
    assert config.model.attention == "flash_attention_2"


def test_config_of_nulls_is_the_config_without_them(tmp_path):
    bare = tmp_path / "bare.yml"
    bare.write_text(
        "base_model: ./models/tiny\nlearning_rate: 1e-4\ndatasets: [{path: ./data/instructions.jsonl, type: alpaca}]\n"
    )
    loaded = load_train(CONFIGS / "nulls.yml")
    assert loaded.config == load_train(bare).config
    assert loaded.notes == ()


def test_config_of_refused_keys_names_each_with_its_line():
    path = CONFIGS / "refused.yml"
    with pytest.raises(ConfigError) as caught:
        load_train(path, bear_unbuilt=True)
    sentences = [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems]
    assert [sentence.partition(" = ")[0] for sentence in sentences] == [
        "7: datasets.0.trust_remote_code",
        "8: landmark_attention",
        "9: xpos_rope",
        "10: s2_attention",
        "11: tokenizer_use_fast",
        "12: optimizer",
        "13: gpu",
        "14: volumes",
        "17: lora_alfa: unknown key; did you mean `lora_alpha`?",
    ]
