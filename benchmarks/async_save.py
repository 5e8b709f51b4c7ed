"""How long a save holds a training up: where it waits until all is written, and where a copy is written meanwhile.

    python benchmarks/async_save.py [--rounds 5] [--directory /where/checkpoints/are/to/lie]

A Llama of 35 million parameters in fp32 and its AdamW states, 0.4 GB, trained on a CPU and saved by what saves in ftl:
written, hashed, flushed to the disk, renamed, read back and hashed again. The two ways take turns. Prints one JSON
object: medians of the seconds a save holds the training up, their ratio, and what limits it: the copy. `step_s` says
what the writing meanwhile costs the steps beside it.
"""

import argparse
import datetime
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, __version__, utils

from ftl_runtime.checkpoint.contents import Contents
from ftl_runtime.checkpoint.saver import Saver
from ftl_runtime.checkpoint.volume import VolumeStore
from ftl_runtime.context import Device
from ftl_runtime.parallel.held import Held

SHAPE = {
    "vocab_size": 16_000,
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}
ROW_TOKENS = 64


class Training:
    """Steps on random rows, and what a checkpoint of it holds."""

    def __init__(self, device: Device) -> None:
        torch.manual_seed(0)
        self.model = LlamaForCausalLM(LlamaConfig(**SHAPE, torch_dtype=torch.float32))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self._held = Held(self.model, device)

    def step(self) -> float:
        started = time.monotonic()
        rows = torch.randint(SHAPE["vocab_size"], (1, ROW_TOKENS))
        self.model(input_ids=rows, labels=rows).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.monotonic() - started

    @contextmanager
    def state(self, stage: Path) -> Iterator[Contents]:
        contents = Contents()
        self._held.save(self.optimizer, stage, contents)
        yield contents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, help="default: the place for temporary files")
    given = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["DS_ACCELERATOR"] = "cpu"  # else DeepSpeed, which accelerate imports, says what it has found
    utils.logging.disable_progress_bar()
    device = Device("cpu", has_bf16=False, rank=0, num_ranks=1)
    training = Training(device)
    training.step()
    saves: dict[str, list[dict[str, Any]]] = defaultdict(list)
    step_s: dict[str, list[float]] = {"alone": [], "beside a save": []}
    with tempfile.TemporaryDirectory(dir=given.directory) as scratch:
        told: list[dict[str, Any]] = []  # the events of verified checkpoints
        context: Any = SimpleNamespace(
            store=VolumeStore(Path(scratch), "bench", lambda name, data: None),
            device=device,
            emit=lambda name, data: told.append(data) if data["state"] == "verified" else None,
            warn=lambda message: parser.exit(1, f"{message}\n"),
        )
        savers = {
            "waiting": Saver(context, keep=1, may_be_behind=False),
            "behind": Saver(context, keep=1, may_be_behind=True),
        }
        for step in range(2 * given.rounds + 2):  # the first round is not counted: memory is gotten then
            way = list(savers)[step % 2]
            savers[way].save(step, training.state, None)
            while len(told) <= step:
                step_s["beside a save"].append(training.step())
                savers[way].look()
            saves[way].append(told[-1])
            step_s["alone"] += [training.step() for _ in range(3)]
    blocked_s, whole_s = (
        {way: statistics.median(save[key] for save in found[1:]) for way, found in saves.items()}
        for key in ("blocked_s", "seconds")
    )
    num_bytes = saves["behind"][0]["bytes"]
    figures = {
        "checkpoint_mb": round(num_bytes / 1e6),
        "rounds": given.rounds,
        "blocked_s": {way: round(seconds, 3) for way, seconds in blocked_s.items()},
        "behind / waiting": round(blocked_s["behind"] / blocked_s["waiting"], 4),
        "each, behind": [round(save["blocked_s"], 3) for save in saves["behind"][1:]],
        "first, behind": round(saves["behind"][0]["blocked_s"], 3),
        "each, waiting": [round(save["blocked_s"], 3) for save in saves["waiting"][1:]],
        "verified_after_s": {way: round(seconds, 3) for way, seconds in whole_s.items()},
        "mb_per_s": {
            "copied": round(num_bytes / 1e6 / blocked_s["behind"]),
            "written, hashed, flushed, read back": round(num_bytes / 1e6 / blocked_s["waiting"]),
        },
        "step_s": {when: round(statistics.median(seconds), 3) for when, seconds in step_s.items()},
        "load": os.getloadavg()[0],
        "cores": os.cpu_count(),
        "date": datetime.date.today().isoformat(),
        "versions": {"torch": torch.__version__, "transformers": __version__},
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
