"""What moto's EC2 is asked to rent, kept request by request, and what it refuses."""

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses.instances import InstanceResponse

QUOTA = ("VcpuLimitExceeded", "You have requested more vCPU capacity than your current vCPU limit of 0 allows")
NO_CAPACITY = ("InsufficientInstanceCapacity", "We currently do not have sufficient capacity in the zone you requested")
"""Code and text of AWS, as its documents have them."""


@dataclass(frozen=True)
class Order:
    """One RunInstances."""

    region: str
    instance_type: str
    is_spot: bool
    user_data: str


@dataclass
class Orders:
    """All so far. `refuse` gives code and text for those that are not to be had."""

    refuse: Callable[[Order], tuple[str, str] | None] = lambda order: None
    seen: list[Order] = field(default_factory=list)


@contextmanager
def watched_orders() -> Iterator[Orders]:
    """The orders that every moto server of this process gets meanwhile."""
    orders, run_instances = Orders(), InstanceResponse.run_instances

    def run(self: InstanceResponse) -> Any:  # Any: moto's own
        user_data = self._get_param("UserData") or ""
        order = Order(
            region=self.region,
            instance_type=self._get_param("InstanceType"),
            is_spot=self._get_param("InstanceMarketOptions.MarketType") == "spot",
            user_data=base64.b64decode(user_data).decode(),
        )
        orders.seen.append(order)
        refused = orders.refuse(order)
        if refused is not None:
            raise EC2ClientError(*refused)
        return run_instances(self)

    InstanceResponse.run_instances = run  # type: ignore[method-assign]
    try:
        yield orders
    finally:
        InstanceResponse.run_instances = run_instances  # type: ignore[method-assign]
