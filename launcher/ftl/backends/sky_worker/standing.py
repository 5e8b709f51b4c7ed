"""How an attempt stands."""

import contextlib
import io
import re
import time

from . import attempt, errors, lookup

ENDED = ("SUCCEEDED", "FAILED", "FAILED_SETUP", "FAILED_DRIVER", "CANCELLED", "GONE", "ENDED")
STARTED_AGAIN_S = 60.0
"""Within this time of the end of a lost machine the run has been launched again by who did that."""
_WAITING = ("PENDING", "STARTING", "RECOVERING")
FINISHED = ("SUCCEEDED", "FAILED", "CANCELLED")
_AWS_REFUSAL = re.compile(r"An error occurred \((\w+)\) when calling the \w+ operation(?: \([^)]*\))?: ([^\n]+)")


def state(order):
    """How the launch and the job stand, and what the machine costs by the hour."""
    request = lookup.request_of(order.get("request"))
    if order["managed"]:
        job = lookup.managed_job(order["name"])
        return _of_request(request) if job is None else _of_managed(job)
    found = _on_cluster(order, request)
    return dict(found, **_why_gone(order)) if found["status"] == "GONE" else found


def _of_managed(job):
    return {
        "job_id": job.job_id,
        "status": job.status.value,
        "text": job.failure_reason or (job.details if job.status.value in _WAITING else None) or "",
        "recoveries": job.recovery_count or 0,
        "seconds": job.job_duration,
    }


def _on_cluster(order, request):
    if request is not None and request["status"] not in FINISHED:
        return {"status": "LAUNCHING", "text": _waits_for(order["name"]) or request.get("text") or ""}
    if request is None and lookup.launching(order["name"], False) is not None:
        return {"status": "LAUNCHING", "text": _waits_for(order["name"])}
    cluster = lookup.cluster_of(order["name"])
    if cluster is None:
        return _of_request(request)
    found = {
        "cluster": cluster.status.value,
        "usd_per_hour": lookup.price_of(cluster),
        "launched_at": cluster.launched_at,
    }
    if request is not None and request["status"] in ("FAILED", "CANCELLED"):
        return dict(found, **_of_request(request))
    job = job_on(order["name"])
    has_no_job = job["status"] == "LAUNCHING" or (job["status"] == "UNKNOWN" and not lookup.ends_itself(cluster))
    if request is None and has_no_job:  # a server that was killed has forgotten what it was about to do
        return dict(found, status="GONE", text="its launch was broken off before there was a job")
    return dict(found, **job)


def _why_gone(order):
    """ENDED instead of GONE where SkyPilot was asked to end the job or its machine; its server knows that for a day,
    and where users have roles it tells it to administrators and who asked. Who starts a lost run again has its machine
    ended first: so nothing is said before there has been time for that."""
    import sky

    fields = ["request_id", "name", "status", "finished_at"]
    requests = sky.api_status(all_status=True, cluster_name=order["name"], fields=fields)
    ends = [one for one in requests if one.name in ("sky.stop", "sky.down") and one.status != "FAILED"]
    was_cancelled = any(one.name == "sky.cancel" for one in requests)
    if not (ends or was_cancelled) or attempt.find({"name": order["next"], "managed": False}) is not None:
        return {}
    is_late = all(one.finished_at and time.time() - one.finished_at > STARTED_AGAIN_S for one in ends)
    return {"status": "ENDED"} if was_cancelled or is_late else {"status": "UNKNOWN"}


def _waits_for(cluster_name):
    """What a machine that is being made waits for, as far as SkyPilot has said so."""
    cluster = lookup.cluster_of(cluster_name)
    return errors.said(cluster.init_status_reason) if cluster is not None and cluster.init_status_reason else ""


def job_on(cluster_name):
    import sky

    try:
        statuses = sky.get(sky.job_status(cluster_name, job_ids=[lookup.JOB]))
    except Exception as error:
        try:  # the machine itself may be gone: ask its cloud
            refresh = sky.StatusRefreshMode.FORCE
            found = sky.get(sky.status([cluster_name], refresh=refresh, all_users=True))
        except Exception:
            return {"status": "UNKNOWN", "text": errors.said(error)}
        return {"status": "UNKNOWN" if found and found[0].status.value == "UP" else "GONE", "text": errors.said(error)}
    for status in statuses.values():
        if status is not None:
            return {"status": status.value, "text": ""}
    return {"status": "LAUNCHING", "text": ""}


def _of_request(request):
    """How a launch stands of which there is neither cluster nor job."""
    if request is None:
        return {"status": "GONE", "text": ""}
    if request["status"] == "SUCCEEDED":
        return {"status": "GONE", "text": ""}
    if request["status"] == "CANCELLED":
        return {"status": "CANCELLED", "text": ""}
    if request["status"] in FINISHED:
        return {"status": "REFUSED", "text": _refusal(request["id"])}
    return {"status": "LAUNCHING", "text": ""}


def _refusal(request_id):
    """Why a launch has failed: where no machine could be had what its cloud said, which is in the log alone."""
    import sky

    try:
        sky.get(request_id)
    except sky.exceptions.ResourcesUnavailableError as error:
        reasons = (
            _said_by_aws(request_id) or [errors.said(one) for one in error.failover_history] or [errors.said(error)]
        )
        return "; ".join(dict.fromkeys(reasons))[:1500]
    except Exception as error:
        return errors.said(error)
    return ""


def _said_by_aws(request_id):
    """The refusals of AWS in the log of a request."""
    import sky

    log = io.StringIO()
    with contextlib.suppress(Exception):  # that of the request itself
        sky.stream_and_get(request_id, tail=500, follow=False, output_stream=log)
    return [f"{code}: {text.strip()}" for code, text in _AWS_REFUSAL.findall(errors.ANSI.sub("", log.getvalue()))]
