"""What the events of all attempts at a run claim, held against what is on disk and in the stores."""

import signal
from typing import Any

from ledger import WentOn
from stage import MAX_STEPS, SAVE_STEPS, Stage


def losses_of(stage: Stage) -> dict[int, float]:
    """Step -> loss. A step that was trained twice must have had the same loss both times."""
    found: dict[int, float] = {}
    for event in stage.events("step"):
        step, loss = event["data"]["step"], event["data"]["loss"]
        assert found.setdefault(step, loss) == loss, f"step {step} has two losses"
    return found


class History:
    """Told before and after each attempt, it raises AssertionError at the first thing that is not as promised."""

    def __init__(self, stage: Stage, expected: dict[int, float]) -> None:
        self._stage, self._expected = stage, expected
        self._there: dict[str, set[int]] = {}
        self._steps_lost = 0

    def begin(self) -> None:
        """An attempt is about to start, and no process is at work on the run."""
        self._there = self._stage.whole()

    def end(self, status: int, hit: dict[str, Any] | None) -> None:  # Any: JSON
        """It has ended with that exit status, after that blow."""
        stage, attempt = self._stage, self._stage.number
        newest = max((step for steps in self._there.values() for step in steps), default=0)
        resumed = [event["data"]["step"] for event in stage.events("resumed", attempt)]
        steps = [event["data"]["step"] for event in stage.events("step", attempt)]
        is_started = bool(steps) or any(event["data"]["name"] == "training" for event in stage.events("phase", attempt))
        assert resumed in ([newest] if newest else [], []), f"attempt {attempt} went on from {resumed}, not {newest}"
        assert resumed or not newest or not is_started, f"attempt {attempt} did not go on from {newest}"
        if steps:
            assert steps == list(range(newest + 1, newest + 1 + len(steps))), f"attempt {attempt} trained {steps}"
        self._check_acknowledged(attempt)
        self._check_status(attempt, status, hit, newest, steps)
        losses = losses_of(stage)
        wrong = [step for step, loss in losses.items() if loss != self._expected[step]]
        assert not wrong, f"attempt {attempt}: other losses at steps {wrong}"

    def steps_lost(self) -> int:
        """How many steps the attempt has trained that no whole checkpoint in the run directory has."""
        return self._steps_lost

    def went_on(self) -> WentOn | None:
        """Where the attempt got what it went on from; None if it did not come so far."""
        stage, attempt = self._stage, self._stage.number
        if any(event["data"]["state"] == "fetched" for event in stage.events("checkpoint", attempt)):
            return "store"
        if stage.events("resumed", attempt):
            return "here"
        return "start" if stage.events("step", attempt) else None

    def close(self) -> None:
        """The run has come to its end."""
        assert losses_of(self._stage) == self._expected
        (result,) = {event["data"]["steps"] for event in self._stage.events("result")}
        assert result == MAX_STEPS

    def _check_acknowledged(self, attempt: int) -> None:
        """Where a checkpoint was told to be, that or a newer one is."""
        whole = self._stage.whole()
        for event in self._stage.events("checkpoint", attempt):
            told = event["data"]
            if told["state"] not in ("verified", "pushed", "fetched", "quarantined"):
                continue
            assert told["state"] != "quarantined", f"attempt {attempt} found {told} broken, and nothing broke it"
            place = told["store"] if told["state"] == "pushed" else "here"
            assert max(whole[place], default=0) >= told["step"], f"{told} is lost: {whole}"
        for place, steps in self._there.items():
            assert max(whole[place], default=0) >= max(steps, default=0), f"{place} lost {steps}: {whole}"

    def _check_status(
        self, attempt: int, status: int, hit: dict[str, Any] | None, newest: int, steps: list[int]
    ) -> None:
        newest_here = max(self._stage.whole()["here"], default=0)
        self._steps_lost = steps[-1] - newest_here if steps and status != 0 else 0
        if hit is None or hit["victim"] == "sync":
            assert status == 0, f"attempt {attempt} ended with {status} unharmed: {self._stage.log()[-3000:]}"
        elif hit["signal"] == signal.SIGKILL:
            expected = (137, 0) if hit["victim"].startswith("trainer") else (-signal.SIGKILL,)
            assert status in expected, f"attempt {attempt}: {status} after {hit}: {self._stage.log()[-3000:]}"
            # One save may be under way while the next steps are taken, and the next save waits for it.
            limit = SAVE_STEPS * (2 if self._is_saving(attempt) else 1)
            assert self._steps_lost <= limit, f"attempt {attempt}: {hit} costs {self._steps_lost} steps"
        else:
            assert status in (75, 0), f"attempt {attempt}: {status} after {hit}: {self._stage.log()[-3000:]}"
            if status == 75:
                self._check_stopped(attempt, hit, steps)

    def _is_saving(self, attempt: int) -> bool:
        """Whether the attempt had begun a save that it did not bring to its end."""
        begun = [event for event in self._stage.events("phase", attempt) if event["data"]["name"] == "saving"]
        told = self._stage.events("checkpoint", attempt)
        return len(begun) > sum(event["data"]["state"] == "verified" for event in told)

    def _check_stopped(self, attempt: int, hit: dict[str, Any], steps: list[int]) -> None:  # Any: JSON
        """A checkpoint was made where it stopped, and told."""
        told = [event["data"]["checkpoint"] for event in self._stage.events("stopped", attempt)]
        here = max(self._stage.whole()["here"], default=None)
        # A rank that waits in C for one that has left is killed, and tells nothing; it has not trained.
        assert told == [here] or (not told and not steps), (
            f"attempt {attempt}: {hit}: told {told}, there is {here}: {self._stage.log()[-3000:]}"
        )
        assert not steps or here == steps[-1], f"attempt {attempt}: {hit}: stopped at {steps[-1]}, kept {here}"
