"""Which tokens are trained and evaluated on, and in which rows: an index over cached tokens. No token is touched.

It is an entry of the cache too, named by the tokens it is about and by the keys that decide it.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ftl.config.data import DataSection
from ftl.errors import ConfigError, Problem
from ftl.tokens import num_pieces
from ftl_runtime.data import pack as packing
from ftl_runtime.data.cache import TokenFile
from ftl_runtime.data.entries import entry
from ftl_runtime.data.pack import Packing, one_per_row, pack, pack_in_order

# Shapes: S samples, W rows of tokens a sample has, D documents, F datasets. A sample is what a row of the data gives:
# one row of tokens, or a better and a worse one. A document is as much of a row as fits into sequence_len.


_DECISIVE = {
    "sequence_len",
    "min_sample_len",
    "excess_length",
    "sample_packing",
    "eval_sample_packing",
    "val_set_size",
    "exact_deduplication",
    "shard_num",
    "shard_idx",
    "shuffle",
    "pack_in_order",
    "keep_order",
}
"""The keys of the data section that decide which tokens go where."""


@dataclass(frozen=True)
class Part:
    """One dataset of the config, tokenised. Those of one config have samples of one kind."""

    key: str
    """datasets.0"""
    file: TokenFile
    is_eval: bool
    """One of test_datasets."""
    needs_answers: bool = False
    """A sample is of no use where the answer in one of its rows is cut away."""


@dataclass(frozen=True)
class Counts:
    """What became of the samples of one dataset."""

    samples: int = 0
    """Used, for training or evaluation."""
    tokens: int = 0
    """Of those."""
    trained: int = 0
    """Tokens of those that are labels."""
    too_long: int = 0
    too_short: int = 0
    duplicates: int = 0
    truncated: int = 0
    split: int = 0
    untrained: int = 0
    """Used, with no token that is trained."""


@dataclass(frozen=True)
class RowIndex:
    """Rows of tokens. documents_D3 holds file, first token and the one after the last of each document."""

    documents_D3: np.ndarray
    packing: Packing


@dataclass(frozen=True)
class Index:
    train: RowIndex | None
    """None where only an evaluation set is given."""
    eval: RowIndex | None
    counts: tuple[Counts, ...]
    """One a dataset."""


def cached_index(cache_dir: Path, key: str, parts: Sequence[Part], data: DataSection, seed: int) -> Index:
    """The index of these datasets, from the cache where it is there. `key` is `index_key` of the same.

    Raises as `build_index`.
    """
    found = entry(cache_dir, key, lambda directory: _write(directory, parts, data, seed))
    counts = tuple(Counts(**record) for record in found.facts["counts"])
    return Index(_load(found.directory, "train"), _load(found.directory, "eval"), counts)


def index_key(parts: Sequence[Part], data: DataSection, seed: int) -> str:
    """sha256 over the tokens and all that decides which of them go where."""
    datasets = [(part.file.key, part.is_eval, part.needs_answers) for part in parts]
    decisive = data.model_dump(include=_DECISIVE)
    code = b"".join(Path(str(file)).read_bytes() for file in (__file__, packing.__file__))
    identity = [datasets, decisive, seed, np.__version__, hashlib.sha256(code).hexdigest()]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def build_index(parts: Sequence[Part], data: DataSection, seed: int) -> Index:
    """The rows to train and to evaluate on; a function of the arguments and nothing else.

    Raises ConfigError when nothing is left, or a sample is too long and the config says to raise.
    """
    select = _Selection(parts, data)
    test_S2 = select([part.is_eval for part in parts])
    train_S2 = select([not part.is_eval for part in parts])  # after the evaluation's, which win over them
    if data.shard_num is not None:
        train_S2 = train_S2[data.shard_idx :: data.shard_num]
    order_S = np.random.default_rng(seed).permutation(len(train_S2))
    if data.val_set_size:
        num_eval = _num_eval(data.val_set_size, len(train_S2))
        test_S2 = train_S2[np.sort(order_S[:num_eval])]
        order_S = order_S[num_eval:]
    train_S2 = train_S2[order_S if data.shuffle and not data.keep_order else np.sort(order_S)]
    is_eval_packed = data.sample_packing if data.eval_sample_packing is None else data.eval_sample_packing
    train = select.rows(train_S2, is_packed=data.sample_packing)
    evaluation = select.rows(test_S2, is_packed=is_eval_packed)
    return Index(train, evaluation, select.counts(np.concatenate([train_S2, test_S2])))


class _Selection:
    """Chooses among all samples. A sample is (dataset, number in it); calls see the duplicates of earlier calls."""

    def __init__(self, parts: Sequence[Part], data: DataSection) -> None:
        self._parts = parts
        self._data = data
        self._seen: set[bytes] = set()
        self._num_long_F = np.zeros(len(parts), np.int64)
        self._num_short_F = np.zeros(len(parts), np.int64)
        self._num_duplicates_F = np.zeros(len(parts), np.int64)

    def __call__(self, wanted_F: Sequence[bool]) -> np.ndarray:
        """[S, 2]: the usable samples of the wanted datasets, in the order of their files."""
        chosen = [np.empty((0, 2), np.int64)]
        for f, part in enumerate(self._parts):
            if wanted_F[f]:
                numbers = self._usable(f, part)
                chosen.append(np.column_stack([np.full(len(numbers), f), numbers]))
        samples_S2 = np.concatenate(chosen)
        if not len(samples_S2) and any(wanted_F):
            self._refuse_nothing(wanted_F)
        return samples_S2

    def rows(self, samples_S2: np.ndarray, *, is_packed: bool) -> RowIndex | None:
        """The samples as documents of at most sequence_len tokens, and the documents in rows; None without any."""
        if not len(samples_S2):
            return None
        start_SW, stop_SW = self._spans(samples_S2)
        if self._num_rows > 1:  # the rows of a sample stay together, in a row of the training
            stop_D = np.minimum(start_SW + self._len, stop_SW).ravel()
            documents_D3 = np.column_stack([np.repeat(samples_S2[:, 0], self._num_rows), start_SW.ravel(), stop_D])
            offsets_R1 = np.arange(0, len(documents_D3) + 1, self._num_rows)
            return RowIndex(documents_D3, Packing(np.arange(len(documents_D3)), offsets_R1))
        start_S, stop_S = start_SW[:, 0], stop_SW[:, 0]
        pieces_S = self._pieces(samples_S2[:, :1], stop_SW - start_SW)[:, 0]
        sample_D = np.repeat(np.arange(len(samples_S2)), pieces_S)
        piece_D = np.arange(len(sample_D)) - np.repeat(np.cumsum(pieces_S) - pieces_S, pieces_S)
        start_D = start_S[sample_D] + piece_D * self._len
        stop_D = np.minimum(start_D + self._len, stop_S[sample_D])
        documents_D3 = np.column_stack([samples_S2[sample_D, 0], start_D, stop_D])
        if not is_packed:
            return RowIndex(documents_D3, one_per_row(len(documents_D3)))
        fill = pack_in_order if self._data.pack_in_order else pack
        return RowIndex(documents_D3, fill(stop_D - start_D, self._len))

    def counts(self, used_S2: np.ndarray) -> tuple[Counts, ...]:
        """What became of the samples, by dataset. Raises ConfigError when nothing is trained in any of them."""
        file_S, number_S = used_S2.T
        start_SW, stop_SW = self._spans(used_S2)
        is_long_SW = stop_SW - start_SW > self._len
        is_cut_SW = is_long_SW & ~self._may_split[file_S][:, None]
        trained_SW = np.zeros(is_cut_SW.shape, np.int64)
        for f, part in enumerate(self._parts):
            trained_SW[file_S == f] = _by_sample(part.file.num_trained, self._num_rows)[number_S[file_S == f]]
        length_SW = stop_SW - start_SW
        kept_SW = np.minimum(length_SW, self._pieces(file_S[:, None], length_SW) * self._len)
        for s, w in np.argwhere(kept_SW < length_SW):  # the answer may lie behind the cut
            mask_T = self._parts[file_S[s]].file.mask[start_SW[s, w] : start_SW[s, w] + kept_SW[s, w]]
            trained_SW[s, w] = np.count_nonzero(mask_T)
        tokens_S = kept_SW.sum(1)
        trained_S, is_long_S, is_cut_S = trained_SW.sum(1), is_long_SW.any(1), is_cut_SW.any(1)
        # Where there are samples to train on, those to evaluate on do not make up for them.
        parts = [part for part in self._parts if not part.is_eval] or self._parts
        is_asked_S = np.isin(file_S, [self._parts.index(part) for part in parts])
        if not trained_S[is_asked_S].any():
            remedy = "check the columns with the answers, `roles_to_train` and `train_on_inputs`"
            given = f"nothing is trained in any of {is_asked_S.sum()} samples"
            raise ConfigError(Problem(", ".join(part.key for part in parts), given, remedy=remedy))
        columns = {
            "samples": self._per_file(file_S, np.ones(len(used_S2))),
            "tokens": self._per_file(file_S, tokens_S),
            "trained": self._per_file(file_S, trained_S),
            "too_long": self._num_long_F,
            "too_short": self._num_short_F,
            "duplicates": self._num_duplicates_F,
            "truncated": self._per_file(file_S, is_cut_S),
            "split": self._per_file(file_S, is_long_S & ~is_cut_S),
            "untrained": self._per_file(file_S, trained_S == 0),
        }
        return tuple(Counts(**{name: int(column_F[f]) for name, column_F in columns.items()}) for f in self._range)

    @property
    def _range(self) -> range:
        return range(len(self._parts))

    @property
    def _len(self) -> int:
        return self._data.sequence_len

    @cached_property
    def _num_rows(self) -> int:
        """W. A dataset without a sample does not know it."""
        return max(part.file.num_rows for part in self._parts)

    @cached_property
    def _may_split(self) -> np.ndarray:
        return np.array([part.file.may_split or self._data.excess_length == "split" for part in self._parts])

    def _pieces(self, file_S1: np.ndarray, length_SW: np.ndarray) -> np.ndarray:
        """[S, W]: the documents that each row of a sample gives."""
        pieces_SW: np.ndarray = num_pieces(length_SW, self._len, self._data.min_sample_len)
        return np.where(self._may_split[file_S1] & (self._num_rows == 1), pieces_SW, 1)

    def _usable(self, f: int, part: Part) -> np.ndarray:
        data = self._data
        lengths_SW = _by_sample(np.diff(part.file.offsets), self._num_rows)
        lengths = lengths_SW.max(1)
        is_long = (lengths > data.sequence_len) & (data.excess_length in ("drop", "raise")) & ~self._may_split[f]
        is_short = lengths_SW.min(1) < data.min_sample_len
        if part.needs_answers:
            answers_SW = _by_sample(part.file.num_trained, self._num_rows)
            is_short |= (answers_SW == 0).any(1)
            is_long |= (lengths_SW - answers_SW >= data.sequence_len).any(1)  # an answer comes last
        if data.excess_length == "raise" and is_long.any():
            first = int(is_long.argmax())
            raise TooLongError(part.key, first, int(lengths[first]), int(is_long.sum()))
        self._num_long_F[f], self._num_short_F[f] = is_long.sum(), is_short.sum()
        numbers = np.flatnonzero(~is_long & ~is_short)
        return self._unseen(f, part, numbers) if data.exact_deduplication else numbers

    def _unseen(self, f: int, part: Part, numbers: np.ndarray) -> np.ndarray:
        """Those whose tokens and labels have not come before."""
        file, is_new = part.file, np.ones(len(numbers), bool)
        verdicts = file.verdicts if file.has_verdicts else None
        for i, number in enumerate(numbers):
            offsets_W1 = file.offsets[number * self._num_rows : (number + 1) * self._num_rows + 1]
            start, stop = offsets_W1[0], offsets_W1[-1]
            content = hashlib.sha256(file.tokens[start:stop].tobytes() + file.mask[start:stop].tobytes())
            content.update(np.diff(offsets_W1).tobytes())
            if verdicts is not None:
                content.update(verdicts[number].tobytes())
            is_new[i] = content.digest() not in self._seen
            self._seen.add(content.digest())
        self._num_duplicates_F[f] = (~is_new).sum()
        return numbers[is_new]

    def _spans(self, samples_S2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[S, W], [S, W]: the first token of each row in its file, and the one after its last."""
        start_SW = np.empty((len(samples_S2), self._num_rows), np.int64)
        stop_SW = np.empty_like(start_SW)
        for f, part in enumerate(self._parts):
            of_file_S = samples_S2[:, 0] == f
            numbers = samples_S2[of_file_S, 1]
            start_SW[of_file_S] = _by_sample(part.file.offsets[:-1], self._num_rows)[numbers]
            stop_SW[of_file_S] = _by_sample(part.file.offsets[1:], self._num_rows)[numbers]
        return start_SW, stop_SW

    def _per_file(self, file_S: np.ndarray, values_S: np.ndarray) -> np.ndarray:
        return np.bincount(file_S, values_S, minlength=len(self._parts))

    def _refuse_nothing(self, wanted_F: Sequence[bool]) -> None:
        wanted = [f for f in self._range if wanted_F[f]]
        num_samples = sum(len(self._parts[f].file) for f in wanted)
        given = (
            f"none usable of {num_samples} samples: {self._num_long_F[wanted].sum()} have more than sequence_len = "
            f"{self._len} tokens, {self._num_short_F[wanted].sum()} fewer than {self._data.min_sample_len}, "
            f"{self._num_duplicates_F[wanted].sum()} are duplicates"
        )
        remedy = "raise sequence_len, or set excess_length_strategy: truncate"
        raise ConfigError(Problem(", ".join(self._parts[f].key for f in wanted), given, remedy=remedy))


