"""Kills runs at points in steps, saves and uploads, over and over, and checks the history of each.

    make chaos                                            the long form: 200 kills, 100 stops; goes on where it was left
    .venv/bin/python tests/e2e/chaos/campaign.py --kind lora --kills 30 --stops 10 --ledger /tmp/lora.jsonl

Between two attempts the machine may be lost, with all that lies in the run directory: then the stores are all there is.
Every attempt must go on from the newest checkpoint that is whole anywhere; what was told to be there must be there; no
more is trained again than one save interval, or two where a save was under way; and every loss and the final weights
equal those of an uninterrupted run.
"""

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from faults import Moment, Plan, Victim

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "emulators")]

from history import History, losses_of  # noqa: E402
from hub_server import HubServer  # noqa: E402
from ledger import Hit, Ledger, Quota, Training, summary, table  # noqa: E402
from nursery import Nursery  # noqa: E402
from stage import KINDS, MAX_STEPS, SAVE_STEPS, Stage, make_bundle, num_ranks, nursery_env  # noqa: E402

_THIRDS: tuple[Moment, ...] = ("step", "save", "upload")
_VICTIMS: dict[Moment, tuple[Victim, ...]] = {
    "step": ("machine", "trainer", "supervisor", "sync"),
    "save": ("machine", "trainer", "supervisor", "sync"),
    "upload": ("machine", "sync", "supervisor", "trainer"),
}
_MAX_FAILURES = 5
_MAX_FRUITLESS = 10


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

    def __init__(self, world: World, kind: str, seed: int, ledger: Ledger) -> None:
        self.world, self.kind, self.seed, self.ledger = world, kind, seed, ledger
        self.root = world.root / f"{kind}-{seed}"
        self.bundle = make_bundle(self.root / "bundle", kind)
        straight = self.stage("straight")
        straight.stores = ()
        assert straight.go() == 0, straight.log()
        self.expected = losses_of(straight)
        assert list(self.expected) == list(range(1, MAX_STEPS + 1))
        self.weights = straight.weights()

    def stage(self, name: str) -> Stage:
        return Stage(self.root / name, self.kind, self.bundle, self.world.nursery, self.world.hub)

    def train(self, quota: Quota) -> Training:
        """One training to its end, struck in every attempt as long as something of the quota is open; into the
        ledger with it."""
        number = 1 + max((t.number for t in self.ledger.of(self.kind) if t.seed == self.seed), default=0)
        training = Training(self.kind, self.seed, number)
        stage = self.stage(f"run-{number}")
        draw = random.Random(f"{self.kind} {self.seed} {number}")
        try:
            self._attempt_until_done(stage, training, Counter(quota), draw)
        except AssertionError as error:
            training.failure = f"{self.kind}, seed {self.seed}, run {number}, in {stage.root}: {error}"
        else:
            shutil.rmtree(stage.root)
        self.ledger.add(training)
        return training

    def _attempt_until_done(self, stage: Stage, training: Training, quota: Quota, draw: random.Random) -> None:
        history = History(stage, self.expected)
        open_hits: list[Hit] = []
        status = -1
        while status != 0:
            wanted = sorted(quota)
            chosen = draw.choices(wanted, [quota[hit] for hit in wanted])[0] if wanted else None
            plan = _plan(draw, *chosen, num_ranks=num_ranks(self.kind)) if chosen else None
            before = len(stage.struck())
            history.begin()
            status = stage.finish(stage.start(plan))
            training.attempts += 1
            struck = stage.struck()[before:]
            history.end(status, struck[0] if struck else None)
            if way := history.went_on():
                for hit in open_hits:
                    hit.went_on = way
                open_hits = []
            for blow in struck:
                told = str(blow.get("touch", "between"))
                hit = Hit(blow["moment"], blow["victim"], blow["signal"], told, status, steps_lost=history.steps_lost())
                training.hits.append(hit)
                open_hits.append(hit)
                quota[hit.signal, blow["moment"]] -= 1
            quota = +quota
            if status != 0 and draw.random() < 0.4:
                stage.lose_machine()
                training.machines_lost += 1
        assert stage.weights() == self.weights, "the final weights differ"
        history.close()


