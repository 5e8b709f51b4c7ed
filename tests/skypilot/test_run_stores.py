"""The model of a run is read from its stores when the machine is gone: a directory, and the emulated Hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import HubServer

from ftl import deliver
from ftl.contract import HubRef, JobSpec, Provenance, RunResult, UrlRef
from ftl.runstores import Stores, stores_in, stores_of
from ftl_runtime.checkpoint.bucket import BucketStore
from ftl_runtime.checkpoint.volume import VolumeStore

RUN = "abc234-quick"
READ = """
import json, sys
from pathlib import Path
from ftl.runstores import stores_in
stores = stores_in(sys.argv[1], sys.argv[2])
told = {"result": (stores.result() or b"").decode()}
for name in ("output", "checkpoints/checkpoint-5"):
    try:
        told[name] = stores.fetch(name, Path(sys.argv[3]) / name)
    except Exception as error:
        told[name] = str(error)
print(json.dumps(told))
"""


def provenance(run_id: str = RUN) -> bytes:
    result = RunResult(
        run_id=run_id, attempt=1, steps=7, epochs=1, tokens=70, train_loss_first=2.0, train_loss_last=1.0,
        seconds=1.0, num_parameters=10, num_trainable=10,
    )  # fmt: skip
    made = Provenance(run_id=run_id, ftl="0", finished_at=1.0, config={}, hours=1.0, result=result)
    return made.model_dump_json().encode()


def read(hub: HubServer, repo: str, tmp_path: Path) -> dict[str, object]:
    """What a process whose Hub is `hub` gets of the run from that repository."""
    spec = JobSpec(run_id=RUN, stores=(HubRef(repo=repo),))
    mine = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", READ, RUN, stores_of(spec)["stores"], str(tmp_path / "copy")]
    done = subprocess.run(command, env={**os.environ, **mine}, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    told: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.fixture(scope="module")
def hub() -> object:
    with HubServer() as server:
        yield server


def test_model_on_the_hub_arrives_sealed_and_without_checkpoints(hub: HubServer, tmp_path: Path) -> None:
    files = {
        "adapter.safetensors": b"weights",
        "ftl-run.json": provenance(),
        f"checkpoints/{RUN}/checkpoint-5/model.safetensors": b"step 5",
        f"checkpoints/{RUN}/checkpoint-5/manifest.json": b"{}",
        f"checkpoints/{RUN}/owner.json": b"{}",
    }
    hub.add("model", "me/done", files)
    told = read(hub, "me/done", tmp_path)
    assert RunResult.read_json(str(told["result"])).steps == 7
    assert (told["output"], told["checkpoints/checkpoint-5"]) == (True, True)
    copied = {path.name for path in (tmp_path / "copy/output").iterdir()}
    assert copied == {"adapter.safetensors", "ftl-run.json", "manifest.json"}
    deliver.verify(tmp_path / "copy/output")
    assert (tmp_path / "copy/checkpoints/checkpoint-5/model.safetensors").read_bytes() == b"step 5"


def test_model_of_another_run_is_not_taken_for_this_one(hub: HubServer, tmp_path: Path) -> None:
    hub.add("model", "me/other", {"adapter.safetensors": b"weights", "ftl-run.json": provenance("zzz999-other")})
    told = read(hub, "me/other", tmp_path)
    assert told["result"] == ""
    assert "does not hold the finished model of this run" in str(told["output"])
    assert not (tmp_path / "copy/output").exists()


def test_directory_is_asked_before_the_hub(tmp_path: Path) -> None:
    spec = JobSpec(run_id=RUN, stores=(UrlRef(url=f"file://{tmp_path}/store"), HubRef(repo="me/none", branch="b")))
    stores = stores_in(RUN, stores_of(spec)["stores"])
    (tmp_path / "store" / RUN / "output").mkdir(parents=True)
    (tmp_path / "store" / RUN / "output/ftl-run.json").write_bytes(provenance())
    assert stores
    assert RunResult.read_json(stores.result() or b"").run_id == RUN
    assert stores.fetch("output", tmp_path / "copy")


def test_checkpoint_is_read_where_the_runtime_has_put_it(tmp_path: Path) -> None:
    ref = UrlRef(url=f"file://{tmp_path}/store")
    own = VolumeStore(tmp_path / "run", RUN, lambda event, data: None)
    stage = own.stage(5)
    (stage / "model.safetensors").write_bytes(b"step 5")
    bucket = BucketStore(ref, RUN)
    bucket.claim("1-a")
    bucket.put(own.commit(stage, 5), [], lambda done, total: None)
    stores = stores_in(RUN, stores_of(JobSpec(run_id=RUN, stores=(ref,)))["stores"])
    assert stores.fetch("checkpoints/checkpoint-5", tmp_path / "copy")
    deliver.verify(tmp_path / "copy")
    assert (tmp_path / "copy/model.safetensors").read_bytes() == b"step 5"
    assert not stores.fetch("checkpoints/checkpoint-6", tmp_path / "none")


def test_run_without_stores_has_none() -> None:
    stores = stores_in(RUN, None)
    assert isinstance(stores, Stores)
    assert not stores
    assert stores.result() is None
