"""Training steps on a CPU by ftl, by TRL's `SFTTrainer` and by a loop written by hand: same weights, rows and order.

What `overhead.py` and `cpu_step.py` share. All systems run in one process and one thread, in turn, round after round;
the first steps of each run are not counted. Before any figure counts, the losses that the systems logged are compared.
"""

import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "launcher"), str(ROOT / "runtime")]
LOSS_TOLERANCE = 1e-3
"""Relative. The systems add up in other orders, and nothing else."""


@dataclass(frozen=True)
class Work:
    shape: dict[str, int]
    """Of a Llama, as its config.json names it."""
    row_tokens: int
    rows_per_step: int
    warm_steps: int
    steps: int
    """Of them all; those after the warm ones are counted."""
    log_every: int
    """Steps; goes into the warm ones, and into all."""

    @property
    def counted_steps(self) -> int:
        return self.steps - self.warm_steps


@dataclass
class Run:
    """What one system did in one round."""

    work: Work
    losses: list[float] = field(default_factory=list)
    marks: dict[int, tuple[float, float]] = field(default_factory=dict)

    def mark(self, step: int) -> None:
        if step in (self.work.warm_steps, self.work.steps):
            self.marks[step] = (time.process_time(), time.perf_counter())

    @property
    def ms_per_step(self) -> tuple[float, float]:
        """CPU and wall."""
        first, last = self.marks[self.work.warm_steps], self.marks[self.work.steps]
        cpu, wall = ((last[i] - first[i]) * 1000 / self.work.counted_steps for i in (0, 1))
        return cpu, wall


def measure(work: Work, rounds: int, scratch: Path) -> dict[str, Any]:
    """Milliseconds of each system for a step, medians over the rounds; raises SystemExit where losses differ."""
    import torch

    torch.set_num_threads(1)
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    prepare(work, scratch)
    found: dict[str, list[Run]] = {}
    for number in range(rounds):
        for name, system in systems().items():
            run = Run(work)
            with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory(dir=scratch) as place:
                system(run, scratch, Path(place))
            found.setdefault(name, []).append(run)
            cpu, wall = run.ms_per_step
            print(f"round {number + 1} {name}: {cpu:.2f} ms CPU, {wall:.2f} ms wall a step", file=sys.stderr)
    differing = largest_difference({name: runs[0].losses for name, runs in found.items()})
    cpu_ms, wall_ms = (
        {name: round(statistics.median(run.ms_per_step[i] for run in runs), 3) for name, runs in found.items()}
        for i in (0, 1)
    )
    return {
        "work": {**work.shape, "row_tokens": work.row_tokens, "rows_per_step": work.rows_per_step},
        "rounds": rounds,
        "steps_counted": work.counted_steps,
        "cpu_ms_per_step": cpu_ms,
        "wall_ms_per_step": wall_ms,
        "losses_differ_by": differing,
        "threads": 1,
        "load": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d"),
        "versions": {
            name: version(name) for name in ("torch", "transformers", *(("trl",) if find_spec("trl") else ()))
        },
    }


def largest_difference(losses: dict[str, list[float]]) -> float:
    """How far a logged loss of any system is from the loop's by hand, relatively. Raises SystemExit where that tells of
    other work."""
    expected = losses["hand"]
    pairs = [pair for given in losses.values() for pair in zip(given, expected, strict=True)]
    largest = max(abs(a - b) / abs(b) for a, b in pairs)
    if not largest <= LOSS_TOLERANCE:
        raise SystemExit(f"not the same work: {losses}")
    return largest


def systems() -> dict[str, Callable[[Run, Path, Path], None]]:
    found: dict[str, Callable[[Run, Path, Path], None]] = {"hand": by_hand, "ftl": ftl}
    if find_spec("trl"):
        found |= {"trl": trl, "trl, nothing recomputed": trl_without_recomputing}
    return found


