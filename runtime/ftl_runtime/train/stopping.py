"""Leaving in the time there is: a last save is started only where it will be over in time."""

from typing import Any

from ftl.contract import EVENTS_FILE
from ftl_runtime import ranks
from ftl_runtime.context import Context
from ftl_runtime.measured import Measured, fits
from ftl_runtime.stop import StopOrder


def note_stop(ctx: Context, step: int, *, saves: bool) -> str | None:
    """Tell that training stops at `step`. With `saves` that is to be saved: gives why it is not, None where it is.

    All ranks must ask, and get the same answer.
    """
    order = StopOrder.read(ctx.run_dir)
    reason = _reason_not_to_save(ctx, order) if saves and ctx.device.is_main else None
    reason = ranks.share(reason, ctx.device)
    told: dict[str, Any] = {
        "reason": ctx.stop.reason or "signal",
        "step": step,
        "saves": saves and reason is None,
    }  # Any: see ftl.contract
    if order is not None and order.why:
        told["why"] = order.why
    ctx.emit("stopping", told)
    if reason is not None:
        ctx.warn(f"step {step} is not saved: {reason}")
    return reason


def _reason_not_to_save(ctx: Context, order: StopOrder | None) -> str | None:
    left_s = ctx.job.grace_s if order is None else order.left_s(ctx.job.grace_s)
    save_s = Measured(ctx.run_dir / EVENTS_FILE).read().save_s
    if fits(save_s, left_s):
        return None
    return f"the last save took {save_s:.0f} s, and {left_s:.0f} s are left"
