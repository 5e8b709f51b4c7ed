from pathlib import Path

import pytest

from ftl.commands.migrate import run
from ftl.config.flat import DATASET, TRAIN
from ftl.config.load import load_train
from ftl.errors import ConfigError
from ftl.migrate import migrate

HEAD = "base_model: x\nlearning_rate: 1e-4\n"
DATA = "datasets:\n  - path: a.jsonl\n    type: alpaca\n"
TYPES = {"rl": "chatml.intel", "reward_model": "bradley_terry.chatml", "kd_trainer": "chat_template"}

# Every key that becomes another one, with a value for it and the lines beside it that it needs.
TOP = {
    "batch_size": "batch_size: 8\nmicro_batch_size: 2",
    "revision_of_model": "revision_of_model: v1",
    "type_of_model": "type_of_model: LlamaForCausalLM",
    "evaluation_strategy": "evaluation_strategy: epoch\nval_set_size: 0.1",
    "adam_eps": "adam_eps: 1e-7",
    "lora_out_dir": "lora_out_dir: ./out",
    "project_name": "project_name: mine",
    "dpo_beta": "dpo_beta: 0.2",
    "noisy_embedding_alpha": "noisy_embedding_alpha: 5",
    "liger_swiglu": "liger_swiglu: true",
    "context_parapllel_size": "context_parapllel_size: 2",
    "sequence_parallel_degree": "sequence_parallel_degree: 2",
    "relora_steps": "relora_steps: 100\nadapter: lora",
    "relora_warmup_steps": "relora_warmup_steps: 10",
    "relora_anneal_steps": "relora_anneal_steps: 10",
    "lr_div_factor": "lr_div_factor: 10\nlr_scheduler: one_cycle",
    "eta_min": "eta_min: 1e-5",
    "eval_table_max_new_tokens": "eval_table_max_new_tokens: 64\neval_table_size: 3\nval_set_size: 0.1",
    "generate_samples": "generate_samples: true\nval_set_size: 0.1",
    "fsdp": "fsdp: [full_shard, auto_wrap]",
    "accelerator_config": "accelerator_config: {split_batches: false}",
    "fsdp_version": "fsdp_version: 2\nfsdp_config: {reshard_after_forward: true}",
    "fsdp_final_state_dict_type": "fsdp_final_state_dict_type: FULL_STATE_DICT",
    "report_to": "report_to: tensorboard",
    "peft": "peft: {loftq_config: {loftq_bits: 4}}\nadapter: lora\nload_in_4bit: true",
    "streaming_multipack_buffer_size": "streaming_multipack_buffer_size: 100",
    "streaming": "streaming: false",
    "model_config": "model_config: {tie_word_embeddings: true}",
    "model_kwargs": "model_kwargs:\n  use_cache: false",
    "rope_scaling": "rope_scaling:\n  type: linear\n  factor: 2",
    "max_packed_sequence_len": "max_packed_sequence_len: 2048",
    "full_finetune": "full_finetune: true",
    "plugins": "plugins:\n  - axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin",
    "rl": "rl: dpo",
    "reward_model": "reward_model: true",
    "kd_trainer": "kd_trainer: true",
    "process_reward_model": "process_reward_model: false",
    "flash_attention": "flash_attention: true",
    "sdp_attention": "sdp_attention: true",
    "eager_attention": "eager_attention: true",
    "xformers_attention": "xformers_attention: true",
    "flex_attention": "flex_attention: true",
    "flash_optimum": "flash_optimum: true",
    "bf16": "bf16: auto",
    "bfloat16": "bfloat16: true",
    "fp16": "fp16: true",
    "float16": "float16: true",
    "float32": "float32: true",
    "torch_dtype": "torch_dtype: bfloat16",
    "unsloth_lora_mlp": "unsloth_lora_mlp: true",
    "unsloth_lora_qkv": "unsloth_lora_qkv: true",
    "unsloth_lora_o": "unsloth_lora_o: true",
    "unsloth_cross_entropy_loss": "unsloth_cross_entropy_loss: true",
    "unsloth_rms_norm": "unsloth_rms_norm: true",
    "unsloth_rope": "unsloth_rope: true",
    "flash_attn_cross_entropy": "flash_attn_cross_entropy: true",
    "flash_attn_rms_norm": "flash_attn_rms_norm: true",
    "flash_attn_fuse_mlp": "flash_attn_fuse_mlp: true",
}
DATASET_KEYS = {
    "message_field_role": "message_field_role: from\nmessage_field_content: value",
    "message_field_content": "message_field_content: text\nmessage_property_mappings: {role: who}",
    "field_human": "field_human: me\nroles: {assistant: [bot]}",
    "field_model": "field_model: you\nfield_human: me",
    "conversation": "conversation: chatml",
    "train_on_split": "train_on_split: test",
}
# Values of today's keys that have another form.
VALUES = [
    "optimizer: adamw_hf",
    "attn_implementation: xformers",
    "warmup_steps: 0.1",
    "saves_per_epoch: 0",
    "evals_per_epoch: 0\nval_set_size: 0.1",
    "eval_strategy: no\nval_set_size: 0.1",
    "save_strategy: no",
    "gradient_checkpointing: unsloth",
    "tokens:\n  pad_token: <pad>  # fills",
    "adapter: false",
    "resume_from_checkpoint: false",
]


