"""Kills runs at points in steps, saves and uploads, over and over, and checks the history of each.

    make chaos                                                    every kind of training, the long form
    .venv/bin/python tests/e2e/chaos/campaign.py --kind lora --kills 30 --stops 10 --seed 7

Between two attempts the machine may be lost, with all that lies in the run directory: then the stores are all there is.
Every attempt must go on from the newest checkpoint that is whole anywhere; what was told to be there must be there; no
more is trained again than one save interval; and every loss and the final weights equal those of an uninterrupted run.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from faults import Moment, Plan, Victim

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "emulators")]

from history import History, losses_of  # noqa: E402
from hub_server import HubServer  # noqa: E402
from nursery import Nursery  # noqa: E402
from stage import MAX_STEPS, SAVE_STEPS, Stage, make_bundle, nursery_env  # noqa: E402

_THIRDS: tuple[Moment, ...] = ("step", "save", "upload")
_VICTIMS: dict[Moment, tuple[Victim, ...]] = {
    "step": ("machine", "trainer", "supervisor"),
    "save": ("machine", "trainer", "supervisor"),
    "upload": ("machine", "sync", "supervisor", "trainer"),
}


@dataclass
class Tally:
    """What was proven to have been hit, over all runs of a campaign."""

    kills: Counter[str] = field(default_factory=Counter)
    """Moment -> SIGKILLs."""
    stops: Counter[str] = field(default_factory=Counter)
    """Signal -> requests to stop."""
    victims: Counter[str] = field(default_factory=Counter)
    touches: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    runs: int = 0
    machines_lost: int = 0
    fetched: int = 0
    """Attempts that went on from a checkpoint of a store."""

    def add(self, other: "Tally") -> None:
        for name in ("kills", "stops", "victims", "touches"):
            getattr(self, name).update(getattr(other, name))
        for name in ("attempts", "runs", "machines_lost", "fetched"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


class World:
    """What all campaigns share: a Hub, and a nursery of processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.hub = HubServer()
        self.hub.accounts["hf_ann"] = {"name": "ann", "auth": {"accessToken": {"role": "write"}}}
        self.nursery = Nursery(nursery_env(root / "home", self.hub))

    def close(self) -> None:
        self.nursery.close()
        self.hub.close()


class Campaign:
    """Attacks on trainings of one kind."""

    def __init__(self, world: World, kind: str, seed: int) -> None:
        self.world, self.kind, self.seed = world, kind, seed
        self.random = random.Random(f"{kind} {seed}")
        self.root = world.root / f"{kind}-{seed}"
        self.bundle = make_bundle(self.root / "bundle", kind)
        self.tally = Tally()
        straight = self.stage("straight")
        straight.stores = ()
        assert straight.go() == 0, straight.log()
        self.expected = losses_of(straight)
        assert list(self.expected) == list(range(1, MAX_STEPS + 1))
        self.weights = straight.weights()

    def stage(self, name: str) -> Stage:
        return Stage(self.root / name, self.kind, self.bundle, self.world.nursery, self.world.hub)

    def run(self, *, kills: int, stops: int) -> Tally:
        """Until `kills` SIGKILLs have hit, a third each in a step, a save and an upload, and `stops` of SIGTERM and of
        SIGINT each."""
        quota: Counter[tuple[int, Moment]] = Counter()
        for number, moment in enumerate(_THIRDS):
            quota[signal.SIGKILL, moment] = kills // 3 + (number < kills % 3)
        for asked in (signal.SIGTERM, signal.SIGINT):
            for number in range(stops):
                quota[asked, (*_THIRDS, "start")[number % 4]] += 1  # type: ignore[index]
        while max(quota.values()) > 0:
            assert self.tally.runs <= kills + 2 * stops, f"{quota} never hit; seed {self.seed}"
            try:
                self._one_run(quota)
            except AssertionError as error:
                raise AssertionError(f"{self.kind}, seed {self.seed}, run {self.tally.runs}: {error}") from error
        return self.tally

    def _one_run(self, quota: "Counter[tuple[int, Moment]]") -> None:
        self.tally.runs += 1
        stage = self.stage(f"run-{self.tally.runs}")
        history = History(stage, self.expected)
        while True:
            open_hits = sorted(hit for hit, left in quota.items() if left > 0)
            plan = self._plan(*self.random.choice(open_hits)) if open_hits else None
            before = len(stage.struck())
            history.begin()
            status = stage.finish(stage.start(plan))
            self.tally.attempts += 1
            hits = stage.struck()[before:]
            history.end(status, hits[0] if hits else None)
            for hit in hits:
                self._count(hit, quota)
            if status == 0:
                break
            if self.random.random() < 0.4:
                stage.lose_machine()
                self.tally.machines_lost += 1
        self.tally.fetched += sum(event["data"]["state"] == "fetched" for event in stage.events("checkpoint"))
        assert stage.weights() == self.weights, "the final weights differ"
        history.close()

    def _count(self, hit: dict[str, object], quota: "Counter[tuple[int, Moment]]") -> None:
        moment, number = str(hit["moment"]), int(str(hit["signal"]))
        quota[number, moment] -= 1  # type: ignore[index]
        if number == signal.SIGKILL:
            self.tally.kills[moment] += 1
            self.tally.victims[f"{moment}: {hit['victim']}"] += 1
            self.tally.touches[f"{moment}: {str(hit.get('touch', 'between')).split()[0]}"] += 1
        else:
            self.tally.stops[f"{signal.Signals(number).name} {moment}"] += 1

    def _plan(self, number: int, moment: Moment) -> Plan:
        draw = self.random
        stop = number != signal.SIGKILL
        return Plan(
            hits="",
            moment=moment,
            at=draw.randint(1, 2 * SAVE_STEPS) if moment == "step" else draw.randint(1, 2),
            num_touches=draw.randint(1, 60),
            delay_s=draw.uniform(0.0, 0.3) if moment == "start" else draw.uniform(0.0, 0.08),
            victim="supervisor" if stop else draw.choice(_VICTIMS[moment]),
            signal=number,
            step_s=draw.choice((0.0, 0.04, 0.1)),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=["full", "lora", "fsdp"], action="append")
    parser.add_argument("--kills", type=int, default=67, help="SIGKILLs of each kind of training")
    parser.add_argument("--stops", type=int, default=17, help="of SIGTERM and of SIGINT each, of each kind")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        world = World(Path(root))
        try:
            for kind in given.kind or ("full", "lora", "fsdp"):
                print(f"{kind}, seed {given.seed}", flush=True)
                tally = Campaign(world, kind, given.seed).run(kills=given.kills, stops=given.stops)
                print(json.dumps(tally.__dict__, indent=1), flush=True)
        finally:
            world.close()


if __name__ == "__main__":
    main()
