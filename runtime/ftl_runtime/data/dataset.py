"""The training and evaluation rows of a config: an index over cached tokens."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from ftl.config.data import DataSection, DatasetSection
from ftl.config.objective import TEXTS, ObjectiveKind
from ftl.contract import DatasetUse
from ftl.errors import ConfigError, Problem
from ftl.formats.example import FAMILIES, Family
from ftl.sources import Row, Source
from ftl.tokens import MASKED, Recipe, TokenizerView
from ftl_runtime.data.cache import TokenFile, cached_tokens, token_key
from ftl_runtime.data.index import Counts, Part, RowIndex, TooLongError, cached_index, index_key
from ftl_runtime.data.pack import Packing
from ftl_runtime.data.samples import Emit, read_samples
from ftl_runtime.data.teacher import Targets

Open = Callable[[DatasetSection], Source]
"""Finds the rows of a dataset section."""

_WITH_PROMPTS: tuple[Family, ...] = ("dpo", "orpo", "kto")
"""Whose samples are a prompt and what it is answered with."""


@dataclass(frozen=True)
class Document:
    """A text that attends to nothing outside of it. int32 arrays of one length; labels are MASKED where not trained."""

    ids: np.ndarray
    labels: np.ndarray
    """The ids themselves, or the classes of the steps of an answer."""
    targets: Targets | None = None
    """What a teacher expects of each token."""


DocumentRow = tuple[Document, ...]
"""Texts packed into one row, or a better and a worse answer to one prompt."""


@dataclass(frozen=True)
class TokenRows:
    """Rows of at most sequence_len tokens, each one or more documents; the same rows in the same order every time."""

    files: tuple[TokenFile, ...]
    documents_D3: np.ndarray
    """File, first token and the one after the last, of each document."""
    packing: Packing

    def __len__(self) -> int:
        return len(self.packing.row_offsets_R1) - 1

    def __getitem__(self, row: int) -> DocumentRow:
        if not 0 <= row < len(self):
            raise IndexError(row)
        first, stop = self.packing.row_offsets_R1[row : row + 2]
        return tuple(self._document(d) for d in self.packing.order_D[first:stop])

    def costs(self, rows: Sequence[int]) -> list[int]:
        """Of each row the squares of its documents' lengths, summed: what attention takes."""
        return [int(self._row_costs[row]) for row in rows]

    def is_good(self, row: int) -> bool:
        """The verdict on the answer that begins this row."""
        number, sample = self.place(row)
        return bool(self.files[number].verdicts[sample])

    def place(self, row: int) -> tuple[int, int]:
        """The file and the row of tokens in it that this row begins with."""
        number, start, _ = self.documents_D3[self.packing.order_D[self.packing.row_offsets_R1[row]]].tolist()
        return number, int(np.searchsorted(self.files[number].offsets, start, side="right")) - 1

    @cached_property
    def row_lengths(self) -> np.ndarray:
        """Tokens of each row."""
        return self._per_row(self._document_lengths)

    def documents(self) -> Iterator[Document]:
        """All of them, each once, whatever row they are in."""
        return (self._document(number) for number in range(len(self.documents_D3)))

    @property
    def num_documents(self) -> int:
        return len(self.documents_D3)

    @property
    def num_tokens(self) -> int:
        """Tokens in all rows, padding not counted."""
        return int(self._document_lengths.sum())

    @property
    def _document_lengths(self) -> np.ndarray:
        lengths_D: np.ndarray = self.documents_D3[:, 2] - self.documents_D3[:, 1]
        return lengths_D

    @cached_property
    def _row_costs(self) -> np.ndarray:
        return self._per_row(self._document_lengths**2)

    def _per_row(self, values_D: np.ndarray) -> np.ndarray:
        sums_R: np.ndarray = np.add.reduceat(values_D[self.packing.order_D], self.packing.row_offsets_R1[:-1])
        return sums_R

    def _document(self, number: int) -> Document:
        number_of_file, start, stop = self.documents_D3[number].tolist()
        file = self.files[number_of_file]
        ids = np.array(file.tokens[start:stop])
        mask = file.mask[start:stop]
        labels = mask.astype(np.int32) - 1 if file.has_classes else ids
        targets = file.targets.of(start, stop) if file.has_teacher else None
        return Document(ids, np.where(mask, labels, np.int32(MASKED)), targets)


@dataclass(frozen=True)
class Splits:
    train: TokenRows | None
    """None where only test_datasets are given, beside a stream."""
    eval: TokenRows | None
    used: tuple[DatasetUse, ...]
    """Every dataset, with what became of its rows."""
    key: str
    """sha256 over all that decides the rows."""


