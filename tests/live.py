"""make test-modal-live, make test-sky-live: a tiny training on the real cloud, with the account of whoever runs it.

Not a test of the suite: it needs an account and costs some cents. A run is started, stopped and resumed where its
checkpoints outlive its machine, followed to its end, pulled and removed; any command that fails ends it.

    python tests/live.py CLOUD.yml
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parent / "e2e"))
from project import make_project

FTL = [sys.executable, "-c", "from ftl.cli import main; main()"]


def ftl(*arguments: str | Path) -> str:
    sys.stderr.write(f"$ ftl {' '.join(map(str, arguments))}\n")
    return subprocess.run([*FTL, *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    cloud = Path(sys.argv[1]).absolute()
    asked = yaml.safe_load(cloud.read_text())
    outlives_machine = asked["provider"] == "modal" or "checkpoints" in asked
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        os.environ["FTL_STATE_DIR"] = str(root / "state")
        config = make_project(root / "project", num_epochs=40, save_steps=50, bf16=False, fp16=False)
        submitted = ftl("train", config, "--cloud", cloud, "--detach", "--json")
        run_id = json.loads(submitted.splitlines()[-1])["run"]
        try:
            while not _step(run_id):
                time.sleep(10)
            if outlives_machine:
                ftl("stop", run_id)
                ftl("resume", run_id)
            else:
                ftl("attach", run_id)
            ftl("pull", run_id, root / "pulled")
        finally:  # whatever has failed, nothing is to go on and cost
            ftl("rm", run_id, "--force")
            ftl("gc", "--cloud", cloud)
    sys.stderr.write("done; what the cloud keeps of it is in the volumes or the bucket that the cloud file names\n")


def _step(run_id: str) -> int | None:
    (line,) = [one for one in map(json.loads, ftl("ps", "--json").splitlines()) if one["run"] == run_id]
    assert line["state"] in ("queued", "running"), line
    step: int | None = line["step"]
    return step


if __name__ == "__main__":
    main()
