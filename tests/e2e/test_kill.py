"""A few kills of each kind on this machine; `kill_loop.py` does as many as one likes.

Covers what the runtime's own tests cannot: launcher, backend and runtime together, resubmission included.
"""

import os
from pathlib import Path

import pytest
from kill_loop import Loop

TIMES = int(os.environ.get("FTL_TEST_KILLS", "2"))


@pytest.mark.parametrize("victim", ["trainer", "supervisor", "launcher"])
def test_killed_run_equals_the_uninterrupted_one(victim: str, tmp_path: Path) -> None:
    tally = Loop(tmp_path, victim, None, seed=1, num_epochs=5).run(TIMES)
    assert tally.kills == TIMES
