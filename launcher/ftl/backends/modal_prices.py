"""What machines on Modal cost by its price list, and what a budget buys there.

Modal's client tells no prices, so the list stands here with its date, and `usd_per_hour` of a cloud file overrules it.
Source: modal.com/pricing as others quoted it on PRICED_ON; modal.com/docs/guide/region-selection, /guide/resources.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ftl.backends.modal_cloud import ModalCloud
from ftl.cost import Price, Spent

if TYPE_CHECKING:
    from ftl.backends.modal_plan import FunctionPlan

PRICED_ON = "2026-06-27"
USD_PER_GPU_S: dict[str, float] = {
    "T4": 0.000164,
    "L4": 0.000222,
    "A10": 0.000306,
    "L40S": 0.000542,
    "A100-40GB": 0.000583,
    "A100-80GB": 0.000694,
    "RTX-PRO-6000": 0.000842,
    "H100": 0.001097,
    "H100!": 0.001097,
    "H200": 0.001261,
    "B200": 0.001736,
    "B200+": 0.001736,
}
USD_PER_CORE_S, USD_PER_GIB_S = 0.0000131, 0.00000222
REGION_FACTORS = (1.25, 2.5)
"""A region of one's choice costs so much more, at least and at most."""
_GIB_PER_DISK_GIB = 1 / 20
"""Disk counts as memory."""
_CORES_PER_GPU, _GIB_PER_GPU = 4.0, 32.0
"""Modal bills what is used, where that is more than was asked for; nothing is asked for when absent. A guess, on the
high side of what training was seen to use."""
_S_PER_HOUR = 3600


def price(function: "FunctionPlan", what: str, cloud: ModalCloud) -> Price:
    """Of the machines that one function runs on, called `what`; those that train may have a price of the user's."""
    if function.name == "train" and cloud.usd_per_hour is not None:
        return Price(cloud.usd_per_hour, cloud.usd_per_hour, what, "usd_per_hour of the cloud file")
    least, most = _list_price(function)
    return Price(least, most, what, f"Modal's price list of {PRICED_ON}")


def spent(seconds: Mapping[str, float], usd_per_hour: Mapping[str, float]) -> Spent | None:
    """What containers have cost by the seconds that each function had them; None where they had none."""
    hours = sum(seconds.values()) / _S_PER_HOUR
    if hours <= 0:
        return None
    usd = sum(number / _S_PER_HOUR * usd_per_hour.get(name, 0.0) for name, number in seconds.items())
    return Spent(hours, usd / hours)


def _list_price(function: "FunctionPlan") -> tuple[float, float]:
    """By the hour, at least and at most: of the cheapest and the dearest choice."""
    gpus = [_of_gpus(one) for one in function.gpu] or [0.0]
    num_gpus = _count(function.gpu[0]) if function.gpu else 1
    cores = function.cpu if function.cpu is not None else _CORES_PER_GPU * num_gpus
    asked_gib = function.memory_mib / 1024 if function.memory_mib is not None else _GIB_PER_GPU * num_gpus
    memory_gib = max(asked_gib, (function.disk_mib or 0) / 1024 * _GIB_PER_DISK_GIB)
    rest = cores * USD_PER_CORE_S + memory_gib * USD_PER_GIB_S
    low, high = REGION_FACTORS if function.regions else (1.0, 1.0)
    scale = function.nodes * _S_PER_HOUR
    return (min(gpus) + rest) * low * scale, (max(gpus) + rest) * high * scale


def _of_gpus(asked: str) -> float:
    return USD_PER_GPU_S[asked.partition(":")[0]] * _count(asked)


def _count(asked: str) -> int:
    return int(asked.partition(":")[2] or 1)
