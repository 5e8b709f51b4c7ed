"""python -m ftl_runtime JOB.json: does what STANDIN says, with the files and exit codes of the real runtime."""

import json
import signal
import sys
import time
from pathlib import Path

job = json.loads(Path(sys.argv[1]).read_text())
run = Path(job["paths"]["run"])
what = job["env"].get("STANDIN", "done")
stopped = False


def stop(*_: object) -> None:
    global stopped
    stopped = True


def event(kind: str, **data: object) -> None:
    line = json.dumps({"t": time.time(), "attempt": job["attempt"], "event": kind, "data": data})
    with (run / "events.jsonl").open("a") as file:
        file.write(line + "\n")


def end(code: int, cause: str, message: str | None = None) -> None:
    verdict = {"attempt": job["attempt"], "exit_code": code, "cause": cause, "message": message}
    (run / "exit.json.new").write_text(json.dumps(verdict))
    (run / "exit.json.new").replace(run / "exit.json")
    sys.exit(code)


signal.signal(signal.SIGTERM, stop)
with (run / "log.txt").open("a") as log:
    log.write(f"attempt {job['attempt']} of {job['run_id']} is to {job.get('task', 'train')}\n")
starts = len((run / "log.txt").read_text().splitlines())
secrets = job["paths"].get("secrets")
if secrets:
    (run / "seen.json").write_text(json.dumps({p.name: len(p.read_text()) for p in Path(secrets).iterdir()}))
event("phase", name="training")
if what == "crash":
    end(70, "crash", "ValueError: the stand-in was told to crash")
if job.get("task") == "preprocess":
    end(0, "done")
if what == "hang-once" and starts > 1:
    what = "done"
if what == "killed":
    end(137, "killed", "the trainer was killed")
if what == "deadline-twice" and starts < 3:
    end(75, "deadline")
checkpoint = run / "checkpoints/checkpoint-7"
if what == "save-then-hang" and not checkpoint.exists():
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text("{}")
    event("checkpoint", step=7, state="verified", path="checkpoints/checkpoint-7")
    print(f"saved {job['run_id']}", flush=True)
    while not stopped:
        time.sleep(0.02)
while what in ("hang", "hang-once") and not stopped:
    time.sleep(0.02)
if stopped:
    event("checkpoint", step=7, state="verified", path="checkpoints/checkpoint-7")
    end(75, "signal")
(run / "output").mkdir(exist_ok=True)
(run / "output/model.txt").write_text(job["env"]["COLOUR"])
result = {"run_id": job["run_id"], "attempt": job["attempt"], "steps": 7, "epochs": 1, "tokens": 70}
result |= {"train_loss_first": 2.0, "train_loss_last": 1.0, "seconds": 0.1, "num_parameters": 10, "num_trainable": 10}
(run / "result.json").write_text(json.dumps(result))
end(0, "done")
