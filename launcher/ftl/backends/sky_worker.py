"""The one file that imports SkyPilot, run by the Python of SkyPilot's own environment.

SkyPilot wants an older click than huggingface-hub, so the two never share an environment. One JSON object a line on
standard input, {"id": 1, "op": "hello", ...}; one a line in answer, {"id": 1, "value": ...} or {"id": 1, "error":
{"kind": "CLASS", "text": "..."}}. Imports nothing of ftl, and keeps to Python 3.9.
"""

import contextlib
import io
import json
import os
import re
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_AWS_REFUSAL = re.compile(r"An error occurred \((\w+)\) when calling the \w+ operation(?: \([^)]*\))?: ([^\n]+)")
ENDED = ("SUCCEEDED", "FAILED", "FAILED_SETUP", "FAILED_DRIVER", "CANCELLED", "GONE", "ENDED")
JOB = 1
"""Of a cluster: the one it was made for. Others, such as that of `stop` and what a user sends there, come after it."""
_ENDINGS = ("cancel", "stop", "down")
STARTED_AGAIN_S = 60.0
"""Within this time of the end of a lost machine the run has been launched again by who did that."""
AGAIN_S = 5.0
"""A log that has broken off is read again so long after."""
AT_ONCE = 8
"""So many questions are answered at the same time: `ftl ps` asks for every run."""
HISTORY_DAYS = 30
"""How far back machines that have been ended are looked for."""
_JOB_FIELDS = (
    *("job_id", "job_name", "status", "failure_reason", "details", "recovery_count", "job_duration"),
    "current_cluster_name",
)
"""Of a managed job; SkyPilot leaves out half of them unless it is asked."""
_WAITING = ("PENDING", "STARTING", "RECOVERING")
_FINISHED = ("SUCCEEDED", "FAILED", "CANCELLED")


def hello(order):
    import sky

    return {"version": sky.__version__, "python": sys.version.split()[0]}


def check(order):
    """What SkyPilot's schema and catalogs find wrong with the task: sentences; and what machines it could be."""
    problems, offers, unknown = [], [], None
    try:
        task = _task(order["task"])
    except Exception as error:
        return {"problems": [_said(error)], "offers": [], "unknown": None}
    for choice, resources in enumerate(task.resources):
        try:
            resources.validate()
            offers += [dict(offer, choice=choice) for offer in _offers(resources, task.num_nodes, problems)]
        except Exception as error:
            if not _is_unreachable(error):
                return {"problems": [_said(error)], "offers": [], "unknown": None}
            unknown = _said(error)
    return {"problems": problems if not offers else [], "offers": offers, "unknown": unknown}


def _is_unreachable(error):
    """Whether a catalog could not be had, which says nothing of the task."""
    return isinstance(error, OSError) or "requests error" in str(error) or "Max retries" in str(error)


def _offers(resources, num_nodes, problems):
    """Each machine of the catalogs that fits, with its price by the hour; what is close goes to `problems`."""
    if resources.cloud is None or str(resources.cloud).lower() in ("kubernetes", "slurm", "ssh"):
        return []
    feasible = resources.cloud.get_feasible_launchable_resources(resources, num_nodes)
    found = []
    for one in feasible.resources_list:
        place = "/".join(part for part in (str(one.cloud).lower(), one.region, one.zone) if part)
        machine = {"place": place, "machine": one.instance_type, "is_spot": bool(one.use_spot)}
        try:
            machine["usd_per_hour"] = one.get_cost(3600) * num_nodes
        except Exception:
            machine["usd_per_hour"] = None
        found.append(machine)
    if not found:
        what = ", ".join(f"{kind}:{num}" for kind, num in (resources.accelerators or {}).items()) or "such a machine"
        close = ", ".join(feasible.fuzzy_candidate_list[:6])
        hint = "; close to it: " + close if close else ""
        problems.append(f"{resources.cloud} has no {what}{hint}")
    return found


def ready(order):
    """What of the API server stands in the way of a launch: sentences."""
    import sky
    from sky.client import sdk

    found = []
    enabled = [str(cloud).lower() for cloud in sky.get(sdk.enabled_clouds())]
    for cloud in order["clouds"]:
        if {"k8s": "kubernetes"}.get(cloud, cloud) not in enabled:
            found.append(f"{cloud} is not enabled on SkyPilot's API server; `sky check {cloud}` says what it needs")
    return {"problems": found, "enabled": enabled, "consolidated": _is_consolidated()}


