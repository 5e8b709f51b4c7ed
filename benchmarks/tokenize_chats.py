"""5,000 chats to ids and assistant-only labels: ftl against the raw Rust tokenizer and against TRL's preparation.

    python benchmarks/tokenize_chats.py [--rounds 5] [--count 5000]

The raw tokenizer gets the rendered texts and makes no labels: it is the floor. TRL is measured where `trl` is installed
(pip install trl); its SFTTrainer renders, tokenises and masks the same rows. Rounds are interleaved; CPU seconds of the
process, threads included, medians. Prints one JSON object.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import corpus

from ftl.config.data import DataSection, DatasetSection
from ftl.tokens import Recipe, TokenizerView, Tokens, encode

warnings.filterwarnings("ignore")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=5000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = corpus.make_tokenizer(Path(scratch) / "tokenizer")
        rows = [{"messages": messages} for messages in corpus.conversations(arguments.count)]
        print(json.dumps(measure(directory, rows, arguments.rounds), indent=1))


def measure(directory: Path, rows: list[dict[str, Any]], rounds: int) -> dict[str, Any]:
    """CPU and wall seconds of each system, and the ratios that matter."""
    view = TokenizerView.load(directory)
    dataset = DatasetSection(path="rows", type="chat_template")
    recipe = Recipe.of(dataset, DataSection(datasets=(dataset,)), "sft", view)
    texts = ["".join(s.text for s in recipe.sample(row).segments) for row in rows]  # type: ignore[union-attr]
    expected = [encoding.ids for encoding in view.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    made = prepare(recipe, view, rows)
    assert [tokens.ids for tokens in made] == expected, "the ids are those of the whole rendered text"
    systems: dict[str, Callable[[], object]] = {
        "raw": lambda: view.tokenizer.encode_batch_fast(texts, add_special_tokens=False),
        "ftl": lambda: prepare(recipe, view, rows),
    }
    if trl := trl_preparation(directory, rows, made):
        systems["trl"] = trl
    cpu: dict[str, list[float]] = {name: [] for name in systems}
    wall: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(rounds):
        for name, run in systems.items():
            started_cpu, started = time.process_time(), time.perf_counter()
            run()
            cpu[name].append(time.process_time() - started_cpu)
            wall[name].append(time.perf_counter() - started)
    median = {name: statistics.median(seconds) for name, seconds in cpu.items()}
    return {
        "conversations": len(rows),
        "tokens": sum(map(len, expected)),
        "cpu_s": {name: round(seconds, 3) for name, seconds in median.items()},
        "wall_s": {name: round(statistics.median(seconds), 3) for name, seconds in wall.items()},
        "raw / ftl (cpu)": round(median["raw"] / median["ftl"], 3),
        "trl / ftl (cpu)": round(median["trl"] / median["ftl"], 2) if "trl" in median else "trl is not installed",
        "load": os.getloadavg()[0],
        "versions": {name: version(name) for name in ("tokenizers", *(("trl", "datasets") if "trl" in median else ()))},
    }


def prepare(recipe: Recipe, view: TokenizerView, rows: list[dict[str, Any]]) -> list[Tokens]:
    """What the token cache does with rows, without writing them."""
    made: list[Tokens] = []
    for start in range(0, len(rows), 1000):
        made += encode([recipe.sample(row) for row in rows[start : start + 1000]], view)  # type: ignore[arg-type]
    return made


def trl_preparation(directory: Path, rows: list[dict[str, Any]], ours: list[Tokens]) -> Callable[[], object] | None:
    """TRL's SFTTrainer up to its prepared dataset, with labels of the assistant alone; None where TRL is missing."""
    try:
        import datasets
        import trl
        from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    except ImportError:
        return None
    datasets.disable_progress_bars()
    datasets.disable_caching()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.chat_template = corpus.CHAT_TEMPLATE.replace(
        "{{ message['content'] | trim }}<|eot_id|>",
        "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] | trim }}<|eot_id|>"
        "{% endgeneration %}{% else %}{{ message['content'] | trim }}<|eot_id|>{% endif %}",
    )
    small = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    model = LlamaForCausalLM(small)
    settings = trl.SFTConfig(
        output_dir=str(directory / "trl"),
        report_to=[],
        max_length=None,
        assistant_only_loss=True,
        use_cpu=True,
        bf16=False,
    )

    def run() -> Any:  # Any: a dataset of theirs
        data = datasets.Dataset.from_list(rows)
        trainer = trl.SFTTrainer(model, args=settings, train_dataset=data, processing_class=tokenizer)
        return trainer.train_dataset

    made = run()
    for number in (0, len(rows) // 2, len(rows) - 1):
        assert list(made[number]["input_ids"]) == ours[number].ids, "both make the same ids"
        assert list(made[number]["labels"]) == ours[number].labels, "and train the same tokens"
    return run


if __name__ == "__main__":
    main()
