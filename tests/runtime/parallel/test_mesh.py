"""Machines without a common run directory train as those with one do, and rank 0's has all that is worth keeping."""

import json
from functools import partial

import pytest
from together import run_ranks, train_in_turn

pytestmark = pytest.mark.torch

LORA = {"kind": "lora", "rank": 4, "alpha": 8, "dropout": 0.1}
COMMON = {"optim__micro_batch_size": 1, "optim__max_steps": 6, "output__save_steps": 100, "output__eval_strategy": "no"}
SHARDS = {"fsdp": {"state_dict_type": "SHARDED_STATE_DICT", "final_state_dict_type": "SHARDED_STATE_DICT"}}


def files_of(directory):
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def test_runs_stopped_on_the_second_machine_go_on_as_if_they_had_one_directory(make_attempt, weights):
    """With dropout, whose random state each rank has for itself; the second machine has lost all in between."""
    config = {"model": weights, "adapter": LORA, **COMMON}
    straight, stopped = (make_attempt(name, **config) for name in ("straight", "stopped"))
    train_in_turn([(straight, None)], 2)
    train_in_turn([(stopped, 3), (stopped, None)], 2, apart=True)
    assert list(straight.losses()) == [1, 2, 3, 4, 5, 6]
    assert stopped.losses() == straight.losses()
    own = stopped.directory / "run-1"
    checkpoint = stopped.run / "checkpoints/checkpoint-3"
    assert {"rng_state_0.pth", "rng_state_1.pth", "manifest.json"} <= files_of(checkpoint)
    assert files_of(own) == {f"machines/1/checkpoints/checkpoint-3/{name}" for name in files_of(checkpoint)}
    assert stopped.events("stopping")[0]["data"] == {"reason": "signal", "step": 3, "saves": True}


def test_shards_of_the_second_machine_reach_the_checkpoint_and_the_model(make_attempt, weights):
    config = {"model": weights, "parallel__fsdp": SHARDS["fsdp"], **COMMON}
    straight, stopped = (make_attempt(name, **config) for name in ("straight", "stopped"))
    train_in_turn([(straight, None)], 2)
    train_in_turn([(stopped, 3), (stopped, None)], 2, apart=True)
    assert stopped.losses() == straight.losses()
    saved = files_of(stopped.run / "checkpoints/checkpoint-3")
    assert {"pytorch_model_fsdp_0/__0_0.distcp", "pytorch_model_fsdp_0/__1_0.distcp"} <= saved
    assert {"optimizer_0/__0_0.distcp", "optimizer_0/__1_0.distcp"} <= saved
    assert files_of(stopped.run / "output") == files_of(straight.run / "output")
    assert json.loads((stopped.run / "result.json").read_text())["ranks"] == 2
    assert not (stopped.directory / "run-1/result.json").exists()


def _as_machines(tmp_path, device) -> None:
    """Each rank is a machine: what goes between them, and what the one sees whose peer is gone."""
    import os

    from ftl.errors import ConfigError
    from ftl_runtime import mesh, ranks
    from ftl_runtime.verdict import verdict_of

    os.environ.update(LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    ranks.join(device, timeout_s=60)
    shared = mesh.Mesh.of(tmp_path, device)
    assert not shared.carriers and shared.here(tmp_path / "a") == tmp_path / "a" and shared.note() is None

    own = tmp_path / str(device.rank)
    own.mkdir()
    apart = mesh.Mesh.of(own, device)
    assert apart.carriers == (1,)
    assert (apart.note() or "").endswith(" to those that do not see its disk: machine 1")
    mesh._PIECE = 1000
    content = bytes(range(256)) * 10  # three pieces, the last one short
    if device.is_main:
        (own / "sent.bin").write_bytes(content)
        (own / "stage").mkdir()
    apart.bring_file(own / "sent.bin")
    assert (own / "sent.bin").read_bytes() == content
    here = apart.here(tmp_path / "0/stage")
    (here / "below").mkdir(exist_ok=True)
    (here / f"below/{device.rank}.bin").write_bytes(content * device.rank)
    apart.collect(tmp_path / "0/stage")
    if device.is_main:
        assert (own / "stage/below/1.bin").read_bytes() == content
    apart.check_same("datasets", ["one", 2])
    try:
        apart.check_same("base_model", device.rank)
    except ConfigError as error:
        assert str(error) == "base_model: machine 1 has another one than machine 0: put the same on both"
    else:
        raise AssertionError

    if not device.is_main:
        os._exit(0)
    try:
        ranks.wait(device)
    except RuntimeError as error:
        verdict = verdict_of(error)
        assert (verdict.exit_code, verdict.cause, verdict.is_bereft) == (75, "lost", True)
        os.environ["LOCAL_WORLD_SIZE"] = "2"  # on one machine nobody but we can have lost it
        assert verdict_of(error).cause == "crash"
    else:
        raise AssertionError


def test_files_go_between_machines_and_a_lost_peer_is_told_from_a_crash(tmp_path):
    run_ranks(partial(_as_machines, tmp_path), 2)
