"""Two supervisors, as two machines that share a run directory, train as one process does."""

import json
import socket
from functools import partial

import pytest
from together import run_ranks

from ftl.errors import BackendError

pytestmark = pytest.mark.torch

COMMON = {"optim__max_steps": 3, "data__val_set_size": 7, "output__eval_strategy": "no", "output__save_steps": 2}


def test_two_supervisors_form_one_group_with_the_losses_of_one_process(make_attempt):
    alone, attempt = (make_attempt(name, optim__micro_batch_size=2, **COMMON) for name in ("alone", "machines"))
    alone.train()
    attempt.config["optim"]["micro_batch_size"] = 1
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"NNODES": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    first = attempt.start(env={**place, "NODE_RANK": "0"})
    second = attempt.supervise(env={**place, "NODE_RANK": "1"})
    assert attempt.finish(first) == 0, attempt.output
    assert attempt.finish(second) == 0, attempt.output
    assert list(attempt.losses().values()) == pytest.approx(list(alone.losses().values()), rel=1e-5)
    assert json.loads((attempt.run / "result.json").read_text())["ranks"] == 2
    exits = [json.loads((attempt.run / name).read_text())["cause"] for name in ("exit.json", "exit-1.json")]
    assert exits == ["done", "done"]
    states = sorted(file.name for file in (attempt.run / "checkpoints/checkpoint-2").glob("rng_state*"))
    assert states == ["rng_state_0.pth", "rng_state_1.pth"]


def _see_another_directory(run_dir, device) -> None:
    import os
    from pathlib import Path

    from ftl_runtime import ranks

    os.environ["LOCAL_WORLD_SIZE"] = "1"  # two machines
    ranks.join(device, timeout_s=60)
    share = ranks.share
    ranks.share = lambda value, device: share(value, device) if device.is_main else Path("/nowhere") / "file"
    try:
        if not device.is_main:
            share(None, device)
        ranks.check_shared(run_dir, device)
    except BackendError as error:
        assert f"{run_dir}: rank 1 does not see what rank 0 writes there" in str(error)
    else:
        raise AssertionError


def test_machines_without_a_common_run_directory_are_refused(tmp_path):
    run_ranks(partial(_see_another_directory, tmp_path), 2)