def quotas(kinds: Sequence[str], *, kills: int, stops: int) -> dict[str, Quota]:
    """Shares out `kills` SIGKILLs, a third each in a step, a save and an upload, and `stops` of SIGTERM and of SIGINT
    each, also while starting, over the kinds."""
    shares: dict[str, Quota] = {kind: Counter() for kind in kinds}
    for number in range(kills):
        shares[kinds[number // 3 % len(kinds)]][signal.SIGKILL, _THIRDS[number % 3]] += 1
    for asked in (signal.SIGTERM, signal.SIGINT):
        for number in range(stops):
            moment: Moment = (*_THIRDS, "start")[(number + number // len(kinds)) % 4]  # type: ignore[assignment]
            shares[kinds[number % len(kinds)]][asked, moment] += 1
    return shares


def _plan(draw: random.Random, number: int, moment: Moment, *, num_ranks: int) -> Plan:
    is_kill = number == signal.SIGKILL
    victims = _VICTIMS.get(moment, ())
    if num_ranks > 1 and moment != "upload":
        victims += ("trainer-0", "trainer-1")
    victim = draw.choice(victims) if is_kill else "supervisor"
    # A rank that dies alone may do so at a point of its own work, or of rank 0's.
    striker = draw.choice((0, 1)) if victim == "trainer-1" else 0
    delays_s: dict[Moment, float] = {
        "start": draw.uniform(0.0, 0.3),
        "step": draw.uniform(0.0, 0.08),
        "save": draw.choice((0.0, draw.uniform(0.0, 0.02))),  # also in the middle of a file
    }
    return Plan(
        hits="",
        moment=moment,
        at=draw.randint(1, 2 * SAVE_STEPS) if moment == "step" else draw.randint(1, 2),
        num_touches=draw.randint(1, 4 if striker else 60),
        delay_s=delays_s.get(moment, 0.0),
        striker=striker,
        victim=victim,
        signal=number,
        step_s=draw.choice((0.0, 0.04, 0.1)),
    )


def wage(world: World, wanted: dict[str, Quota], seed: int, ledger: Ledger) -> None:
    """Train until all is hit that is wanted, the kinds in turn, telling of each training."""
    campaigns: dict[str, Campaign] = {}
    num_fruitless = 0
    while num_fruitless < _MAX_FRUITLESS:
        left = {kind: ledger.left(kind, quota) for kind, quota in wanted.items()}
        kind = max(left, key=lambda kind: left[kind].total())
        if not left[kind] or len(ledger.failures()) >= _MAX_FAILURES:
            return
        if kind not in campaigns:
            campaigns[kind] = Campaign(world, kind, seed, ledger)
        started = time.monotonic()
        training = campaigns[kind].train(left[kind])
        seconds = time.monotonic() - started
        num_fruitless = 0 if training.hits else num_fruitless + 1
        open_hits = sum(quota.total() for quota in left.values()) - len(training.hits)
        print(
            f"{time.strftime('%H:%M:%S')} {kind} {training.number}: {training.attempts} attempts in {seconds:.0f} s, "
            f"{len(training.hits)} hits; {open_hits} to go",
            flush=True,
        )
        if training.failure:
            print(f"FAILED: {training.failure}", flush=True)
    raise RuntimeError(f"{_MAX_FRUITLESS} trainings in which nothing was hit, and this is open: {left}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=list(KINDS), action="append", help="of training; all of them when absent")
    parser.add_argument("--kills", type=int, default=200, help="SIGKILLs, shared out over the kinds")
    parser.add_argument("--stops", type=int, default=50, help="of SIGTERM and of SIGINT each, shared out as well")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--ledger", type=Path, help="a file of what is done; goes on with it where there is one")
    given = parser.parse_args()
    ledger = Ledger(given.ledger)
    root = Path(tempfile.mkdtemp(prefix="chaos-"))
    world = World(root)
    try:
        wage(world, quotas(given.kind or list(KINDS), kills=given.kills, stops=given.stops), given.seed, ledger)
    finally:
        world.close()
        print(table(ledger.trainings), flush=True)
        if given.ledger is not None and ledger.trainings:
            given.ledger.with_suffix(".json").write_text(json.dumps(summary(ledger.trainings), indent=1) + "\n")
    if ledger.failures():
        sys.exit(f"what has failed lies in {root}")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
