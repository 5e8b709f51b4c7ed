"""python -m ftl_runtime.parallel.raydriver JOB.json: has Ray Train run the ranks of one attempt.

It takes the place of the ranks under the supervisor: the same signals, the same verdict, the same exit status. Ray and
signals do not mix, so all of Ray is in a thread, and the main thread passes on requests to stop.
"""

import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, NoReturn

from ftl_runtime.stop import StopFlag

# What Ray reads when it is imported: it calls home, and serves metrics, unless told not to.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "3600",
}
_LOCAL = "local"
_OBJECT_STORE_BYTES = 80 * 2**20
"""About the least that Ray takes: nothing of a training goes through it."""
_POLL_S = 0.1


def main() -> NoReturn:
    from ftl_runtime.rank import die_with_supervisor

    die_with_supervisor()
    stop = StopFlag()
    stop.install()
    _drive(stop, Path(sys.argv[1]))


def _drive(stop: StopFlag, job_file: Path) -> NoReturn:
    from ftl.contract import JobSpec
    from ftl.redact import hide
    from ftl_runtime.rank import leave, open_events, redact_output
    from ftl_runtime.verdict import Verdict, send, verdict_of

    redact_output()
    job = JobSpec.read_json(job_file.read_bytes())
    hide(job.secrets)
    emit = open_events(job)
    stop.leave_with(lambda reason: leave(job, emit, reason))
    emit("phase", {"name": "starting"})
    attempt = _Attempt(job)
    thread = threading.Thread(target=attempt.run, name="ray")
    thread.start()
    is_asked = False
    while thread.is_alive():
        stop.install()  # again and again: Ray's C++ core puts a handler of its own in the place of ours
        if attempt.desk is not None:
            stop.hold()
            if stop.reason is not None and not is_asked:
                is_asked = True
                attempt.desk.ask_to_stop.remote(stop.reason)
        thread.join(_POLL_S)
    stop.install()
    ended = attempt.ended
    if isinstance(ended, BaseException):
        ended = verdict_of(ended)
        sys.stderr.write(f"{ended.message}\n")
    if isinstance(ended, int):
        os.kill(os.getpid(), -ended)  # as its rank ended, so that the supervisor says what it says of any rank
    if ended is None:
        assert stop.reason is not None, "workers that start no rank were asked to stop"
        leave(job, emit, stop.reason)
    assert isinstance(ended, Verdict)
    send(ended)
    sys.stderr.flush()
    os._exit(ended.exit_code)


class _Attempt:
    """The part that Ray sees."""

    def __init__(self, job: Any) -> None:  # Any: JobSpec, whose import comes after the signal handlers
        self.desk: Any = None  # Any: a handle; set once there is somebody to ask
        self.ended: Any = None
        """A Verdict, the exception that kept Ray from working, the signal that a rank died of as a negative number, or
        None where no rank was started."""
        self._job = job

    def run(self) -> None:
        place: str | None = None
        try:
            ray = _import_ray()
            address = os.environ.get("RAY_ADDRESS") or _LOCAL
            place = tempfile.mkdtemp(prefix="ftl-ray-") if address == _LOCAL else None
            _connect(ray, address, place, self._job)
            try:
                self.ended = self._train(ray)
            finally:
                ray.shutdown()
        except BaseException as error:  # the last frame of the thread: the main one tells it
            self.ended = error
        finally:
            if place is not None:
                shutil.rmtree(place, ignore_errors=True)

    def _train(self, ray: Any) -> Any:  # Any: a module; as `ended`
        from ray import cloudpickle
        from ray.train.v2.api.config import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
        from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
        from ray.train.v2.api.exceptions import TrainingFailedError

        from ftl.config.train import TrainConfig
        from ftl.contract import BUNDLE_CONFIG, CHECKPOINTS_DIR
        from ftl_runtime.parallel import rayworker
        from ftl_runtime.spawn import SUPERVISOR_PID
        from ftl_runtime.verdict import VERDICT_FD

        paths = self._job.paths
        cfg = TrainConfig.read_json((Path(paths.bundle) / BUNDLE_CONFIG).read_bytes())
        resources = _fitting(cfg.ray.resources, cfg.ray.num_workers, ray.cluster_resources())
        has_gpu = bool(resources.get("GPU"))
        own = Path(paths.run) / "ray"
        shutil.rmtree(own, ignore_errors=True)  # links of an earlier attempt
        name = cfg.ray.run_name or self._job.run_id
        (own / name).mkdir(parents=True)
        cloudpickle.register_pickle_by_value(rayworker)  # type: ignore[no-untyped-call]
        desk = ray.remote(num_cpus=0)(rayworker.Desk).remote()
        ray.get(desk.reason.remote())
        self.desk = desk
        task = rayworker.Task(
            desk=desk,
            job_file=str(_job_of_ranks(self._job, own, has_gpu=has_gpu)),
            run_dir=paths.run,
            env=_env_of_ranks(self._job, has_gpu=has_gpu),
            checkpoints=CHECKPOINTS_DIR,
            reported=str(own / name),
            verdict_fd=VERDICT_FD,
            supervisor_pid=SUPERVISOR_PID,
        )
        trainer = DataParallelTrainer(
            lambda: rayworker.train_rank(task),
            backend_config=rayworker.RendezvousConfig(),
            scaling_config=ScalingConfig(
                num_workers=cfg.ray.num_workers, use_gpu=has_gpu, resources_per_worker=resources
            ),
            run_config=RunConfig(  # type: ignore[arg-type]  # of Ray Train 2, which its own stubs do not know
                name=name,
                storage_path=str(own),
                checkpoint_config=CheckpointConfig(num_to_keep=cfg.output.save_total_limit),
                # Whether a run is tried again is decided outside of it, from the verdict.
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),
            ),
        )
        failure: Exception | None = None
        try:
            trainer.fit()
        except TrainingFailedError as error:
            failure = error
        return _ending(ray.get(desk.told.remote()), failure)


