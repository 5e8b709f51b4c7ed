"""What Modal calls in a container: one start of a run, from the volume and back to it.

Modal imports this file by itself, as the module `modal_entry`; ftl's own code comes with the bundle and runs as the
supervisor's process. So it needs the standard library alone, and `modal` inside functions.

The run directory lies on the container's own disk and is copied to the volume: at once after each verified checkpoint,
every few seconds for events and log, and at the end. So nothing on the volume is open while it is committed, a commit
never holds half a checkpoint, and a container that is killed loses what came after the last commit and no more.

Of a cluster the first container does so. The others never see what it writes: they leave their log on the volume, and
have their supervisors meet the first one's for all else.

How a start ends, for Modal:

    returns {"status": "ended", ...}    the run's verdict, which is also verdict.json: done, or nothing would mend it
    returns {"status": "next", ...}     another call goes on: its day was over, or the data is prepared
    raises                              a container that died; Modal calls again, `retries` times at most
    KeyboardInterrupt passes            preempted; Modal calls again, as often as it preempts

A call that was made twice waits (max_containers), then finds the verdict, or that another call is further, and returns.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

STATE, CACHE = Path("/ftl/state"), Path("/ftl/cache")
SCRATCH = Path("/tmp")
"""The container's own disk."""
SEGMENT_BYTES = 256 * 1024
"""Growing files are also kept in pieces of this size, so that a reader need not fetch them from their start."""
SEGMENTS_DIR = ".segments"
MACHINES_DIR = "machines"
"""Below it, what other machines of a cluster than the first leave, each in a directory of its own."""
GROWING = ("events.jsonl", "log.txt")
_COPY_EVERY_S = 3.0
_COMMIT_SHARE = 0.1
"""Of the time at most, where commits are slow; a verified checkpoint does not wait."""
_STOP_S = 25.0
"""Modal kills 30 s after it asks to stop; the rest is for the last copy."""
_BOOT_S = 30.0
"""A container is billed from before it calls this file until after."""
_METER_EVERY_S = 60.0
_LEAST_S = 15.0
"""A budget that buys less than this is spent."""
_FINAL = (0, 2, 3, 4, 70, 71, 74, 76)
"""Exit codes that another start would only repeat."""
_PREEMPTED, _TRAINING = 75, 70
_LEFT_OUT = (".tmp", ".outbox", ".stop.json", ".seen-")

Order = dict[str, Any]  # Any: JSON, see ftl.backends.modal_plan


def prepare(order: Order) -> dict[str, Any]:
    """Tokenise and fetch the model without a GPU, then have `train` called."""
    return _start(order, "prepare")


def train(order: Order) -> dict[str, Any]:
    """The run's task."""
    return _start(order, "train")


def _start(order: Order, stage: str) -> dict[str, Any]:
    began = time.monotonic()
    machine = _Machine.here(order.get("nodes", 1) if stage == "train" else 1)
    place = _Place(order, STATE / "runs" / order["run_id"])
    meter = _Meter(order, place.root / "spent.json", stage, began)
    early = place.early_answer() if machine.rank == 0 else place.known_answer()
    early = early or _without_money(place, meter, machine)
    if early is not None:
        return early
    if machine.rank == 0:
        place.note_start(stage)
    run = _Run(order, place, machine, stage, began, meter)
    run.lay_out()
    code = run.supervise()
    run.copy(whole=True)
    if machine.rank:  # the first one answers, and knows how this one ended
        if not run.exit_record():
            raise RuntimeError(f"ftl: the supervisor of machine {machine.rank} ended with {code} and without a word")
        return {"status": "ended", "exit_code": code}
    return _answer(order, place, run, stage, code)


def _answer(order: Order, place: "_Place", run: "_Run", stage: str, code: int) -> dict[str, Any]:
    """What becomes of a start whose supervisor has ended, all committed. Raises where it should be repeated."""
    told = run.exit_record()
    is_over_time = code == _PREEMPTED and told.get("cause") == "deadline"
    if is_over_time and run.is_limited_by_money:
        return place.end(code, {**told, "message": run.meter.sentence()})
    if stage == "prepare" and (code == 0 or is_over_time):  # what is not prepared is done where it is needed
        return place.hand_over(order, "train", _call)
    if is_over_time and not run.is_last:
        return place.hand_over(order, stage, _call)
    if code in _FINAL or is_over_time:
        return place.end(code, told)
    raise RuntimeError(f"ftl: {told.get('message') or f'the supervisor ended with {code}'}; it is started again")


