"""A tiny world to train in: a two-layer Llama of random weights, a byte-level tokenizer, sixty short texts.

`job` writes a run directory as a backend does; `Attempt` starts the real supervisor on it.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ftl.contract import JobSpec, Paths, Resources

STORY = "the cat sat on a mat while rain fell over grey hills and old men told tales of ships"


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """A directory with config.json and a tokenizer, no weights."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    directory = tmp_path_factory.mktemp("base")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<eos>", "<pad>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>").save_pretrained(directory)
    LlamaConfig(
        vocab_size=304,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def weights(base, tmp_path_factory) -> Path:
    """The same base with weights, drawn once."""
    import shutil

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    directory = tmp_path_factory.mktemp("weights") / "base"
    shutil.copytree(base, directory)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base)).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def wide(base, tmp_path_factory) -> Path:
    """A base as wide as a block of 4-bit weights, so that bitsandbytes could lay it out anew."""
    import shutil

    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    directory = tmp_path_factory.mktemp("wide") / "base"
    shutil.copytree(base, directory)
    config = LlamaConfig.from_pretrained(base, hidden_size=64, intermediate_size=128, head_dim=32)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    return directory


def texts() -> list[str]:
    """Sixty texts of three to fourteen words, the same every time."""
    words = STORY.split()
    return [" ".join(words[(7 * i + 3 * j) % len(words)] for j in range(3 + i % 12)) for i in range(60)]


_ROOT = Path(__file__).parents[2]
_ENV = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": f"{_ROOT / 'launcher'}:{_ROOT / 'runtime'}:{Path(__file__).parent / 'inject'}",
}


