"""SkyPilot: one cluster an attempt, or one managed job where SkyPilot itself starts the run again.

The API server does the work and remembers it; a name made from run and attempt finds it from any machine that talks to
the same server. A cluster ends itself some minutes after its job, whoever is watching. Of the run directory on the
machine this one sees what the job's output tells (skypilot_mirror.py).
"""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ValidationError

from ftl.backends.secret_files import delete_secrets, memory_folder, write_secrets
from ftl.backends.sky_client import SkyError, shared_worker
from ftl.backends.skypilot_cloud import SkypilotCloud
from ftl.backends.skypilot_deadman import first_boot
from ftl.backends.skypilot_faults import (
    checked,
    controller_problems,
    ended_without_verdict,
    lasting_problems,
    launch_in_doubt,
    refusal,
    why_unknown,
)
from ftl.backends.skypilot_plan import PREFIX, job_name, mark_of, name_of, run_directory, stop_file, task
from ftl.backends.skypilot_prices import cheapest_first, in_order, limited, price_of
from ftl.backends.skypilot_records import OVER, record_of, records_in
from ftl.backends.skypilot_watch import Watched
from ftl.cloud import CloudSection
from ftl.contract import (
    EXIT_FILE,
    LOG_FILE,
    OUTPUT_DIR,
    RESULT_FILE,
    Bundle,
    ExitRecord,
    JobHandle,
    JobSpec,
    JobState,
    Resources,
)
from ftl.cost import Price, Spent, budget_problems
from ftl.errors import BackendError, DeliveryError, ExitCode, FtlError, Problem
from ftl.image import recipe, resolve
from ftl.runstores import Stores, stores_in, stores_of
from ftl.state import state_dir

_PATIENCE_S = 900.0
"""How long an API server may be away before following a run gives up. The run itself does not care."""
_QUEUED = ("PENDING", "INIT", "SETTING_UP", "STARTING", "LAUNCHING", "SUBMITTED")
_WITHOUT_MACHINE = ("GONE", "ENDED")
_RUNNING = ("RUNNING", "RECOVERING", "WINDING_DOWN", "CANCELLING", "UNKNOWN")