def build_splits(
    data: DataSection,
    view: TokenizerView,
    *,
    seed: int,
    open: Open,
    cache_dir: Path,
    emit: Emit,
    kind: ObjectiveKind = "sft",
    max_prompt_len: int | None = None,
) -> Splits:
    """The rows to train and to evaluate on, as the objective `kind` reads them.

    `emit` is told what was left out, and what became of every dataset. The result depends on the data, the config and
    the seed alone. Raises ConfigError when rows are broken, or nothing is left.
    """
    assert not (data.val_set_size and data.test_datasets), "config.rules refuses both"
    preparer = _Preparer(data, view, open, cache_dir, emit, kind, max_prompt_len)
    opened = [
        *(preparer.open(f"datasets.{i}", dataset) for i, dataset in enumerate(data.datasets)),
        *(preparer.open(f"test_datasets.{i}", dataset) for i, dataset in enumerate(data.test_datasets)),
    ]
    parts = [one.part for one in opened]
    key = index_key(parts, data, seed)
    try:
        index = cached_index(cache_dir, key, parts, data, seed)
    except TooLongError as e:
        raise _refuse_long(e, opened, data.sequence_len) from e
    used = tuple(_use(one, counts) for one, counts in zip(opened, index.counts, strict=True))
    for one, use in zip(opened, used, strict=True):
        _warn_left_out(use, data, emit)
        if num_cut := one.part.file.num_cut_prompts:
            message = f"{use.key}: {use.label}: {num_cut} prompts cut to their last max_prompt_len = {max_prompt_len}"
            emit("warning", {"message": f"{message} tokens"})
    files = tuple(part.file for part in parts)
    splits = Splits(_token_rows(files, index.train), _token_rows(files, index.eval), used, key)
    extents = {"train": _extent(splits.train, data), "eval": _extent(splits.eval, data)}
    emit("data", {"datasets": [use.model_dump(mode="json") for use in used], "cache": str(cache_dir), **extents})
    return splits


@dataclass(frozen=True)
class _Opened:
    part: Part
    source: Source


@dataclass(frozen=True)
class _Preparer:
    """Opens datasets through the token cache."""

    data: DataSection
    view: TokenizerView
    find: Open
    cache_dir: Path
    emit: Emit
    kind: ObjectiveKind
    max_prompt_len: int | None

    def open(self, key: str, dataset: DatasetSection) -> _Opened:
        recipe = Recipe.of(dataset, self.data, self.kind, self.view)
        source = self.find(dataset)
        has_prompts = FAMILIES[self.kind] in _WITH_PROMPTS
        max_prompt_len = self.max_prompt_len if has_prompts else None
        identity = recipe.identity | ({"max_prompt_len": max_prompt_len} if max_prompt_len else {})
        file = cached_tokens(
            self.cache_dir,
            token_key(source.identity(), identity, self.view),
            lambda: read_samples(key, source, recipe, self.emit),
            self.view,
            max_prompt_len=max_prompt_len,
        )
        if (
            self.kind in TEXTS
            and recipe.template is not None
            and dataset.train_on_eos != "none"
            and not file.trains_eos
        ):
            message = (
                f"{source.label}: no end of a turn is trained, so the model will not learn to stop: the chat template "
                f"does not end turns with the tokenizer's EOS {self.view.eos_token}; "
                "set special_tokens.eos_token to the token that ends a turn"
            )
            self.emit("warning", {"message": message})
        return _Opened(Part(key, file, is_eval=key.startswith("test_"), needs_answers=has_prompts), source)


def identity_of(source: Source) -> str:
    """sha256 over what decides the rows of a source."""
    return hashlib.sha256(json.dumps(source.identity(), sort_keys=True).encode()).hexdigest()


def _use(opened: _Opened, counts: Counts) -> DatasetUse:
    source, file = opened.source, opened.part.file
    return DatasetUse(
        key=opened.part.key,
        label=source.label,
        revision=source.revision,
        identity=identity_of(source),
        was_cached=file.was_cached,
        rows=len(file),
        **asdict(counts),
    )


def _warn_left_out(use: DatasetUse, data: DataSection, emit: Emit) -> None:
    """One sentence about the rows that are not trained as they are, if there are any."""
    remedies = []
    if use.too_long:
        remedies.append("raise sequence_len, or set excess_length_strategy: truncate")
    if use.untrained:
        remedies.append("check the columns with the answers, `roles_to_train` and `train_on_inputs`")
    told = {
        f"left out with more than sequence_len = {data.sequence_len} tokens": use.too_long,
        f"left out with fewer than {data.min_sample_len} tokens": use.too_short,
        "left out as duplicates": use.duplicates,
        f"cut to sequence_len = {data.sequence_len} tokens": use.truncated,
        "used with nothing in them that is trained": use.untrained,
    }
    found = [f"{number} {what}" for what, number in told.items() if number]
    if found:
        message = f"{use.key}: {use.label}: of {use.rows} rows {', '.join(found)}"
        emit("warning", {"message": "; ".join([message, *remedies])})


def _refuse_long(error: TooLongError, opened: Sequence[_Opened], sequence_len: int) -> ConfigError:
    source = next(one.source for one in opened if one.part.key == error.key)
    row = next(islice(source.scan(start=error.number), 1))
    assert isinstance(row, Row), "its tokens are in the cache"
    given = f"{error.num_tokens} tokens, more than sequence_len = {sequence_len}"
    allowed = f"excess_length_strategy is raise, and {error.num_all} rows are too long"
    return ConfigError(Problem(row.where, given, allowed, "raise sequence_len, or drop, truncate or split them"))


def _token_rows(files: tuple[TokenFile, ...], index: RowIndex | None) -> TokenRows | None:
    return None if index is None else TokenRows(files, index.documents_D3, index.packing)


def _extent(rows: TokenRows | None, data: DataSection) -> dict[str, float] | None:
    """How much it is, and which share of the rows' room is filled."""
    if rows is None:
        return None
    fill = rows.num_tokens / (len(rows) * data.sequence_len)
    return {"rows": len(rows), "documents": rows.num_documents, "tokens": rows.num_tokens, "fill": round(fill, 6)}
