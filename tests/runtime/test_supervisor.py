"""The supervisor and its trainers as processes: signals, deadline, lock, verdicts, what is left behind."""

import base64
import json
import os
import signal
import time
from pathlib import Path

import pytest
from metadata_server import MetadataServer

from ftl_runtime.events import EventLog

pytestmark = pytest.mark.torch

SLOW = {"event": "step", "sleep": 0.3}


def stop_step(attempt) -> int:
    return attempt.events("stopped")[-1]["data"]["step"]


def wait_until_open(pid: int, path: Path) -> None:
    """Until the process has the file open."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if str(path) in {os.path.realpath(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}:
            return
        time.sleep(0.02)
    raise AssertionError(f"{pid} has not opened {path}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_signal_saves_the_step_at_hand_and_exits_75(make_attempt, number):
    attempt = make_attempt(output__save_strategy="no")
    process = attempt.start(SLOW)
    attempt.wait_for("step", step=2)
    process.send_signal(number)
    assert attempt.finish(process) == 75
    step = stop_step(attempt)
    assert max(attempt.losses()) == step < 12
    assert attempt.events("stopping")[-1]["data"] == {"reason": "signal", "step": step, "saves": True}
    states = [e["data"]["state"] for e in attempt.events("checkpoint") if e["data"]["step"] == step]
    assert states == ["saved", "verified"]
    record = attempt.exit_record()
    assert (record["exit_code"], record["cause"]) == (75, "signal")
    assert record["message"] == f"stopped at step {step} of 12; it can be resumed from there"
    assert attempt.trainers() == []


@pytest.mark.parametrize("module", ["torch", "transformers"])
def test_signal_while_importing_leaves_at_once_with_75(make_attempt, module):
    attempt = make_attempt()
    assert attempt.go({"import": module, "signal": signal.SIGTERM, "to": "supervisor", "after": 5}) == 75
    assert attempt.events("stopped")[-1]["data"] == {"step": 0, "checkpoint": None}
    assert attempt.exit_record()["cause"] == "signal"


def test_signal_before_the_trainer_has_its_handlers_is_not_lost(make_attempt):
    attempt = make_attempt()
    assert attempt.go({"start": True, "signal": signal.SIGTERM, "to": "supervisor", "after": 1}) == 75
    assert attempt.events("stopped")[-1]["data"] == {"step": 0, "checkpoint": None}


def test_rank_0_that_is_killed_while_it_starts_does_not_take_along_where_it_stopped(make_attempt):
    attempt = make_attempt()
    hangs = {"start": True, "sleep": 600, "rank": "0"}
    asks = {"start": True, "signal": signal.SIGTERM, "to": "supervisor", "rank": "1"}
    assert attempt.go(hangs, asks, resources={"processes": 2}, grace_s=1) == 75
    assert [event["data"] for event in attempt.events("stopped")] == [{"step": 0, "checkpoint": None}]


def test_deadline_saves_before_it_strikes(make_attempt):
    attempt = make_attempt(output__save_strategy="no", optim__num_epochs=100)
    started = time.monotonic()
    assert attempt.go(SLOW, timeout_s=50, grace_s=25) == 75
    assert time.monotonic() - started < 50
    assert attempt.events("stopping")[-1]["data"]["reason"] == "deadline"
    assert attempt.events("stopped")[-1]["data"]["checkpoint"] == stop_step(attempt)
    assert attempt.exit_record()["cause"] == "deadline"


def test_limit_that_earlier_attempts_have_used_up_starts_no_trainer(make_attempt):
    attempt = make_attempt()
    assert attempt.go(timeout_s=50, limit_from=time.time() - 60) == 75
    record = attempt.exit_record()
    assert record["cause"] == "deadline"
    assert "used up the 50 s" in record["message"]
    assert attempt.events("start") == []


def test_notice_of_the_provider_is_a_request_to_stop(make_attempt, tmp_path):
    attempt = make_attempt(output__save_strategy="no")
    store = {"kind": "url", "url": f"file://{tmp_path}/bucket"}
    with MetadataServer() as server:
        env = {"FTL_NOTICES": "gcp", "FTL_NOTICES_ENDPOINT": server.url}
        process = attempt.start(SLOW, env=env, stores=[store])
        attempt.wait_for("step", step=2)
        server.preempted = "TRUE"
        assert attempt.finish(process) == 75
    step = stop_step(attempt)
    told = {"reason": "signal", "step": step, "saves": True, "why": "Google Cloud takes this spot machine back"}
    assert attempt.events("stopping")[-1]["data"] == told
    assert attempt.events("stopped")[-1]["data"]["checkpoint"] == step
    record = attempt.exit_record()
    assert record["cause"] == "signal"
    sent = f"the newest checkpoint in a store is step {step} in {store['url']}/tiny"
    assert record["message"] == f"stopped at step {step} of 12; it can be resumed from there; {sent}"
    assert (tmp_path / f"bucket/tiny/checkpoint-{step}/manifest.json").is_file()


def test_save_that_would_not_be_over_in_time_is_not_started(make_attempt):
    attempt = make_attempt(output__save_steps=2)
    # The third step ends before the request; by then the last save is said to have taken longer than there is time.
    process = attempt.start({"event": "step", "step": 3, "sleep": 3}, grace_s=50)
    attempt.wait_for("step", step=3)
    attempt.wait_for("checkpoint", step=2, state="verified")
    slow = {"step": 2, "path": "checkpoints/checkpoint-2", "state": "verified", "seconds": 45.0, "bytes": 1}
    EventLog(attempt.run / "events.jsonl", 1).emit("checkpoint", slow)
    process.send_signal(signal.SIGTERM)
    assert attempt.finish(process) == 75
    assert not attempt.events("stopping")[-1]["data"]["saves"]
    assert attempt.events("stopped")[-1]["data"] == {"step": 3, "checkpoint": 2}
    message = attempt.exit_record()["message"]
    assert message.startswith("stopped at step 3 of 12, which was not saved (the last save took 45 s, and 4")
    assert message.endswith(" s are left); it goes on from step 2")
    assert [path.name for path in (attempt.run / "checkpoints").glob("checkpoint-*")] == ["checkpoint-2"]


def test_trainer_that_does_not_stop_is_killed_after_the_grace(make_attempt):
    attempt = make_attempt()
    process = attempt.start({"event": "step", "step": 3, "sleep": 600}, grace_s=1)
    attempt.wait_for("step", step=3)
    attempt.wait_for("checkpoint", step=2, state="saved")
    process.send_signal(signal.SIGTERM)
    assert attempt.finish(process, timeout_s=60) == 75
    assert attempt.exit_record()["message"] == "killed before it could save; the newest checkpoint is step 2"


def test_second_signal_kills_at_once(make_attempt):
    attempt = make_attempt()
    process = attempt.start({"event": "step", "step": 3, "sleep": 600}, grace_s=600)
    attempt.wait_for("step", step=3)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert attempt.finish(process, timeout_s=60) == 75


def test_killed_trainer_is_told_as_killed(make_attempt):
    attempt = make_attempt()
    assert attempt.go({"event": "phase", "signal": signal.SIGKILL}) == 137
    record = attempt.exit_record()
    assert (record["exit_code"], record["cause"]) == (137, "killed")
    assert attempt.events("error")[-1]["data"]["cause"] == "killed"
    assert record["message"] in attempt.log()


def test_supervisor_killed_leaves_no_trainer_and_the_next_attempt_goes_on(make_attempt):
    attempt = make_attempt()
    process = attempt.start({"event": "step", "step": 5, "sleep": 600})
    attempt.wait_for("checkpoint", step=4, state="saved")
    assert attempt.trainers() != []
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    until = time.monotonic() + 20
    while attempt.trainers() and time.monotonic() < until:
        time.sleep(0.02)
    assert attempt.trainers() == []
    assert attempt.go() == 0, attempt.output
    assert attempt.events("resumed")[-1]["data"]["step"] == 4


def test_second_start_is_refused_while_the_first_is_at_work(make_attempt):
    attempt = make_attempt()
    first = attempt.start({"event": "step", "step": 1, "sleep": 600})
    attempt.wait_for("step", step=1)
    second = attempt.start()
    wait_until_open(second.pid, attempt.run / "run.lock")
    second.send_signal(signal.SIGTERM)  # does not wait the 30 s then
    assert attempt.finish(second, timeout_s=60) == 3
    assert "another attempt of this run is still at work there" in attempt.output
    assert not (attempt.run / "exit.json").exists()
    first.kill()
    first.communicate()


def test_result_is_the_last_file_and_a_second_start_returns_at_once(make_attempt):
    attempt = make_attempt(optim__max_steps=2)
    assert attempt.go() == 0, attempt.output
    result = attempt.run / "result.json"
    others = [path for path in (attempt.run / "output").rglob("*") if path.is_file()]
    assert all(path.stat().st_mtime_ns <= result.stat().st_mtime_ns for path in others)
    manifest = json.loads((attempt.run / "output" / "manifest.json").read_text())
    assert sorted(manifest["files"]) == sorted(path.name for path in others if path.name != "manifest.json")
    assert not [name for name in manifest["files"] if "training_args" in name or "optimizer" in name]
    num_events = len(attempt.events())
    assert attempt.go() == 0
    assert len(attempt.events()) == num_events
    ended = {"attempt": 2, "submission": None, "exit_code": 0, "cause": "done", "message": None}
    assert attempt.exit_record() == ended


def test_config_error_is_one_sentence_everywhere(make_attempt):
    attempt = make_attempt(model__class_name="GPT2LMHeadModel")
    assert attempt.go() == 2
    sentence = "model_type: GPT2LMHeadModel: this base is a LlamaForCausalLM; remove the key, or name that"
    assert attempt.exit_record()["message"] == sentence
    assert attempt.events("error")[-1]["data"] == {"cause": "config", "message": sentence}
    assert sentence in attempt.log()
    assert sentence in attempt.output
    assert "Traceback" not in attempt.log()


def test_crash_keeps_its_traceback_in_the_log(make_attempt):
    attempt = make_attempt()
    attempt.config["data"]["sequence_len"] = "many"
    assert attempt.go() == 70
    assert "Traceback" in attempt.log()
    assert attempt.exit_record()["cause"] == "crash"


def test_gpus_that_are_not_there_are_an_environment_error(make_attempt):
    attempt = make_attempt()
    assert attempt.go(resources={"gpus": 1}) == 3
    assert "this machine shows 0 GPUs" in attempt.exit_record()["message"]


def test_secret_reaches_the_trainer_and_nothing_on_disk(make_attempt, tmp_path):
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "HF_TOKEN").write_text("canary-5d1\n")
    attempt = make_attempt(optim__max_steps=1)
    # What no Python code of ours has in its hands: a program that the trainer runs, the second time in base64.
    says = 'echo "it is $HF_TOKEN"; printf "again %s" "$(printf "$HF_TOKEN" | base64)" >&2'
    process = attempt.start({"event": "result", "run": says}, secrets=("HF_TOKEN",), secrets_dir=secrets)
    assert attempt.finish(process) == 0, attempt.output
    assert "it is ***\nagain ***" in attempt.log()
    assert attempt.output.endswith(attempt.log())
    written = b"".join(path.read_bytes() for path in attempt.run.rglob("*") if path.is_file())
    assert b"canary-5d1" not in written
    assert base64.b64encode(b"canary-5d1").rstrip(b"=")[:-1] not in written


def test_missing_secret_is_an_environment_error(make_attempt, tmp_path):
    attempt = make_attempt()
    assert attempt.go(secrets=("HF_TOKEN",), secrets_dir=tmp_path) == 3
    assert "secret HF_TOKEN: there is no file" in attempt.exit_record()["message"]


def test_loss_that_is_not_a_number_names_its_step_and_saves_nothing(make_attempt):
    attempt = make_attempt(optim__learning_rate=1e30, output__save_steps=100)
    assert attempt.go() == 70
    assert attempt.exit_record()["cause"] == "crash"
    assert "step" in attempt.exit_record()["message"]
    assert not list((attempt.run / "checkpoints").glob("checkpoint-*"))


def test_eight_at_once_equals_one_at_a_time_eight_times(make_attempt):
    shape = {"optim__max_steps": 5, "data__sample_packing": False, "output__save_strategy": "no"}
    whole = make_attempt("whole", optim__micro_batch_size=8, optim__gradient_accumulation_steps=1, **shape)
    parts = make_attempt("parts", optim__micro_batch_size=1, optim__gradient_accumulation_steps=8, **shape)
    assert whole.go() == 0, whole.output
    assert parts.go() == 0, parts.output
    assert list(parts.losses().values()) == pytest.approx(list(whole.losses().values()), rel=1e-5)
