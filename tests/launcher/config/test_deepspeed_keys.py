"""A DeepSpeed file is found, read as sections, and held to what the config says; or refused with what to write."""

import json

import pytest
import yaml

from ftl.config.load import load_train
from ftl.config.zero import Offload, Zero
from ftl.errors import ConfigError
from ftl.packaged import packaged

BASE = {"base_model": "./base", "learning_rate": 1e-4, "datasets": [{"path": "./rows.jsonl", "type": "alpaca"}]}
ZERO2 = {"zero_optimization": {"stage": 2}}
SHIPPED = sorted(path.name for path in packaged("deepspeed_configs").glob("*.json"))


def load(tmp_path, keys):
    path = tmp_path / "cfg.yml"
    path.write_text(yaml.safe_dump({**BASE, **keys}))
    return load_train(path)


def refusal(tmp_path, keys) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, keys)
    return str(caught.value).partition("cfg.yml:")[2].partition(" ")[2]


def test_file_beside_the_config_is_read_and_travels_in_the_config(tmp_path):
    settings = {
        "zero_optimization": {
            "stage": 3,
            "offload_optimizer": {"device": "cpu", "pin_memory": True},
            "offload_param": {"device": "none"},
            "reduce_bucket_size": 2e8,
            "stage3_prefetch_bucket_size": "auto",
            "overlap_comm": True,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "bf16": {"enabled": "auto"},
        "gradient_clipping": "auto",
        "train_micro_batch_size_per_gpu": 3,
        "optimizer": {"type": "AdamW", "params": {"lr": "auto", "weight_decay": 0}},
        "scheduler": {"type": "WarmupDecayLR", "params": {"warmup_num_steps": "auto", "total_num_steps": "auto"}},
        "steps_per_print": 100,
        "communication_data_type": "bf16",
    }
    (tmp_path / "my.json").write_text(json.dumps(settings))
    loaded = load(tmp_path, {"deepspeed": "my.json", "micro_batch_size": 3, "lr_scheduler": "linear"})
    assert loaded.notes == ()
    assert loaded.config.parallel.deepspeed == settings
    assert loaded.config.parallel.zero == Zero(
        stage=3,
        offload_optimizer=Offload(pin_memory=True),
        tuning={"reduce_bucket_size": 200_000_000, "overlap_comm": True},
        communication="bf16",
    )
    (tmp_path / "my.json").write_text(json.dumps({**settings, "fp8": {}}))
    assert "deepspeed = 'my.json': fp8 is no setting of DeepSpeed that ftl knows" in refusal(
        tmp_path, {"deepspeed": "my.json"}
    )


def test_mapping_is_read_as_a_file_is(tmp_path):
    assert load(tmp_path, {"deepspeed": ZERO2}).config.parallel.zero.stage == 2
    for nothing in (None, False, {}, ""):
        assert load(tmp_path, {"deepspeed": nothing}).config.parallel.zero is None


@pytest.mark.parametrize("name", [name for name in SHIPPED if "compile" not in name])
def test_name_of_a_shipped_file_is_that_file_with_a_note(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)  # the checkout has the folder
    loaded = load(tmp_path, {"deepspeed": f"deepspeed_configs/{name}"})
    zero = loaded.config.parallel.zero
    assert f"zero{zero.stage}" in name
    assert (zero.offload_param is not None) == ("offload" in name)
    assert (zero.offload_optimizer is not None) == ("offload_all" in name)
    assert loaded.config.precision.compute == ("bf16" if "bf16" in name else "auto")
    [note] = loaded.notes
    assert "read as the file that ftl ships: `ftl fetch deepspeed_configs` copies it here" in note


def test_own_file_wins_over_a_shipped_one_of_its_name(tmp_path):
    (tmp_path / "deepspeed_configs").mkdir()
    (tmp_path / "deepspeed_configs/zero3.json").write_text(json.dumps(ZERO2))
    loaded = load(tmp_path, {"deepspeed": "deepspeed_configs/zero3.json"})
    assert loaded.config.parallel.zero.stage == 2
    assert loaded.notes == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "no such file, beside the config or in the working directory; ftl ships deepspeed_configs/ with zero1"),
        ("{\n 'a': 1}", "line 2 of it is not JSON"),
        ("[]", "must hold one mapping"),
        ("\udcff", "is not text in UTF-8"),
    ],
    ids=["missing", "no JSON", "a list", "bytes"],
)
def test_file_that_cannot_be_read_is_one_sentence(tmp_path, text, told):
    if text is not None:
        (tmp_path / "z.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    message = refusal(tmp_path, {"deepspeed": "z.json"})
    assert message.startswith(f"deepspeed = 'z.json': {told}")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("settings", "keys", "told"),
    [
        ({"zero_optimization": {"stge": 2}}, {}, "zero_optimization.stge is no setting of DeepSpeed that ftl knows"),
        ({"zero_optimization": {}}, {}, "zero_optimization.stage is None: must be one of 1, 2, 3"),
        ({"zero_optimization": {"stage": 0}}, {}, "stage 0 puts nothing in shards: remove deepspeed"),
        ({"bf16": {"enabled": True}}, {}, "has no zero_optimization"),
        ({"zero_optimization": {"stage": 2, "cpu_offload": True}}, {}, "write offload_optimizer: {device: cpu}"),
        ({"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}}, {}, "needs stage 3"),
        ({"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}}, {}, "nvme is not built yet"),
        ({"zero_optimization": {"stage": 3, "sub_group_size": 1.5}}, {}, "sub_group_size is 1.5: must be"),
        (
            {"zero_optimization": {"stage": 3, "zero_quantized_weights": True}},
            {},
            "zero_quantized_weights is not built",
        ),
        ({**ZERO2, "gradient_accumulation_steps": 4}, {"gradient_accumulation_steps": 2}, "is 4, and `gradient_acc"),
        ({**ZERO2, "gradient_clipping": 0.5}, {}, "gradient_clipping is 0.5, and `max_grad_norm` is 1.0"),
        ({**ZERO2, "train_batch_size": 8}, {}, "train_batch_size follows from the config"),
        ({**ZERO2, "optimizer": {"type": "Lion"}}, {}, "optimizer is Lion, and `optimizer` is adamw_torch_fused"),
        (
            {**ZERO2, "optimizer": {"type": "AdamW", "params": {"lr": 1e-3}}},
            {},
            "optimizer.params.lr is 0.001, and the config says 0.0001",
        ),
        ({**ZERO2, "scheduler": {"type": "WarmupLR"}}, {}, "scheduler is WarmupLR, and `lr_scheduler` is cosine"),
        ({**ZERO2, "fp16": {"enabled": True}}, {}, "fp16 is not built yet"),
        ({**ZERO2, "fp16": {"enabled": "auto"}}, {"fp16": True}, "has not been trained in fp16"),
        ({**ZERO2, "bf16": {"enabled": True}}, {"precision": "fp32"}, "has bf16 enabled, and `precision` says fp32"),
        ({**ZERO2, "compile": {"disable": False}}, {}, "compile is not built yet"),
        (ZERO2, {"fsdp_config": {"reshard_after_forward": True}}, "cannot be used together with `fsdp`"),
        ("zero3", {"adapter": "qlora"}, "stage 3 cuts up weights, and `load_in_4bit` packs several into a byte"),
        ("zero3", {"rl": "orpo", "datasets": [{"path": "r", "type": "chatml.intel"}]}, "stage 3 trains on texts alone"),
        ("zero3", {"adapter": "lora", "peft_use_dora": True}, "peft_use_dora = true: reads whole weights"),
        ("zero3", {"eval_table_size": 2, "val_set_size": 0.1}, "eval_table_size = 2: needs whole weights"),
        ("zero2", {"optimizer": "stable_adamw"}, "optimizer = 'stable_adamw': has not been tried on the shards"),
        ("zero2", {"grokfast_lamb": 2.0}, "grokfast_lamb = 2.0: has not been tried on the shards"),
        ("zero2", {"early_stopping_patience": 2, "val_set_size": 0.1}, "early_stopping_patience = 2: weights are not"),
        ("zero2", {"tiled_mlp": True}, "tiled_mlp = true: has not been tried on the shards"),
        ("zero2", {"weights_dtype": "bf16"}, "weights_dtype = 'bf16': is decided by `deepspeed`"),
        (
            "zero3_bf16_cpuoffload_all",
            {"optimizer": "paged_adamw_8bit"},
            "optimizer = 'paged_adamw_8bit': keeps its states on the GPU",
        ),
    ],
    ids=lambda value: "" if isinstance(value, dict) else str(value)[:40],
)
def test_what_cannot_be_trained_is_refused_with_the_reason(tmp_path, settings, keys, told):
    assert told in refusal(tmp_path, {"deepspeed": settings, **keys})


def test_keys_of_plain_data_parallel_training_are_told_to_change_nothing(tmp_path):
    [note] = load(tmp_path, {"deepspeed": ZERO2, "ddp_bucket_cap_mb": 30, "ddp_timeout": 60}).notes
    assert "ddp_bucket_cap_mb = 30: has no effect beside deepspeed" in note
