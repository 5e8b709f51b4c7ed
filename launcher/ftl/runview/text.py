"""What the events and figures of a run say, in words."""

from collections import deque
from collections.abc import Mapping

from rich.text import Text

from ftl.console import clean
from ftl.contract import Event
from ftl.sampletext import sample_lines

_ETA_STEPS = 50
PHASES = {
    "starting": "starting",
    "data": "reading data",
    "model": "loading model",
    "training": "training",
    "evaluating": "evaluating",
    "saving": "saving",
    "finishing": "finishing",
}
_REASONS = {"signal": "asked to", "deadline": "the time limit is near"}


class Eta:
    """How long the rest takes, by the pace of the last steps in the run's own time."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, float]] = deque(maxlen=_ETA_STEPS)
        self._max_steps = 0
        self._attempt = 0

    def add(self, event: Event) -> None:
        if event.attempt != self._attempt:
            self._seen.clear()
            self._attempt = event.attempt
        self._max_steps = event.data.get("max_steps") or 0
        self._seen.append((event.data.get("step", 0), event.t))

    def text(self) -> str:
        (step0, t0), (step1, t1) = self._seen[0], self._seen[-1]
        if step1 <= step0:
            return ""
        return "ETA " + clock_text((self._max_steps - step1) * (t1 - t0) / (step1 - step0))


def step_line(event: Event, eta: Eta) -> str:
    data = event.data
    parts = [
        f"step {data.get('step')}/{data.get('max_steps')}",
        f"loss {loss_text(data.get('loss'))}",
        speed_text(data.get("tokens_per_s")),
        memory_text(data.get("memory_gib")),
        eta.text(),
    ]
    return "  ".join(part for part in parts if part)


def event_line(event: Event) -> Text | None:
    """What an event says to people; None for those shown otherwise."""
    data = event.data
    step = data.get("step")
    match event.event:
        case "eval":
            return Text(f"step {step}: eval loss {loss_text(data.get('loss'))}{_measured(data)}")
        case "samples" if isinstance(data.get("samples"), list):
            lines = [f"step {step}: what the model writes", *map(clean, sample_lines(data["samples"]))]
            return Text("\n".join(lines))
        case "profile":
            steps = f"steps {data.get('first_step')} to {data.get('last_step')}"
            return Text(f"{steps} were profiled: {data.get('path')}/ of the run's directory")
        case "early_stop":
            since = f"no better {data.get('metric')} than {loss_text(data.get('best'))} of step {data.get('best_step')}"
            return Text(f"step {step}: {since} in {data.get('patience')} evaluations: training ends here")
        case "checkpoint" if data.get("state") == "verified":
            size = f", {data['bytes'] / 2**20:,.1f} MiB" if isinstance(data.get("bytes"), int) else ""
            return Text(f"step {step}: checkpoint saved and verified{size}", "green")
        case "checkpoint" if data.get("state") == "pushed":
            return Text(f"step {step}: checkpoint is in {data.get('store')}, compared", "green")
        case "checkpoint" if data.get("state") == "fetched":
            return Text(f"step {step}: checkpoint fetched from {data.get('store')}")
        case "delivered":
            return Text(f"the model is in {data.get('store')}, compared", "green")
        case "checkpoint" if data.get("state") == "quarantined":
            return Text(f"step {step}: this checkpoint is broken and was set aside", "yellow")
        case "memory" if data.get("recompute") != "none":
            room = f"{data.get('needed_gib')} GiB are needed beside the weights, {data.get('free_gib')} GiB are free"
            return Text(f"activations are recomputed to save memory ({data.get('recompute')}): {room}")
        case "warning":
            return Text.assemble(("warning: ", "yellow"), clean(str(data.get("message"))))
        case "waiting":
            return Text(f"waiting: {clean(str(data.get('message')))}")
        case "stopping":
            why = data.get("why") or _REASONS.get(str(data.get("reason")), data.get("reason"))
            return Text(f"stopping at step {step}, {clean(str(why))}" + (": saving" if data.get("saves", True) else ""))
        case "stopped":
            newest = data.get("checkpoint")
            return Text(f"stopped at step {step}; " + ("no checkpoint" if newest is None else f"checkpoint {newest}"))
        case "resumed":
            return Text(f"attempt {event.attempt} goes on from the checkpoint of step {step}")
    return None


def _measured(data: Mapping[str, object]) -> str:
    """What an evaluation measured beside the loss."""
    others = {name: value for name, value in data.items() if name not in ("step", "loss")}
    return "".join(f", {name} {value:.4g}" for name, value in others.items() if isinstance(value, int | float))


def loss_text(loss: object) -> str:
    """Four digits behind the point; nan where there is none."""
    return f"{loss:.4f}" if isinstance(loss, int | float) else "nan"


def speed_text(tokens_per_s: object) -> str:
    if not isinstance(tokens_per_s, int | float):
        return ""
    return f"{tokens_per_s / 1000:.1f}k tok/s" if tokens_per_s >= 10_000 else f"{tokens_per_s:.0f} tok/s"


def memory_text(gib: object) -> str:
    return f"{gib:.1f} GiB" if isinstance(gib, int | float) else ""


def clock_text(seconds: float) -> str:
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
