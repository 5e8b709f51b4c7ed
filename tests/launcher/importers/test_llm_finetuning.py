from pathlib import Path

import pytest
import yaml

from ftl.config.load import load_train
from ftl.errors import ConfigError
from ftl.importers.llm_finetuning import import_llm_finetuning

SIMPLE = """
python finetune.py \\
    --base_model 'decapoda-research/llama-7b-hf' \\
    --data_path 'yahma/alpaca-cleaned' \\
    --output_dir './lora-output'
"""
SIMPLE_CONFIG = """
base_model: decapoda-research/llama-7b-hf
adapter: lora
load_in_8bit: true
bnb_config_kwargs:
  llm_int8_threshold: 0.0
lora_r: 8
lora_alpha: 16
lora_dropout: 0.05
lora_target_modules: [q_proj, v_proj]
datasets:
  - path: yahma/alpaca-cleaned
    type: vicuna
val_set_size: 2000
sequence_len: 256
excess_length_strategy: truncate
train_on_inputs: true
group_by_length: false
num_epochs: 3
micro_batch_size: 4
eval_batch_size: 4
gradient_accumulation_steps: 32
learning_rate: 0.0003
lr_scheduler: linear
warmup_steps: 100
optimizer: paged_adamw_8bit
fp16: true
gradient_checkpointing: false
eval_strategy: steps
eval_steps: 100
save_steps: 10
save_total_limit: 3
logging_steps: 10
output_dir: ./lora-output
"""
TUNED = """
python finetune.py \\
    --base_model 'decapoda-research/llama-7b-hf' \\
    --data_path 'yahma/alpaca-cleaned' \\
    --output_dir './lora-output' \\
    --mode 4 \\
    --batch_size 128 --micro_batch_size 4 --num_epochs 3 --learning_rate 1e-4 --cutoff_len 512 \\
    --val_set_size 0.2 --lora_r 8 --lora_alpha 16 --lora_dropout 0.05 \\
    --lora_target_modules '[q_proj,v_proj]' \\
    --resume_from_checkpoint checkpoint-29/adapter_model/
"""
TUNED_CONFIG = """
base_model: decapoda-research/llama-7b-hf
adapter: qlora
load_in_4bit: true
bnb_config_kwargs:
  bnb_4bit_use_double_quant: true
  bnb_4bit_quant_type: nf4
lora_model_dir: checkpoint-29/adapter_model/
lora_r: 8
lora_alpha: 16
lora_dropout: 0.05
lora_target_modules: [q_proj, v_proj]
datasets:
  - path: yahma/alpaca-cleaned
    type: vicuna
val_set_size: 0.2
sequence_len: 512
excess_length_strategy: truncate
train_on_inputs: true
group_by_length: false
num_epochs: 3
micro_batch_size: 4
eval_batch_size: 4
gradient_accumulation_steps: 32
learning_rate: 0.0001
lr_scheduler: linear
warmup_steps: 100
optimizer: paged_adamw_8bit
fp16: true
gradient_checkpointing: false
eval_strategy: steps
eval_steps: 100
save_steps: 10
save_total_limit: 3
logging_steps: 10
output_dir: ./lora-output
"""
TORCHRUN = """
torchrun --standalone --nnodes 1 --nproc-per-node=2 finetune.py \\
    --base_model 'models/TheBloke_vicuna-7B-1.1-HF' --data_path 'data_qa' --output_dir 'output_lora' \\
    --batch_size 32 --micro_batch_size 1 --train_on_inputs True --num_epochs 40 --learning_rate 2e-4 \\
    --cutoff_len 1600 --group_by_length --val_set_size 0.0 --eval_steps 0 --logging_steps 5 --save_steps 10 \\
    --gradient_checkpointing True --mode 16
"""
TORCHRUN_CONFIG = """
base_model: models/TheBloke_vicuna-7B-1.1-HF
adapter: lora
lora_r: 8
lora_alpha: 16
lora_dropout: 0.05
lora_target_modules: [q_proj, v_proj]
datasets:
  - path: data_qa/train.json
    type: vicuna
test_datasets:
  - path: data_qa/test.json
    type: vicuna
sequence_len: 1600
excess_length_strategy: truncate
train_on_inputs: true
group_by_length: true
num_epochs: 40
micro_batch_size: 1
eval_batch_size: 1
gradient_accumulation_steps: 16
learning_rate: 0.0002
lr_scheduler: linear
warmup_steps: 100
optimizer: adamw_torch
fp16: true
gradient_checkpointing: true
eval_strategy: "no"
save_steps: 10
save_total_limit: 3
logging_steps: 5
output_dir: output_lora
"""


@pytest.mark.parametrize(
    ("command", "config", "cloud"),
    [
        (SIMPLE, SIMPLE_CONFIG, {}),
        (TUNED, TUNED_CONFIG, {}),
        (TORCHRUN, TORCHRUN_CONFIG, {"provider": "docker", "gpu": 2}),
    ],
    ids=["simple", "tuned", "torchrun"],
)
def test_command_becomes_an_equivalent_config(command: str, config: str, cloud: dict, tmp_path: Path) -> None:
    imported = import_llm_finetuning(command)
    assert imported.config == yaml.safe_load(config)
    assert imported.cloud == cloud
    path = tmp_path / "cfg.yml"
    path.write_text(yaml.safe_dump(imported.config))
    assert load_train(path, bear_unbuilt=True).config.model.base == imported.config["base_model"]