def _is_consolidated():
    """Whether the API server itself watches managed jobs; None where it is another machine's, which does not tell."""
    from sky.server import common
    from sky.utils import controller_utils

    return controller_utils.is_jobs_consolidation_mode() if common.is_api_server_local() else None


def find(order):
    """What there is of a name: its cluster, managed job or launch request; None where SkyPilot knows nothing of it."""
    job = _managed(order["name"]) if order["managed"] else None
    if job is not None:
        return {"job_id": job.job_id}
    request = _launching(order["name"], order["managed"])
    if request is not None:
        return {"request": request}
    return {} if not order["managed"] and _cluster(order["name"]) is not None else None


def launch(order):
    """Ask for the task to be launched: the id of the request, once the API server has it."""
    import sky

    task, name = _task(order["task"]), order["name"]
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


def state(order):
    """How the launch and the job stand, and what the machine costs by the hour."""
    request = _request(order.get("request"))
    if order["managed"]:
        job = _managed(order["name"])
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
    if request is not None and request["status"] not in _FINISHED:
        return {"status": "LAUNCHING", "text": _waits_for(order["name"]) or request.get("text") or ""}
    if request is None and _launching(order["name"], False) is not None:
        return {"status": "LAUNCHING", "text": _waits_for(order["name"])}
    cluster = _cluster(order["name"])
    if cluster is None:
        return _of_request(request)
    found = {"cluster": cluster.status.value, "usd_per_hour": _price(cluster), "launched_at": cluster.launched_at}
    if request is not None and request["status"] in ("FAILED", "CANCELLED"):
        return dict(found, **_of_request(request))
    job = _job(order["name"])
    has_no_job = job["status"] == "LAUNCHING" or (job["status"] == "UNKNOWN" and not _ends_itself(cluster))
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
    asked = [one for one in requests if one.name.removeprefix("sky.") in _ENDINGS and one.status != "FAILED"]
    if not asked or find({"name": order["next"], "managed": False}) is not None:
        return {}
    is_late = all(one.finished_at and time.time() - one.finished_at > STARTED_AGAIN_S for one in asked)
    was_cancelled = any(one.name.removeprefix("sky.") == "cancel" for one in asked)
    return {"status": "ENDED"} if is_late or was_cancelled else {"status": "UNKNOWN"}


def _waits_for(cluster_name):
    """What a machine that is being made waits for, as far as SkyPilot has said so."""
    cluster = _cluster(cluster_name)
    return _said(cluster.init_status_reason) if cluster is not None and cluster.init_status_reason else ""


def _job(cluster_name):
    import sky

    try:
        statuses = sky.get(sky.job_status(cluster_name, job_ids=[JOB]))
    except Exception as error:
        try:  # the machine itself may be gone: ask its cloud
            refresh = sky.StatusRefreshMode.FORCE
            found = sky.get(sky.status([cluster_name], refresh=refresh, all_users=True))
        except Exception:
            return {"status": "UNKNOWN", "text": _said(error)}
        return {"status": "UNKNOWN" if found and found[0].status.value == "UP" else "GONE", "text": _said(error)}
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
    if request["status"] in _FINISHED:
        return {"status": "REFUSED", "text": _refusal(request["id"])}
    return {"status": "LAUNCHING", "text": ""}


def _refusal(request_id):
    """Why a launch has failed: where no machine could be had what its cloud said, which is in the log alone."""
    import sky

    try:
        sky.get(request_id)
    except sky.exceptions.ResourcesUnavailableError as error:
        reasons = _said_by_aws(request_id) or [_said(one) for one in error.failover_history] or [_said(error)]
        return "; ".join(dict.fromkeys(reasons))[:1500]
    except Exception as error:
        return _said(error)
    return ""


def _said_by_aws(request_id):
    """The refusals of AWS in the log of a request."""
    import sky

    log = io.StringIO()
    with contextlib.suppress(Exception):  # that of the request itself
        sky.stream_and_get(request_id, tail=500, follow=False, output_stream=log)
    return [f"{code}: {text.strip()}" for code, text in _AWS_REFUSAL.findall(_ANSI.sub("", log.getvalue()))]


_streams = {}


