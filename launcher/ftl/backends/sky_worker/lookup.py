"""What SkyPilot's API server has of a name: a cluster, a managed job, a request."""

import re

JOB = 1
"""Of a cluster: the one it was made for. Others, such as that of `stop` and what a user sends there, come after it."""
_JOB_FIELDS = (
    *("job_id", "job_name", "status", "failure_reason", "details", "recovery_count", "job_duration"),
    "current_cluster_name",
)
"""Of a managed job; SkyPilot leaves out half of them unless it is asked."""


def task_of(config):
    import sky

    return sky.Task.from_yaml_config(config)


def cluster_of(name):
    import sky

    found = sky.get(sky.status([name], all_users=True))
    return found[0] if found else None


def managed_job(name):
    """The newest managed job of that name."""
    jobs = [job for job in queue() if job.job_name == name]
    return max(jobs, key=lambda job: job.job_id) if jobs else None


def queue(*more_fields):
    import sky

    fields = [*_JOB_FIELDS, *more_fields]
    try:
        return sky.get(sky.jobs.queue_v2(refresh=False, all_users=True, fields=fields))[0]
    except sky.exceptions.ClusterNotUpError:
        return []  # there is no controller, so there are no jobs


def launching(name, managed):
    """The request for that launch which has not ended."""
    import sky

    wanted = "jobs.launch" if managed else "launch"
    named = re.compile(r"(?<![\w-])" + re.escape(name) + r"(?![\w-])")
    for request in sky.api_status(all_status=False):
        is_launch = request.name.removeprefix("sky.") == wanted
        if is_launch and (request.cluster_name == name or named.search(request.request_body or "")):
            return request.request_id
    return None


def request_of(request_id):
    import sky

    if not request_id:
        return None
    for request in sky.api_status([request_id]):
        return {"id": request_id, "status": request.status, "text": request.status_msg}
    return None


def price_of(cluster):
    try:
        return cluster.handle.launched_resources.get_cost(3600) * cluster.nodes
    except Exception:
        return None


def machine_of(order):
    """The name of its cluster; that of a managed job has another after each recovery."""
    if not order["managed"]:
        return order["name"]
    job = managed_job(order["name"])
    return (job.current_cluster_name if job is not None else None) or f"{order['name']}-{order.get('job_id')}"


def ends_itself(cluster):
    """Whether its autostop is set, which SkyPilot does just before the job starts."""
    return cluster.autostop >= 0 and cluster.to_down