class TooLongError(Exception):
    """A sample does not fit and the config says to raise; whoever knows the rows tells where it is."""

    def __init__(self, key: str, number: int, num_tokens: int, num_all: int) -> None:
        super().__init__(key, number, num_tokens, num_all)
        self.key = key
        self.number = number
        """Of the sample, from 0."""
        self.num_tokens = num_tokens
        self.num_all = num_all
        """How many of the dataset's samples are too long."""


def _by_sample(values: np.ndarray, num_rows: int) -> np.ndarray:
    """[S, W], of what a file says of each of its rows."""
    return values.reshape(-1, num_rows)


def _num_eval(val_set_size: float, num_samples: int) -> int:
    num_eval = math.ceil(val_set_size * num_samples) if val_set_size < 1 else int(val_set_size)
    if num_eval >= num_samples:
        given = f"{val_set_size:g}: takes {num_eval} of {num_samples} samples"
        raise ConfigError(Problem("val_set_size", given, "must leave at least 1 to train on"))
    return num_eval


def _write(directory: Path, parts: Sequence[Part], data: DataSection, seed: int) -> dict[str, Any]:  # Any: JSON
    index = build_index(parts, data, seed)
    for name, rows in (("train", index.train), ("eval", index.eval)):
        if rows is not None:
            _save(directory, name, rows)
    return {"counts": [asdict(counts) for counts in index.counts]}


def _save(directory: Path, name: str, rows: RowIndex) -> None:
    np.save(directory / f"{name}-documents.npy", rows.documents_D3)
    np.save(directory / f"{name}-order.npy", rows.packing.order_D)
    np.save(directory / f"{name}-offsets.npy", rows.packing.row_offsets_R1)


def _load(directory: Path, name: str) -> RowIndex | None:
    """Mapped, not read: a large training opens its index at once."""
    if not (directory / f"{name}-documents.npy").exists():
        return None
    documents_D3, order_D, row_offsets_R1 = (
        np.asarray(np.load(directory / f"{name}-{what}.npy", mmap_mode="r"))
        for what in ("documents", "order", "offsets")
    )
    return RowIndex(documents_D3, Packing(order_D, row_offsets_R1))
