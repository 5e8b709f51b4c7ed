"""Secrets of a job as files in memory, one a secret, gone when the job has ended."""

import os
import shutil
import stat
from pathlib import Path

from ftl.contract import JobSpec
from ftl.errors import BackendError, Problem


def memory_folder() -> Path | None:
    """A folder whose files never reach a disk; None where this machine has none."""
    for name in ("/dev/shm", os.environ.get("XDG_RUNTIME_DIR")):
        if name and Path(name).is_dir() and os.access(name, os.W_OK | os.X_OK):
            return Path(name)
    return None


def secrets_dir(folder: Path, run_id: str, attempt: int) -> Path:
    """Where the secrets of one attempt lie."""
    return folder / f"ftl-secrets-{os.getuid()}-{run_id}-{attempt}"


def write_secrets(spec: JobSpec) -> None:
    """One 0400 file a secret in a 0700 directory, written anew. Raises BackendError when a value is not at hand."""
    if not spec.secrets:
        return
    missing = [name for name in spec.secrets if name not in os.environ]
    if missing:
        raise BackendError(Problem(f"secret {missing[0]}", "not set in this shell", None, f"`export {missing[0]}=...`"))
    folder = memory_folder()
    if folder is None:
        raise BackendError(Problem("secrets", "this machine has neither /dev/shm nor XDG_RUNTIME_DIR to keep them in"))
    directory = secrets_dir(folder, spec.run_id, spec.attempt)
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        if not _is_own_directory(directory):  # /dev/shm is everyone's
            raise BackendError(Problem("secrets", str(directory), "belongs to someone else; remove it")) from None
    for name in spec.secrets:
        fresh = directory / f".{name}.new"
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
        with os.fdopen(descriptor, "w") as file:
            file.write(os.environ[name])
        fresh.replace(directory / name)


def delete_secrets(run_id: str, attempt: int) -> None:
    """Idempotent. A directory of that name that is not ours is left alone."""
    folder = memory_folder()
    if folder is None:
        return
    directory = secrets_dir(folder, run_id, attempt)
    if _is_own_directory(directory):
        shutil.rmtree(directory, ignore_errors=True)


def _is_own_directory(path: Path) -> bool:
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid()
