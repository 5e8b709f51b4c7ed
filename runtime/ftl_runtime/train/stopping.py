"""Leaving in the time there is: a last save is started only where it will be over in time."""

from dataclasses import dataclass
from typing import Any

from ftl.contract import EVENTS_FILE
from ftl_runtime import ranks
from ftl_runtime.context import Context
from ftl_runtime.measured import Measured, fits
from ftl_runtime.stop import Reason, StopOrder


def note_stop(ctx: Context, step: int, *, saves: bool) -> str | None:
    """Tell that training stops at `step`. With `saves` that is to be saved: gives why it is not, None where it is.

    All ranks must ask, and get the same answer. Whichever of them was asked to stop, all know the reason afterwards.
    """
    asked = _asked(ctx)
    ctx.stop.reason = ctx.stop.reason or asked.reason
    unsaved = _reason_not_to_save(ctx, asked.left_s) if saves and ctx.device.is_main else None
    unsaved = ranks.share(unsaved, ctx.device)
    told: dict[str, Any] = {
        "reason": asked.reason,
        "step": step,
        "saves": saves and unsaved is None,
    }  # Any: see ftl.contract
    if asked.why:
        told["why"] = asked.why
    ctx.emit("stopping", told)
    if unsaved is not None:
        ctx.warn(f"step {step} is not saved: {unsaved}")
    return unsaved


@dataclass(frozen=True)
class _Asked:
    reason: Reason
    left_s: float
    """Of the machine that has the least: their clocks may differ."""
    why: str | None


def _asked(ctx: Context) -> _Asked:
    """The same on all ranks, whichever of them were asked."""
    order = StopOrder.read(ctx.run_dir)
    own = (ctx.stop.reason, order and order.left_s(ctx.job.grace_s), order and order.why)
    reasons, lefts, whys = zip(*ranks.gather(own, ctx.device), strict=True)
    return _Asked(
        reason=next((reason for reason in reasons if reason), "signal"),
        left_s=min((left_s for left_s in lefts if left_s is not None), default=ctx.job.grace_s),
        why=next((why for why in whys if why), None),
    )


def _reason_not_to_save(ctx: Context, left_s: float) -> str | None:
    save_s = Measured(ctx.run_dir / EVENTS_FILE).read().save_s
    if fits(save_s, left_s):
        return None
    return f"the last save took {save_s:.0f} s, and {left_s:.0f} s are left"
