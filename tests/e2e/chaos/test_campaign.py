"""A tenth of what `make chaos` does: 20 SIGKILLs, a third each in steps, saves and uploads, and 5 of each stop."""

import pytest
from campaign import Campaign, World


@pytest.mark.parametrize(("kind", "kills", "stops"), [("full", 7, 2), ("lora", 7, 2), ("fsdp", 6, 1)])
def test_killed_and_stopped_runs_lose_nothing(world: World, kind: str, kills: int, stops: int) -> None:
    tally = Campaign(world, kind, seed=1).run(kills=kills, stops=stops)
    assert tally.kills.total() >= kills
    assert min(tally.kills[moment] for moment in ("step", "save", "upload")) >= kills // 3
    assert sum(count for name, count in tally.stops.items() if name.startswith("SIGTERM")) >= stops
    assert sum(count for name, count in tally.stops.items() if name.startswith("SIGINT")) >= stops
