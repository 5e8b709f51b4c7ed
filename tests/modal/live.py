"""make test-modal-live: a tiny training on Modal itself, on a T4, with the account of whoever runs it. Minutes, cents.

Not a test of the suite: it needs a token and costs money. A run is started, stopped, resumed, pulled and removed; any
command that fails ends it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
from project import make_project

FTL = [sys.executable, "-c", "from ftl.cli import main; main()"]
CLOUD = """
provider: modal
gpu: T4
volume: ftl-live-test
cache_volume: ftl-live-test-cache
timeout: 30m
retries: 1
"""


def ftl(*arguments: str | Path) -> str:
    sys.stderr.write(f"$ ftl {' '.join(map(str, arguments))}\n")
    return subprocess.run([*FTL, *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        os.environ["FTL_STATE_DIR"] = str(root / "state")
        config = make_project(root / "project", num_epochs=40, save_steps=50, bf16=False, fp16=False)
        cloud = root / "modal.yml"
        cloud.write_text(CLOUD)
        submitted = ftl("train", config, "--cloud", cloud, "--detach", "--json")
        run_id = json.loads(submitted.splitlines()[-1])["run"]
        while not _step(run_id):
            time.sleep(10)
        ftl("stop", run_id)
        ftl("resume", run_id)
        ftl("pull", run_id, root / "pulled")
        ftl("rm", run_id, "--force")
        ftl("gc", "--cloud", cloud)
    sys.stderr.write("done; `modal volume delete ftl-live-test` and `ftl-live-test-cache` remove the volumes\n")


def _step(run_id: str) -> int | None:
    (line,) = [one for one in map(json.loads, ftl("ps", "--json").splitlines()) if one["run"] == run_id]
    assert line["state"] in ("queued", "running"), line
    step: int | None = line["step"]
    return step


if __name__ == "__main__":
    main()
