"""What SkyPilot says when it cannot, as sentences that name the key of the cloud file."""

import re

from ftl.backends.sky_client import SkyError
from ftl.backends.skypilot_cloud import WITHOUT_PRICES, SkypilotCloud
from ftl.contract import Cause, HubRef, JobSpec, JobState, UrlRef
from ftl.errors import BackendError, ExitCode, Problem, UncertainError

_KEYS = (
    (re.compile(r"unsupported field|Additional properties|is not one of|is not valid under|not of type", re.I), "sky"),
    (re.compile(r" for at most \$"), "max_usd_per_hour"),
    (re.compile(r"instances satisfying the request: [^(]*\(\{"), "gpu"),
    (re.compile(r"instances satisfying the request: [^(]*\(cpus="), "cpus"),
    (re.compile(r"instances satisfying the request: [^(]*\(mem="), "memory"),
    (re.compile(r"\bquota|VcpuLimitExceeded|MaxSpotInstanceCount|LimitExceeded", re.I), "quota"),
    (re.compile(r"InsufficientInstanceCapacity|sufficient capacity|RESOURCE_POOL_EXHAUSTED|stockout", re.I), "infra"),
    (re.compile(r"Failed to provision all possible", re.I), "infra"),
    (re.compile(r"\bimage(?!_id=)|manifest unknown|pull access denied", re.I), "image"),
    (re.compile(r"\bregion|\bzone|\bpartition", re.I), "infra"),
    (re.compile(r"did you mean", re.I), "sky"),
    (
        re.compile(r"credential|not enabled|AccessDenied|UnauthorizedOperation|AuthFailure|no cloud access", re.I),
        "infra",
    ),
    (re.compile(r"bucket|storage", re.I), "checkpoints"),
    (re.compile(r"accelerator|\bGPU|has no \w", re.I), "gpu"),
)
"""What a message is about -> the key to look at."""
_ADVICE = "; To fix: "
"""Where SkyPilot's words end for those who use it by hand."""


def lasting_problems(spec: JobSpec, cloud: SkypilotCloud) -> list[Problem]:
    """A run that would leave nothing behind when its machine goes away."""
    remedy = "add `checkpoints: s3://...` (or gs://, hf://) to the cloud file, or hub_model_id to the config"
    problems = []
    local = [ref for ref in spec.stores if isinstance(ref, UrlRef) and ref.url.startswith("file:")]
    if local and not (cloud.clouds and all(name in WITHOUT_PRICES for name in cloud.clouds)):
        problems.append(Problem("checkpoints", local[0].url, "is on the machine, and goes with it", remedy))
    if not cloud.is_managed:
        return problems
    key = "spot" if cloud.spot else "recover"
    if spec.task != "train":
        told = "is for trainings; this task starts from the beginning and brings its result back itself"
        return [*problems, Problem(key, None, told, "use a cloud file without it")]
    if not any(isinstance(ref, HubRef | UrlRef) for ref in spec.stores):
        told = "needs a place for checkpoints and the model: nothing would be left after the machine is gone"
        problems.append(Problem(key, None, told, remedy))
    return problems


def controller_problems(cloud: SkypilotCloud, is_consolidated: bool | None) -> list[Problem]:
    """A choice of controller that the API server of this machine would not follow, and rent or not rent one instead."""
    if not cloud.is_managed or is_consolidated is None or is_consolidated == (cloud.controller == "local"):
        return []
    if is_consolidated:
        told = "the API server here watches managed jobs itself, and would rent no controller"
        return [Problem("controller", "cloud", told, "write `controller: local`")]
    told = "the API server here does not watch managed jobs itself, and would rent a machine for it"
    remedy = (
        "put `jobs: {controller: {consolidation_mode: true}}` into ~/.sky/config.yaml, then `sky api stop` and start"
    )
    return [Problem("controller", "local", told, remedy)]


def checked(sentences: list[str], cloud: SkypilotCloud) -> list[Problem]:
    """What SkyPilot's schema and catalogs say against a task, key by key."""
    return [Problem(_key_of(text, cloud), text) for text in sentences]


def refusal(error: SkyError, cloud: SkypilotCloud) -> BackendError:
    """A launch that the API server did not take."""
    text = error.text.partition(_ADVICE)[0]
    return BackendError(Problem(_key_of(text, cloud), text, "SkyPilot refuses to launch it"))


def launch_in_doubt(error: BackendError, job: JobSpec) -> UncertainError:
    """An API server that went away while it was asked: it may have the launch, and do it."""
    told = error.text if isinstance(error, SkyError) else str(error)
    remedy = f"`ftl resume {job.run_id}` asks it once more, and launches nothing twice"
    given = "went away while it was asked to launch the run, and may have taken it"
    return UncertainError(Problem("SkyPilot's API server", given, told[:300], remedy))


def why_unknown(cloud: SkypilotCloud, told: str | None) -> str:
    """Why no price is known."""
    if not cloud.places:
        return "SkyPilot chooses the cloud when it launches, and each has its prices; name it with `infra`"
    if told is not None:
        return f"SkyPilot's catalog cannot be read ({told[:200]})"
    return f"SkyPilot has no prices for {', '.join(cloud.clouds)}"


_WITHOUT_VERDICT: dict[str, tuple[Cause, int, str]] = {
    "REFUSED": ("environment", ExitCode.ENVIRONMENT, "SkyPilot could not launch it"),
    "FAILED_SETUP": ("environment", ExitCode.ENVIRONMENT, "the setup on the machine failed"),
    "FAILED_PRECHECKS": ("environment", ExitCode.ENVIRONMENT, "SkyPilot refuses it"),
    "FAILED_NO_RESOURCE": ("environment", ExitCode.ENVIRONMENT, "no cloud asked has such a machine to spare"),
    "FAILED_CONTROLLER": ("lost", ExitCode.PREEMPTED, "SkyPilot's controller failed"),
    "FAILED_DRIVER": ("lost", ExitCode.PREEMPTED, "SkyPilot lost the job on its machine"),
    "GONE": ("lost", ExitCode.PREEMPTED, "the machine is gone and left no verdict"),
    "ENDED": ("signal", ExitCode.PREEMPTED, "SkyPilot was asked to end it (`ftl stop`, `sky cancel`, `sky down`)"),
    "CANCELLED": ("signal", ExitCode.PREEMPTED, "it was cancelled before the runtime could say how it stands"),
    "SUCCEEDED": ("lost", ExitCode.PREEMPTED, "the job ended without a verdict"),
    "FAILED": ("crash", ExitCode.TRAINING, "the job ended without a verdict"),
}


def ended_without_verdict(status: str, text: str, log: str, cloud: SkypilotCloud) -> JobState:
    """How an attempt stands whose runtime said nothing, by what SkyPilot says of it."""
    cause, code, sentence = _WITHOUT_VERDICT.get(status, ("lost", ExitCode.PREEMPTED, f"SkyPilot says {status}"))
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    text = text.partition(_ADVICE)[0]
    if text and cause == "environment":
        text = f"{_key_of(text, cloud)}: {text}"
    told = text or (lines[-1] if lines and status in ("FAILED", "FAILED_SETUP") else "")
    return JobState(phase="ended", exit_code=code, cause=cause, message=f"{sentence}: {told}" if told else sentence)


def _key_of(text: str, cloud: SkypilotCloud) -> str:
    for pattern, key in _KEYS:
        if pattern.search(text):
            return "any_of" if key == "infra" and cloud.any_of else key
    return "SkyPilot"