class Stream:
    """The log of a job as it comes, read by a thread of its own."""

    def __init__(self, order):
        self._order = order
        self.text = []
        self.ended = None
        self._ended_at = 0.0
        threading.Thread(target=self._read, daemon=True).start()

    def has_broken_off(self):
        """Whether it has ended some time ago."""
        return self.ended is not None and time.monotonic() - self._ended_at > AGAIN_S

    def _read(self):
        self.ended = self._read_all()
        self._ended_at = time.monotonic()

    def _read_all(self):
        """Why it has ended; nothing where the job has."""
        import sky

        try:
            if self._order["managed"]:
                lines = sky.jobs.tail_logs(job_id=self._order["job_id"], follow=True, preload_content=False)
            else:
                lines = sky.tail_logs(self._order["name"], JOB, follow=True, preload_content=False)
            for line in lines:
                if line is not None:  # SkyPilot's sign of life, where the job has said nothing for 30 s
                    self.text.append(line)
        except Exception as error:
            return _said(error)
        return ""


def log(order):
    """What the log has grown by since `offset` pieces; starts to read it, and starts again where that broke off."""
    stream = _streams.get(order["name"])
    if stream is None or (stream.has_broken_off() and order["offset"] >= len(stream.text)):
        _streams[order["name"]] = Stream(order)
        return {"pieces": [], "offset": 0, "ended": None, "is_fresh": True}
    ended, pieces = stream.ended, stream.text[order["offset"] :]
    return {"pieces": pieces, "offset": order["offset"] + len(pieces), "ended": ended, "is_fresh": False}


def stop(order):
    """Put an empty file into the working directory of the job's machines. SkyPilot's server has a way there from
    wherever one asks, and it copies the directory of a task before the task has its turn; this one does nothing."""
    import sky

    with tempfile.TemporaryDirectory() as directory:
        Path(directory, order["file"]).touch()
        task = _task({"name": "stop", "workdir": directory, "run": "true"})
        sky.get(sky.exec(task, cluster_name=_machine_of(order)))
    return


def fetch(order):
    """Copy a directory of the first machine here."""
    import sky

    name = _machine_of(order)
    found = sky.get(sky.status([name], all_users=True))
    if not found or found[0].handle is None:
        raise LookupError(f"there is no machine of the name {name}")
    first = found[0].handle.get_command_runners()[0]
    first.rsync(order["source"], order["target"], up=False, stream_logs=False)
    return


def _machine_of(order):
    """The name of its cluster; that of a managed job has another after each recovery."""
    if not order["managed"]:
        return order["name"]
    job = _managed(order["name"])
    return (job.current_cluster_name if job is not None else None) or f"{order['name']}-{order.get('job_id')}"


def cancel(order):
    """Ask the job to end; where there is none yet, end the launch."""
    import sky

    if not order["managed"] and _launching(order["name"], False) is not None:
        down({**order, "wait": False})
    elif order["managed"]:
        sky.get(sky.jobs.cancel(name=None, job_ids=[order["job_id"]], graceful=True, graceful_timeout=order["grace"]))
    else:
        sky.get(sky.cancel(order["name"], job_ids=[JOB]))
    return


def down(order):
    """End the machine, or the managed job and its machine; nothing where there is none."""
    import sky

    if order["managed"]:
        job = _managed(order["name"])
        if job is not None and not job.status.is_terminal():
            sky.get(sky.jobs.cancel(job_ids=[job.job_id]))
    else:
        request = _launching(order["name"], False)
        if request is not None:
            sky.get(sky.api_cancel([request]))
        if _cluster(order["name"]) is not None:
            request = sky.down(order["name"])
            if order["wait"]:
                sky.get(request)
    return


def collect(order):
    """See to it that every cluster whose name begins with `prefix` will end itself; where it has nothing to do, end it
    now. Those that will, and may still hold a model that nobody has fetched, are left alone."""
    import sky

    done = []
    for cluster in sky.get(sky.status()):
        name = cluster.name
        if not name.startswith(order["prefix"]) or _ends_itself(cluster) or _launching(name, False) is not None:
            continue
        status = _job(name)["status"] if cluster.status.value == "UP" else "GONE"
        told = {"name": name, "what": "ended", "usd_per_hour": _price(cluster)}
        if status not in ENDED and _has_autostop(name, order["autostop"]):
            told["what"] = "told to end itself"
        else:
            sky.get(sky.down(name))
        done.append(told)
    return done


def _ends_itself(cluster):
    """Whether its autostop is set, which SkyPilot does just before the job starts."""
    return cluster.autostop >= 0 and cluster.to_down


