"""What every supported version of the modal client must be able to do with the emulated Modal. Run with that version
first on PYTHONPATH and the environment of a client; prints one line of JSON.
"""

import json
import tempfile
from pathlib import Path

import emulator_jobs
import modal

APP = "smoke"


def main() -> None:
    app = modal.App(APP, include_source=False)
    image = modal.Image.debian_slim().env({"LAYER": "of the image"}).add_local_python_source("emulator_jobs")
    volume = modal.Volume.from_name("emulator", create_if_missing=True, version=2)
    usual = {"image": image, "volumes": {"/vol": volume}, "single_use_containers": True, "timeout": 3600}
    app.function(name="hello", gpu=["H100:8", "A100-80GB:8"], **usual)(emulator_jobs.hello)
    retries = modal.Retries(max_retries=10, initial_delay=0.0, backoff_coefficient=1.0)
    app.function(name="fail_once", retries=retries, startup_timeout=600, **usual)(emulator_jobs.fail_once)
    app.deploy(name=APP, tag="smoke")
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "up.txt").write_text("went up")
        with volume.batch_upload(force=True) as batch:
            batch.put_directory(directory, "/runs/r1")
    call = modal.Function.from_name(APP, "fail_once").spawn()
    hello = modal.Function.from_name(APP, "hello").spawn("ann")
    said = hello.get(timeout=60)
    found = {
        "version": modal.__version__,
        "in_container": said["modal"],
        "name": said["name"],
        "tries": modal.FunctionCall.from_id(call.object_id).get(timeout=60),
        "log": sorted(entry.message for entry in hello.logs.stream()),
        "listed": sorted(entry.path for entry in volume.listdir("/runs", recursive=True)),
        "read": b"".join(volume.read_file("runs/r1/up.txt")).decode(),
    }
    modal.App.lookup(APP).stop()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
