"""A training small enough for seconds: a byte-level tokenizer, a Llama of a few thousand weights, made-up rows."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

_WORDS = ("red", "blue", "green", "seven", "eight", "nine", "apples", "pears", "plums", "are", "ripe", "sweet")
_WORDS += ("sour", "today", "now")


def make_project(
    root: Path, *, num_rows: int = 96, num_epochs: int = 12, save_steps: int = 5, **config: object
) -> Path:
    """Write model, rows and cfg.yml below `root`; the path of cfg.yml. Dropout makes every random draw count."""
    model = root / "model"
    model.mkdir(parents=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>", "<pad>"]
    tokenizer.train_from_iterator(
        _WORDS,
        trainers.BpeTrainer(vocab_size=259, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer.save(str(model / "tokenizer.json"))
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
    }
    (model / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    llama = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 512,
        "attention_dropout": 0.1,
        "vocab_size": tokenizer.get_vocab_size(),
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }
    (model / "config.json").write_text(json.dumps(llama))
    rows = [
        {
            "instruction": f"Say {i} of {_WORDS[i % 15]}",
            "output": " ".join(_WORDS[(i + k) % 15] for k in range(2 + i % 7)),
        }
        for i in range(num_rows)
    ]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "base_model": "./model",
        "reinit_weights": True,
        "datasets": [{"path": "./rows.jsonl", "type": "alpaca"}],
        "val_set_size": 8,
        "sequence_len": 512,
        "sample_packing": True,
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 2,
        "num_epochs": num_epochs,
        "learning_rate": 1e-3,
        "save_steps": save_steps,
        "save_total_limit": 2,
        "output_dir": "./out",
        **config,
    }
    path = root / "cfg.yml"
    path.write_text(json.dumps(settings, indent=1))  # JSON is YAML
    return path
