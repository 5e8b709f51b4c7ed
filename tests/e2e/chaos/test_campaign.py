"""A tenth of what `make chaos` does: 20 SIGKILLs, a third each in steps, saves and uploads, and 5 of each stop."""

import signal
from collections import Counter

from campaign import World, quotas, wage
from ledger import Ledger
from stage import KINDS


def test_killed_and_stopped_runs_lose_nothing(world: World) -> None:
    ledger = Ledger()
    wage(world, quotas(list(KINDS), kills=20, stops=5), seed=1, ledger=ledger)
    assert not ledger.failures()
    hits = [hit for training in ledger.trainings for hit in training.hits]
    kills = Counter(hit.moment for hit in hits if hit.is_kill)
    assert kills["step"] >= 7 and kills["save"] >= 7 and kills["upload"] >= 6
    assert sum(hit.signal == signal.SIGTERM for hit in hits) >= 5
    assert sum(hit.signal == signal.SIGINT for hit in hits) >= 5
    assert {training.kind for training in ledger.trainings if training.hits} == set(KINDS)
