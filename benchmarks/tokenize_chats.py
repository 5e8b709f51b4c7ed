"""5,000 chats to ids and assistant-only labels: ftl against the raw Rust tokenizer and against TRL's preparation.

    python benchmarks/tokenize_chats.py [--rounds 5] [--count 5000]

The raw tokenizer gets the rendered texts in one call and makes no labels. TRL is measured where `trl` is installed
(pip install trl); its SFTTrainer renders, tokenises and masks the same rows. Each measurement is a process of its own,
as people run them, and rounds are interleaved; imports and the making of rows and tokenizer are not counted. CPU
seconds, threads included, medians. Prints one JSON object.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import corpus

from ftl.config.data import DataSection, DatasetSection
from ftl.tokens import Recipe, TokenizerView, Tokens, encode

warnings.filterwarnings("ignore")

_SYSTEMS = ("raw", "ftl", *(("trl",) if find_spec("trl") else ()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--measure", choices=_SYSTEMS, help=argparse.SUPPRESS)
    parser.add_argument("--tokenizer", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        rows = [{"messages": messages} for messages in corpus.conversations(arguments.count)]
        print(json.dumps(measure(arguments.measure, arguments.tokenizer, rows)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        directory = corpus.make_tokenizer(Path(scratch) / "tokenizer")
        print(json.dumps(compare(directory, arguments.count, arguments.rounds), indent=1))


def compare(directory: Path, count: int, rounds: int) -> dict[str, Any]:
    """CPU and wall seconds of each system, and the ratios that matter."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in _SYSTEMS}
    for _ in range(rounds):
        for name in _SYSTEMS:
            command = [sys.executable, __file__, "--measure", name, "--tokenizer", directory, "--count", str(count)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    cpu, wall = (
        {name: round(statistics.median(one[key] for one in times), 3) for name, times in found.items()}
        for key in ("cpu_s", "wall_s")
    )
    return {
        "conversations": count,
        "rounds": rounds,
        "tokens": int(found["ftl"][0]["tokens"]),
        "cpu_s": cpu,
        "wall_s": wall,
        "raw / ftl (cpu)": round(cpu["raw"] / cpu["ftl"], 3),
        "trl / ftl (cpu)": round(cpu["trl"] / cpu["ftl"], 2) if "trl" in cpu else "trl is not installed",
        "load": os.getloadavg()[0],
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in ("tokenizers", *(("trl", "datasets") if "trl" in cpu else ()))},
    }


def measure(system: str, directory: Path, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds of one preparation, after a proof on some rows that it makes what the others make."""
    view = TokenizerView.load(directory)
    dataset = DatasetSection(path="rows", type="chat_template")
    recipe = Recipe.of(dataset, DataSection(datasets=(dataset,)), "sft", view)
    texts = ["".join(s.text for s in recipe.sample(row).segments) for row in rows]  # type: ignore[union-attr]
    prove(recipe, view, rows[:200], texts[:200])
    runs: dict[str, Callable[[], object]] = {
        "raw": lambda: view.tokenizer.encode_batch_fast(texts, add_special_tokens=False),
        "ftl": lambda: prepare(recipe, view, rows),
    }
    run = trl_preparation(directory, rows, prepare(recipe, view, rows[:200])) if system == "trl" else runs[system]
    started_cpu, started = time.process_time(), time.perf_counter()
    made = run()
    seconds = {"cpu_s": time.process_time() - started_cpu, "wall_s": time.perf_counter() - started}
    num_tokens = sum(len(tokens.ids) for tokens in made) if system == "ftl" else 0  # type: ignore[attr-defined]
    return {**seconds, "tokens": num_tokens}


def prove(recipe: Recipe, view: TokenizerView, rows: list[dict[str, Any]], texts: list[str]) -> None:
    expected = [encoding.ids for encoding in view.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    assert [tokens.ids for tokens in prepare(recipe, view, rows)] == expected, "the ids are those of the whole text"


def prepare(recipe: Recipe, view: TokenizerView, rows: list[dict[str, Any]]) -> list[Tokens]:
    """What the token cache does with rows, without writing them."""
    made: list[Tokens] = []
    for start in range(0, len(rows), 1000):
        made += encode([recipe.sample(row) for row in rows[start : start + 1000]], view)  # type: ignore[arg-type]
    return made


def trl_preparation(directory: Path, rows: list[dict[str, Any]], ours: list[Tokens]) -> Callable[[], object]:
    """TRL's SFTTrainer up to its prepared dataset, with labels of the assistant alone. Proven on the first rows."""
    import datasets
    import trl
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

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

    def run(rows: list[dict[str, Any]] = rows) -> Any:  # Any: a dataset of theirs
        data = datasets.Dataset.from_list(rows)
        trainer = trl.SFTTrainer(model, args=settings, train_dataset=data, processing_class=tokenizer)
        return trainer.train_dataset

    made = run(rows[: len(ours)])
    for number, tokens in enumerate(ours):
        assert list(made[number]["input_ids"]) == tokens.ids, "both make the same ids"
        assert list(made[number]["labels"]) == tokens.labels, "and train the same tokens"
    return run


if __name__ == "__main__":
    main()