def _without_money(place: "_Place", meter: "_Meter", machine: "_Machine") -> dict[str, Any] | None:
    """The answer of a start that its budget does not pay for; the first machine of a cluster writes it down."""
    if meter.seconds_left() >= _LEAST_S:
        return None
    if machine.rank:
        return {"status": "ended", "exit_code": _PREEMPTED}
    return place.end(_PREEMPTED, {"cause": "deadline", "message": meter.sentence()})


def _call(order: Order, stage: str) -> str:
    """Have Modal call a function of this run's own app; the id of the call."""
    import modal

    function = modal.Function.from_name(order["app"], stage, environment_name=order["environment"])
    return str(function.spawn(order).object_id)


class _Place:
    """The run's place on the volume: who calls, how it ended."""

    def __init__(self, order: Order, root: Path) -> None:
        self.order, self.root = order, root
        self.run = root / "run"
        self.submission, self.generation = int(order["submission"]), int(order["generation"])

    def early_answer(self) -> dict[str, Any] | None:
        """The answer of a call that has nothing to do any more."""
        known = self.known_answer()
        if known is None and (self.root / f"stop-{self.submission}").exists():
            cause = {"cause": "signal", "message": "stopped before it was started"}
            return self.end(_PREEMPTED, cause)
        return known

    def known_answer(self) -> dict[str, Any] | None:
        """The same as far as it stands on the volume."""
        verdict = _read(self.root / "verdict.json")
        if verdict.get("submission") == self.submission:
            return {"status": "ended", **verdict}
        chain = self._chain()
        if chain.get("generation", 0) > self.generation:
            return {"status": "next", "call": chain["call"]}
        if chain.get("generation") == self.generation > 0 and chain["call"] not in (None, _own_call()):
            return {"status": "next", "call": chain["call"]}  # the call that made this one was made twice
        return None

    def note_start(self, stage: str) -> None:
        chain = self._chain()
        first = chain.get("first_started") or time.time()
        own = {"generation": self.generation, "stage": stage, "call": _own_call()}
        self._write_chain({**own, "first_started": first, "started_at": time.time()})
        _commit(self.order["volume"], self.order["environment"])

    def hand_over(self, order: Order, stage: str, call: Callable[[Order, str], str]) -> dict[str, Any]:
        """Call the next function and say so on the volume, where it outlives Modal's results."""
        following = {**order, "generation": self.generation + 1}
        called = call(following, stage)
        first = self._chain().get("first_started")
        others = {"generation": self.generation + 1, "stage": stage, "call": called}
        self._write_chain({**others, "first_started": first, "called_at": time.time()})
        _commit(order["volume"], order["environment"])
        return {"status": "next", "call": called}

    def end(self, code: int, told: dict[str, Any]) -> dict[str, Any]:
        """Put down the verdict of this submission."""
        verdict = {"submission": self.submission, "exit_code": code, "attempt": told.get("attempt")}
        verdict |= {"cause": told.get("cause") or ("done" if code == 0 else "crash"), "message": told.get("message")}
        _write(self.root / "verdict.json", verdict)
        _commit(self.order["volume"], self.order["environment"])
        return {"status": "ended", **verdict}

    def job(self) -> dict[str, Any]:
        return dict(json.loads((self.root / f"job-{self.submission}.json").read_bytes()))

    def seconds_left(self) -> float:
        """Of the time that the user gives the run, counted from its first start."""
        timeout_s = self.job().get("timeout_s")
        if timeout_s is None:
            return float("inf")
        return float(timeout_s) - (time.time() - float(self._chain().get("first_started") or time.time()))

    def _chain(self) -> dict[str, Any]:
        chain = _read(self.root / "chain.json")
        return chain if chain.get("submission") == self.submission else {}

    def _write_chain(self, record: dict[str, Any]) -> None:
        _write(self.root / "chain.json", {"submission": self.submission, **record})


