"""Keys of FSDP in both of their spellings are read as settings of FSDP2, or refused with what to write."""

import pytest
import yaml

from ftl.config.load import load_train
from ftl.errors import ConfigError

BASE = {"base_model": "./base", "learning_rate": 1e-4, "datasets": [{"path": "./rows.jsonl", "type": "alpaca"}]}


def read(tmp_path, keys):
    path = tmp_path / "cfg.yml"
    path.write_text(yaml.safe_dump({**BASE, **keys}))
    return load_train(path).config.parallel.fsdp


def refusal(tmp_path, keys) -> str:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, keys)
    return str(caught.value)


DEFAULTS = {"reshard_after_forward": True, "transformer_layer_cls_to_wrap": (), "activation_checkpointing": False}


@pytest.mark.parametrize(
    ("keys", "settings"),
    [
        ({"fsdp": ["full_shard", "auto_wrap"]}, {}),
        ({"fsdp": "shard_grad_op auto_wrap"}, {"reshard_after_forward": False}),
        (
            {
                "fsdp": ["full_shard"],
                "fsdp_config": {
                    "fsdp_limit_all_gathers": True,
                    "fsdp_offload_params": False,
                    "fsdp_state_dict_type": "FULL_STATE_DICT",
                    "fsdp_transformer_layer_cls_to_wrap": "LlamaDecoderLayer",
                },
            },
            {"transformer_layer_cls_to_wrap": ("LlamaDecoderLayer",)},
        ),
        (
            {"fsdp_version": 2, "fsdp_config": {"activation_checkpointing": True, "reshard_after_forward": False}},
            {"activation_checkpointing": True, "reshard_after_forward": False},
        ),
        ({"fsdp_config": {"fsdp_version": 2}}, {}),
        ({"fsdp_config": {"fsdp_sharding_strategy": "SHARD_GRAD_OP"}}, {"reshard_after_forward": False}),
    ],
    ids=["modes", "one line", "2023", "2025", "version alone", "strategy"],
)
def test_both_spellings_are_read(tmp_path, keys, settings):
    assert read(tmp_path, keys).model_dump() == DEFAULTS | settings


def test_empty_keys_shard_nothing(tmp_path):
    assert read(tmp_path, {"fsdp": [], "fsdp_config": {}}) is None


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"fsdp": ["full_shard", "offload"]}, "not built yet: shards stay on the GPUs"),
        ({"fsdp_config": {"state_dict_type": "SHARDED_STATE_DICT"}}, "write FULL_STATE_DICT"),
        ({"fsdp_config": {"reshard_after_forwrd": True}}, "did you mean `reshard_after_forward`?"),
        ({"fsdp": ["full_shard"], "fsdp_config": {"reshard_after_forward": False}}, "contradicts"),
        ({"fsdp": ["no_shard"]}, "remove it"),
        ({"fsdp": ["full_shard"], "adapter": "lora", "load_in_4bit": True}, "not built yet beside `load_in_4bit`"),
        ({"fsdp_config": {"version": 2}, "fp16": True}, "use bf16"),
        ({"fsdp": ["full_shard"], "optimizer": "lion_8bit"}, "does not know the sharded weights"),
        ({"fsdp": ["full_shard"], "optimizer": "adafactor"}, "use adamw_torch_fused, adamw_torch"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value),
)
def test_what_cannot_be_sharded_is_refused_with_what_to_write(tmp_path, keys, told):
    assert told in refusal(tmp_path, keys)
