"""What there is of all runs, whoever launched them."""

import json

from . import attempt, lookup, standing

HISTORY_DAYS = 30
"""How far back machines that have been ended are looked for."""


def collect(order):
    """See to it that every cluster whose name begins with `prefix` will end itself; where it has nothing to do, end it
    now. Those that will, and may still hold a model that nobody has fetched, are left alone."""
    import sky

    done = []
    for cluster in sky.get(sky.status()):
        name = cluster.name
        if (
            not name.startswith(order["prefix"])
            or lookup.ends_itself(cluster)
            or lookup.launching(name, False) is not None
        ):
            continue
        status = standing.job_on(name)["status"] if cluster.status.value == "UP" else "GONE"
        told = {"name": name, "what": "ended", "usd_per_hour": lookup.price_of(cluster)}
        if status not in standing.ENDED and _has_autostop(name, order["autostop"]):
            told["what"] = "told to end itself"
        else:
            attempt.end(name)
        done.append(told)
    return done


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
    found += [(job.job_name, job.user_yaml, False) for job in lookup.queue("user_yaml")]
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
    names = [name for name in dict.fromkeys(names) if lookup.launching(name, False) is None]
    return [(one["name"], one.get("last_creation_yaml")) for one in asked(cluster_names=names)] if names else []


def _script(text):
    """What a task runs. Its YAML may begin with a header of its own."""
    import yaml

    try:
        parts = [part for part in yaml.safe_load_all(text or "") if isinstance(part, dict)]
    except yaml.YAMLError:
        return ""
    return next((str(part["run"]) for part in parts if part.get("run")), "")