class _Meter:
    """spent.json: the seconds that containers of this submission are billed for, by the function they run.

    A container that is killed has noted all but its last minute.
    """

    def __init__(self, order: Order, file: Path, stage: str, began: float) -> None:
        self._order, self._file, self._stage, self._began = order, file, stage, began
        found = _read(file)
        self._before: dict[str, float] = found["seconds"] if found.get("submission") == order["submission"] else {}
        self._noted_at = float("-inf")

    def seconds(self) -> dict[str, float]:
        own = time.monotonic() - self._began + _BOOT_S
        return {**self._before, self._stage: round(self._before.get(self._stage, 0.0) + own, 1)}

    def note(self) -> None:
        _write(self._file, {"submission": self._order["submission"], "seconds": self.seconds()})
        self._noted_at = time.monotonic()

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._noted_at >= _METER_EVERY_S

    def seconds_left(self) -> float:
        """Of this function's machines, by the run's budget."""
        budget, rates = self._order.get("max_usd"), self._order.get("usd_per_hour") or {}
        if budget is None:
            return float("inf")
        usd = sum(number / 3600 * rates[name] for name, number in self.seconds().items())
        return float((budget - usd) / rates[self._stage] * 3600)

    def sentence(self) -> str:
        return f"its budget of ${self._order['max_usd']:g} is spent, by the prices at launch"


class _Machine:
    """Which of the machines of a cluster this is."""

    def __init__(self, rank: int, addresses: list[str]) -> None:
        self.rank, self.addresses = rank, addresses

    @classmethod
    def here(cls, nodes: int) -> "_Machine":
        """Raises RuntimeError in a container that is not in a cluster of so many."""
        if nodes == 1:
            return cls(0, [])
        import modal

        cluster = modal.Cluster.from_context()
        addresses = cluster.container_ips(family="ipv4") or cluster.container_ips(family="ipv6")
        if len(addresses) != nodes:
            raise RuntimeError(f"ftl: the cluster has {len(addresses)} containers, and {nodes} train together")
        return cls(cluster.container_rank(), addresses)

    def variables(self) -> dict[str, str]:
        """torchrun's own, which the supervisor reads."""
        if len(self.addresses) < 2:
            return {}
        where = {"MASTER_ADDR": self.addresses[0], "MASTER_PORT": "29500"}
        return {"NNODES": str(len(self.addresses)), "NODE_RANK": str(self.rank), **where}


