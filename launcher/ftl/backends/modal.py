"""Modal: one deployed app a run, its functions called by `.spawn()`, its files on a volume.

Nothing of a run depends on this machine: its record lies on the volume too, calls are found again by their ids, and a
run whose day in a container is over calls its next container itself. The public API of Modal's client alone is used.
"""

import logging
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from ftl.backends import modal_volume as volumes
from ftl.backends.kept_record import RECORD_FILE, for_others
from ftl.backends.modal_app import app_of
from ftl.backends.modal_build import build_log
from ftl.backends.modal_cloud import ModalCloud
from ftl.backends.modal_plan import (
    CACHE_MOUNT,
    STATE_MOUNT,
    ModalPlan,
    app_name,
    image_of,
    machine,
    plan,
    price_of,
    run_root,
)
from ftl.backends.modal_preflight import problems
from ftl.backends.modal_prices import spent
from ftl.backends.modal_state import CHAIN_FILE, VERDICT_FILE, environment_of, state_of, volume_of
from ftl.cloud import CloudSection
from ftl.contract import Bundle, JobHandle, JobSpec, JobState
from ftl.cost import Price, Spent, budget_problems
from ftl.errors import BackendError, Problem

if TYPE_CHECKING:
    import modal

_LOG = logging.getLogger("ftl.modal")
_SPENT_FILE, _IMAGE_LOG_FILE = "spent.json", "image.log"
_RATE = "usd_per_hour_"
"""In a handle: what an hour of a function's machines costs."""
_RUNS = "runs"
_SLOW_S = 10.0


class ModalBackend:
    """Backend for Modal."""

    Cloud: ClassVar[type[CloudSection]] = ModalCloud
    recovers: ClassVar[bool] = True
    keeps_bundles: ClassVar[bool] = True
    poll_s: ClassVar[float] = 2.0

    def __init__(self, cloud: ModalCloud) -> None:
        self.cloud = cloud

    @property
    def place(self) -> str:
        return f"modal {self.cloud.environment or ''}/{self.cloud.volume}"

    def spec_fields(self) -> dict[str, Any]:  # Any: values of JobSpec fields
        return {"image": image_of(self.cloud), "resources": self.cloud.resources()}

    def preflight(self, spec: JobSpec) -> list[Problem]:
        known = budget_problems(self.cloud.max_usd, self.price(spec), "")
        return [*known, *problems(spec, plan(spec, self.cloud, _NO_BUNDLE))]

    def price(self, spec: JobSpec) -> Price:
        return price_of(plan(spec, self.cloud, _NO_BUNDLE).functions[-1], self.cloud)

    def spent(self, handle: JobHandle) -> Spent | None:
        with volumes.modal_errors():
            if state_of(handle, str(handle.ref["call"])).phase != "ended":
                return None
            found = volumes.record(volume_of(handle), f"{run_root(handle.run_id)}/{_SPENT_FILE}")
        if found.get("submission") != handle.attempt:
            return None
        rates = {name.removeprefix(_RATE): float(told) for name, told in handle.ref.items() if name.startswith(_RATE)}
        return spent(found["seconds"], rates)

    def describe(self, spec: JobSpec, bundle: Bundle, run_dir: Path) -> dict[str, Any]:  # Any: JSON
        return plan(spec, self.cloud, bundle).model_dump(mode="json", exclude_defaults=True)

    def submit(self, spec: JobSpec, bundle: Bundle, run_dir: Path) -> JobHandle:
        asked = plan(spec, self.cloud, bundle)
        with volumes.modal_errors():
            state = _made(asked.volumes[STATE_MOUNT], self.cloud.environment)
            known = _known_handle(volumes.record(state, f"{run_root(spec.run_id)}/{RECORD_FILE}"), spec.attempt)
            if known is not None:
                return known
            _upload(asked, spec, bundle, state, run_dir)
            try:
                _deploy(asked, run_dir / _IMAGE_LOG_FILE, tag=bundle.sha256[:12])
            except Exception:
                if spec.attempt == 1:
                    volumes.remove(state, run_root(spec.run_id))
                raise
            first = _modal().Function.from_name(asked.app, asked.functions[0].name, environment_name=asked.environment)
            call = first.spawn(asked.order)
            handle = JobHandle(
                provider="modal",
                run_id=spec.run_id,
                attempt=spec.attempt,
                ref={
                    "app": asked.app,
                    "call": str(call.object_id),
                    "volume": asked.volumes[STATE_MOUNT],
                    "environment": asked.environment or "",
                    "called_at": int(time.time()),
                    "first": asked.functions[0].name,
                    "machine": machine(asked.functions[-1]),
                    **{f"{_RATE}{o.name}": f"{price_of(o, self.cloud).usd_per_hour:g}" for o in asked.functions},
                },
            )
            volumes.put_json(state, {f"{run_root(spec.run_id)}/{RECORD_FILE}": for_others(run_dir, handle)})
        return handle

    def status(self, handle: JobHandle) -> JobState:
        with volumes.modal_errors():
            return state_of(handle, str(handle.ref["call"]))

    def read(self, handle: JobHandle, name: str, offset: int) -> bytes:
        with volumes.modal_errors():
            return volumes.content_from(volume_of(handle), f"{run_root(handle.run_id)}/run", name, offset)

    def cancel(self, handle: JobHandle, *, now: bool = False) -> None:
        """A call that waits, or was made twice, finds the mark on the volume when it is started."""
        with volumes.modal_errors():
            root = run_root(handle.run_id)
            if volumes.record(volume_of(handle), f"{root}/{VERDICT_FILE}").get("submission") == handle.attempt:
                return
            volumes.put_json(volume_of(handle), {f"{root}/stop-{handle.attempt}": {}})
            chain = volumes.record(volume_of(handle), f"{root}/{CHAIN_FILE}")
            newest = chain.get("call") if chain.get("submission") == handle.attempt else None
            for call in dict.fromkeys(filter(None, (newest, str(handle.ref["call"])))):
                _cancel(str(call), now=now)
            if now:
                _stop_app(str(handle.ref["app"]), environment_of(handle))

    def fetch(self, handle: JobHandle, name: str, dest: Path) -> None:
        with volumes.modal_errors():
            is_there = volumes.fetch(volume_of(handle), f"{run_root(handle.run_id)}/run/{name}", dest)
        if not is_there:
            raise FileNotFoundError(2, "is not on the volume", name)

    def remove(self, handle: JobHandle) -> None:
        with volumes.modal_errors():
            _stop_app(str(handle.ref["app"]), environment_of(handle))

    def erase(self, handle: JobHandle) -> None:
        with volumes.modal_errors():
            volumes.remove(volume_of(handle), run_root(handle.run_id))

    def records(self) -> list[dict[str, Any]]:  # Any: JSON
        with volumes.modal_errors():
            state = volumes.state_volume(self.cloud.volume, self.cloud.environment)
            names = volumes.sizes(state, _RUNS)
            found = (volumes.record(state, f"{run_root(name)}/{RECORD_FILE}") for name in names)
            return [record for record in found if record]

    def collect(self) -> list[str]:
        """Stop the apps of runs that have ended, and remove bundles that no run needs."""
        told = []
        with volumes.modal_errors():
            state = volumes.state_volume(self.cloud.volume, self.cloud.environment)
            bundles = volumes.sizes(state, "bundles")  # before the records: see _upload
            used = set()
            for record in self.records():
                used.add(f"{record['bundle']['sha256']}.tar")
                verdict = volumes.record(state, f"{run_root(record['id'])}/{VERDICT_FILE}")
                newest = max((a["number"] for a in record["attempts"] if a.get("handle")), default=None)
                is_over = verdict.get("submission") == newest
                if is_over and _stop_app(app_name(record["id"]), self.cloud.environment):
                    told.append(f"app {app_name(record['id'])} stopped: the run has ended")
            for name in sorted(set(bundles) - used):
                volumes.remove(state, f"bundles/{name}")
                told.append(f"bundle {name.removesuffix('.tar')[:12]} removed: no run needs it")
        return told


