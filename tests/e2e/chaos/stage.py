"""One run under attack: its directory, its stores, the attempts at it, and an eye of its own on what is in them."""

import hashlib
import json
import re
import shutil
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from faults import Plan
from hub_server import HubServer
from nursery import Nursery
from project import make_project

from ftl.contract import HubRef, JobSpec, Paths, Resources, StoreRef, UrlRef

SAVE_STEPS = 3
MAX_STEPS = 24
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_ROOT = Path(__file__).parents[3]

KINDS: dict[str, dict[str, Any]] = {  # Any: JSON
    "full": {},
    "lora": {"adapter": {"kind": "lora", "rank": 4, "alpha": 8, "dropout": 0.1}},
    "fsdp": {"parallel": {"fsdp": {}}},
    "shards": {"parallel": {"fsdp": {"state_dict_type": "SHARDED_STATE_DICT"}}},
}
"""What makes the configs of the kinds of training differ. The last two have two ranks; their checkpoints are written
whole by rank 0, or by each rank its part."""


def num_ranks(kind: str) -> int:
    return 2 if "parallel" in KINDS[kind] else 1


def nursery_env(home: Path, hub: HubServer) -> dict[str, str]:
    """The environment of all processes: stores on this machine, one thread each, little patience."""
    path = ":".join(str(_ROOT / name) for name in ("launcher", "runtime"))
    mine = {"HF_HOME": str(home), "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_ann", "HF_HUB_DISABLE_XET": "1"}
    limits = {"FTL_STORE_PATIENCE_S": "20", "FTL_STORE_SILENCE_S": "5", "OMP_NUM_THREADS": "1"}
    return {"PYTHONPATH": path, "HF_HUB_DISABLE_TELEMETRY": "1", **mine, **limits}


def make_bundle(directory: Path, kind: str) -> Path:
    """The bundle of a training of MAX_STEPS steps with a checkpoint every SAVE_STEPS."""
    make_project(directory)
    rows = [json.loads(line) for line in (directory / "rows.jsonl").read_text().splitlines()]
    texts = "".join(json.dumps({"text": f"{row['instruction']}: {row['output']}"}) + "\n" for row in rows)
    (directory / "texts.jsonl").write_text(texts)
    config = {
        "model": {"base": str(directory / "model"), "reinit_weights": True},
        "data": {
            "datasets": [{"path": "bundle:texts.jsonl", "type": "completion"}],
            "sequence_len": 64,
            "val_set_size": 0,
        },
        "optim": {"learning_rate": 1e-2, "micro_batch_size": 2, "num_epochs": 2, "max_steps": MAX_STEPS},
        "precision": {},
        "trained": {},
        "rates": {},
        "output": {"save_steps": SAVE_STEPS, "save_total_limit": 2, "logging_steps": 1},
        **KINDS[kind],
    }
    (directory / "config.json").write_text(json.dumps(config))
    return directory