class SkypilotBackend:
    """Backend for the machines that a SkyPilot API server can rent or reach."""

    Cloud: ClassVar[type[CloudSection]] = SkypilotCloud

    poll_s: ClassVar[float] = 1.0

    def __init__(self, cloud: SkypilotCloud) -> None:
        self.cloud = cloud
        self._sky = shared_worker(tuple(sorted(cloud.secrets)))
        self._mirrors: dict[str, Watched] = {}
        self._checked: dict[str, dict[str, Any]] = {}  # Any: JSON

    @property
    def recovers(self) -> bool:
        """Managed jobs are started again by SkyPilot, others by launch.py."""
        return self.cloud.is_managed

    @property
    def place(self) -> str | None:
        return None if self.cloud.shared is None else f"skypilot {self.cloud.shared}"

    def spec_fields(self) -> dict[str, Any]:  # Any: values of JobSpec fields
        cloud = self.cloud
        counts = {gpu.partition(":")[2] for gpu in cloud.gpus}
        gpus = "all" if len(counts) > 1 else cloud.num_gpus
        kind = cloud.gpu[0].partition(":")[0] if cloud.gpu else None
        return {
            "image": None if cloud.installs else cloud.image or _published(has_gpus=bool(cloud.gpus)),
            "resources": Resources(gpus=gpus, processes=cloud.processes, gpu_kind=kind),
            "restarts": cloud.is_managed,
        }

    # --- before anything is paid for --------------------------------------------------------------------------------

    def preflight(self, spec: JobSpec) -> list[Problem]:
        problems = [
            Problem(f"secret {name}", "not set in this shell", None, f"`export {name}=...`")
            for name in spec.secrets
            if not os.environ.get(name)
        ]
        if spec.secrets and memory_folder() is None:
            problems.append(Problem("secrets", "this machine has neither /dev/shm nor XDG_RUNTIME_DIR to keep them in"))
        problems += lasting_problems(spec, self.cloud)
        try:
            self._image(spec)
        except FtlError as error:
            problems += [p if isinstance(p, Problem) else Problem(p) for p in error.problems]
        try:
            problems += self._machine_problems(spec)
        except FtlError as error:
            problems += [p if isinstance(p, Problem) else Problem(p) for p in error.problems]
        return problems

    def _machine_problems(self, spec: JobSpec) -> list[Problem]:
        found = self._offers(spec)
        problems = checked(found["problems"], self.cloud)
        if problems:
            return problems
        problems = budget_problems(self.cloud.max_usd, self.price(spec), why_unknown(self.cloud, found["unknown"]))
        if problems or not self.cloud.places:  # among all clouds SkyPilot chooses when it launches
            return problems
        ready = self._sky.ask("ready", clouds=list(self.cloud.clouds))
        problems = [Problem("infra", text) for text in ready["problems"]]
        return problems + controller_problems(self.cloud, ready["consolidated"])

    def price(self, spec: JobSpec) -> Price | None:
        """What the machines cost by the hour as SkyPilot's catalog has it; None where it does not say."""
        return price_of(self._offers(spec)["offers"], self.cloud.nodes)

    def spent(self, handle: JobHandle) -> Spent | None:
        return self._watched(handle).spent

    def _offers(self, spec: JobSpec) -> dict[str, Any]:  # Any: JSON
        """What the worker says of the task; it is asked once for each task."""
        bundle = Bundle(sha256="0" * 64, path="/", size_bytes=0)
        asked = task(spec.model_copy(update={"secrets": (), "mounts": ()}), self.cloud, bundle, image=self._shown(spec))
        asked |= {"file_mounts": self.cloud.sky.get("file_mounts") or {}}  # what ftl sends need not be there yet
        asked = in_order(asked)
        key = json.dumps(asked, sort_keys=True, default=str)
        if key not in self._checked:
            self._checked[key] = self._sky.ask("check", task=asked)
        return self._checked[key]

    def _image(self, spec: JobSpec) -> str | None:
        """repository@digest, None where there is no image. Raises for one that no machine elsewhere could get."""
        if spec.image is None or spec.image == "none":
            return None
        resolved = resolve(spec.image)
        if resolved.reference is None or resolved.reference.startswith("sha256:"):
            remedy = (
                f"publish it with `ftl images build {spec.image} --push REGISTRY/NAME:TAG` and name what that prints; "
                "or write `image: none`, which installs the locked packages on the machine"
            )
            raise BackendError(
                Problem("image", repr(spec.image), "is not published, and a machine has to get it", remedy)
            )
        return resolved.reference

    def _shown(self, spec: JobSpec) -> str | None:
        try:
            return self._image(spec)
        except FtlError:
            return spec.image

    def describe(self, spec: JobSpec, bundle: Bundle, run_dir: Path) -> dict[str, Any]:  # Any: YAML
        with contextlib.suppress(FtlError):  # preflight says what is the matter
            spec = limited(spec, self.cloud.max_usd, self.price(spec), restarts=False)
        asked = task(spec, self.cloud, bundle, image=self._shown(spec), run_dir=run_dir)
        with contextlib.suppress(FtlError):
            return self._settled(asked, spec)
        return asked

    def _settled(self, asked: dict[str, Any], spec: JobSpec) -> dict[str, Any]:  # Any: YAML
        """The task with the order of its choices, where the controller of managed jobs would take any."""
        return cheapest_first(asked, self._offers(spec)["offers"]) if self.cloud.is_managed else asked

    # --- the attempt ------------------------------------------------------------------------------------------------

    def submit(self, spec: JobSpec, bundle: Bundle, run_dir: Path) -> JobHandle:
        name, managed = job_name(spec), self.cloud.is_managed
        ref: dict[str, str | int] = {
            "name": name,
            "managed": int(managed),
            "run_dir": str(run_dir),
            "mark": mark_of(spec),
            "there": run_directory(spec, self.cloud),
            **stores_of(spec),
        }
        found = self._sky.ask("find", name=name, managed=managed)
        if found is None:
            price = self.price(spec)
            if price is not None:
                ref["usd_per_hour"] = f"{price.usd_per_hour:g}"
            job = limited(spec, self.cloud.max_usd, price, restarts=managed)
            found = self._launched(job, bundle, run_dir, record_of(run_dir, _handle(spec, ref)))
        request = found.get("request")
        ref |= {"request": request} if request else {}
        return _handle(spec, ref)

    def _launched(
        self, job: JobSpec, bundle: Bundle, run_dir: Path, record: dict[str, Any]
    ) -> dict[str, Any]:  # Any: JSON
        """What the worker says of the launch. The machine ends by SkyPilot's autostop, and before that is set by
        itself."""
        write_secrets(job)  # before the launch, which wants every file to be there
        asked = task(job, self.cloud, bundle, image=self._image(job), record=record, run_dir=run_dir)
        asked = self._settled(asked, job)
        name, managed, autostop = job_name(job), self.cloud.is_managed, self.cloud.autostop
        try:
            found: dict[str, Any] = self._sky.ask(
                "launch", task=asked, name=name, managed=managed, autostop=autostop, first_boot=first_boot(autostop)
            )
        except BackendError as error:
            if not isinstance(error, SkyError) or error.is_unreachable:
                raise launch_in_doubt(error, job) from error
            delete_secrets(job.run_id, job.attempt)
            raise refusal(error, self.cloud) from error
        return found

    def status(self, handle: JobHandle) -> JobState:
        watched = self._watched(handle)
        if watched.ended is not None:
            return watched.ended
        if watched.state is not None and watched.is_fresh():
            return watched.state
        if OVER in handle.ref:
            watched.end(self._verdict_of_store(handle, watched) or _OVER)
            return self.status(handle)
        asked_at = time.monotonic()
        try:
            after = name_of(handle.run_id, handle.attempt + 1)
            found = self._sky.ask("state", next=after, **self._address(handle))
        except SkyError as error:
            if watched.state is None or not error.is_unreachable or watched.is_out_of_sight(_PATIENCE_S):
                raise
            return watched.state  # the job goes on without us, and the server may be back soon
        watched.note(found)
        if found["status"] in _QUEUED:
            watched.state = JobState(phase="queued", message=found.get("text") or None)
        elif found["status"] in _RUNNING:
            watched.state = JobState(phase="running")
        else:
            watched.end(self._verdict(handle, watched, found))
            self._let_go(handle, watched)
        watched.was_asked(asked_at)
        state = watched.ended or watched.state
        assert state is not None
        return state

    def _verdict(self, handle: JobHandle, watched: Watched, found: dict[str, Any]) -> JobState:  # Any: JSON
        """What the runtime said last, else what it left in the store, else what SkyPilot says."""
        if found["status"] in _WITHOUT_MACHINE:
            watched.read_rest(self._sky, self._address(handle))
        elif found["status"] != "REFUSED":
            watched.read_to_end(self._sky, self._address(handle))
        content = watched.mirror.file_of_start(EXIT_FILE, watched.mirror.newest_start)
        try:
            verdict = ExitRecord.read_json(content) if content else None
        except ValidationError:
            verdict = None
        if verdict is not None and verdict.is_of(handle.attempt):
            return JobState(phase="ended", exit_code=verdict.exit_code, cause=verdict.cause, message=verdict.message)
        if found["status"] in _WITHOUT_MACHINE and (state := self._verdict_of_store(handle, watched)):
            return state
        log = watched.mirror.file(LOG_FILE).decode(errors="replace")
        return ended_without_verdict(found["status"], found.get("text") or "", log, self.cloud)

    def _verdict_of_store(self, handle: JobHandle, watched: Watched) -> JobState | None:
        """That it is done, where its model has arrived."""
        result = self._stores(handle).result()
        if result is None:
            return None
        watched.mirror.put(RESULT_FILE, result)
        return JobState(phase="ended", exit_code=ExitCode.DONE, cause="done")

    def read(self, handle: JobHandle, name: str, offset: int) -> bytes:
        watched = self._watched(handle)
        if self.status(handle).phase == "running":
            with contextlib.suppress(SkyError):  # its machine is not there yet, or no more; `status` says which
                watched.read_on(self._sky, self._address(handle))
        return watched.mirror.file(name)[offset:]

    def cancel(self, handle: JobHandle, *, now: bool = False) -> None:
        watched = self._watched(handle)
        if watched.ended is not None:
            return
        if now:
            self._sky.ask("down", wait=False, **self._address(handle))
            watched.asked_at = 0.0
            return
        if watched.state is not None and watched.state.phase == "queued":
            self._sky.ask("cancel", grace=self.cloud.grace, **self._address(handle))
            return
        try:
            self._sky.ask("stop", file=stop_file(str(handle.ref["mark"])), **self._address(handle))
        except SkyError:  # that of a managed job may be out of reach: SkyPilot asks the job itself
            self._sky.ask("cancel", grace=self.cloud.grace, **self._address(handle))

    def fetch(self, handle: JobHandle, name: str, dest: Path) -> None:
        if self._stores(handle).fetch(name, dest):
            return
        dest.mkdir(parents=True)
        try:
            source = f"{handle.ref['there']}/{name}/"
            self._sky.ask("fetch", source=source, target=f"{dest}/", **self._address(handle))
        except SkyError as error:
            told = f"cannot be copied from the machine, and the run has no store: {error.text}"
            raise DeliveryError(Problem(name, None, told)) from error
        if name == OUTPUT_DIR:  # what its machine was kept for
            self._down(handle)

    def remove(self, handle: JobHandle) -> None:
        self._sky.ask("down", wait=True, **self._address(handle))
        delete_secrets(handle.run_id, handle.attempt)

    def erase(self, handle: JobHandle) -> None:
        """The run's files are the launcher's copy, and the store's, which stays."""

    def records(self) -> list[dict[str, Any]]:  # Any: JSON
        return records_in(self._sky.ask("tasks", prefix=PREFIX), state_dir() / "runs")

    def collect(self) -> list[str]:
        done = self._sky.ask("collect", prefix=PREFIX, autostop=self.cloud.autostop)
        return [f"the machine of {one['name']} was {one['what']}{_at_price(one['usd_per_hour'])}" for one in done]

    def _let_go(self, handle: JobHandle, watched: Watched) -> None:
        """End the machine of an attempt that has ended, unless the only copy of what it made is there: that ends
        itself, `autostop` minutes later."""
        delete_secrets(handle.run_id, handle.attempt)
        if self._stores(handle) or watched.has_refused:
            self._down(handle)

    def _down(self, handle: JobHandle) -> None:
        """Have the machine of an attempt ended; it would do so itself, later."""
        if not self.cloud.is_managed:
            with contextlib.suppress(FtlError):
                self._sky.ask("down", wait=False, **self._address(handle))

    def _address(self, handle: JobHandle) -> dict[str, Any]:  # Any: JSON
        """What the worker finds an attempt by."""
        job_id = self._watched(handle).facts.get("job_id")
        request = handle.ref.get("request")
        return {
            "name": handle.ref["name"],
            "managed": bool(handle.ref["managed"]),
            "request": request,
            "job_id": job_id,
        }

    def _stores(self, handle: JobHandle) -> Stores:
        text = handle.ref.get("stores")
        return stores_in(handle.run_id, None if text is None else str(text))

    def _watched(self, handle: JobHandle) -> Watched:
        key = str(handle.ref["name"])
        if key not in self._mirrors:
            self._mirrors[key] = Watched(handle)
        return self._mirrors[key]


_OVER = JobState(
    phase="ended",
    exit_code=ExitCode.PREEMPTED,
    message="its machine was ended before it was seen from here, and no store has its model",
)


def _handle(spec: JobSpec, ref: dict[str, str | int]) -> JobHandle:
    return JobHandle(provider="skypilot", run_id=spec.run_id, attempt=spec.attempt, ref=ref)


def _published(*, has_gpus: bool) -> str | None:
    """The image for a file that names none; None while it is not published, and what it holds is to be installed."""
    name = "cuda" if has_gpus else "cpu"
    return name if recipe(name).published else None


def _at_price(usd_per_hour: float | None) -> str:
    return "" if usd_per_hour is None else f" (${usd_per_hour:.2f} an hour)"


BACKEND = SkypilotBackend