def loaded(text: str, directory: Path):
    file = directory / "cfg.yml"
    file.write_text(text)
    return load_train(file, bear_unbuilt=True)


def dataset_text(lines: str) -> str:
    return "datasets:\n  - path: a.jsonl\n    type: chat_template\n" + "".join(f"    {x}\n" for x in lines.splitlines())


CASES = {
    **{name: f"{HEAD}{lines}\n{DATA.replace('alpaca', TYPES.get(name, 'alpaca'))}" for name, lines in TOP.items()},
    **{f"datasets.{name}": HEAD + dataset_text(lines) for name, lines in DATASET_KEYS.items()},
    **{lines.partition("\n")[0]: f"{HEAD}{lines}\n{DATA}" for lines in VALUES},
    "type: sharegpt": HEAD + "datasets:\n  - path: a.jsonl\n    type: sharegpt\n    conversation: llama3\n",
}


def test_every_key_that_becomes_another_has_a_case() -> None:
    assert set(TOP) == set(TRAIN.convert)
    assert set(DATASET_KEYS) == set(DATASET.convert)


@pytest.mark.parametrize("text", CASES.values(), ids=CASES)
def test_migrated_file_gives_the_same_config_in_todays_keys(text: str, tmp_path: Path) -> None:
    migrated = migrate(text, "cfg.yml")
    before, after = loaded(text, tmp_path), loaded(migrated, tmp_path)
    assert after.config == before.config
    assert len(after.unbuilt) == len(before.unbuilt)
    assert migrated != text
    data = after.file.data
    assert not TRAIN.convert.keys() & data.keys()
    assert not DATASET.convert.keys() & data["datasets"][0].keys()
    assert migrate(migrated, "cfg.yml") == migrated