class _Run:
    """The run directory on this machine's disk, the supervisor in it, and its copy on the volume."""

    def __init__(self, order: Order, place: _Place, machine: _Machine, stage: str, began: float, meter: _Meter) -> None:
        self._order, self._place, self._machine, self._stage = order, place, machine, stage
        self._began, self.meter = began, meter
        self._root = SCRATCH / f"ftl-{order['run_id']}"  # the same in every container: checkpoints know paths
        self.directory = self._root / "run"
        self._copied: dict[str, tuple[int, int]] = {}
        self._copied_at, self._commit_s = 0.0, 0.0
        self._is_uncommitted = False
        self._seen = 0
        self.is_last = False
        """What the user's timeout leaves is over in this container. Told beforehand: the run stops before it is."""
        self.is_limited_by_money = False
        """The same of what the budget leaves, and that is less."""

    def lay_out(self) -> None:
        """Fetch the run as it was committed, and the bundle, and write this start's job.json.

        The run is on the first machine of a cluster; the others begin with nothing.
        """
        shutil.rmtree(self._root, ignore_errors=True)
        self._root.mkdir(parents=True)
        if self._machine.rank == 0:
            for leftover in (self._place.run / "checkpoints").glob(".tmp-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            if self._place.run.is_dir():
                left_out = shutil.ignore_patterns(SEGMENTS_DIR, MACHINES_DIR)
                shutil.copytree(self._place.run, self.directory, ignore=left_out)
            for stale in (self.directory / "exit.json", self._place.run / "exit.json"):
                stale.unlink(missing_ok=True)
        self.directory.mkdir(exist_ok=True)
        with tarfile.open(STATE / "bundles" / f"{self._order['bundle']}.tar") as bundle:
            bundle.extractall(self._root / "bundle", filter="data")
        job = self._place.job()
        job["paths"] |= {"bundle": str(self._root / "bundle"), "run": str(self.directory)}
        limit_s, paid_s = self._limit_s(), self.meter.seconds_left()
        left_s = float("inf") if self._stage == "prepare" else self._place.seconds_left()
        self.is_last = left_s <= limit_s
        self.is_limited_by_money = paid_s <= min(limit_s, left_s)
        job["timeout_s"] = max(1, int(min(limit_s, left_s, paid_s)))
        if self._stage == "prepare":
            job |= {"task": "preprocess", "fetches_model": True, "restarts": False}
            job["attempt"] = max(job["attempt"], _read(self.directory / "starts.json").get("attempt", 0) + 1)
            job["resources"] |= {"gpus": 0, "gpu_kind": None, "processes": 1}
            job["stores"] = []
        (self.directory / "job.json").write_text(json.dumps(job, indent=1))
        events = self.directory / GROWING[0]
        self._seen = events.stat().st_size if events.exists() else 0

    def _limit_s(self) -> float:
        """What this container has left, less what it takes to copy, commit and call the next one."""
        limit_s = float(self._order["limits_s"][self._stage])
        return limit_s - min(600.0, limit_s / 4) - (time.monotonic() - self._began)

    def supervise(self) -> int:
        """Run the supervisor to its end; its exit code. Committed meanwhile, and before an exception passes."""
        process = subprocess.Popen(
            [sys.executable, "-m", "ftl_runtime", str(self.directory / "job.json")],
            env=self._environment(),
            cwd=self._root,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # whoever signals the group, it gets the signal once, from here
        )
        try:
            while process.poll() is None:
                self._turn()
                time.sleep(0.1)
        except BaseException as asked:
            # KeyboardInterrupt: preempted. InputCancellation: `ftl stop`. Anything else: Modal starts this again.
            self._stop(process)
            try:
                self.copy(whole=True)
                if not isinstance(asked, KeyboardInterrupt | Exception) and self._machine.rank == 0:
                    told = self.exit_record()
                    self._place.end(int(told.get("exit_code", _PREEMPTED)), {"cause": "signal", **told})
            except Exception as error:  # whatever it was, `asked` decides what Modal does next
                sys.stderr.write(f"ftl: the last copy to the volume failed: {error}\n")
            raise
        return process.returncode

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "HF_HOME": str(CACHE / "hf"),
            "TORCHINDUCTOR_CACHE_DIR": str(SCRATCH / "torch" if self._machine.rank else CACHE / "torch"),
            "TRITON_CACHE_DIR": "/tmp/triton",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **(self._machine.variables() if self._stage == "train" else {}),
            "PYTHONPATH": str(self._root / "bundle" / "code"),
        }

    def _stop(self, process: "subprocess.Popen[bytes]") -> None:
        """Have the supervisor save and end, and wait for it. Whoever asks again meanwhile has been heard."""
        deadline = time.monotonic() + _STOP_S
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        while process.poll() is None:
            try:
                if time.monotonic() > deadline:
                    os.killpg(process.pid, signal.SIGKILL)
                time.sleep(0.05)
            except (KeyboardInterrupt, ProcessLookupError):
                continue

    def _turn(self) -> None:
        """Copy and commit what is due."""
        now = time.monotonic()
        is_due = now - self._copied_at >= max(_COPY_EVERY_S, self._commit_s / _COMMIT_SHARE)
        if self._has_checkpoint() or is_due:
            self.copy()

    def _has_checkpoint(self) -> bool:
        """Whether a checkpoint was verified since the last look."""
        events = self.directory / GROWING[0]
        try:
            with events.open("rb") as file:
                file.seek(self._seen)
                told = file.read()
        except FileNotFoundError:
            return False
        whole = told[: told.rfind(b"\n") + 1]
        self._seen += len(whole)
        return any(b'"checkpoint"' in line and b'"verified"' in line for line in whole.splitlines())

    def copy(self, *, whole: bool = False) -> None:
        """Bring the volume's copy up to date and commit it, with `whole` the output and other volumes as well."""
        if self._machine.rank:
            if whole:
                self._leave_words()
            return
        changed = self._copy_files() | self._copy_checkpoints()
        if whole:
            changed |= self._copy_output()
        if changed or whole or self.meter.is_due:
            self.meter.note()
            changed = True
        self._copied_at = time.monotonic()
        self._is_uncommitted |= changed
        if not (self._is_uncommitted or whole):
            return
        try:
            for name in (self._order["volume"], *(self._order["commits"] if whole else ())):
                _commit(name, self._order["environment"])
        except Exception as error:  # Any of Modal's; training goes on, and the next commit takes it all along
            if whole:
                raise
            sys.stderr.write(f"ftl: the volume could not be committed ({error}); it is tried again\n")
            return
        self._is_uncommitted = False
        self._commit_s = time.monotonic() - self._copied_at

    def _leave_words(self) -> None:
        """The log and the verdict of a machine other than the first, in a place of its own."""
        number = self._machine.rank
        target = self._place.run / MACHINES_DIR / str(number)
        target.mkdir(parents=True, exist_ok=True)
        for name in ("log", "exit"):
            for path in self.directory.glob(f"{name}-{number}.*"):
                _replace(path, target / f"{name}{path.suffix}")
        _commit(self._order["volume"], self._order["environment"])

    def _copy_files(self) -> bool:
        """All but checkpoints and output, which go as wholes."""
        changed = False
        for path in _files_below(self.directory, ("checkpoints", "output", "result.json")):
            name = path.relative_to(self.directory).as_posix()
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            mark = (stat.st_size, stat.st_mtime_ns)
            if self._copied.get(name) == mark:
                continue
            target = self._place.run / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.name in GROWING and path.parent == self.directory:
                _append(path, target, stat.st_size, self._copied.get(name, (0, 0))[0])
            else:
                _replace(path, target)
            self._copied[name] = mark
            changed = True
        return changed

    def _copy_checkpoints(self) -> bool:
        """Whole ones, each under its own name once it is all there; those that were dropped here are dropped there."""
        here, there = self.directory / "checkpoints", self._place.run / "checkpoints"
        found = sorted(p.name for p in here.glob("checkpoint-*") if (p / "manifest.json").is_file())
        kept = {p.name for p in there.glob("checkpoint-*")}
        for name in found:
            if name not in kept:
                _copy_directory(here / name, there / name)
        dropped = kept - {p.name for p in here.glob("checkpoint-*")}
        for name in dropped if found else ():
            shutil.rmtree(there / name, ignore_errors=True)
        return bool(set(found) - kept or dropped)

    def _copy_output(self) -> bool:
        """The finished model, then the result that says it is there."""
        result = self.directory / "result.json"
        output = self.directory / "output"
        if not result.is_file() and not output.is_dir():
            return False
        if output.is_dir():
            shutil.rmtree(self._place.run / "output", ignore_errors=True)
            _copy_directory(output, self._place.run / "output")
        if result.is_file():
            _replace(result, self._place.run / "result.json")
        return True

    def exit_record(self) -> dict[str, Any]:
        """How the supervisor of this machine has ended."""
        number = self._machine.rank
        return _read(self.directory / (f"exit-{number}.json" if number else "exit.json"))