def prepare(work: Work, scratch: Path) -> None:
    """Weights, a tokenizer and rows of random tokens."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**work.shape, bos_token_id=1, eos_token_id=0, pad_token_id=2)).save_pretrained(
        scratch / "base"
    )
    names = {"<eos>": 0, "<bos>": 1, "<pad>": 2, **{f"w{i}": i for i in range(3, 1000)}}
    tokenizer = Tokenizer(models.WordLevel(names, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", bos_token="<bos>", pad_token="<pad>"
    ).save_pretrained(scratch / "base")
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 1000, (work.steps * work.rows_per_step, work.row_tokens), generator=generator).tolist()
    with (scratch / "rows.jsonl").open("w") as file:
        for row in ids:
            file.write(json.dumps({"input_ids": row, "attention_mask": [1] * len(row), "labels": row}) + "\n")


def by_hand(run: Run, scratch: Path, place: Path) -> None:
    """What anybody would write: transformers' model and loss, torch's optimizer, nothing else."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(scratch / "base", dtype=torch.float32, attn_implementation="sdpa")
    model.train()
    rows = [json.loads(line)["input_ids"] for line in (scratch / "rows.jsonl").open()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    window = torch.zeros(())
    for step in range(1, run.work.steps + 1):
        ids = torch.tensor(rows[(step - 1) * run.work.rows_per_step : step * run.work.rows_per_step])
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        window += loss.detach()
        if step % run.work.log_every == 0:
            run.losses.append(float(window) / run.work.log_every)
            window.zero_()
        run.mark(step)


def ftl(run: Run, scratch: Path, place: Path) -> None:
    """A whole job, events written to their file and all, but in this process."""
    from ftl.contract import JobSpec, Paths, Resources
    from ftl_runtime.events import EventLog
    from ftl_runtime.run import do_job
    from ftl_runtime.stop import StopFlag

    config = {
        "model": {"base": str(scratch / "base")},
        "data": {
            "datasets": [{"path": str(scratch / "rows.jsonl"), "type": None}],
            "sequence_len": run.work.row_tokens,
            "keep_order": True,
            "shuffle": False,
        },
        "optim": {
            "learning_rate": 1e-3,
            "micro_batch_size": run.work.rows_per_step,
            "max_steps": run.work.steps,
            "scheduler": "constant",
            "warmup_steps": 0,
        },
        "output": {"logging_steps": run.work.log_every, "save_strategy": "no"},
    }
    for name in ("run", "bundle"):
        (place / name).mkdir()
    (place / "bundle" / "config.json").write_text(json.dumps(config))
    paths = Paths(bundle=str(place / "bundle"), run=str(place / "run"), cache=str(scratch / "cache"))
    log = EventLog(place / "run" / "events.jsonl", 1)

    def emit(name: str, data: dict[str, Any]) -> None:
        log.emit(name, data)
        if name == "step":
            run.losses.append(data["loss"])
            run.mark(data["step"])

    os.environ["FTL_STARTED"] = str(time.time())
    do_job(JobSpec(run_id="speed", resources=Resources(cpus=1), paths=paths), emit, StopFlag())


def trl(run: Run, scratch: Path, place: Path) -> None:
    _trl(run, scratch, place, recomputes=True)


def trl_without_recomputing(run: Run, scratch: Path, place: Path) -> None:
    _trl(run, scratch, place, recomputes=False)


def _trl(run: Run, scratch: Path, place: Path, *, recomputes: bool) -> None:
    """SFTConfig as it comes, but in fp32 and, without `recomputes`, at its faster setting."""
    import torch
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            run.mark(state.global_step)

    args = SFTConfig(
        output_dir=str(place), max_steps=run.work.steps, per_device_train_batch_size=run.work.rows_per_step,
        learning_rate=1e-3, lr_scheduler_type="constant", max_length=run.work.row_tokens,
        logging_steps=run.work.log_every, save_strategy="no", report_to=[], bf16=False, use_cpu=True, disable_tqdm=True,
        gradient_checkpointing=recomputes, train_sampling_strategy="sequential",
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(scratch / "base", dtype=torch.float32, attn_implementation="sdpa")
    rows = load_dataset("json", data_files=str(scratch / "rows.jsonl"), split="train", cache_dir=str(scratch / "hf"))
    trainer = SFTTrainer(
        model=model, args=args, train_dataset=rows.select_columns(["input_ids", "labels"]),
        processing_class=AutoTokenizer.from_pretrained(scratch / "base"), callbacks=[Clock()],
    )  # fmt: skip
    trainer.train()
    run.losses += [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
