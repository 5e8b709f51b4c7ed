"""Keys of FSDP in both of their spellings are read as settings of FSDP2, or refused with what to write."""

import pytest
import yaml

from ftl.config.load import load_train
from ftl.errors import ConfigError

BASE = {"base_model": "./base", "learning_rate": 1e-4, "datasets": [{"path": "./rows.jsonl", "type": "alpaca"}]}


def load(tmp_path, keys):
    path = tmp_path / "cfg.yml"
    path.write_text(yaml.safe_dump({**BASE, **keys}))
    return load_train(path)


def read(tmp_path, keys):
    return load(tmp_path, keys).config.parallel.fsdp


def refusal(tmp_path, keys) -> str:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, keys)
    return str(caught.value)


SHARDED = "SHARDED_STATE_DICT"
DEFAULTS = {
    "reshard_after_forward": True,
    "transformer_layer_cls_to_wrap": (),
    "activation_checkpointing": False,
    "offload_params": False,
    "state_dict_type": "FULL_STATE_DICT",
    "final_state_dict_type": "FULL_STATE_DICT",
}
QLORA = {"adapter": "qlora", "load_in_4bit": True}


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
        ({"fsdp": ["full_shard", "offload"]}, {"offload_params": True}),
        ({"fsdp": ["full_shard"], "fsdp_config": {"fsdp_offload_params": True}, **QLORA}, {"offload_params": True}),
        (
            {"fsdp_config": {"state_dict_type": SHARDED}, "fsdp_final_state_dict_type": SHARDED},
            {"state_dict_type": SHARDED, "final_state_dict_type": SHARDED},
        ),
        (
            {"fsdp_config": {"fsdp_state_dict_type": SHARDED, "final_state_dict_type": "FULL_STATE_DICT"}},
            {"state_dict_type": SHARDED},
        ),
    ],
    ids=["modes", "one line", "2023", "2025", "version alone", "strategy", "offload", "qlora", "sharded", "sharded v1"],
)
def test_both_spellings_are_read(tmp_path, keys, settings):
    assert read(tmp_path, keys).model_dump() == DEFAULTS | settings


def test_empty_keys_shard_nothing(tmp_path):
    assert read(tmp_path, {"fsdp": [], "fsdp_config": {}, "fsdp_final_state_dict_type": SHARDED}) is None


def test_sizes_of_a_mesh_are_read(tmp_path):
    parallel = load(tmp_path, {"fsdp_version": 2, "fsdp_config": {"version": 2}, "dp_shard_size": 4}).config.parallel
    assert (parallel.num_shards, parallel.num_copies) == (4, None)
    parallel = load(tmp_path, {"dp_replicate_size": 2, "dp_shard_size": 1}).config.parallel
    assert (parallel.fsdp, parallel.num_shards, parallel.num_copies) == (None, 1, 2)


def test_settings_of_accelerate_that_change_nothing_are_told(tmp_path):
    settings = {"split_batches": False, "dispatch_batches": True, "even_batches": True, "non_blocking": None}
    loaded = load(
        tmp_path, {"accelerator_config": {**settings, "gradient_accumulation_kwargs": {"sync_each_batch": True}}}
    )
    told = [str(note) for note in loaded.notes]
    assert len(told) == 1
    assert "read as nothing: each process reads its own rows" in told[0]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"fsdp_config": {"state_dict_type": "LOCAL_STATE_DICT"}}, "must be FULL_STATE_DICT or SHARDED_STATE_DICT"),
        ({"fsdp_config": {"state_dict_type": SHARDED}, "save_safetensors": True}, "written by torch's DCP; remove it"),
        ({"fsdp_config": {"sharding_strategy": "HYBRID_SHARD"}}, "is said with `dp_shard_size`"),
        ({"dp_replicate_size": 2, "tensor_parallel_size": 2}, "which says how many copies there are"),
        ({"dp_shard_size": 2}, "needs `fsdp_config` beside it"),
        ({"accelerator_config": {"split_batches": True}}, "divide it by their number"),
        ({"accelerator_config": {"even_batches": False}}, "`dataloader_drop_last`"),
        ({"accelerator_config": {"gradient_accumulation_kwargs": {"num_steps": 2}}}, "`gradient_accumulation_steps`"),
        ({"accelerator_config": {"splitbatches": True}}, "unknown key splitbatches: must be one of split_batches"),
        ({"accelerator_config": {"dispatch_batches": 2}}, "dispatch_batches must be true or false"),
        ({"fsdp_config": {"reshard_after_forwrd": True}}, "did you mean `reshard_after_forward`?"),
        ({"fsdp": ["full_shard"], "fsdp_config": {"reshard_after_forward": False}}, "contradicts"),
        ({"fsdp": ["no_shard"]}, "remove it"),
        ({"fsdp": ["full_shard"], "adapter": "lora", "load_in_8bit": True}, "use `load_in_4bit`"),
        ({"fsdp_config": {"version": 2}, "fp16": True}, "use bf16"),
        ({"fsdp": ["full_shard"], "optimizer": "lion_8bit"}, "does not know the sharded weights"),
        ({"fsdp": ["full_shard", "offload"], "optimizer": "paged_adamw_32bit"}, "does not know the sharded weights"),
        ({"fsdp": ["full_shard", "offload"], "optimizer": "paged_adamw_8bit"}, "keeps its 8-bit states on the GPU"),
        ({"fsdp": ["full_shard"], "optimizer": "adafactor"}, "use adamw_torch_fused, adamw_torch"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value),
)
def test_what_cannot_be_sharded_is_refused_with_what_to_write(tmp_path, keys, told):
    assert told in refusal(tmp_path, keys)