def test_switches_may_be_numbers() -> None:
    config = import_llm_finetuning("python finetune.py --base_model m --gradient_checkpointing 1").config
    assert config["gradient_checkpointing"] is True


SHAREGPT = {
    "path": "chats.json",
    "type": "chat_template",
    "field_messages": "conversations",
    "message_property_mappings": {"role": "from", "content": "value"},
}


@pytest.mark.parametrize(
    ("flags", "datasets"),
    [
        ("--data_path a.json --prompt_template_name alpaca_short", [{"path": "a.json", "type": "alpaca_short"}]),
        ("--data_path a.json --prompt_template_name alpaca_legacy", [{"path": "a.json", "type": "alpaca_legacy"}]),
        ("--data_path chats.json --prompt_template_name sharegpt", [SHAREGPT]),
        ("--data_path book.txt", [{"path": "book.txt", "type": "completion"}]),
        ("--data_path ./data", [{"path": "data/train.json", "type": "vicuna"}]),
    ],
)
def test_template_and_path_become_a_dataset(flags: str, datasets: list[dict]) -> None:
    assert import_llm_finetuning(f"python finetune.py --base_model m {flags}").config["datasets"] == datasets


@pytest.mark.parametrize(
    ("flags", "given", "why"),
    [
        ("--eval", "--eval", "evaluating without training is not built yet"),
        ("--add_eos_token True", "--add_eos_token", "an answer always ends with EOS"),
        ("--gptq_backend triton", "--gptq_backend triton", "there is one kernel for GPTQ bases"),
        ("--lora_rank 8", "--lora_rank 8", "not known to this import; did you mean `--lora_r`?"),
    ],
)
def test_flag_without_a_key_is_dropped_with_the_reason(flags: str, given: str, why: str) -> None:
    imported = import_llm_finetuning(f"python finetune.py --base_model m {flags}")
    (line,) = [line for line in imported.lines if line.given == given]
    assert line.became == ""
    assert line.why.startswith(why)


def test_gptq_base_trains_with_lora() -> None:
    config = import_llm_finetuning("python finetune.py --base_model m --mode gptq").config
    assert (config["adapter"], config["gptq"], config["optimizer"]) == ("lora", True, "adamw_torch")


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (
            "python finetune.py --base_model m --batch_size 100 --micro_batch_size 3",
            "--batch_size: 100: 100 / 3 / 1 processes is 33.33: must be whole, as with 99 or 102",
        ),
        (
            "torchrun --nproc_per_node 3 finetune.py --base_model m --batch_size 128",
            "--batch_size: 128: 128 / 4 / 3 processes is 10.67: must be whole, as with 120 or 132",
        ),
    ],
)
def test_batch_that_does_not_divide_is_refused(command: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        import_llm_finetuning(command)
    assert str(caught.value) == sentence


def test_test_file_of_a_folder_is_not_forgotten(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text("[]")
    (tmp_path / "test.json").write_text("[]")
    imported = import_llm_finetuning(f"python finetune.py --base_model m --data_path {tmp_path}")
    assert imported.config["datasets"] == [{"path": f"{tmp_path}/train.json", "type": "vicuna"}]
    (line,) = [line for line in imported.lines if line.given == f"{tmp_path}/test.json"]
    assert (line.became, line.why) == ("", "rows of train.json are evaluated on; for it add --val_set_size 0")


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("python inference.py --base b --delta d --mode 4", "inference.py: writes answers with a trained adapter"),
        ("python merge_lora_checkpoint.py lora-alpaca/", "merge_lora_checkpoint.py: merges an adapter into its base"),
        ("python download_model.py TheBloke/x", "download_model.py: needs no counterpart: `base_model` takes"),
    ],
)
def test_script_that_trains_nothing_is_told(command: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        import_llm_finetuning(command)
    assert str(caught.value).startswith(sentence)


def test_text_for_another_script_does_not_hide_the_training() -> None:
    command = "python download_model.py m && python finetune.py --base_model m"
    assert import_llm_finetuning(command).config["base_model"] == "m"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("", "--base_model: is missing; the program needs it"),
        ("--base_model m --mode 2", "--mode: 2: must be 4, 8, 16 or gptq"),
        ("--base_model m --mode [4,8]", "--mode: 4 8: must be one word"),
        ("--base_model m --data_path a b", "--data_path: a b: must be one word; put quotes around one with spaces"),
        ("--base_model m --data_path", "--data_path: needs a value"),
        ("--base_model m --prompt_template_name []", "--prompt_template_name: an empty list: must be one word"),
        ("--base_model m --batch_size 2", "--batch_size, --micro_batch_size: 2, 4: must be whole numbers"),
        ("--base_model m --prompt_template_name x", "--prompt_template_name: x: must be one of alpaca, alpaca_legacy"),
    ],
)
def test_what_the_program_refuses_is_refused(flags: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        import_llm_finetuning(f"python finetune.py {flags}")
    assert str(caught.value).startswith(sentence)
