"""What a rented machine costs: the price by the hour, what a budget leaves, what a run has cost."""

from dataclasses import dataclass

from ftl.errors import Problem

_S_PER_HOUR = 3600
_LEAST_S = 60
"""A budget that buys less than this buys nothing."""


@dataclass(frozen=True)
class Price:
    """Of all machines of a run together, in US dollars by the hour."""

    usd_per_hour: float
    """Of the cheapest choice."""
    most_usd_per_hour: float
    """Of the dearest that may be taken."""
    what: str
    """Which machines: `p5.48xlarge in aws/us-east-1`."""
    source: str
    """Who says so: `SkyPilot's catalog`."""

    def __str__(self) -> str:
        most = f" to ${self.most_usd_per_hour:.2f}" if self.most_usd_per_hour > self.usd_per_hour else ""
        return f"${self.usd_per_hour:.2f}{most} an hour for {self.what} ({self.source})"


@dataclass(frozen=True)
class Spent:
    """What an attempt has cost, as far as the time of its machine tells."""

    hours: float
    usd_per_hour: float

    @property
    def usd(self) -> float:
        return self.hours * self.usd_per_hour


def limit_s(timeout_s: int | None, max_usd: float | None, price: Price | None) -> int | None:
    """Seconds a run may take: its own limit, or what its budget buys at the dearest price, whichever is less."""
    if max_usd is None or price is None or price.most_usd_per_hour <= 0:
        return timeout_s
    bought_s = int(max_usd / price.most_usd_per_hour * _S_PER_HOUR)
    return max(1, bought_s if timeout_s is None else min(timeout_s, bought_s))


def budget_problems(max_usd: float | None, price: Price | None, why_unknown: str) -> list[Problem]:
    """A budget that nobody can keep, because the price is not known or it buys no time at all."""
    if max_usd is None:
        return []
    if price is None:
        return [Problem("max_usd", f"{max_usd:g}", f"cannot be kept: {why_unknown}", "remove it, or write `timeout`")]
    seconds = limit_s(None, max_usd, price)
    if seconds is not None and seconds < _LEAST_S:
        return [Problem("max_usd", f"{max_usd:g}", f"buys {seconds} s at {price}", "raise it, or ask for less")]
    return []


def sentence(price: Price, timeout_s: int | None) -> str:
    """What a run will cost, for whoever is about to start it."""
    if timeout_s is None:
        return f"costs {price}; nothing ends it early: see --max-usd and --deadline"
    most = price.most_usd_per_hour * timeout_s / _S_PER_HOUR
    return f"costs {price}; at most ${most:.2f}, as it stops after {duration(timeout_s)}"


def receipt(attempts: list[Spent]) -> str:
    """What a run has cost."""
    hours = sum(one.hours for one in attempts)
    rates = {f"${one.usd_per_hour:.2f}" for one in attempts}
    rate = f"{rates.pop()} an hour" if len(rates) == 1 else "the prices of its machines"
    total = sum(one.usd for one in attempts)
    return f"{hours:.2f} h at {rate}: about ${total:.2f}, transfers and disks apart"


def duration(seconds: int) -> str:
    """`90 s`, `45 min`, `2.5 h`."""
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * _S_PER_HOUR else f"{seconds / _S_PER_HOUR:.3g} h"
