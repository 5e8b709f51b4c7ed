"""One attempt: launched, asked to stop, ended, and what it made copied from its machine."""

import contextlib
import tempfile
from pathlib import Path

from . import lookup


def find(order):
    """What there is of a name: its cluster, managed job or launch request; None where SkyPilot knows nothing of it."""
    job = lookup.managed_job(order["name"]) if order["managed"] else None
    if job is not None:
        return {"job_id": job.job_id}
    request = lookup.launching(order["name"], order["managed"])
    if request is not None:
        return {"request": request}
    return {} if not order["managed"] and lookup.cluster_of(order["name"]) is not None else None


def launch(order):
    """Ask for the task to be launched: the id of the request, once the API server has it."""
    import sky

    task, name = lookup.task_of(order["task"]), order["name"]
    task.name = name
    with _at_first_boot(order["first_boot"]):
        if order["managed"]:
            return {"request": str(sky.jobs.launch(task, name=name))}
        request = sky.launch(task, cluster_name=name, idle_minutes_to_autostop=order["autostop"], down=True)
        return {"request": str(request)}


def _at_first_boot(command):
    """SkyPilot's config, which goes with a request, with a command more for the first boot of machines of AWS."""
    from sky import skypilot_config

    key = "post_provision_runcmd"
    own = skypilot_config.get_nested(("aws", key), default_value=None) or []
    return skypilot_config.override_skypilot_config({"aws": {key: [*own, command]}})


def stop(order):
    """Put an empty file into the working directory of the job's machines. SkyPilot's server has a way there from
    wherever one asks, and it copies the directory of a task before the task has its turn; this one does nothing, and is
    cancelled: then the server remembers, too, that somebody had the cluster's job end."""
    import sky

    name = lookup.machine_of(order)
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, order["file"]).touch()
        job, _ = sky.get(
            sky.exec(lookup.task_of({"name": "stop", "workdir": directory, "run": "true"}), cluster_name=name)
        )
    with contextlib.suppress(Exception):  # the job has stopped already, and its machine with it
        sky.get(sky.cancel(name, job_ids=[job]))
    return


def cancel(order):
    """Ask the job to end; where there is none yet, end the launch."""
    import sky

    if not order["managed"] and lookup.launching(order["name"], False) is not None:
        down({**order, "wait": False})
    elif order["managed"]:
        sky.get(sky.jobs.cancel(name=None, job_ids=[order["job_id"]], graceful=True, graceful_timeout=order["grace"]))
    else:
        sky.get(sky.cancel(order["name"], job_ids=[lookup.JOB]))
    return


def down(order):
    """End the machine, or the managed job and its machine; nothing where there is none."""
    import sky

    if order["managed"]:
        job = lookup.managed_job(order["name"])
        if job is not None and not job.status.is_terminal():
            sky.get(sky.jobs.cancel(job_ids=[job.job_id]))
    else:
        request = lookup.launching(order["name"], False)
        if request is not None:
            sky.get(sky.api_cancel([request]))
        if lookup.cluster_of(order["name"]) is not None:
            if order["wait"]:
                end(order["name"])
            else:
                sky.down(order["name"])
    return


def end(name):
    """End a cluster and wait until it has ended; another request may be faster."""
    import sky

    with contextlib.suppress(sky.exceptions.ClusterDoesNotExist):
        sky.get(sky.down(name))


def fetch(order):
    """Copy a directory of the first machine here."""
    import sky

    name = lookup.machine_of(order)
    found = sky.get(sky.status([name], all_users=True))
    if not found or found[0].handle is None:
        raise LookupError(f"there is no machine of the name {name}")
    first = found[0].handle.get_command_runners()[0]
    first.rsync(order["source"], order["target"], up=False, stream_logs=False)
    return