def _has_autostop(name, minutes):
    """Set the autostop of a cluster; False where SkyPilot never got as far as a job there."""
    import sky

    try:
        sky.get(sky.autostop(name, minutes, down=True))
    except (sky.exceptions.ClusterNotUpError, sky.exceptions.CommandError, ValueError):
        return False
    return True


def tasks(order):
    """The script of everything whose name begins with `prefix`, whoever launched it: machines, managed jobs, and
    machines of the last days that have been ended."""
    import sky

    machines = {one.name: one.last_creation_yaml for one in sky.get(sky.status(all_users=True))}
    found = [(name, text, False) for name, text in machines.items()]
    found += [(name, text, True) for name, text in _ended(order["prefix"], machines)]
    found += [(job.job_name, job.user_yaml, False) for job in _queue("user_yaml")]
    return [
        {"name": name, "script": _script(text), "is_over": is_over}
        for name, text, is_over in found
        if name and name.startswith(order["prefix"])
    ]


def _ended(prefix, but):
    """Name and task of machines that are gone; SkyPilot's own report has no tasks."""
    import sky
    from sky.server import common
    from sky.server.requests import payloads

    def asked(**what):
        body = payloads.CostReportBody(days=HISTORY_DAYS, exclude_managed_clusters=True, **what)
        answer = common.make_authenticated_request("POST", "/cost_report", json=json.loads(body.model_dump_json()))
        return sky.get(common.get_request_id(answer))

    names = [one["name"] for one in asked() if one["name"].startswith(prefix) and one["name"] not in but]
    names = [name for name in dict.fromkeys(names) if _launching(name, False) is None]
    return [(one["name"], one.get("last_creation_yaml")) for one in asked(cluster_names=names)] if names else []


def _script(text):
    """What a task runs. Its YAML may begin with a header of its own."""
    import yaml

    try:
        parts = [part for part in yaml.safe_load_all(text or "") if isinstance(part, dict)]
    except yaml.YAMLError:
        return ""
    return next((str(part["run"]) for part in parts if part.get("run")), "")


def _task(config):
    import sky

    return sky.Task.from_yaml_config(config)


def _cluster(name):
    import sky

    found = sky.get(sky.status([name], all_users=True))
    return found[0] if found else None


def _managed(name):
    """The newest managed job of that name."""
    jobs = [job for job in _queue() if job.job_name == name]
    return max(jobs, key=lambda job: job.job_id) if jobs else None


def _queue(*more_fields):
    import sky

    fields = [*_JOB_FIELDS, *more_fields]
    try:
        return sky.get(sky.jobs.queue_v2(refresh=False, all_users=True, fields=fields))[0]
    except sky.exceptions.ClusterNotUpError:
        return []  # there is no controller, so there are no jobs


def _launching(name, managed):
    """The request for that launch which has not ended."""
    import sky

    wanted = "jobs.launch" if managed else "launch"
    named = re.compile(r"(?<![\w-])" + re.escape(name) + r"(?![\w-])")
    for request in sky.api_status(all_status=False):
        is_launch = request.name.removeprefix("sky.") == wanted
        if is_launch and (request.cluster_name == name or named.search(request.request_body or "")):
            return request.request_id
    return None


def _request(request_id):
    import sky

    if not request_id:
        return None
    for request in sky.api_status([request_id]):
        return {"id": request_id, "status": request.status, "text": request.status_msg}
    return None


def _price(cluster):
    try:
        return cluster.handle.launched_resources.get_cost(3600) * cluster.nodes
    except Exception:
        return None


def _said(error):
    """What an exception says, in one line and without its colours."""
    text = _ANSI.sub("", str(error)).strip()
    return re.sub(r"\s*\n\s*", "; ", text)[:1500] or type(error).__name__


OPS = {
    function.__name__: function
    for function in (hello, check, ready, find, launch, state, log, stop, fetch, cancel, down, collect, tasks)
}


def main():
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever SkyPilot prints
    one_at_a_time = threading.Lock()

    def answer(order):
        try:
            told = {"id": order["id"], "value": OPS[order["op"]](order)}
        except Exception as error:
            told = {"id": order["id"], "error": {"kind": type(error).__name__, "text": _said(error)}}
        with one_at_a_time:
            answers.write(json.dumps(told, default=str) + "\n")
            answers.flush()

    with ThreadPoolExecutor(AT_ONCE) as threads:
        for line in sys.stdin:
            threads.submit(answer, json.loads(line))
    os._exit(0)  # a thread that reads a log would be waited for


if __name__ == "__main__":
    main()
