"""The training and evaluation rows of a config: an index over cached tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ftl.config.data import DataSection, DatasetSection
from ftl.errors import ConfigError, Problem
from ftl.tokens import MASKED, Recipe, TokenizerView
from ftl_runtime.data.cache import TokenFile, cached_tokens, source_key
from ftl_runtime.data.pack import Packing, one_per_row, pack
from ftl_runtime.data.sources import Source, read_examples

# Shapes: E examples, D documents. An example is what a line of the data gives; a document is as much of it as fits.

Emit = Callable[[str, dict[str, str]], None]

_MIN_TOKENS = 2  # one token alone predicts nothing


@dataclass(frozen=True)
class Document:
    """A text that attends to nothing outside of it. int32 arrays of one length; labels are MASKED where not trained."""

    ids: np.ndarray
    labels: np.ndarray


Row = tuple[Document, ...]


@dataclass(frozen=True)
class TokenRows:
    """Rows of at most sequence_len tokens, each one or more documents; the same rows in the same order every time."""

    files: tuple[TokenFile, ...]
    documents_D3: np.ndarray
    """File, first token and the one after the last, of each document."""
    packing: Packing

    def __len__(self) -> int:
        return len(self.packing.row_offsets_R1) - 1

    def __getitem__(self, row: int) -> Row:
        if not 0 <= row < len(self):
            raise IndexError(row)
        first, stop = self.packing.row_offsets_R1[row : row + 2]
        return tuple(self._document(d) for d in self.packing.order_D[first:stop])

    @property
    def num_documents(self) -> int:
        return len(self.documents_D3)

    @property
    def num_tokens(self) -> int:
        """Tokens in all rows, padding not counted."""
        return int((self.documents_D3[:, 2] - self.documents_D3[:, 1]).sum())

    def _document(self, number: int) -> Document:
        file, start, stop = self.documents_D3[number].tolist()
        ids = np.array(self.files[file].tokens[start:stop])
        return Document(ids, np.where(self.files[file].mask[start:stop], ids, np.int32(MASKED)))


@dataclass(frozen=True)
class Splits:
    train: TokenRows
    eval: TokenRows | None


def build_splits(
    data: DataSection,
    tokenizer: TokenizerView,
    *,
    seed: int,
    resolve: Callable[[str], Path],
    cache_dir: Path,
    emit: Emit,
) -> Splits:
    """The rows to train and to evaluate on.

    `resolve` finds a dataset's path on this machine; `emit("warning", {"message": ...})` is told what was left out.
    The split depends on the data and the seed alone. Raises ConfigError when a row is broken, or nothing is left.
    """
    assert not (data.val_set_size and data.test_datasets), "config.rules refuses both"
    open_all = _Opener(data, tokenizer, resolve, cache_dir, emit)
    files = open_all(data.datasets)
    examples_E3 = _usable_examples(files, data, "datasets", emit)
    rng = np.random.default_rng(seed)
    order_E = rng.permutation(len(examples_E3))
    num_eval = _num_eval(data.val_set_size, len(examples_E3))
    train_E, eval_E = order_E[num_eval:], np.sort(order_E[:num_eval])
    train = _rows(files, examples_E3[train_E if data.shuffle else np.sort(train_E)], data, data.sample_packing)
    is_eval_packed = data.sample_packing if data.eval_sample_packing is None else data.eval_sample_packing
    if data.test_datasets:
        test_files = open_all(data.test_datasets)
        test_E3 = _usable_examples(test_files, data, "test_datasets", emit)
        return Splits(train, _rows(test_files, test_E3, data, is_eval_packed))
    return Splits(train, _rows(files, examples_E3[eval_E], data, is_eval_packed) if num_eval else None)


@dataclass(frozen=True)
class _Opener:
    """Opens datasets through the token cache."""

    data: DataSection
    tokenizer: TokenizerView
    resolve: Callable[[str], Path]
    cache_dir: Path
    emit: Emit

    def __call__(self, datasets: Sequence[DatasetSection]) -> tuple[TokenFile, ...]:
        return tuple(self._open(dataset) for dataset in datasets)

    def _open(self, dataset: DatasetSection) -> TokenFile:
        assert dataset.path is not None, "config.rules refuses a dataset without one"
        recipe = Recipe.of(dataset, self.data, "sft", self.tokenizer)
        source = Source(self.resolve(dataset.path), recipe)
        key = source_key(source, self.tokenizer)
        file = cached_tokens(self.cache_dir, key, lambda: read_examples(source), self.tokenizer)
        if recipe.template is not None and dataset.train_on_eos != "none" and not file.trains_eos:
            message = (
                f"{dataset.path}: no end of a turn is trained, so the model will not learn to stop: the chat template "
                f"does not end turns with the tokenizer's EOS {self.tokenizer.eos_token}; "
                "set special_tokens.eos_token to the token that ends a turn"
            )
            self.emit("warning", {"message": message})
        return file


def _usable_examples(files: Sequence[TokenFile], data: DataSection, key: str, emit: Emit) -> np.ndarray:
    """[E, 3]: file, first token and the one after the last of every example that gives at least one document."""
    columns = [
        np.column_stack([np.full(len(f.offsets) - 1, i), f.offsets[:-1], f.offsets[1:]]) for i, f in enumerate(files)
    ]
    examples_E3 = np.concatenate(columns)
    lengths_E = examples_E3[:, 2] - examples_E3[:, 1]
    may_cut_E = np.array([file.may_split for file in files])[examples_E3[:, 0]] | (data.excess_length == "truncate")
    is_long_E = (lengths_E > data.sequence_len) & ~may_cut_E
    is_short_E = lengths_E < _MIN_TOKENS
    usable_E3: np.ndarray = examples_E3[~is_long_E & ~is_short_E]
    left_out = (
        f"{len(examples_E3)} examples: {is_long_E.sum()} have more than sequence_len = {data.sequence_len} tokens, "
        f"{is_short_E.sum()} fewer than {_MIN_TOKENS}"
    )
    remedy = "raise sequence_len, or set excess_length_strategy: truncate"
    if not len(usable_E3):
        raise ConfigError(Problem(key, f"none usable of {left_out}", remedy=remedy))
    if len(usable_E3) < len(examples_E3):
        emit("warning", {"message": f"{key}: {len(examples_E3) - len(usable_E3)} left out of {left_out}; {remedy}"})
    _check_trained(files, usable_E3, data.sequence_len, key, emit)
    return usable_E3


def _check_trained(
    files: Sequence[TokenFile], examples_E3: np.ndarray, sequence_len: int, key: str, emit: Emit
) -> None:
    num_untrained = 0
    for i, file in enumerate(files):
        of_file_E3 = examples_E3[examples_E3[:, 0] == i]
        numbers_E = np.searchsorted(file.offsets, of_file_E3[:, 1], side="right") - 1
        is_trained_E = file.num_trained[numbers_E] > 0
        if not file.may_split:  # the answer of a long example may lie behind the cut
            for e in np.flatnonzero(is_trained_E & (of_file_E3[:, 2] - of_file_E3[:, 1] > sequence_len)):
                start = of_file_E3[e, 1]
                is_trained_E[e] = file.mask[start + 1 : start + sequence_len].any()
        num_untrained += int((~is_trained_E).sum())
    remedy = "check the columns with the answers, `roles_to_train` and `train_on_inputs`"
    if num_untrained == len(examples_E3):
        raise ConfigError(Problem(key, f"nothing is trained in any of {num_untrained} examples", remedy=remedy))
    if num_untrained:
        message = f"{key}: nothing is trained in {num_untrained} of {len(examples_E3)} examples; {remedy}"
        emit("warning", {"message": message})


def _num_eval(val_set_size: float, num_examples: int) -> int:
    num_eval = int(np.ceil(val_set_size * num_examples)) if val_set_size < 1 else int(val_set_size)
    if num_eval >= num_examples:
        given = f"{val_set_size:g}: takes {num_eval} of {num_examples} examples"
        raise ConfigError(Problem("val_set_size", given, "must leave at least 1 to train on"))
    return num_eval


def _rows(files: tuple[TokenFile, ...], examples_E3: np.ndarray, data: DataSection, is_packed: bool) -> TokenRows:
    documents_D3 = _documents(files, examples_E3, data.sequence_len)
    lengths_D = documents_D3[:, 2] - documents_D3[:, 1]
    packing = pack(lengths_D, data.sequence_len) if is_packed else one_per_row(len(documents_D3))
    return TokenRows(files, documents_D3, packing)


def _documents(files: Sequence[TokenFile], examples_E3: np.ndarray, sequence_len: int) -> np.ndarray:
    """[D, 3]: examples cut to sequence_len, those that may split into as many documents as they need."""
    lengths_E = examples_E3[:, 2] - examples_E3[:, 1]
    may_split_E = np.array([file.may_split for file in files])[examples_E3[:, 0]]
    # A last piece of a single token predicts nothing, so it is left out.
    num_pieces_E = np.where(may_split_E, (lengths_E + sequence_len - _MIN_TOKENS) // sequence_len, 1)
    example_D = np.repeat(np.arange(len(examples_E3)), num_pieces_E)
    piece_D = np.arange(len(example_D)) - np.repeat(np.cumsum(num_pieces_E) - num_pieces_E, num_pieces_E)
    file_D, first_D, stop_D = examples_E3[example_D].T
    start_D = first_D + piece_D * sequence_len
    return np.column_stack([file_D, start_D, np.minimum(start_D + sequence_len, stop_D)])