@dataclass
class Attempt:
    """One run directory, and the supervisors started on it."""

    directory: Path
    config: dict[str, Any]
    spec: dict[str, Any] = field(default_factory=dict)
    number: int = 0

    @property
    def run(self) -> Path:
        return self.directory / "run"

    def start(self, *faults: dict[str, Any], env: dict[str, str] | None = None, **spec: Any) -> subprocess.Popen:
        """Write the bundle and job.json, and start the supervisor in a session of its own.

        `faults` are those of inject/sitecustomize.py.
        """
        self._write(spec)
        return self.supervise(*faults, env=env)

    def supervise(
        self, *faults: dict[str, Any], env: dict[str, str] | None = None, job_file: Path | None = None
    ) -> subprocess.Popen:
        """One more supervisor on what is written there already."""
        return subprocess.Popen(
            [sys.executable, "-m", "ftl_runtime", str(job_file or self.run / "job.json")],
            env={**os.environ, **_ENV, **({"FTL_TEST_INJECT": json.dumps(faults)} if faults else {}), **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def train(self, *, stop_at: int | None = None) -> None:
        """One attempt in this process, to its end, or until it is asked to stop after logging step `stop_at`.

        Spares the ten seconds that a process takes to import torch.
        """
        from ftl.errors import PreemptedError
        from ftl_runtime.run import do_job
        from ftl_runtime.stop import StopFlag

        job, stop = self._write({}), StopFlag()

        def emit(name: str, data: dict[str, Any]) -> None:
            event = {"t": time.time(), "attempt": self.number, "event": name, "data": data}
            with (self.run / "events.jsonl").open("a") as file:
                file.write(json.dumps(event) + "\n")
            if name == "step" and data["step"] == stop_at:
                stop.reason = "signal"

        os.environ["FTL_STARTED"] = str(time.time())
        try:
            do_job(job, emit, stop)
        except PreemptedError:
            assert stop_at is not None
        else:
            assert stop_at is None

    def _write(self, spec: dict[str, Any]) -> JobSpec:
        self.number += 1
        bundle = self.directory / "bundle"
        bundle.mkdir(parents=True, exist_ok=True)
        self.run.mkdir(exist_ok=True)
        (bundle / "config.json").write_text(json.dumps(self.config))
        (bundle / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts()))
        secrets = spec.pop("secrets_dir", None)
        paths = Paths(
            bundle=str(bundle),
            run=str(self.run),
            cache=str(self.directory / "cache"),
            secrets=str(secrets) if secrets else None,
        )
        known = {"run_id": "tiny", "attempt": self.number, "resources": Resources(cpus=1), "paths": paths}
        job = JobSpec.model_validate(known | self.spec | spec)
        (self.run / "job.json").write_text(job.model_dump_json())
        return job

    def finish(self, process: subprocess.Popen, timeout_s: float = 240) -> int:
        """Its exit code, once it has ended."""
        self.output = process.communicate(timeout=timeout_s)[0].decode()
        return process.returncode

    def go(self, *faults: dict[str, Any], **spec: Any) -> int:
        return self.finish(self.start(*faults, **spec))

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        path = self.run / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("}")]
        return [event for event in events if name is None or event["event"] == name]

    def losses(self) -> dict[int, float]:
        """Step -> logged loss. A step that was trained twice must have had the same loss both times."""
        found: dict[int, float] = {}
        for event in self.events("step"):
            step, loss = event["data"]["step"], event["data"]["loss"]
            assert found.setdefault(step, loss) == loss, f"step {step} differs between attempts"
        return found

    def wait_for(self, name: str, timeout_s: float = 180, **data: Any) -> dict[str, Any]:
        """The first event of that name that has these data."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            for event in self.events(name):
                if all(event["data"].get(key) == value for key, value in data.items()):
                    return event
            time.sleep(0.02)
        raise AssertionError(f"no {name} event with {data}; log: {self.log()[-3000:]}")

    def wait_for_attempt_to_train(self, process: subprocess.Popen) -> None:
        """Until the newest attempt has logged a step, or ended."""
        while process.poll() is None:
            if any(event["attempt"] == self.number for event in self.events("step")):
                return
            time.sleep(0.02)

    def trainers(self, job_file: Path | None = None) -> list[int]:
        """Processes of ours that train, of any attempt."""
        found, job_file = [], job_file or self.run / "job.json"
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"ftl_runtime.rank" in words and str(job_file).encode() in words:
                    found.append(int(entry.name))
        return found

    def kill_trainers(self) -> None:
        for pid in self.trainers():
            os.kill(pid, signal.SIGKILL)

    def exit_record(self) -> dict[str, Any]:
        return json.loads((self.run / "exit.json").read_text())

    def log(self) -> str:
        path = self.run / "log.txt"
        return path.read_text() if path.exists() else ""


@pytest.fixture(scope="session")
def attempt_below(base):
    """attempt_below(directory, name, section__key=value): a run of 12 steps over 3 epochs unless told otherwise."""

    def make(
        directory: Path,
        name: str = "a",
        *,
        model: Path = base,
        adapter: dict[str, Any] | None = None,
        quant: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Attempt:
        config: dict[str, Any] = {
            "model": {"base": str(model), "reinit_weights": model == base},
            "data": {
                "datasets": [{"path": "bundle:texts.jsonl", "type": "completion"}],
                "sequence_len": 48,
                "val_set_size": 8,
                "sample_packing": True,
            },
            "optim": {"learning_rate": 1e-2, "micro_batch_size": 2, "gradient_accumulation_steps": 2, "num_epochs": 3},
            "precision": {},
            "trained": {},
            "rates": {},
            "output": {"save_steps": 2, "eval_steps": 3, "logging_steps": 1},
        }
        if adapter is not None:
            config["adapter"] = adapter
        if quant is not None:
            config["quant"] = quant
        for key, value in changes.items():
            section, _, field_name = key.partition("__")
            config.setdefault(section, {})[field_name] = value
        return Attempt(directory / name, config)

    return make


@pytest.fixture
def make_attempt(attempt_below, tmp_path):
    """attempt_below in a directory of the test's own."""
    return partial(attempt_below, tmp_path)
