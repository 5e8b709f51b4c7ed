"""Attempts of a job that its provider starts again by itself, as Modal and SkyPilot's managed jobs do.

The launcher submits once and numbers its submission; each start in the container is an attempt of its own, so
that events, exit.json and whoever writes to a store tell one start from the next. Numbers never go back: they are in
STARTS_FILE of the run directory, and the next submission of the run begins above them.

Who starts the supervisor has nothing to do but to write `restarts: true` into job.json and to give every start the same
run directory. Where that does not survive the machine, a start begins at the launcher's number again; the stores still
keep two starts apart, by the owner each of them makes up.
"""

import json
from pathlib import Path

from ftl.contract import STARTS_FILE, JobSpec
from ftl_runtime.checkpoint.manifest import replace_synced
from ftl_runtime.rendezvous import Rendezvous, file_of

_JOB_FILE = "job-started.json"


def counted(job: JobSpec, job_file: Path, run_dir: Path, place: Rendezvous) -> tuple[JobSpec, Path]:
    """The job as this start of it is to be told, and the file it stands in: what was given, where nobody restarts it.

    Call it with the run's lock held. Each machine of several counts for itself; they are all started together.
    """
    if not job.restarts:
        return job, job_file
    file = run_dir / file_of(STARTS_FILE, place)
    started = job.model_copy(update={"attempt": next_attempt(file, job.attempt), "submission": job.attempt})
    own = run_dir / file_of(_JOB_FILE, place)
    replace_synced(own, started.model_dump_json(indent=1).encode())
    replace_synced(file, json.dumps({"attempt": started.attempt}).encode())
    return started, own


def next_attempt(file: Path, submitted: int) -> int:
    """The number of a start: that of the submission, or one above the last start, whichever is higher."""
    try:
        return max(submitted, int(json.loads(file.read_bytes())["attempt"]) + 1)
    except (OSError, ValueError, KeyError, TypeError):
        return submitted
