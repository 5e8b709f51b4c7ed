from pathlib import Path

import pytest
import yaml

from ftl.config.load import load_train
from ftl.errors import ConfigError
from ftl.importers.qlora import import_qlora

FULL = """
export BASE_DIR=/workspace
export WANDB_API_KEY=[redacted]
export WANDB_PROJECT=airoboros-l2-7b-3.0

torchrun --nnodes=1 --nproc_per_node=7 $BASE_DIR/qlora/train.py \\
  --model_name_or_path $BASE_DIR/llama-2-7b-hf \\
  --working_dir $BASE_DIR/$WANDB_PROJECT-checkpoints \\
  --output_dir $BASE_DIR/$WANDB_PROJECT \\
  --num_train_epochs 5 --logging_steps 1 --save_strategy steps --save_steps 15 --save_total_limit 1 \\
  --data_seed 11422 --evaluation_strategy steps --eval_dataset_size 0.02 --eval_steps 5 \\
  --max_new_tokens 4096 --dataloader_num_workers 3 --logging_strategy steps \\
  --optim adamw_torch --do_train --full_finetune --bits 16 --bf16 \\
  --dataset $BASE_DIR/conversations.json --dataset_format airoboros_chat --model_max_len 4096 \\
  --per_device_train_batch_size 12 --learning_rate 2e-5 --lr_scheduler_type cosine --warmup_ratio 0.005 \\
  --weight_decay 0.0 --seed 11422 --report_to wandb --deepspeed deepspeed-7b.json \\
  --gradient_checkpointing --use_flash_attention_2
"""
FULL_CONFIG = """
base_model: /workspace/llama-2-7b-hf
datasets:
  - path: /workspace/conversations.json
    type: airoboros_chat
sequence_len: 4096
excess_length_strategy: drop
val_set_size: 0.02
num_epochs: 5
micro_batch_size: 12
gradient_accumulation_steps: 16
eval_batch_size: 1
learning_rate: 0.00002
lr_scheduler: cosine
warmup_ratio: 0.005
optimizer: adamw_torch
weight_decay: 0.0
max_grad_norm: 0.3
neftune_noise_alpha: 5
group_by_length: false
gradient_checkpointing: true
deepspeed: deepspeed-7b.json
bf16: true
tf32: true
attn_implementation: flash_attention_2
seed: 11422
data_seed: 11422
logging_steps: 1
save_strategy: steps
save_steps: 15
save_total_limit: 1
eval_strategy: steps
eval_steps: 5
output_dir: /workspace/airoboros-l2-7b-3.0
use_wandb: true
wandb_project: airoboros-l2-7b-3.0
"""
QLORA = """
export BASE_DIR=/workspace
export WANDB_API_KEY=[redacted]
export WANDB_PROJECT=airoboros-l2-70b-3.0

accelerate launch $BASE_DIR/qlora/train.py \\
  --model_name_or_path $BASE_DIR/llama-2-70b-hf \\
  --working_dir $BASE_DIR/$WANDB_PROJECT-checkpoints \\
  --output_dir $BASE_DIR/$WANDB_PROJECT-peft \\
  --merged_output_dir $BASE_DIR/$WANDB_PROJECT \\
  --num_train_epochs 5 --logging_steps 1 --save_strategy steps --save_steps 75 --save_total_limit 3 \\
  --data_seed 11422 --evaluation_strategy steps --per_device_eval_batch_size 2 --eval_dataset_size 0.01 \\
  --eval_steps 75 --max_new_tokens 4096 --dataloader_num_workers 3 --logging_strategy steps --do_train \\
  --lora_r 64 --lora_alpha 16 --lora_modules all --bf16 --bits 4 --double_quant --quant_type nf4 \\
  --lr_scheduler_type constant --dataset $BASE_DIR/conversations.json --dataset_format airoboros_chat \\
  --model_max_len 4096 --per_device_train_batch_size 2 --learning_rate 0.00008 --adam_beta2 0.999 \\
  --max_grad_norm 0.3 --lora_dropout 0.0 --weight_decay 0.0 --seed 11422 --report_to wandb \\
  --gradient_checkpointing --use_flash_attention_2 --ddp_find_unused_parameters False
"""
QLORA_CONFIG = """
base_model: /workspace/llama-2-70b-hf
adapter: qlora
load_in_4bit: true
bnb_config_kwargs:
  bnb_4bit_use_double_quant: true
  bnb_4bit_quant_type: nf4
lora_r: 64
lora_alpha: 16
lora_dropout: 0.0
lora_target_linear: true
datasets:
  - path: /workspace/conversations.json
    type: airoboros_chat
sequence_len: 4096
excess_length_strategy: drop
val_set_size: 0.01
num_epochs: 5
micro_batch_size: 2
gradient_accumulation_steps: 16
eval_batch_size: 2
learning_rate: 0.00008
lr_scheduler: constant
optimizer: paged_adamw_32bit
adam_beta2: 0.999
weight_decay: 0.0
max_grad_norm: 0.3
neftune_noise_alpha: 5
group_by_length: false
gradient_checkpointing: true
bf16: true
tf32: true
attn_implementation: flash_attention_2
seed: 11422
data_seed: 11422
logging_steps: 1
save_strategy: steps
save_steps: 75
save_total_limit: 3
eval_strategy: steps
eval_steps: 75
output_dir: /workspace/airoboros-l2-70b-3.0-peft
use_wandb: true
wandb_project: airoboros-l2-70b-3.0
"""
DEFAULTS = """
base_model: meta-llama/Llama-2-7b
adapter: qlora
load_in_4bit: true
bnb_config_kwargs:
  bnb_4bit_use_double_quant: true
  bnb_4bit_quant_type: nf4
lora_r: 64
lora_alpha: 16
lora_dropout: 0.0
lora_target_linear: true
datasets:
  - path: instructions.jsonl
    type: airoboros
sequence_len: 4096
excess_length_strategy: drop
val_set_size: 0.02
num_epochs: 3
micro_batch_size: 1
gradient_accumulation_steps: 16
eval_batch_size: 1
learning_rate: 0.0002
lr_scheduler: constant
optimizer: paged_adamw_32bit
weight_decay: 0.0
max_grad_norm: 0.3
neftune_noise_alpha: 5
group_by_length: false
gradient_checkpointing: true
float32: true
tf32: true
seed: 42
logging_steps: 10
save_strategy: steps
save_steps: 250
save_total_limit: 40
eval_strategy: "no"
output_dir: ./output
"""


