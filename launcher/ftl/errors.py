"""What can go wrong in the user's world, and the exit code each kind has.

FtlError                  any of these: one clear sentence, no traceback
+-- ConfigError      2    the config, the cloud file, the data or the command line
+-- BackendError     3   this machine or the backend cannot run the job; nothing was started
+-- RunError         4    no such run, or the run is not in a state for what was asked
+-- TrainingError    70   the training itself crashed
|   +-- DivergedError 71  the loss stayed above loss_watchdog_threshold
+-- StorageError     74   no space or no access where the job writes
+-- PreemptedError   75   stopped before the end, resumable from the last checkpoint
+-- DeliveryError    76   trained, but the result is not where it was asked to be

Whatever is not an FtlError is a bug of ours, keeps its traceback and exits with 1.
"""

from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of `ftl` and of the runtime; README.md lists the same table."""

    DONE = 0
    BUG = 1
    CONFIG = 2
    ENVIRONMENT = 3
    RUN = 4
    TRAINING = 70
    DIVERGED = 71
    STORAGE = 74
    PREEMPTED = 75
    UNDELIVERED = 76
    DETACHED = 130


@dataclass(frozen=True)
class Problem:
    """One thing the user can mend: where it is, what stands there, what is allowed, what to do.

    `str()` gives the one-line sentence: `cfg.yml:14: lora_r = 0: must be at least 1; <remedy>`.
    """

    where: str
    given: str | None = None
    allowed: str | None = None
    remedy: str | None = None

    def __str__(self) -> str:
        sentence = ": ".join(part for part in (self.where, self.given, self.allowed) if part)
        return f"{sentence}; {self.remedy}" if self.remedy else sentence


class FtlError(Exception):
    """An error whose message is for the user; `exit_code` is what the process returns."""

    exit_code: ExitCode = ExitCode.BUG

    def __init__(self, *problems: Problem | str) -> None:
        self.problems: tuple[Problem | str, ...] = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class ConfigError(FtlError):
    exit_code = ExitCode.CONFIG


class BackendError(FtlError):
    exit_code = ExitCode.ENVIRONMENT


class UncertainError(BackendError):
    """Whether the provider has accepted an attempt nobody can say: its record is kept, so that it is asked again."""


class RunError(FtlError):
    exit_code = ExitCode.RUN


class TrainingError(FtlError):
    exit_code = ExitCode.TRAINING


class DivergedError(TrainingError):
    exit_code = ExitCode.DIVERGED


class StorageError(FtlError):
    exit_code = ExitCode.STORAGE


class PreemptedError(FtlError):
    exit_code = ExitCode.PREEMPTED


class DeliveryError(FtlError):
    exit_code = ExitCode.UNDELIVERED
