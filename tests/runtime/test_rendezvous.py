"""What torchrun, SkyPilot and Slurm say of a machine's place is understood alike."""

import pytest

from ftl.errors import BackendError
from ftl_runtime.rendezvous import Rendezvous, hosts, rendezvous

SLURM = {
    "SLURM_JOB_NODELIST": "gpu[07-08]",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_NODEID": "1",
    "SLURM_PROCID": "1",
}


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, Rendezvous()),
        ({"NNODES": "1", "MASTER_ADDR": "a"}, Rendezvous()),
        (
            {"NNODES": "3", "NODE_RANK": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"},
            Rendezvous(3, 2, "10.0.0.1", 1234),
        ),
        ({"PET_NNODES": "2", "PET_NODE_RANK": "0", "PET_MASTER_ADDR": "head"}, Rendezvous(2, 0, "head", 29500)),
        (
            {"SKYPILOT_NODE_IPS": "10.1.0.4\n10.1.0.5", "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_GPUS_PER_NODE": "8"},
            Rendezvous(2, 1, "10.1.0.4", 29500),
        ),
        ({"SKYPILOT_NODE_IPS": "10.1.0.4", "SKYPILOT_NODE_RANK": "0"}, Rendezvous()),
        (SLURM, Rendezvous(2, 1, "gpu07", 29500)),
        # A batch script without srun has the job's variables, and runs on the first machine alone.
        ({"SLURM_JOB_NODELIST": "gpu[07-08]", "SLURM_NNODES": "2", "SLURM_PROCID": "0"}, Rendezvous()),
    ],
    ids=["none", "one", "torchrun", "pet", "skypilot", "skypilot one", "slurm", "sbatch"],
)
def test_place_of_a_machine_is_read(env, expected):
    assert rendezvous(env) == expected


@pytest.mark.parametrize(
    ("nodelist", "names"),
    [
        ("n1", ["n1"]),
        ("n1,m2", ["n1", "m2"]),
        ("n[08-10,12],gpu1", ["n08", "n09", "n10", "n12", "gpu1"]),
        ("r[1-2]n[3-4].x", ["r1n3.x", "r1n4.x", "r2n3.x", "r2n4.x"]),
    ],
)
def test_short_form_of_slurm_is_written_out(nodelist, names):
    assert hosts(nodelist) == names


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"NNODES": "2", "MASTER_ADDR": "a"}, "NODE_RANK"),
        ({"NNODES": "two"}, "NNODES: two: must be a whole number"),
        ({"NNODES": "2", "NODE_RANK": "2", "MASTER_ADDR": "a"}, "counted from 0"),
        ({"SKYPILOT_NODE_IPS": "a\nb"}, "SKYPILOT_NODE_RANK is not set"),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "16"}, "--ntasks-per-node=1"),
    ],
    ids=["rank", "number", "range", "skypilot", "tasks"],
)
def test_half_a_place_is_refused_with_what_is_missing(env, told):
    with pytest.raises(BackendError, match=told):
        rendezvous(env)
