"""What the machines of SkyPilot cost by its catalogs, and how much time a budget leaves an attempt."""

import math
import time
from typing import Any

from ftl.contract import JobSpec
from ftl.cost import Price, limit_s
from ftl.errors import BackendError, Problem


def price_of(offers: list[dict[str, Any]], num_nodes: int) -> Price | None:  # Any: JSON
    """What the cheapest choice costs by the hour, and the dearest that may be taken; None where no catalog says."""
    priced = [offer for offer in offers if offer["usd_per_hour"] is not None]
    cheapest: dict[int, dict[str, Any]] = {}  # Any: JSON
    for offer in sorted(priced, key=lambda offer: float(offer["usd_per_hour"])):
        cheapest.setdefault(offer["choice"], offer)
    if not cheapest:
        return None
    first = min(cheapest.values(), key=lambda offer: float(offer["usd_per_hour"]))
    nodes = f"{num_nodes} x " if num_nodes > 1 else ""
    spot = ", spot" if first["is_spot"] else ""
    what = f"{nodes}{first['machine']} in {first['place']}{spot}"
    most = max(float(offer["usd_per_hour"]) for offer in cheapest.values())
    return Price(float(first["usd_per_hour"]), most, what, "SkyPilot's catalog")


def in_order(asked: dict[str, Any]) -> dict[str, Any]:  # Any: YAML
    """The task with its choices as a list, so that an offer's choice is the place of one in it."""
    return _with_choices(asked, list(asked["resources"].get("any_of") or ()))


def cheapest_first(asked: dict[str, Any], offers: list[dict[str, Any]]) -> dict[str, Any]:  # Any: YAML
    """The task of a managed job with its choices by price: the controller takes those of `any_of` in any order."""
    least: dict[int, float] = {}
    for offer in offers:
        if offer["usd_per_hour"] is not None:
            least[offer["choice"]] = min(float(offer["usd_per_hour"]), least.get(offer["choice"], math.inf))
    choices = list(enumerate(asked["resources"].get("any_of") or ()))
    choices.sort(key=lambda choice: least.get(choice[0], math.inf))
    return _with_choices(asked, [choice for _, choice in choices])


def _with_choices(asked: dict[str, Any], choices: list[Any]) -> dict[str, Any]:  # Any: YAML
    resources = {key: value for key, value in asked["resources"].items() if key != "any_of"}
    return {**asked, "resources": {**resources, "ordered": choices}} if choices else asked


def limited(spec: JobSpec, max_usd: float | None, price: Price | None, *, restarts: bool) -> JobSpec:
    """The job with the time that its budget buys. With `restarts` that counts from here, over all its machines.

    Raises BackendError where no price is known, and where earlier attempts have left nothing.
    """
    seconds = limit_s(spec.timeout_s, max_usd, price)
    if max_usd is not None and (price is None or seconds is None):
        raise BackendError(Problem("max_usd", f"{max_usd:g}", "cannot be kept: no price is known"))
    if seconds is None:
        return spec
    now = time.time()
    if spec.limit_from is not None and now - spec.limit_from >= seconds:
        key, given = ("timeout", f"{seconds} s") if seconds == spec.timeout_s else ("max_usd", f"{max_usd:g}")
        told = "is used up by the attempts that lost their machines"
        raise BackendError(Problem(key, given, told, f"`ftl resume {spec.run_id}` gives it as much again"))
    counts_from = now if restarts and spec.limit_from is None else spec.limit_from
    return spec.model_copy(update={"timeout_s": seconds, "limit_from": counts_from})