def _import_ray() -> Any:  # Any: a module
    from ftl.errors import BackendError

    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        from ray import train  # noqa: F401  # the part of it that needs pandas and more
    except ImportError as error:
        raise BackendError(
            f"use_ray: needs Ray Train, which is not installed here ({error.name}): `pip install 'ftl-launcher[scale]'`"
        ) from error
    return ray


def _connect(ray: Any, address: str, place: str | None, job: Any) -> None:  # Any: a module; as above
    """Join the cluster at `address`, or start one with its files in `place`."""
    from ftl.errors import BackendError

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}  # Any: keyword arguments
    if place is None:
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0]
            raise BackendError(f"RAY_ADDRESS: {address}: there is no Ray cluster to join: {first}") from error
        return
    # Ranks are no workers of Ray's, which it would kill in their place. The name is Ray's own, small letters and all.
    os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # noqa: SIM112
    ray.init(
        address=_LOCAL,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",
        _temp_dir=place,
        **({"num_gpus": 0} if job.resources.gpus == 0 else {}),
        **quiet,
    )


def _fitting(wanted: dict[str, float] | None, num_workers: int, total: dict[str, float]) -> dict[str, float]:
    """What each worker takes. Raises BackendError where the whole cluster, idle, has no room for them."""
    from ftl.errors import BackendError

    each = wanted if wanted is not None else {"GPU" if total.get("GPU") else "CPU": 1.0}
    missing = [name for name, amount in each.items() if amount * num_workers > total.get(name, 0)]
    if missing:
        has = ", ".join(f"{total.get(name, 0):g} {name}" for name in missing)
        needs = ", ".join(f"{each[name] * num_workers:g} {name}" for name in missing)
        raise BackendError(
            f"ray_num_workers: {num_workers}: they need {needs}, and the Ray cluster has {has}; lower it, or change "
            "resources_per_worker"
        )
    return each


def _job_of_ranks(job: Any, directory: Path, *, has_gpu: bool) -> Path:  # Any: as above
    """The job as ranks read it: of the machine that Ray gives them, not of that which the driver is on."""
    from ftl.contract import JOB_FILE

    resources = job.resources.model_copy(update={"gpus": int(has_gpu), "processes": 1})
    file = directory / JOB_FILE
    file.write_text(job.model_copy(update={"resources": resources}).model_dump_json())
    return file


def _env_of_ranks(job: Any, *, has_gpu: bool) -> dict[str, str]:  # Any: as above
    """What the job sets, and not what belongs to the machine of the driver."""
    from ftl_runtime.spawn import default_env

    names = (*job.env, *job.secrets, "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "FTL_STARTED")
    return default_env(has_gpu=has_gpu) | {name: os.environ[name] for name in names if name in os.environ}


def _ending(told: list[tuple[int, bytes]], failure: Exception | None) -> Any:  # Any: as _Attempt.ended
    """The first rank that failed decides; where none did and Ray failed, a machine is gone, and the run is resumed."""
    from ftl.errors import ExitCode
    from ftl_runtime.verdict import Verdict, receive

    verdicts = [(status, receive(said)) for status, said in told]
    failed = [(status, verdict) for status, verdict in verdicts if status not in (0, ExitCode.PREEMPTED)]
    for status, verdict in failed:
        if verdict is not None:
            return verdict
        if status < 0:
            return status
        return Verdict(
            ExitCode.TRAINING, "crash", f"a rank ended with exit code {status}; its last words are in log.txt"
        )
    if failure is not None:
        lost = str(getattr(failure, "worker_failures", None) or failure).strip().splitlines()[0]
        return Verdict(ExitCode.PREEMPTED, "lost", f"Ray lost a worker: {lost[:300]}")
    return next((verdict for _, verdict in verdicts if verdict is not None), None)


if __name__ == "__main__":
    main()
