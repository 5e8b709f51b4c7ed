"""What SkyPilot's schema, catalogs and server say to a task before it is launched."""

from . import errors, lookup


def check(order):
    """What SkyPilot's schema and catalogs find wrong with the task: sentences; and what machines it could be."""
    problems, offers, unknown = [], [], None
    try:
        task = lookup.task_of(order["task"])
    except Exception as error:
        return {"problems": [errors.said(error)], "offers": [], "unknown": None}
    for choice, resources in enumerate(task.resources):
        if _is_for_the_server(resources):
            continue
        try:
            resources.validate()
            offers += [dict(offer, choice=choice) for offer in _offers(resources, task.num_nodes, problems)]
        except Exception as error:
            if not errors.is_unreachable(error):
                return {"problems": [errors.said(error)], "offers": [], "unknown": None}
            unknown = errors.said(error)
    return {"problems": problems if not offers else [], "offers": offers, "unknown": unknown}


def _is_somebodys_own(resources):
    return str(resources.cloud).lower() in ("kubernetes", "slurm", "ssh")


def _is_for_the_server(resources):
    """Whether only an API server elsewhere knows such machines; it refuses the launch where it does not."""
    from sky.server import common

    return _is_somebodys_own(resources) and not common.is_api_server_local()


def _offers(resources, num_nodes, problems):
    """Each machine of the catalogs that fits, with its price by the hour; what is close goes to `problems`."""
    if resources.cloud is None or _is_somebodys_own(resources):
        return []
    feasible = resources.cloud.get_feasible_launchable_resources(resources, num_nodes)
    most = resources.max_hourly_cost
    found = []
    for one in feasible.resources_list:
        place = "/".join(part for part in (str(one.cloud).lower(), one.region, one.zone) if part)
        machine = {"place": place, "machine": one.instance_type, "is_spot": bool(one.use_spot)}
        try:
            usd_per_hour = one.get_cost(3600)
        except Exception:
            usd_per_hour = None
        if most is not None and usd_per_hour is not None and usd_per_hour > most:
            continue  # some catalogs compare without the price of the GPUs
        found.append(dict(machine, usd_per_hour=None if usd_per_hour is None else usd_per_hour * num_nodes))
    if not found:
        what = ", ".join(f"{kind}:{num}" for kind, num in (resources.accelerators or {}).items()) or "such a machine"
        bound = "" if most is None else f" for at most ${most:g} an hour"
        close = ", ".join(feasible.fuzzy_candidate_list[:6])
        hint = "; close to it: " + close if close else ""
        problems.append(f"{resources.cloud} has no {what}{bound}{hint}")
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
