"""SkyPilot's real API server on an AWS that is moto, on loopback, and what is asked of it.

No task runs there: the machines are entries in moto's tables, and the way to them is `false` in the place of ssh.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sky_places import make_home
from sky_server import SkyServer, instances

from ftl.backends.sky_client import WORKERS
from ftl.backends.skypilot import SkypilotBackend
from ftl.backends.skypilot_cloud import SkypilotCloud
from ftl.contract import Bundle, JobHandle, JobSpec, JobState
from ftl.jobs import Attempt, RunRecord

IMAGE = "example.com/me/ftl@sha256:" + "a" * 64
CANARY = "canary-3f9d1c07b2a84e56"
_WAIT_S = 900
"""No bound to keep to: it is for a machine that does much besides."""
_CONFIG = {
    "allowed_clouds": ["aws"],
    "aws": {"use_internal_ips": True, "ssh_proxy_command": "/bin/false"},
    "jobs": {"controller": {"consolidation_mode": True}},
}


@contextmanager
def sky_on_moto(endpoint: str, folder: Path) -> Iterator[SkyServer]:
    """A server in a home below `folder` that rents there; this process and its children are its clients."""
    server = SkyServer(make_home(folder), config=_CONFIG, aws_endpoint=endpoint)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.client_env.items():
            patch.setenv(name, value)
        patch.setenv("CANARY", CANARY)
        WORKERS.clear()  # that of another file knows another server
        try:
            server.start()
            yield server
        finally:
            server.kill()
            WORKERS.clear()


class Lab:
    """A backend for each cloud file, and what it is asked to run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bundle").mkdir()
        (folder / "bundle/file").write_text("content\n")

    def backend(self, **keys: object) -> SkypilotBackend:
        """With a secret, as each run here."""
        common = {"provider": "skypilot", "infra": "aws/us-east-1", "gpu": "L4", "image": IMAGE, "secrets": ["CANARY"]}
        return SkypilotBackend(SkypilotCloud.model_validate(common | keys))

    def spec(self, backend: SkypilotBackend, run_id: str) -> JobSpec:
        fields: dict[str, Any] = {"run_id": run_id, "secrets": backend.cloud.secrets, **backend.spec_fields()}
        return JobSpec.model_validate(fields)

    def submit(self, backend: SkypilotBackend, run_id: str) -> JobHandle:
        run_dir, spec = self.folder / run_id, self.spec(backend, run_id)
        run_dir.mkdir(exist_ok=True)
        bundle = Bundle(sha256="b" * 64, path=str(self.folder / "bundle"), size_bytes=1)
        record = RunRecord(
            id=run_id,
            name=run_id,
            created_at=1.0,
            ftl_version="0",
            config_path="cfg.yml",
            output_dir="out",
            provider="skypilot",
            cloud=backend.cloud.model_dump(mode="json"),
            spec=spec,
            bundle=bundle,
            attempts=(Attempt(number=1, submitted_at=2.0),),
        )
        (run_dir / "record.json").write_text(record.model_dump_json())
        return backend.submit(spec, bundle, run_dir)


def wait_for(condition: Callable[[], Any], what: str) -> Any:  # Any: what the condition gives
    give_up = time.monotonic() + _WAIT_S
    while not (found := condition()):
        assert time.monotonic() < give_up, f"waited {_WAIT_S} s for {what}"
        time.sleep(0.5)
    return found


def machine_of(aws: str, backend: SkypilotBackend, handle: JobHandle) -> dict[str, Any]:  # Any: as AWS tells it
    """The one machine there is, once there is one."""

    def found() -> list[dict[str, Any]]:
        ended = ended_of(backend, handle)
        assert ended is None, ended
        return instances(aws)

    (machine,) = wait_for(found, "the machine")
    return dict(machine)


def ended_of(backend: SkypilotBackend, handle: JobHandle) -> JobState | None:
    state = backend.status(handle)
    return state if state.phase == "ended" else None