_NO_BUNDLE = Bundle(sha256="0" * 64, path="", size_bytes=0)


def _modal() -> ModuleType:
    import modal

    return modal


# --- submitting ---------------------------------------------------------------------------------------------------


def _made(name: str, environment: str | None) -> "modal.Volume":
    """A volume of version 2, made where it is not there."""
    import modal

    volume = modal.Volume.from_name(name, environment_name=environment, create_if_missing=True, version=2)
    return volume.hydrate()


def _known_handle(record: dict[str, Any], attempt: int) -> JobHandle | None:  # Any: JSON
    """That of an attempt that was accepted before its launcher could say so."""
    for one in record.get("attempts", ()):
        if one.get("number") == attempt and one.get("handle"):
            return JobHandle.read(one["handle"])
    return None


def _upload(asked: ModalPlan, spec: JobSpec, bundle: Bundle, state: "modal.Volume", run_dir: Path) -> None:
    if asked.mounts:
        cache = _made(asked.volumes[CACHE_MOUNT], asked.environment)
        for place, source in asked.mounts.items():
            volumes.put_directory(cache, Path(source), place)
    job = asked.job.model_dump(mode="json")
    root = run_root(spec.run_id)
    record = for_others(run_dir, None)
    # The record before the bundle: `collect` on another machine must see who needs it.
    volumes.put_json(state, {f"{root}/job-{spec.attempt}.json": job, f"{root}/{RECORD_FILE}": record})
    volumes.put_bundle(state, bundle.sha256, Path(bundle.path))
    if spec.carried:
        volumes.put_run(state, f"{root}/run", run_dir, spec.carried)


def _deploy(asked: ModalPlan, log: Path, *, tag: str) -> None:
    """Deploy the app, which builds its image where that was never built. Raises BackendError when the build fails."""
    import modal

    told = "Modal is at work on the image; building it takes minutes, the first time"
    timer = threading.Timer(_SLOW_S, _LOG.warning, [told])
    timer.daemon = True
    timer.start()

    last = ""

    def tell(line: str) -> None:
        nonlocal last
        last = line
        timer.cancel()
        _LOG.warning("image: %s", line)

    try:
        with build_log(log, tell):
            app_of(asked).deploy(environment_name=asked.environment, tag=tag)
    except modal.exception.ImageBuildError as error:
        first, *more = str(error).strip().splitlines()
        reason = (more[-1] if more else last or first).strip()
        where = "the log of its build is above, and on modal.com, under Images"
        raise BackendError(Problem("image", asked.job.image, reason, where)) from error
    finally:
        timer.cancel()


# --- ending ------------------------------------------------------------------------------------------------------


def _cancel(call: str, *, now: bool) -> None:
    import modal

    try:
        modal.FunctionCall.from_id(call).cancel(terminate_containers=now)
    except (modal.exception.NotFoundError, modal.exception.InvalidError):
        return


def _stop_app(name: str, environment: str | None) -> bool:
    """Whether there was such an app to be stopped."""
    import modal

    try:
        modal.App.lookup(name, environment_name=environment).stop()
    except (modal.exception.NotFoundError, modal.exception.InvalidError):
        return False
    return True


BACKEND = ModalBackend
