"""Machines that do not see the run directory of rank 0, which holds the run's truth: files go between them and it.

Such a machine keeps what it must have for itself below machines/N/ of its own run directory, which is worth nothing
once it is gone. What rank 0 goes on from comes to it through the process group, a piece at a time; what its ranks write
goes back the same way, before rank 0 seals it.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ftl.contract import CHECKPOINTS_DIR, MANIFEST_FILE
from ftl.errors import ConfigError, StorageError
from ftl_runtime import ranks
from ftl_runtime.checkpoint import manifest
from ftl_runtime.checkpoint.manifest import BrokenCheckpoint
from ftl_runtime.checkpoint.store import Checkpoint
from ftl_runtime.checkpoint.volume import storage_errors
from ftl_runtime.context import Device, rank_on_machine

MACHINES_DIR = "machines"
_PIECE = 16 << 20


@dataclass(frozen=True)
class Mesh:
    """Where this rank stands. All ranks must call its methods, in the same order."""

    device: Device
    own: Path | None = None
    """What this machine has for itself; None where it sees the run directory of rank 0."""
    carriers: tuple[int, ...] = ()
    """The first rank of each machine that does not: it receives and sends for all of its machine."""
    group: dist.ProcessGroup | None = None
    """Rank 0 and the carriers."""

    @classmethod
    def of(cls, run_dir: Path, device: Device) -> "Mesh":
        """Found out by a file that rank 0 writes."""
        if device.num_ranks == rank_on_machine()[1]:
            return cls(device)
        probe = ranks.share(run_dir / f".seen-{uuid.uuid4().hex[:12]}", device)
        if device.is_main:
            probe.touch()
        ranks.wait(device)
        is_seen = run_dir == probe.parent and probe.exists()  # where it has another name, it is as another one
        found = ranks.gather((is_seen, rank_on_machine()[0] == 0), device)
        if device.is_main:
            probe.unlink()
        carriers = tuple(rank for rank, (sees, is_first) in enumerate(found) if is_first and not sees)
        if not carriers:
            return cls(device)
        group = dist.new_group([0, *carriers], backend="gloo", timeout=ranks.PATIENCE)
        own = None if is_seen else run_dir / MACHINES_DIR / str(_machine(device.rank))
        mesh = cls(device, own, carriers, group)
        if own is not None and mesh._is_carrier:
            with storage_errors(run_dir):
                own.mkdir(parents=True, exist_ok=True)
                for leftover in own.glob(".tmp-*"):
                    shutil.rmtree(leftover, ignore_errors=True)
        ranks.wait(device)
        return mesh

    def note(self) -> str | None:
        """What the log says about it."""
        if not self.carriers:
            return None
        machines = ", ".join(f"machine {_machine(rank)}" for rank in self.carriers)
        return f"machine 0 keeps the run, and sends what they go on from to those that do not see its disk: {machines}"

    def check_same(self, key: str, value: Any) -> None:  # Any: whatever can be compared
        """Raises ConfigError on all ranks where a machine has another value than rank 0."""
        if not self.carriers:
            return
        values = ranks.gather(value, self.device)
        other = next((rank for rank, one in enumerate(values) if one != values[0]), None)
        if other is not None:
            raise ConfigError(f"{key}: machine {_machine(other)} has another one than machine 0: put the same on both")

    def bring(self, checkpoint: Checkpoint | None) -> Checkpoint | None:
        """Rank 0's checkpoint, at the place where this rank can read it.

        A machine that has it to the last byte keeps what it has. Raises StorageError where it does not come over.
        """
        checkpoint = ranks.share(checkpoint, self.device)
        if checkpoint is None or not self.carriers:
            return checkpoint
        here = checkpoint
        if self.own is not None:
            here = Checkpoint(checkpoint.step, self.own / CHECKPOINTS_DIR / checkpoint.path.name)
        if self._has_part:
            self._carry(checkpoint, here)
        ranks.wait(self.device)
        return here

    def bring_file(self, path: Path) -> None:
        """Have the file of rank 0's run directory at the same place in those of the others."""
        if self.carriers and self._has_part:
            header = [path.stat().st_size if self.device.is_main else 0]
            dist.broadcast_object_list(header, src=0, group=self.group)
            with storage_errors(path.parent):
                if not self.device.is_main:
                    path.parent.mkdir(parents=True, exist_ok=True)
                self._send_all(path, header[0], None if self.device.is_main else path)
        ranks.wait(self.device)

    def here(self, directory: Path) -> Path:
        """Where this rank writes its files of a directory of rank 0, which gets them by `collect`."""
        if self.own is None:
            return directory
        own = self.own / directory.name
        own.mkdir(exist_ok=True)
        return own

    def collect(self, directory: Path) -> None:
        """Bring what was written `here` by all ranks together in rank 0's `directory`.

        Raises StorageError where something has changed on the way.
        """
        ranks.wait(self.device)
        for rank in self.carriers:
            if self.device.is_main:
                self._receive_from(rank, directory)
            elif self.device.rank == rank:
                self._send_home(self.here(directory))

    @property
    def _is_carrier(self) -> bool:
        return self.device.rank in self.carriers

    @property
    def _has_part(self) -> bool:
        return self.device.is_main or self._is_carrier

    def _carry(self, checkpoint: Checkpoint, here: Checkpoint) -> None:
        data = (checkpoint.path / MANIFEST_FILE).read_bytes() if self.device.is_main else b""
        box = [data]
        dist.broadcast_object_list(box, src=0, group=self.group)
        has_it = self.device.is_main or _is_there(here.path, box[0])
        missing: list[bool] = [False] * (1 + len(self.carriers))
        dist.all_gather_object(missing, not has_it, group=self.group)
        if not any(missing):
            return
        stage = None if has_it else here.path.with_name(f".tmp-{here.path.name}")
        with storage_errors(here.path.parent):
            if stage is not None:
                shutil.rmtree(stage.parent, ignore_errors=True)  # those of earlier attempts
                stage.mkdir(parents=True)
            for name, entry in sorted(manifest.parse(box[0])["files"].items()):
                self._send_all(checkpoint.path / name, entry["size"], stage and stage / name)
            if stage is not None:
                (stage / MANIFEST_FILE).write_bytes(box[0])
        if stage is not None:
            try:
                manifest.check(stage, run_id=None, step=here.step)
            except BrokenCheckpoint as broken:
                raise StorageError(f"{here.path.name}: did not come over whole from rank 0: {broken}") from broken
            stage.rename(here.path)

    def _send_all(self, source: Path, size: int, target: Path | None) -> None:
        """Rank 0's file to `target` on each carrier, which has None where it does not need it."""
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
        with (source if self.device.is_main else target or Path("/dev/null")).open(
            "rb" if self.device.is_main else "wb"
        ) as file:
            for length in _pieces(size):
                piece = torch.empty(length, dtype=torch.uint8)
                if self.device.is_main:
                    _fill(piece, file, source)
                dist.broadcast(piece, src=0, group=self.group)
                if target is not None:
                    file.write(_bytes_of(piece))

    def _send_home(self, own: Path) -> None:
        files = {str(path.relative_to(own)): path.stat().st_size for path in sorted(own.rglob("*")) if path.is_file()}
        self._tell(json.dumps(files).encode())
        for name, size in files.items():
            sha256 = hashlib.sha256()
            with (own / name).open("rb") as file:
                for length in _pieces(size):
                    piece = torch.empty(length, dtype=torch.uint8)
                    _fill(piece, file, own / name)
                    sha256.update(_bytes_of(piece))
                    dist.send(piece, dst=0, group=self.group)
            self._tell(sha256.digest())
        shutil.rmtree(own, ignore_errors=True)

    def _receive_from(self, rank: int, directory: Path) -> None:
        with storage_errors(directory):
            for name, size in json.loads(self._hear(rank)).items():
                target, sha256 = directory / name, hashlib.sha256()
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    for length in _pieces(size):
                        piece = torch.empty(length, dtype=torch.uint8)
                        dist.recv(piece, src=rank, group=self.group)
                        sha256.update(_bytes_of(piece))
                        file.write(_bytes_of(piece))
                if self._hear(rank) != sha256.digest():
                    raise StorageError(f"{target}: has changed on its way from machine {_machine(rank)}")

    def _tell(self, data: bytes) -> None:
        dist.send(torch.tensor([len(data)]), dst=0, group=self.group)
        dist.send(torch.frombuffer(bytearray(data), dtype=torch.uint8), dst=0, group=self.group)

    def _hear(self, rank: int) -> bytes:
        length = torch.zeros(1, dtype=torch.int64)
        dist.recv(length, src=rank, group=self.group)
        data = torch.empty(int(length), dtype=torch.uint8)
        dist.recv(data, src=rank, group=self.group)
        return data.numpy().tobytes()


def _machine(rank: int) -> int:
    """The number of its machine: all have as many ranks."""
    return rank // rank_on_machine()[1]


def _pieces(size: int) -> Iterator[int]:
    return (min(_PIECE, size - start) for start in range(0, size, _PIECE))


def _bytes_of(piece: torch.Tensor) -> memoryview:
    return memoryview(piece.numpy())  # type: ignore[arg-type]  # an array is one, says Python 3.12


def _fill(piece: torch.Tensor, file: Any, path: Path) -> None:  # Any: a file opened to read bytes
    view, filled = _bytes_of(piece), 0
    while filled < len(view):
        count = file.readinto(view[filled:])
        if not count:
            raise StorageError(f"{path}: has become shorter while it was read")
        filled += count


def _is_there(directory: Path, data: bytes) -> bool:
    """Whether it is the checkpoint with that manifest, every byte of it."""
    try:
        if (directory / MANIFEST_FILE).read_bytes() != data:
            return False
        manifest.check(directory, run_id=None, step=None)
    except (OSError, BrokenCheckpoint):
        return False
    return True
