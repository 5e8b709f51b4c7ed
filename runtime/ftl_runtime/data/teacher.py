"""What a teacher expects of each token, in the token cache and in batches.

A cache entry with a teacher holds teacher-ids.bin (int32), teacher-logits.bin (float32), and teacher-offsets.npy: what
is expected in the place of token t of tokens.bin is from offsets[t] to offsets[t + 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ftl.formats.example import Target

# Shapes: B rows, T tokens of a row, N = B * T, M of them trained; K tokens that the teacher expects at most.

_IDS, _LOGITS, _OFFSETS = "teacher-ids.bin", "teacher-logits.bin", "teacher-offsets.npy"


@dataclass(frozen=True)
class Targets:
    """Of T tokens."""

    ids: np.ndarray
    logits: np.ndarray
    """Log-probabilities at temperature 1, up to a number for each token."""
    offsets: np.ndarray
    """[T + 1]: where those of each token begin."""

    @classmethod
    def open(cls, directory: Path) -> "Targets":
        """Those of all tokens of a cache entry, mapped into memory."""
        ids, logits = (
            np.asarray(np.memmap(directory / name, dtype, "r"))
            for name, dtype in ((_IDS, np.int32), (_LOGITS, np.float32))
        )
        return cls(ids, logits, np.asarray(np.load(directory / _OFFSETS, mmap_mode="r")))

    def of(self, start: int, stop: int) -> "Targets":
        """Those of the tokens from `start` to `stop`."""
        offsets = np.array(self.offsets[start : stop + 1])
        own = slice(offsets[0], offsets[-1])
        return Targets(np.array(self.ids[own]), np.array(self.logits[own]), offsets - offsets[0])


class TargetWriter:
    """Writes the targets of one token after the other; nothing at all where there are none."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._counts: list[np.ndarray] = []

    def add(self, targets: Sequence[Target | None]) -> None:
        """Of all tokens of a row."""
        given = [target for target in targets if target is not None]
        ids = [id for target in given for id in target.ids]
        logits = [logit for target in given for logit in target.logits]
        for name, values in ((_IDS, np.array(ids, np.int32)), (_LOGITS, np.array(logits, np.float32))):
            with (self._directory / name).open("ab") as file:
                file.write(values.tobytes())
        self._counts.append(np.array([len(target.ids) if target else 0 for target in targets], np.int32))

    def close(self) -> bool:
        """Whether there is a teacher."""
        if self._counts:
            counts = np.concatenate(self._counts, dtype=np.int64)
            np.save(self._directory / _OFFSETS, np.concatenate([[0], np.cumsum(counts)]))
        return bool(self._counts)


def batched(rows: Sequence[Sequence[Targets]], width: int, places_M: np.ndarray) -> dict[str, Any]:  # Any: tensors
    """teacher_ids and teacher_logits, [M, K], of the tokens at `places_M` of a batch of B rows of that width.

    `rows` has the targets of each document of each row. Logits are -inf where the teacher has fewer than K tokens; K is
    at least 1.
    """
    begins_N = np.zeros(len(rows) * width, np.int64)
    counts_N = np.zeros(len(rows) * width, np.int64)
    num_before = 0
    for b, row in enumerate(rows):
        place = b * width
        for targets in row:
            stop = place + len(targets.offsets) - 1
            begins_N[place:stop] = num_before + targets.offsets[:-1]
            counts_N[place:stop] = np.diff(targets.offsets)
            num_before += len(targets.ids)
            place = stop
    begins_M, counts_M = begins_N[places_M], counts_N[places_M]
    position_K = np.arange(max(counts_M.max(initial=0), 1))
    is_given_MK = position_K < counts_M[:, None]
    sources = (begins_M[:, None] + position_K)[is_given_MK]
    ids_MK = np.zeros(is_given_MK.shape, np.int64)
    logits_MK = np.full(is_given_MK.shape, -np.inf, np.float32)
    ids_MK[is_given_MK] = np.concatenate([targets.ids for row in rows for targets in row])[sources]
    logits_MK[is_given_MK] = np.concatenate([targets.logits for row in rows for targets in row])[sources]
    return {"teacher_ids": torch.from_numpy(ids_MK), "teacher_logits": torch.from_numpy(logits_MK)}
