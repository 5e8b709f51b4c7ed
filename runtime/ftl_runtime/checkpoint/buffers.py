"""Main memory that is kept from one save to the next: getting it afresh takes longer than copying."""

from collections import defaultdict

import torch
from torch import Tensor


class Buffers:
    """Pieces of memory, each of the size it was first taken in."""

    def __init__(self) -> None:
        self._used: list[tuple[Tensor, bool]] = []
        self._free: defaultdict[tuple[int, bool], list[Tensor]] = defaultdict(list)

    @property
    def num_bytes(self) -> int:
        """What is taken."""
        return sum(taken_by(piece.numel(), is_pinned=is_pinned) for piece, is_pinned in self._used)

    def begin(self) -> None:
        """What was taken is free again."""
        for piece, is_pinned in self._used:
            self._free[piece.numel(), is_pinned].append(piece)
        self._used = []

    def take(self, num_bytes: int, *, is_pinned: bool) -> Tensor:
        """Bytes with anything in them; where pinned, a GPU copies into them by itself."""
        free = self._free[num_bytes, is_pinned]
        piece = free.pop() if free else torch.empty(num_bytes, dtype=torch.uint8, pin_memory=is_pinned)
        self._used.append((piece, is_pinned))
        return piece

    def end(self) -> None:
        """What was not taken since `begin` is given back."""
        self._free.clear()

    def clear(self) -> None:
        """All is given back."""
        self._used = []
        self._free.clear()


def taken_by(num_bytes: int, *, is_pinned: bool) -> int:
    """What a piece of that size really takes: torch gets pinned memory in powers of two."""
    return 1 << (num_bytes - 1).bit_length() if is_pinned and num_bytes else num_bytes
