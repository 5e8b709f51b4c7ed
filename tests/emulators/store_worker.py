"""Talks to remote checkpoint stores: a worker, see worker.py.

in:   {"store": {"kind": "hub", ...}, "name": "any", "call": "put", "with": {...}}
out:  {"gave": ..., "told": [[done, total]...]}

A store is opened once for each `name`, as by a process of its own. All are of the run run-a. The call `newest` gives
the step that a run in a directory would go on from, and the events about it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from worker import Worker, serve

from ftl_runtime.checkpoint.remote import RemoteStore, open_store
from ftl_runtime.checkpoint.store import Checkpoint


class StoreRaisedError(Exception):
    """What the store raised, by name and sentence."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(f"{kind}: {sentence}")
        self.kind = kind


class StoreWorker(Worker):
    file = __file__

    def call(
        self, store: dict[str, Any], name: str, call: str, env: dict[str, str] | None = None, **given: Any
    ) -> dict[str, Any]:  # Any: JSON
        """What comes of a call of the store. Raises StoreRaisedError."""
        answer = self.ask(store=store, name=name, call=call, env=env, **{"with": given})
        if "refused" in answer:
            raise StoreRaisedError(answer["kind"], answer["refused"])
        return answer


_opened: dict[str, RemoteStore] = {}


def _answer(request: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    import fsspec
    from pydantic import TypeAdapter

    from ftl.contract import StoreRef

    name = request["name"]
    if name not in _opened:
        if request["store"]["kind"] == "url":  # a file system of the same address may be that of a server that is gone
            fsspec.get_filesystem_class(request["store"]["url"].partition(":")[0]).clear_instance_cache()
        _opened[name] = open_store(TypeAdapter(StoreRef).validate_python(request["store"]), "run-a")
    store, given = _opened[name], request["with"]
    told: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        told.append((done, total))

    calls: dict[str, Callable[[], Any]] = {
        "claim": lambda: store.claim(given["owner"]),
        "steps": store.steps,
        "put": lambda: store.put(Checkpoint(given["step"], Path(given["path"])), given.get("drop", []), note),
        "fetch": lambda: store.fetch(given["step"], Path(given["dest"]), note),
        "quarantine": lambda: store.quarantine(given["step"]),
        "deliver": lambda: store.deliver(Path(given["path"]), note),
    }
    if request["call"] == "newest":
        return {"gave": _newest(request["store"], Path(given["run"])), "told": told}
    return {"gave": calls[request["call"]](), "told": told}


def _newest(ref: dict[str, Any], run: Path) -> dict[str, Any]:  # Any: JSON
    from ftl.contract import JobSpec
    from ftl_runtime.checkpoint import restore
    from ftl_runtime.checkpoint.volume import VolumeStore

    events: list[tuple[str, dict[str, Any]]] = []

    def emit(event: str, data: dict[str, Any]) -> None:
        events.append((event, data))

    local = VolumeStore(run / "checkpoints", "run-a", emit)
    found = restore.newest(local, JobSpec.model_validate({"run_id": "run-a", "stores": [ref]}), emit)
    return {"step": found.step if found else None, "events": events}


if __name__ == "__main__":
    serve(_answer)
