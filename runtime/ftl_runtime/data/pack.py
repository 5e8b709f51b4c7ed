"""Packing: which documents share a row. An index over lengths; no token is touched."""

from dataclasses import dataclass

import numpy as np

# Shapes: D documents, R rows.


@dataclass(frozen=True)
class Packing:
    """Row r holds the documents order_D[row_offsets_R1[r] : row_offsets_R1[r + 1]]."""

    order_D: np.ndarray
    row_offsets_R1: np.ndarray


def pack(lengths_D: np.ndarray, capacity: int) -> Packing:
    """Best-fit decreasing: longest documents first, each into the fullest row that still has room for it.

    Every document is in exactly one row, whole. The result depends on nothing but the arguments. Documents of one
    length are placed together, so the cost grows with the number of different lengths: 0.3 s for a million documents.
    There must be a document, and lengths between 1 and `capacity`.
    """
    assert 1 <= lengths_D.min() <= lengths_D.max() <= capacity, "cut documents before packing"
    order_D = np.argsort(-lengths_D, kind="stable")
    sorted_D = lengths_D[order_D]
    starts = np.flatnonzero(np.diff(sorted_D, prepend=-1))
    stops = np.append(starts[1:], len(sorted_D))
    rows = _OpenRows(capacity)
    row_of_D = np.empty(len(sorted_D), np.int64)
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        row_of_D[start:stop] = rows.place(int(sorted_D[start]), stop - start)
    by_row_D = np.argsort(row_of_D, kind="stable")
    counts_R = np.bincount(row_of_D, minlength=rows.num_rows)
    return Packing(order_D[by_row_D], np.concatenate([[0], np.cumsum(counts_R)]))


def pack_in_order(lengths_D: np.ndarray, capacity: int) -> Packing:
    """Next-fit: documents stay in their order, and a row ends where the next one does not fit."""
    assert 1 <= lengths_D.min() <= lengths_D.max() <= capacity, "cut documents before packing"
    offsets, filled = [0], 0
    for number, length in enumerate(lengths_D.tolist()):
        if filled + length > capacity:
            offsets.append(number)
            filled = 0
        filled += length
    return Packing(np.arange(len(lengths_D)), np.array([*offsets, len(lengths_D)]))


def one_per_row(num_documents: int) -> Packing:
    """Every document in a row of its own."""
    return Packing(np.arange(num_documents), np.arange(num_documents + 1))


class _OpenRows:
    """Rows by the room they have left."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._rows: dict[int, np.ndarray] = {}
        self._rooms = 0  # bit r is set where rows with room r exist, so the fullest fitting row is one lowest bit
        self.num_rows = 0

    def place(self, length: int, count: int) -> np.ndarray:
        """The rows that `count` documents of this length go to, in order."""
        placed = []
        while count:
            room, rows = self._take(length)
            each = room // length  # a row that was fullest before stays fullest, so it is filled first
            num_full = min(count // each, len(rows)) if room < self._capacity else count // each
            if room == self._capacity:
                rows = self._new_rows(num_full + (count > num_full * each))
            placed.append(np.repeat(rows[:num_full], each))
            self._put(room - each * length, rows[:num_full])
            count -= num_full * each
            rest = rows[num_full:]
            if count and len(rest):  # the last row gets what is left, fewer than `each`
                placed.append(np.repeat(rest[:1], count))
                self._put(room - count * length, rest[:1])
                rest, count = rest[1:], 0
            self._put(room, rest)
        return np.concatenate(placed)

    def _take(self, length: int) -> tuple[int, np.ndarray]:
        """All rows with the least room that fits; none, with the room of an empty row, where no row fits."""
        fitting = self._rooms >> length
        if not fitting:
            return self._capacity, np.empty(0, np.int64)
        room = length + (fitting & -fitting).bit_length() - 1
        self._rooms &= ~(1 << room)
        return room, self._rows.pop(room)

    def _put(self, room: int, rows: np.ndarray) -> None:
        if room and len(rows):
            self._rows[room] = np.concatenate([self._rows[room], rows]) if room in self._rows else rows
            self._rooms |= 1 << room

    def _new_rows(self, num_rows: int) -> np.ndarray:
        first, self.num_rows = self.num_rows, self.num_rows + num_rows
        return np.arange(first, self.num_rows)
