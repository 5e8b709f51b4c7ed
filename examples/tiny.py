"""Trains a recipe of this folder for a few steps on any machine: a tiny model of random weights, a few made-up rows.

    python examples/tiny.py dpo                 # prints the command, then runs it
    python examples/tiny.py alpaca-lora/8bit

The recipe itself is not changed: the model, the data and the sizes are written over it with --set. What it needs goes
to examples/tiny/. README.md of each recipe says which losses to expect.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WORDS = ("cat", "mat", "rain", "hill", "tale", "ship", "wind", "song", "fire", "road")
SPECIAL = ("<s>", "</s>", "<unk>", "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>")
VOCAB_SIZE = 256 + len(SPECIAL)

Row = dict[str, Any]  # Any: a cell of a dataset
ALL_STEPS: Row = {"max_steps": 20, "num_epochs": None, "warmup_steps": 0, "warmup_ratio": None, "learning_rate": 1e-2}
ALL_STEPS |= {"lr_scheduler": "constant", "micro_batch_size": 4, "gradient_accumulation_steps": 1, "sequence_len": 256}
ALL_STEPS |= {
    "logging_steps": 1,
    "saves_per_epoch": None,
    "evals_per_epoch": None,
    "save_steps": 1000,
    "eval_steps": None,
}
ALL_STEPS |= {"val_set_size": 0, "tf32": None, "model_type": None}


def _texts(i: int) -> tuple[str, str, str]:
    """A question, its answer, and an answer that is wrong."""
    word, times = WORDS[i % 10], 1 + i % 3
    return f"Say {word} {times} times.", " ".join([word] * times), f"No {word}."


def _alpaca(i: int) -> Row:
    question, answer, _ = _texts(i)
    return {"instruction": question, "input": "", "output": answer}


def _conversation(i: int) -> Row:
    question, answer, _ = _texts(i)
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"conversations": [{"from": "system", "value": "Be brief."}, *turns]}


def _said(question: str, answer: str) -> list[Row]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _pair_after_messages(i: int) -> Row:
    question, *answers = _texts(i)
    chosen, rejected = (_said(question, answer)[1] for answer in answers)
    return {"conversation": _said(question, "")[:1], "chosen": chosen, "rejected": rejected}


def _pair_of_messages(i: int) -> Row:
    question, chosen, rejected = _texts(i)
    return {"prompt": question, "chosen": _said(question, chosen), "rejected": _said(question, rejected)}


def _pair_of_texts(i: int) -> Row:
    question, chosen, rejected = _texts(i)
    return {"system": "", "input": question, "chosen": chosen, "rejected": rejected}


def _judged(i: int) -> Row:
    question, good, bad = _texts(i // 2)
    return {"prompt": question, "completion": bad if i % 2 else good, "label": i % 2 == 0}


def _steps(i: int) -> Row:
    question, right, wrong = _texts(i)
    return {"prompt": question, "completions": [right, wrong], "labels": [True, False]}


def _text(i: int) -> Row:
    question, answer, _ = _texts(i)
    return {"text": f"{question} {answer}."}


ROWS = {
    "airoboros-qlora-70b": _conversation,
    "airoboros-zero2": _conversation,
    "alpaca-lora": _alpaca,
    "fsdp-qlora": _alpaca,
    "llama-3-lora-1b": _alpaca,
    "dpo": _pair_after_messages,
    "kto": _judged,
    "orpo": _pair_of_messages,
    "reward": _pair_of_texts,
    "prm": _steps,
    "pretrain-stream": _text,
}
"""Folder of a recipe -> a row of the data it wants."""
OVERRIDES: dict[str, Row] = {
    "alpaca-lora": {"lora_r": 32, "train_on_inputs": False},
    "llama-3-lora-1b": {"loss_watchdog_threshold": None, "loss_watchdog_patience": None},
    "reward": {"learning_rate": 1e-3},
    "prm": {"learning_rate": 1e-3, "eval_batch_size": None},
    "pretrain-stream": {"val_set_size": None},
}
"""What a recipe needs beside ALL_STEPS."""


def config_of(recipe: str) -> Path:
    """`dpo` -> examples/dpo/cfg.yml, `alpaca-lora/8bit` -> examples/alpaca-lora/8bit.yml."""
    folder, _, name = recipe.partition("/")
    return HERE / folder / f"{name or 'cfg'}.yml"


def assignments(recipe: str, place: Path) -> list[str]:
    """What to write over the recipe, as `ftl train --set` takes it; its model and data are made below `place`."""
    folder = recipe.partition("/")[0]
    rows = place / folder / "rows.jsonl"
    rows.parent.mkdir(parents=True, exist_ok=True)
    rows.write_text("".join(json.dumps(ROWS[folder](i)) + "\n" for i in range(96)), encoding="utf-8")
    key = "pretraining_dataset" if folder == "pretrain-stream" else "datasets"
    values = ALL_STEPS | {"base_model": str(_model(place)), f"{key}.0.path": str(rows), f"{key}.0.name": None}
    values |= {"output_dir": str(place / recipe / "out")} | OVERRIDES.get(folder, {})
    return [f"{name}={'null' if value is None else json.dumps(value).strip(chr(34))}" for name, value in values.items()]


def _model(place: Path) -> Path:
    """A Llama of a hundred thousand random weights and a tokenizer of one token a byte."""
    target = place / "model"
    if target.exists():
        return target
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({text: i for i, text in enumerate([*SPECIAL, *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB_SIZE, max_position_embeddings=512, **sizes, **ids))
    model.save_pretrained(target)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(target)
    return target


def main() -> int:
    if len(sys.argv) != 2 or not config_of(sys.argv[1]).is_file() or sys.argv[1].partition("/")[0] not in ROWS:
        print(__doc__)
        return 2
    recipe = sys.argv[1]
    command = ["ftl", "train", str(config_of(recipe))]
    for assignment in assignments(recipe, HERE / "tiny"):
        command += ["--set", assignment]
    print(" ".join(command))
    return subprocess.run([str(Path(sys.executable).parent / "ftl"), *command[1:]], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
