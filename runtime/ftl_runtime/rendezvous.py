"""Where several machines meet: read from the variables that whoever started them has set.

Each machine runs one supervisor, with the same job. Known are torchrun
(NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT, also with PET_ in front), SkyPilot, and Slurm with one task a machine.
"""

import fcntl
import re
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from ftl.errors import BackendError

DEFAULT_PORT = 29500
"""torchrun's own."""

Env = Mapping[str, str]


class UnmetError(BackendError):
    """Trainers of several machines do not reach each other, or one of them is gone."""


@dataclass(frozen=True)
class Rendezvous:
    """The place of one machine among those of a job."""

    num_nodes: int = 1
    node: int = 0
    address: str = "127.0.0.1"
    """Of the first machine."""
    port: int | None = None
    """None: any free one, because no other machine needs to know it."""


def rendezvous(env: Env) -> Rendezvous:
    """What `env` says; one machine when it says nothing. The first that names several machines is believed.

    Raises BackendError when it names several and leaves out which of them this is, or where they meet.
    """
    for read in (_torchrun, _skypilot, _slurm):
        found = read(env)
        if found is not None:
            if not 0 <= found.node < found.num_nodes:
                told = f"{read.__doc__} say machine {found.node} of {found.num_nodes}"
                raise BackendError(f"{told}, which are counted from 0")
            return found
    return Rendezvous()


def file_of(name: str, place: Rendezvous) -> str:
    """The file of a run directory that each machine has for itself: exit.json of the first, exit-1.json of the next."""
    stem, _, ending = name.rpartition(".")
    return name if place.node == 0 else f"{stem}-{place.node}.{ending}"


def hosts(nodelist: str) -> list[str]:
    """The machines of Slurm's short form: `n[08-10,12],gpu1` is n08, n09, n10, n12 and gpu1."""
    found = []
    for part in re.findall(r"[^,\[]+(?:\[[^\]]*\][^,\[]*)*", nodelist):
        found += _expanded(part)
    return found


def free_port() -> int:
    """One that is free here at all addresses."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def interface_of(address: str) -> str | None:
    """The network interface of this machine that has the IPv4 address; None for that of the machine alone, or none."""
    if address.startswith("127."):
        return None
    siocgifaddr = 0x8915
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                told = fcntl.ioctl(probe, siocgifaddr, struct.pack("256s", name.encode()))
            except OSError:
                continue  # it has none
            if socket.inet_ntoa(told[20:24]) == address:
                return name
    return None


def _expanded(part: str) -> list[str]:
    match = re.search(r"\[([^\]]*)\]", part)
    if match is None:
        return [part]
    before, after = part[: match.start()], part[match.end() :]
    numbers = []
    for piece in match[1].split(","):
        first, _, last = piece.partition("-")
        numbers += [f"{n:0{len(first)}d}" for n in range(int(first), int(last or first) + 1)]
    return [before + number + rest for number in numbers for rest in _expanded(after)]


def _torchrun(env: Env) -> Rendezvous | None:
    """NNODES and NODE_RANK"""
    num_nodes = _number(env, "PET_NNODES", "NNODES")
    if num_nodes is None or num_nodes == 1:
        return None
    address = _first(env, "PET_MASTER_ADDR", "MASTER_ADDR")
    node = _number(env, "PET_NODE_RANK", "NODE_RANK")
    if address is None or node is None:
        raise BackendError(f"NNODES is {num_nodes}: set NODE_RANK to which of them this is, from 0, and MASTER_ADDR")
    return Rendezvous(num_nodes, node, address, _port(env))


def _skypilot(env: Env) -> Rendezvous | None:
    """SKYPILOT_NODE_IPS and SKYPILOT_NODE_RANK"""
    addresses = env.get("SKYPILOT_NODE_IPS", "").split()
    if len(addresses) < 2:
        return None
    node = _number(env, "SKYPILOT_NODE_RANK")
    if node is None:
        raise BackendError(f"SKYPILOT_NODE_IPS names {len(addresses)} machines, and SKYPILOT_NODE_RANK is not set")
    return Rendezvous(len(addresses), node, addresses[0], _port(env))


def _slurm(env: Env) -> Rendezvous | None:
    """SLURM_STEP_NUM_NODES and SLURM_NODEID"""
    num_nodes = _number(env, "SLURM_STEP_NUM_NODES")  # of srun; a batch script alone runs on one machine
    if num_nodes is None or num_nodes == 1:
        return None
    names = hosts(_first(env, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST") or "")
    node, num_tasks = _number(env, "SLURM_NODEID"), _number(env, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    if node is None or len(names) != num_nodes:
        raise BackendError(f"SLURM_STEP_NUM_NODES is {num_nodes}: SLURM_NODEID and SLURM_STEP_NODELIST do not fit it")
    if num_tasks is not None and num_tasks != num_nodes:
        raise BackendError(
            f"srun starts {num_tasks} tasks on {num_nodes} machines; one on each is needed, which starts a process a "
            "GPU: --ntasks-per-node=1"
        )
    return Rendezvous(num_nodes, node, _first(env, "MASTER_ADDR") or names[0], _port(env))


def _port(env: Env) -> int:
    return _number(env, "PET_MASTER_PORT", "MASTER_PORT") or DEFAULT_PORT


def _number(env: Env, *names: str) -> int | None:
    name = next((name for name in names if env.get(name)), None)
    if name is None:
        return None
    if not env[name].isdigit():
        raise BackendError(f"{name}: {env[name]}: must be a whole number")
    return int(env[name])


def _first(env: Env, *names: str) -> str | None:
    return next((env[name] for name in names if env.get(name)), None)
