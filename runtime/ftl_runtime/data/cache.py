"""The token cache: what a dataset tokenises to, uncut, in files named by all that decides it.

One entry a dataset, for N samples: tokens.bin (int32), mask.bin (uint8, 1 = trained), offsets.npy, trained.npy.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

import ftl.formats
import ftl.sources
import ftl.tokens
from ftl.formats.example import Example, TokenRow
from ftl.tokens import MASKED, TokenizerView, encode
from ftl_runtime.data.entries import entry

SftSample = Example | TokenRow
"""A sample that is one sequence of tokens."""

_BATCH_SAMPLES = 1000
_BATCH_SIZE = 4_000_000


class TokenFile:
    """The tokens of one dataset, mapped into memory when first read; may be sent to other processes."""

    def __init__(self, directory: Path, facts: dict[str, Any], *, was_cached: bool = True) -> None:  # Any: JSON
        self.directory = directory
        self.may_split: bool = facts["may_split"]
        """Its samples are cut into several documents where they are too long."""
        self.trains_eos: bool = facts["trains_eos"]
        """At least one EOS is a label."""
        self.was_cached = was_cached
        """Nothing was tokenised to open it."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def key(self) -> str:
        return self.directory.name

    @cached_property
    def tokens(self) -> np.ndarray:
        return _mapped(self.directory / "tokens.bin", np.int32)

    @cached_property
    def mask(self) -> np.ndarray:
        return _mapped(self.directory / "mask.bin", np.uint8)

    @cached_property
    def offsets(self) -> np.ndarray:
        """[N + 1]: sample i is tokens[offsets[i] : offsets[i + 1]]."""
        offsets: np.ndarray = np.load(self.directory / "offsets.npy")
        return offsets

    @cached_property
    def num_trained(self) -> np.ndarray:
        """[N]: how many tokens of each sample are trained."""
        num_trained: np.ndarray = np.load(self.directory / "trained.npy")
        return num_trained

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenFile, (self.directory, {"may_split": self.may_split, "trains_eos": self.trains_eos})


def token_key(source: dict[str, Any], recipe: dict[str, Any], view: TokenizerView) -> str:  # Any: JSON
    """sha256 over the identities of the rows and of their recipe, and all else that decides their tokens."""
    parts = [source, recipe, view.fingerprint, tokenizers.__version__, _code_version()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def cached_tokens(
    cache_dir: Path, key: str, samples: Callable[[], Iterable[SftSample]], view: TokenizerView
) -> TokenFile:
    """The cache entry of this key, tokenised from `samples()` if it is not there or not whole."""
    found = entry(cache_dir, key, lambda directory: _write(directory, samples(), view))
    return TokenFile(found.directory, found.facts, was_cached=found.was_there)


def batches(samples: Iterable[SftSample]) -> Iterator[list[SftSample]]:
    """As many at a time as keep the tokenizer's threads busy in little memory."""
    batch: list[SftSample] = []
    size = 0
    for sample in samples:
        batch.append(sample)
        size += size_of(sample)
        if len(batch) == _BATCH_SAMPLES or size >= _BATCH_SIZE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def size_of(sample: SftSample) -> int:
    """Characters, or tokens of a row that is tokens already."""
    return len(sample.ids) if isinstance(sample, TokenRow) else sum(len(segment.text) for segment in sample.segments)


def _write(directory: Path, samples: Iterable[SftSample], view: TokenizerView) -> dict[str, Any]:  # Any: JSON
    lengths: list[int] = []
    trained: list[int] = []
    may_split = trains_eos = False
    with (directory / "tokens.bin").open("wb") as tokens_file, (directory / "mask.bin").open("wb") as mask_file:
        for batch in batches(samples):
            may_split = may_split or any(isinstance(sample, Example) and sample.may_split for sample in batch)
            for tokens in encode(batch, view):
                labels_T = np.array(tokens.labels, np.int32)
                mask_T = labels_T != MASKED
                tokens_file.write(np.array(tokens.ids, np.int32).tobytes())
                mask_file.write(mask_T.tobytes())
                lengths.append(len(tokens.ids))
                trained.append(int(mask_T.sum()))
                trains_eos = trains_eos or view.eos_id in tokens.labels
    np.save(directory / "offsets.npy", np.cumsum([0, *lengths], dtype=np.int64))
    np.save(directory / "trained.npy", np.array(trained, np.int64))
    return {"may_split": may_split, "trains_eos": trains_eos}


def _mapped(path: Path, dtype: type[np.generic]) -> np.ndarray:
    """The file as a plain array: a memmap is slow to slice, and an empty file cannot be mapped."""
    return np.asarray(np.memmap(path, dtype, "r")) if path.stat().st_size else np.empty(0, dtype)


def _code_version() -> str:
    """sha256 over the code that makes tokens of rows, so that no change of it finds old tokens."""
    packages = [*ftl.formats.__path__, *ftl.sources.__path__, *ftl.tokens.__path__]
    files = sorted(file for package in packages for file in Path(package).glob("**/*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in (*files, Path(__file__)))).hexdigest()