@pytest.mark.parametrize(
    ("command", "config", "cloud"),
    [
        (FULL, FULL_CONFIG, {"provider": "docker", "gpu": 7, "secrets": ["WANDB_API_KEY"]}),
        (QLORA, QLORA_CONFIG, {"provider": "docker", "secrets": ["WANDB_API_KEY"]}),
        ("python train.py", DEFAULTS, {}),
    ],
    ids=["full fine-tune", "qlora", "defaults"],
)
def test_command_becomes_an_equivalent_config(command: str, config: str, cloud: dict, tmp_path: Path) -> None:
    imported = import_qlora(command)
    assert imported.config == yaml.safe_load(config)
    assert imported.cloud == cloud
    path = tmp_path / "cfg.yml"
    path.write_text(yaml.safe_dump(imported.config))
    (tmp_path / "deepspeed-7b.json").write_text('{"zero_optimization": {"stage": 2}}')
    assert load_train(path, bear_unbuilt=True).config.model.base == imported.config["base_model"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--bits 8", {"adapter": "lora", "load_in_8bit": True}),
        ("--bits 16", {"adapter": "lora"}),
        (
            "--quant_type fp4 --double_quant False",
            {"bnb_config_kwargs": {"bnb_4bit_use_double_quant": False, "bnb_4bit_quant_type": "fp4"}},
        ),
        ("--lora_modules q_proj,v_proj", {"lora_target_modules": ["q_proj", "v_proj"]}),
        ("--skip_excess_length False", {"excess_length_strategy": "truncate"}),
        ("--train_on_source", {"train_on_inputs": True}),
        ("--adam8bit", {"optimizer": "adamw_bnb_8bit"}),
        ("--fp16 --tf32 False", {"fp16": True, "tf32": False}),
        ("--pad_token '<pad>' --eos_token '</s>'", {"special_tokens": {"eos_token": "</s>", "pad_token": "<pad>"}}),
        ("--lr_scheduler_type cosine --warmup_steps 7", {"lr_scheduler": "cosine", "warmup_steps": 7}),
        ("--final_output_dir a --output_dir b", {"output_dir": "a"}),
        ("--working_dir w", {"output_dir": "w"}),
        ("--evaluation_strategy steps", {"eval_strategy": "steps", "eval_steps": 10}),
        ("--save_strategy epoch", {"save_strategy": "epoch"}),
        ("--dataset alpaca-clean", {"datasets": [{"path": "yahma/alpaca-cleaned", "type": "alpaca"}]}),
        (
            "--dataset chip2",
            {"datasets": [{"path": "laion/OIG", "data_files": ["unified_chip2.jsonl"], "type": "chip2"}]},
        ),
        (
            "--dataset x.jsonl --dataset_format input-output --max_train_samples 100",
            {"datasets": [{"path": "x.jsonl", "type": "input-output", "split": "train[:100]"}]},
        ),
    ],
)
def test_flag_becomes_its_keys(flags: str, expected: dict) -> None:
    config = import_qlora(f"python train.py {flags}").config
    assert {key: config.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    ("flags", "given", "why"),
    [
        ("--lora_rr 3", "--lora_rr 3", "not known to this import; did you mean `--lora_r`?"),
        ("--do_mmlu_eval", "--do_mmlu_eval", "MMLU is not measured while training"),
        ("--merged_output_dir m", "--merged_output_dir m", "`ftl merge-lora CFG` writes the merged model"),
        ("--full_finetune --bits 16 --lora_r 8", "--lora_r 8", "there is no adapter"),
        ("--warmup_ratio 0.1", "--warmup_ratio 0.1", "the schedule constant has no warmup, there as here"),
        ("loose", "loose", "an argument without a flag"),
    ],
)
def test_flag_without_a_key_is_dropped_with_the_reason(flags: str, given: str, why: str) -> None:
    imported = import_qlora(f"python train.py {flags}")
    (line,) = [line for line in imported.lines if line.given == given]
    assert line.became == ""
    assert line.why.startswith(why)


