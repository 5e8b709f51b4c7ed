"""A stand-in for the runtime: does what FTL_STUB says, so that the backend is tested apart from training."""

import getpass
import json
import os
import signal
import sys
import time
from pathlib import Path

run = Path(sys.argv[1]).parent
job = json.loads(Path(sys.argv[1]).read_text())
attempt = job["attempt"]


def event(name: str, /, **data: object) -> None:
    with (run / "events.jsonl").open("a") as file:
        file.write(json.dumps({"t": time.time(), "attempt": attempt, "event": name, "data": data}) + "\n")


def leave(code: int, cause: str) -> None:
    record = {"attempt": attempt, "exit_code": code, "cause": cause, "message": f"stub: {cause}"}
    (run / ".exit.new").write_text(json.dumps(record))
    (run / ".exit.new").replace(run / "exit.json")
    sys.exit(code)


def stopped(number: int, frame: object) -> None:
    event("stopped", step=1)
    leave(75, "signal")


signal.signal(signal.SIGTERM, stopped)
event("phase", name="starting")
secrets = {}
if job["paths"]["secrets"]:
    for file in sorted(Path(job["paths"]["secrets"]).iterdir()):
        secrets[file.name] = len(file.read_text())
(run / "facts.json").write_text(
    json.dumps(
        {
            "uid": os.getuid(),
            "user": getpass.getuser(),
            "paths": job["paths"],
            "secret_lengths": secrets,
            "env": dict(os.environ),
            "shm_bytes": os.statvfs("/dev/shm").f_frsize * os.statvfs("/dev/shm").f_blocks,
        }
    )
)
for folder in ("/", "/ftl/bundle", "/opt/ftl"):
    try:
        (Path(folder) / "probe").write_text("x")
    except OSError:
        continue
    leave(2, "config")
for folder in ("/tmp", "/ftl/cache/hf", "/ftl/run", "/dev/shm"):
    (Path(folder) / f"probe-{attempt}").write_text("x")

mode = job["env"].get("FTL_STUB", "done")
if mode == "wait":
    time.sleep(300)
elif mode == "eat":
    hoard = []
    while True:
        hoard.append(bytearray(os.urandom(1 << 20)) * 16)
elif mode == "exit":
    print("stub: leaving", flush=True)
    os._exit(7)
leave(0, "done")
