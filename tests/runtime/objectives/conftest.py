"""Whole trainings in this process: the supervisor and its signals have tests of their own."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ftl.config.train import TrainConfig
from ftl.contract import CHECKPOINTS_DIR, JobSpec, Paths

WORDS = ("cat", "mat", "rain", "hill", "tale", "ship", "wind", "song", "fire", "road")


@pytest.fixture(scope="session")
def pairs() -> list[dict[str, Any]]:
    """Forty prompts; the better answer repeats the word, the worse one denies it. Long and short by turns."""
    return [
        {
            "prompt": f"say {word} {number} times",
            "chosen": f" {word}" * (1 + number % 3) + "<eos>",
            "rejected": f" no {word}" * (1 + number % 2) + "<eos>",
        }
        for number in range(4)
        for word in WORDS
    ]


@pytest.fixture(scope="session")
def judged(pairs) -> list[dict[str, Any]]:
    """The same answers, each by itself."""
    return [
        {"prompt": pair["prompt"], "completion": pair[side], "label": side == "chosen"}
        for pair in pairs
        for side in ("chosen", "rejected")
    ]


@dataclass
class Training:
    """What a training left behind."""

    directory: Path
    events: list[tuple[str, dict[str, Any]]]

    def of(self, name: str) -> list[dict[str, Any]]:
        return [data for event, data in self.events if event == name]

    @property
    def losses(self) -> list[float]:
        return [data["loss"] for data in self.of("step")]

    @property
    def output(self) -> Path:
        return self.directory / "output"


@pytest.fixture
def train(base, weights, tmp_path) -> Callable[..., Training]:
    """train(rows, objective={...}, **{"section.key": value}): six steps of eight rows on the CPU."""
    from ftl_runtime.checkpoint.volume import VolumeStore
    from ftl_runtime.context import Context, Device
    from ftl_runtime.mesh import Mesh
    from ftl_runtime.run import run
    from ftl_runtime.stop import StopFlag

    def start(rows, objective, *, name="run", type=None, adapter=None, stop_at=None, **changes) -> Training:
        config: dict[str, Any] = {
            "model": {"base": str(weights)},
            "data": {"datasets": [{"path": str(tmp_path / "rows.jsonl"), "type": type}], "sequence_len": 64},
            "optim": {"learning_rate": 1e-2, "micro_batch_size": 8, "max_steps": 6, "scheduler": "constant"},
            "output": {"save_strategy": "no", "eval_strategy": "no"},
            "objective": objective,
            "adapter": adapter,
        }
        for key, value in changes.items():
            section, _, field = key.partition("__")
            config[section][field] = value
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        events: list[tuple[str, dict[str, Any]]] = []
        stop = StopFlag()

        def emit(event: str, data: dict[str, Any]) -> None:
            events.append((event, data))
            if (event, data.get("step")) == stop_at:
                stop.reason = "signal"

        job = JobSpec(
            run_id="tiny",
            paths=Paths(bundle=str(tmp_path), run=str(directory), cache=str(tmp_path / "cache")),
        )
        assert job.paths is not None
        device = Device("cpu", has_bf16=True, rank=0, num_ranks=1)
        ctx = Context(
            job=job,
            paths=job.paths,
            emit=emit,
            store=VolumeStore(directory / CHECKPOINTS_DIR, "tiny", emit),
            stop=stop,
            device=device,
            started=time.time(),
            mesh=Mesh(device),
        )
        run(TrainConfig.model_validate(config), ctx)
        return Training(directory, events)

    return start
