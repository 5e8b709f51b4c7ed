"""Several ranks of one attempt, forked from a process that has imported everything: a second each, not ten."""

import json
import multiprocessing
import os
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["ftl_runtime.run", "together"])
TIMEOUT_S = 120


def train_together(attempt: Any, num_ranks: int, *, stop_at: int | None = None) -> list[dict[str, Any]]:
    """One attempt with so many ranks, to its end, or until rank 1 is asked to stop after `stop_at` steps.

    Gives what each rank was seen to have built.
    """
    return train_in_turn([(attempt, stop_at)], num_ranks)[0]


def train_in_turn(
    trainings: list[tuple[Any, int | None]], num_ranks: int, *, apart: bool = False
) -> list[list[dict[str, Any]]]:
    """Several attempts, each with the step after which it is asked to stop, one after the other in the same ranks.

    With `apart` each rank is a machine of its own, with a run directory of its own: that of rank 0 is the attempt's,
    that of rank 1 beside it, run-1.
    """
    jobs, files = [], []
    for number, (attempt, stop_at) in enumerate(trainings):
        seen = [attempt.directory / f"seen-{number}-{rank}.json" for rank in range(num_ranks)]
        for file in seen:
            file.unlink(missing_ok=True)
        jobs.append(partial(_train, attempt._write({}).model_dump_json(), seen, stop_at, apart))
        files.append(seen)
    run_ranks(partial(_in_turn, jobs), num_ranks, TIMEOUT_S + 30 * len(jobs))
    return [[json.loads(file.read_text()) for file in seen] for seen in files]


def run_ranks(target: Any, num_ranks: int, timeout_s: float = TIMEOUT_S) -> None:
    """`target(device)` in each of so many ranks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(num_ranks), "OMP_NUM_THREADS": "1"}
    env["LOCAL_WORLD_SIZE"] = str(num_ranks)
    processes = [
        _SERVER.Process(target=_in_rank, args=(target, env | {"RANK": str(rank), "LOCAL_RANK": str(rank)}))
        for rank in range(num_ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout_s)
        if process.is_alive():
            process.kill()
            raise AssertionError("a rank waits for the others for ever")
    assert [process.exitcode for process in processes] == [0] * num_ranks


def _in_rank(target: Any, env: dict[str, str]) -> None:
    from ftl_runtime.context import Device

    os.environ.update(env)
    target(Device("cpu", has_bf16=True, rank=int(env["RANK"]), num_ranks=int(env["WORLD_SIZE"])))
    os._exit(0)


def _in_turn(targets: list[Any], device: Any) -> None:
    for target in targets:
        target(device)


def _train(job_json: str, seen: list[Path], stop_at: int | None, apart: bool, device: Any) -> None:
    import time

    import torch

    from ftl.contract import JobSpec
    from ftl.errors import PreemptedError
    from ftl_runtime import run
    from ftl_runtime.stop import StopFlag

    os.environ.update(FTL_STARTED=str(time.time()), HF_HUB_OFFLINE="1")
    torch.set_num_threads(1)
    job, stop = JobSpec.read_json(job_json.encode()), StopFlag()
    if apart:
        os.environ.update(LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
        own = {key: getattr(job.paths, key) + f"-{device.rank}" for key in ("run", "cache")}
        if not device.is_main:
            Path(own["run"]).mkdir(exist_ok=True)
            job = job.model_copy(update={"paths": job.paths.model_copy(update=own)})
    events = Path(job.paths.run) / "events.jsonl"
    train = run._train

    def watched(trainer: Any, *rest: Any) -> None:
        step = trainer.training_step

        def stepping(*args: Any, **kwargs: Any) -> Any:
            if stop_at is not None and device.rank == 1 and trainer.state.global_step + 1 == stop_at:
                stop.reason = "signal"  # of one rank alone: all must agree to stop
            return step(*args, **kwargs)

        trainer.training_step = stepping
        try:
            train(trainer, *rest)
        finally:
            seen[device.rank].write_text(json.dumps(_built(trainer)))

    def emit(name: str, data: dict[str, Any]) -> None:
        if device.is_main:
            with events.open("a") as file:
                file.write(json.dumps({"t": time.time(), "attempt": job.attempt, "event": name, "data": data}) + "\n")

    run._train = watched  # type: ignore[assignment]
    try:
        run.do_job(job, emit, stop)
    except PreemptedError:
        assert stop_at is not None
    else:
        assert stop_at is None
    finally:
        run._train = train


def _built(trainer: Any) -> dict[str, Any]:
    import torch.distributed as dist

    model = trainer.model_wrapped
    parameters = list(trainer.model.named_parameters())
    return {
        "wrapper": type(model).__name__,
        "world": dist.get_world_size() if dist.is_initialized() else 1,
        "timeout_s": _timeout_s(),
        "buffers": getattr(model, "broadcast_buffers", None),
        "unused": getattr(model, "find_unused_parameters", None),
        "bucket_bytes": getattr(model, "bucket_bytes_cap", None),
        "local": {name: list(getattr(p, "_local_tensor", p).shape) for name, p in parameters},
        "compiled": [
            name for name, it in sys.modules.items() if "torch_extensions" in str(getattr(it, "__file__", ""))
        ],
        "part": {name: p.ds_tensor.numel() for name, p in parameters if hasattr(p, "ds_tensor")},
        "whole": {name: list(p.shape) for name, p in parameters},
    }


def _timeout_s() -> float | None:
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        return None
    return dist.group.WORLD._get_backend(torch.device("cpu")).options._timeout.total_seconds()
