"""A remote checkpoint store as tests see it: empty at first, asked by several processes, given small checkpoints."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from store_worker import StoreWorker

from ftl_runtime.checkpoint import manifest

FILES = {"model.safetensors": b"w" * 3000, "optimizer.pt": b"o" * 2000, "config.json": b"{}", "sub/progress.json": b"1"}


def s3_env(url: str) -> dict[str, str]:
    """What a client of S3 needs to find moto."""
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    return {"AWS_ENDPOINT_URL": url, "AWS_MAX_ATTEMPTS": "1", **keys}


def gs_env(url: str) -> dict[str, str]:
    """What a client of GCS needs to find its emulator, which speaks no gRPC, by which buckets with folders are told."""
    return {"STORAGE_EMULATOR_HOST": url, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}


def s3_client(url: str) -> Any:  # Any: boto3 makes its classes when asked
    import boto3

    return boto3.client("s3", endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b")


@dataclass
class Place:
    """One kind of store, empty, and how to ask it as several processes."""

    worker: StoreWorker
    ref: dict[str, Any]
    tmp: Path
    env: dict[str, str] = field(default_factory=dict)
    """Variables that the client needs to find it."""
    checkpoints: Path | None = None
    """Where checkpoints to be sent are made and found again; a directory of its own when None."""

    def answer(self, call: str, *, by: str = "first", **given: Any) -> dict[str, Any]:
        return self.worker.call(self.ref, f"{self.tmp}/{by}", call, self.env, **given)

    def ask(self, call: str, *, by: str = "first", **given: Any) -> Any:
        return self.answer(call, by=by, **given)["gave"]

    def checkpoint(self, step: int, run_id: str = "run-a") -> Path:
        path = (self.checkpoints or self.tmp / "local") / run_id / f"checkpoint-{step}"
        if not path.exists():
            (path / "sub").mkdir(parents=True)
            for name, content in FILES.items():
                (path / name).write_bytes(content + str(step).encode())
            manifest.seal(path, run_id=run_id, step=step)
        return path

    def put(self, step: int, *, by: str = "first", drop: tuple[int, ...] = ()) -> None:
        self.ask("put", by=by, step=step, path=str(self.checkpoint(step)), drop=list(drop))

    def fetch(self, step: int, *, by: str = "first") -> Path:
        dest = self.tmp / f"fetched-{step}-{os.urandom(4).hex()}"
        dest.mkdir()
        self.ask("fetch", by=by, step=step, dest=str(dest))
        return dest