def test_only_keys_with_a_newer_name_change() -> None:
    before = """\
# my run
base_model:   x   # the base
revision_of_model: "main"   # pinned

rl: dpo  # preference
full_finetune: true  # no adapter
fp16:
datasets:
  # chats
  - message_field_role: from  # who
    message_field_content: value
    path: "a.jsonl"
    train_on_split: test
  - {path: b.jsonl, full: 1, train_on_split: test}
max_packed_sequence_len: 1024  # tokens
"""
    after = """\
# my run
base_model:   x   # the base
model_revision: "main"   # pinned

objective: dpo  # preference
# no adapter
datasets:
  # chats
  - message_property_mappings: {role: from, content: value}  # who
    path: "a.jsonl"
    split: test
  - {path: b.jsonl, full: 1, split: test}
sample_packing: true
sequence_len: 1024  # tokens
"""
    assert migrate(before, "cfg.yml") == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(
            '{"rl":"dpo", "full_finetune": true, "a": 1}', '{"objective":"dpo", "a": 1}', id="JSON, one removed inside"
        ),
        pytest.param('{"a": 1, "streaming": false}', '{"a": 1}', id="JSON, the last one removed"),
        pytest.param("rl: dpo\r\nstreaming: false\r\n", "objective: dpo\r\n", id="lines of Windows"),
        pytest.param("streaming: false", "", id="nothing left, no line end"),
        pytest.param(
            "datasets:\n  - train_on_split: null\n    path: a\n", "datasets:\n  - path: a\n", id="first key of an item"
        ),
        pytest.param(
            "datasets:\n  - train_on_split:\n    message_field_role:\n", "datasets:\n  - {}\n", id="all keys of an item"
        ),
        pytest.param("# only\nbf16: true\nprecision: bf16\n", "# only\nprecision: bf16\n", id="said already"),
    ],
)
def test_keys_go_and_the_rest_stays(before: str, after: str) -> None:
    assert migrate(before, "cfg.yml") == after


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("bf16: true\nprecision: fp32\n", id="contradiction"),
        pytest.param("plugins: [my.Plugin]\n", id="not built"),
        pytest.param("lora_rr: 8\nhub_token: x\nstrict: true\n", id="unknown, refused, ignored"),
        pytest.param("base_model: x\nlora_r:\n", id="today's key without a value"),
    ],
)
def test_what_has_no_newer_name_stays(text: str) -> None:
    assert migrate(text, "cfg.yml") == text


def test_alias_is_renamed_where_it_stands() -> None:
    text = "base_model: &name x\nrevision_of_model: *name  # the same\n"
    assert migrate(text, "cfg.yml") == "base_model: &name x\nmodel_revision: *name  # the same\n"


def test_anchor_that_two_datasets_share_is_one_edit() -> None:
    text = "datasets: &data\n  - {path: a, train_on_split: test}\ntest_datasets: *data\n"
    assert migrate(text, "cfg.yml") == "datasets: &data\n  - {path: a, split: test}\ntest_datasets: *data\n"


def test_keys_of_a_merge_that_would_have_to_differ_are_refused() -> None:
    text = "datasets:\n  - &first {path: a, type: sharegpt}\n  - {<<: *first, type: alpaca}\n"
    with pytest.raises(ConfigError, match="anchors share keys that would have to differ"):
        migrate(text, "cfg.yml")


def test_command_shows_the_difference_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "cfg.yml"
    config.write_text(f"{HEAD}bf16: true  # fast\ndebug: true\n{DATA}")
    before = config.read_text()
    assert run(config, write=False, output=None) == 0
    shown = capsys.readouterr()
    assert "-bf16: true  # fast\n+precision: bf16  # fast\n" in shown.out
    assert "debug may be removed" in shown.err
    assert "nothing is written" in shown.err
    assert config.read_text() == before


def test_command_writes_through_a_link_and_keeps_the_permissions(tmp_path: Path) -> None:
    config, link = tmp_path / "cfg.yml", tmp_path / "link.yml"
    config.write_text(f"{HEAD}bf16: true\n{DATA}")
    config.chmod(0o640)
    link.symlink_to(config)
    run(link, write=True, output=None)
    assert config.read_text() == f"{HEAD}precision: bf16\n{DATA}"
    assert config.stat().st_mode & 0o777 == 0o640
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cfg.yml", "link.yml"]


def test_command_makes_a_new_file_and_overwrites_none(tmp_path: Path) -> None:
    config, new = tmp_path / "cfg.yml", tmp_path / "new.yml"
    config.write_text(f"{HEAD}bf16: true\n{DATA}")
    run(config, write=False, output=new)
    assert new.read_text() == f"{HEAD}precision: bf16\n{DATA}"
    assert config.read_text() == f"{HEAD}bf16: true\n{DATA}"
    with pytest.raises(ConfigError, match="is there already"):
        run(config, write=False, output=new)


def test_anchor_named_twice_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"^cfg\.yml: an anchor has the name of another"):
        migrate("rl: &a dpo\nbase_model: &a x\n", "cfg.yml")


def test_places_are_counted_in_characters() -> None:
    assert migrate("# ключ \U0001f511\nbase_model: имя\nrl: dpo\n", "cfg.yml").endswith("имя\nobjective: dpo\n")