def test_secret_is_named_and_its_value_is_nowhere() -> None:
    imported = import_qlora(
        "HUGGING_FACE_HUB_TOKEN=abc123 WANDB_API_KEY=def456 AWS_SECRET_ACCESS_KEY=ghi789 NCCL_P2P_LEVEL=NVL "
        "MINE=hf_abcdefghijklmnopqrst TOKENIZERS_PARALLELISM=false "
        "python train.py --hub_token hf_abcdefghijklmnopqrst"
    )
    assert imported.cloud == {
        "provider": "docker",
        "secrets": ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MINE"],
        "env": {"NCCL_P2P_LEVEL": "NVL", "TOKENIZERS_PARALLELISM": "false"},
    }
    assert [value for value in ("abc123", "def456", "ghi789", "hf_abc") if value in repr(imported)] == []


def test_visible_devices_win_over_the_number_of_processes() -> None:
    imported = import_qlora("CUDA_VISIBLE_DEVICES=0,2 torchrun --nproc_per_node=2 train.py")
    assert imported.cloud == {"provider": "docker", "gpu": ["0", "2"]}


def test_several_machines_are_left_to_a_cloud_file() -> None:
    imported = import_qlora("torchrun --nnodes=2 --nproc_per_node=4 train.py")
    assert imported.cloud == {"provider": "docker", "gpu": 4}
    assert any(line.why == "write `nodes` in a cloud file of skypilot or modal" for line in imported.lines)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--bits 3", "--bits: 3: must be 4, 8, 16 or 32"),
        ("--dataset a b", "--dataset: a b: must be one word"),
        ("--report_to [wandb,tensorboard]", "--report_to: wandb tensorboard: must be one word"),
        ("--full_finetune", "--bits: 4: must be 16 or 32 with --full_finetune"),
        ("--dataset_format nope", "--dataset_format: nope: must be one of alpaca, alpaca-clean, chip2"),
    ],
)
def test_what_the_program_refuses_is_refused(flags: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        import_qlora(f"python train.py {flags}")
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("name", ["nadam", "radam"])
def test_optimizer_that_is_not_built_becomes_the_nearest(name: str) -> None:
    imported = import_qlora(f"python train.py --optim {name}")
    assert imported.config["optimizer"] == "adamw_torch_fused"
    (line,) = [line for line in imported.lines if line.given == f"--optim {name}"]
    assert line.why.startswith(f"{name} is not built; AdamW is the nearest")


@pytest.mark.parametrize("script", ["qmerge.py", "merge.py"])
def test_merging_script_is_told(script: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{script}: merges an adapter into its base"):
        import_qlora(f"python {script} --base b --peft p --out o")
