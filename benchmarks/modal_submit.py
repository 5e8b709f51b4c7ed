"""Submitting to Modal: `ftl train --detach` until the run is accepted, against a bare program that makes the same calls
with Modal's client, in one run on the emulated Modal, one after the other in turn.

python benchmarks/modal_submit.py [--times 5]

Both are processes of their own and pay for importing the client. The bare one has the bundle, the plan and the record
handed to it; what ftl takes longer is reading the config, checking the data, packing the bundle and the preflight.
Both find their modules compiled, as pip leaves them: a first run of each, not counted, does that for a checkout.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / part) for part in ("tests/emulators", "tests/e2e")]
from modal_emulator import ModalEmulator  # noqa: E402
from project import make_project  # noqa: E402

FTL = "from ftl.cli import main; main()"
BARE = """
import io, json, sys, time
started = time.perf_counter()
import modal
run_id, bundle, entry = sys.argv[1:]
sys.path.insert(0, entry.rpartition("/")[0])
import modal_entry
state = modal.Volume.from_name("ftl", create_if_missing=True, version=2).hydrate()
def put(path, data):
    with state.batch_upload(force=True) as batch:
        batch.put_file(data, path)
put(f"/bundles/{run_id}.tar", bundle)
with state.batch_upload(force=True) as batch:
    for name in ("job-1", "record"):
        batch.put_file(io.BytesIO(b"{}"), f"/runs/{run_id}/{name}.json")
app = modal.App(f"ftl-{run_id}", include_source=False)
image = modal.Image.from_registry("a.b/c@sha256:" + "c" * 64).entrypoint([])
image = image.add_local_file(entry, "/root/modal_entry.py")
names = {"/ftl/state": "ftl", "/ftl/cache": "ftl-cache"}
volumes = {m: modal.Volume.from_name(n, create_if_missing=True, version=2) for m, n in names.items()}
app.function(name="train", image=image, volumes=volumes, timeout=86400, single_use_containers=True, max_containers=1,
             include_source=False, retries=modal.Retries(max_retries=10, initial_delay=0.0))(modal_entry.train)
app.deploy(tag="bare")
modal.Function.from_name(f"ftl-{run_id}", "train").spawn({"run_id": run_id})
put(f"/runs/{run_id}/record.json", io.BytesIO(b"{}"))
"""


def timed(command: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Seconds on the clock and of CPU."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - started, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, ModalEmulator.start(Path(scratch) / "modal") as modal:
        modal.behave(capacity=0)  # runs are accepted, and nothing takes the machine from what is measured
        root = Path(scratch)
        env = {**os.environ, **modal.client_env(root), "FTL_STATE_DIR": str(root / "state"), "OMP_NUM_THREADS": "1"}
        env |= {"PYTHONPYCACHEPREFIX": str(root / "compiled")}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "launcher"), str(ROOT / "runtime"), env.get("PYTHONPATH", "")])
        config = make_project(root / "project", num_epochs=1)
        cloud = root / "modal.yml"
        cloud.write_text(f"provider: modal\nimage: a.b/c@sha256:{'c' * 64}\n")
        ours = [sys.executable, "-c", FTL, "train", str(config), "--cloud", str(cloud), "--detach"]
        entry = str(ROOT / "runtime/ftl_runtime/modal_entry.py")
        timed(ours, env)  # the bundle is on the volume from here on, and the image is built
        bundle = next((root / "state/bundles").glob("*/manifest.json"))
        timed([sys.executable, "-c", BARE, "bare-first", str(bundle), entry], env)
        sent_before = modal.state["uploaded_bytes"]
        ftl_s, bare_s = [], []
        for number in range(arguments.times):
            ftl_s.append(timed(ours, env))
            if number == 0:
                sent = modal.state["uploaded_bytes"] - sent_before
            bare_s.append(timed([sys.executable, "-c", BARE, f"bare-{number}", str(bundle), entry], env))
    (ftl_wall, ftl_cpu), (bare_wall, bare_cpu) = _medians(ftl_s), _medians(bare_s)
    over_s = ftl_wall - bare_wall
    figures = {
        "ftl_s": round(ftl_wall, 2),
        "bare_s": round(bare_wall, 2),
        "over_s": round(over_s, 2),
        "allowed_over_s": 1.5,
        "ftl_cpu_s": round(ftl_cpu, 2),
        "bare_cpu_s": round(bare_cpu, 2),
        "sent_again_bytes": sent,
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.exit(over_s > 1.5)


def _medians(times: list[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(wall for wall, _ in times), statistics.median(cpu for _, cpu in times)


if __name__ == "__main__":
    main()
