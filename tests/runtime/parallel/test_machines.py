"""Two supervisors, as two machines with a run directory each, train as one process does."""

import json
import os
import shutil
import signal
import socket

import pytest

pytestmark = pytest.mark.torch

COMMON = {"optim__max_steps": 4, "data__val_set_size": 7, "output__eval_strategy": "no", "output__save_steps": 2}


def start_both(attempt, *faults):
    """The supervisors of machines 0 and 1; the run directory of the second is run-1, made anew."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"NNODES": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    first = attempt.start(*faults, env={**place, "NODE_RANK": "0"})
    shutil.rmtree(attempt.directory / "run-1", ignore_errors=True)
    own = {"run": str(attempt.directory / "run-1"), "cache": str(attempt.directory / "cache-1")}
    job = json.loads((attempt.run / "job.json").read_text())
    job["paths"] |= own
    (attempt.directory / "run-1").mkdir()
    file = attempt.directory / "run-1/job.json"
    file.write_text(json.dumps(job))
    return first, attempt.supervise(*faults, env={**place, "NODE_RANK": "1"}, job_file=file)


def exit_of(directory, name):
    record = json.loads((directory / name).read_text())
    return record["exit_code"], record["cause"], record["message"]


def test_run_that_loses_a_trainer_of_the_second_machine_goes_on_with_the_losses_of_one_process(make_attempt):
    alone, attempt = (make_attempt(name, optim__micro_batch_size=2, **COMMON) for name in ("alone", "machines"))
    alone.train()
    attempt.config["optim"]["micro_batch_size"] = 1
    first, second = start_both(attempt, {"event": "step", "step": 3, "sleep": 600})
    attempt.wait_for("step", step=3)
    attempt.wait_for("checkpoint", step=2, state="saved")
    (trainer,) = attempt.trainers(attempt.directory / "run-1/job.json")
    os.kill(trainer, signal.SIGKILL)
    assert attempt.finish(first, timeout_s=60) == 75, attempt.output
    assert attempt.finish(second, timeout_s=60) == 137, attempt.output
    code, cause, message = exit_of(attempt.run, "exit.json")
    assert (code, cause) == (75, "lost")
    assert message.startswith("machine 1: the trainer was killed (SIGKILL)")
    assert message.endswith("; it goes on from step 2")
    assert attempt.events("stopped")[-1]["data"] == {"step": 2, "checkpoint": 2}

    first, second = start_both(attempt)
    assert attempt.finish(first) == 0, attempt.output
    assert attempt.finish(second) == 0, attempt.output
    assert [event["data"]["step"] for event in attempt.events("resumed")] == [2]
    assert list(attempt.losses().values()) == pytest.approx(list(alone.losses().values()), rel=1e-5)
    assert json.loads((attempt.run / "result.json").read_text())["ranks"] == 2
    assert exit_of(attempt.run, "exit.json") == (0, "done", None)
    assert exit_of(attempt.directory / "run-1", "exit-1.json") == (0, "done", None)
    assert not (attempt.directory / "run-1/events.jsonl").exists()