class Stage:
    """One run directory with a directory and a repository as its stores, and the attempts at it."""

    def __init__(self, root: Path, kind: str, bundle: Path, nursery: Nursery, hub: HubServer) -> None:
        self.root, self.nursery, self.hub = root, nursery, hub
        self.run = root / "run"
        self.bucket = root / "bucket"
        self.hits = root / "hits.jsonl"
        self.number = 0
        self.run_id = f"{root.parent.name}-{root.name}"
        self._repo = f"ann/{self.run_id}"
        self._bundle = bundle
        self._num_ranks = num_ranks(kind)
        self.run.mkdir(parents=True)
        self.stores: tuple[StoreRef, ...] = (UrlRef(url=f"file://{self.bucket}"), HubRef(repo=self._repo))

    def start(self, plan: Plan | None = None, **env: str) -> int:
        """One more attempt, struck as planned; the supervisor's process id."""
        self.number += 1
        paths = Paths(bundle=str(self._bundle), run=str(self.run), cache=str(self.root.parent / "cache"))
        job = JobSpec(
            run_id=self.run_id,
            attempt=self.number,
            resources=Resources(cpus=1, processes=self._num_ranks),
            stores=self.stores,
            paths=paths,
            grace_s=20,
        )
        (self.run / "job.json").write_text(job.model_dump_json())
        self._once.unlink(missing_ok=True)
        env |= {"FTL_CHAOS": json.dumps(asdict(replace(plan, hits=str(self.hits))))} if plan else {}
        return self.nursery.start(self.run / "job.json", self.root / "output.txt", self._pids, env)

    def finish(self, pid: int, timeout_s: float = 120) -> int:
        """The exit status of the supervisor, once every process of the attempt is gone."""
        status = self.nursery.wait(pid, timeout_s)
        assert status is not None, f"attempt {self.number} of {self.run} does not end: {self.log()[-2000:]}"
        until = time.monotonic() + timeout_s
        while left := self.living():
            assert time.monotonic() < until, f"attempt {self.number} of {self.run} leaves {left} behind"
            time.sleep(0.02)
        return status

    def go(self, plan: Plan | None = None, **env: str) -> int:
        return self.finish(self.start(plan, **env))

    def living(self, role: str | None = None) -> list[int]:
        """Processes of any attempt that are there, a zombie not counted."""
        return [pid for born, pid in self._born() if role in (None, born) and _is_alive(pid)]

    def lose_machine(self) -> None:
        """What is in the run directory is lost, the launcher's record of events apart."""
        for path in self.run.iterdir():
            if path.name != "events.jsonl":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def struck(self) -> list[dict[str, Any]]:  # Any: JSON
        return [json.loads(line) for line in self.hits.read_text().splitlines()] if self.hits.exists() else []

    def events(self, name: str | None = None, attempt: int | None = None) -> list[dict[str, Any]]:  # Any: JSON
        path = self.run / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("}")]
        return [e for e in events if name in (None, e["event"]) and attempt in (None, e["attempt"])]

    def log(self) -> str:
        """What its processes said, and the warnings and errors among its events."""
        said = [p.read_text() for p in (self.run / "log.txt", self.root / "output.txt") if p.exists()]
        told = [json.dumps(e["data"]) for e in self.events() if e["event"] in ("warning", "error")]
        return "\n".join([*said, *told])

    def weights(self) -> str:
        (file,) = (self.run / "output").glob("*model.safetensors")
        return hashlib.sha256(file.read_bytes()).hexdigest()

    def whole(self) -> dict[str, set[int]]:
        """Place -> the steps whose checkpoints there are whole, byte for byte, as far as this file can tell."""
        here = {int(path.name[11:]) for path in (self.run / "checkpoints").glob("checkpoint-*") if _is_whole(path)}
        there = {int(path.name[11:]) for path in (self.bucket / self.run_id).glob("checkpoint-*") if _is_whole(path)}
        return {"here": here, f"file://{self.bucket}/{self.run_id}": there, f"hf://{self._repo}": self._whole_on_hub()}

    def _whole_on_hub(self) -> set[int]:
        repository = self.hub.repositories.get(("model", self._repo))
        if repository is None or "main" not in repository.refs:
            return set()
        below = f"checkpoints/{self.run_id}/"
        files = {name[len(below) :]: data for name, data in repository.files.items() if name.startswith(below)}
        steps = {int(match[1]) for name in files if (match := _CHECKPOINT.match(name))}
        return {step for step in steps if _is_listed_content(files, f"checkpoint-{step}/")}

    @property
    def _pids(self) -> Path:
        return self.root / f"pids-{self.number}"

    @property
    def _once(self) -> Path:
        return Path(f"{self.hits}.once")

    def _born(self) -> list[tuple[str, int]]:
        lines = [line.split() for path in self.root.glob("pids-*") for line in path.read_text().splitlines()]
        return [(role, int(pid)) for role, pid in lines]


def _is_whole(directory: Path) -> bool:
    files = {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }
    return _is_listed_content(files, "")


def _is_listed_content(files: dict[str, bytes], below: str) -> bool:
    try:
        listed = json.loads(files[f"{below}manifest.json"])["files"]
        sums = {name: hashlib.sha256(files[below + name]).hexdigest() for name in listed}
    except (KeyError, ValueError):
        return False
    return bool(sums) and sums == {name: entry["sha256"] for name, entry in listed.items()}


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


if sys.platform != "linux":
    raise RuntimeError("the chaos tests read /proc")