def _files_below(root: Path, left_out: tuple[str, ...]) -> Iterator[Path]:
    for directory, names, files in os.walk(root):
        top = Path(directory) == root
        skip = left_out if top else ()
        names[:] = [n for n in names if n not in skip and not n.startswith(_LEFT_OUT)]
        for name in files:
            if name not in skip and not name.startswith(_LEFT_OUT) and not name.endswith((".tmp", ".lock")):
                yield Path(directory) / name


def _append(path: Path, target: Path, size: int, done: int) -> None:
    """Add to `target` what has come to a growing file, and write its last pieces anew."""
    with path.open("rb") as source, target.open("r+b" if target.exists() else "wb") as copy:
        source.seek(done)
        copy.seek(done)
        copy.write(source.read(size - done))
        copy.truncate()
    segments = target.parent / SEGMENTS_DIR / target.name
    segments.mkdir(parents=True, exist_ok=True)
    with path.open("rb") as source:
        for number in range(done // SEGMENT_BYTES, size // SEGMENT_BYTES + 1):
            source.seek(number * SEGMENT_BYTES)
            (segments / f"{number:06d}").write_bytes(source.read(min(SEGMENT_BYTES, size - number * SEGMENT_BYTES)))


def _replace(path: Path, target: Path) -> None:
    part = target.with_name(f".tmp-{target.name}")
    with contextlib.suppress(FileNotFoundError):  # dropped meanwhile
        shutil.copyfile(path, part)
        part.replace(target)


def _copy_directory(source: Path, target: Path) -> None:
    """The directory under its name once it is whole; nothing where it vanishes while it is read."""
    part = target.with_name(f".tmp-{target.name}")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(source, part)
    except (FileNotFoundError, shutil.Error):
        shutil.rmtree(part, ignore_errors=True)
        return
    part.rename(target)


def _commit(name: str, environment: str | None) -> None:
    """Make what this container wrote to a volume last."""
    import modal

    modal.Volume.from_name(name, environment_name=environment).commit()


def _own_call() -> str | None:
    import modal

    return modal.current_function_call_id()


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".tmp-{path.name}")
    part.write_text(json.dumps(record))
    part.replace(path)
