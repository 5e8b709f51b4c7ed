"""The token cache: what a dataset tokenises to, uncut, in files named by all that decides it.

One entry a dataset, for N samples of W rows each (a better and a worse answer are two): tokens.bin (int32), mask.bin
(uint8: 0, or the label of the token as 1 + class; where a token is its own label, 1), offsets.npy, trained.npy, and
verdicts.npy where each answer is good or bad. What a teacher expects is in the files of ftl_runtime.data.teacher, texts
of rows that may hold pictures in those of ftl_runtime.data.chats.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tokenizers

import ftl.formats
import ftl.sources
import ftl.tokens
from ftl.formats.example import Example, Judged, Pair, Preference, Sample, Steps, TokenRow
from ftl.tokens import MASKED, TokenizerView, Tokens, encode_any
from ftl_runtime.data import teacher
from ftl_runtime.data.chats import Chats, ChatWriter
from ftl_runtime.data.entries import entry
from ftl_runtime.data.teacher import Targets, TargetWriter

S = TypeVar("S", bound=Sample)

_BATCH_SAMPLES = 1000
_BATCH_SIZE = 4_000_000


class TokenFile:
    """The tokens of one dataset, mapped into memory when first read; may be sent to other processes."""

    def __init__(self, directory: Path, facts: dict[str, Any], *, was_cached: bool = True) -> None:  # Any: JSON
        self.directory = directory
        self._facts = facts
        self.num_rows: int = facts["num_rows"]
        """Rows of tokens a sample has."""
        self.has_classes: bool = facts["has_classes"]
        """Labels are classes, not the tokens themselves."""
        self.num_cut_prompts: int = facts["num_cut_prompts"]
        """Samples whose prompt was longer than max_prompt_len."""
        self.may_split: bool = facts["may_split"]
        """Its samples are cut into several documents where they are too long."""
        self.trains_eos: bool = facts["trains_eos"]
        """At least one EOS is a label."""
        self.has_teacher: bool = facts["has_teacher"]
        """There are targets of its tokens."""
        self.was_cached = was_cached
        """Nothing was tokenised to open it."""

    def __len__(self) -> int:
        return (len(self.offsets) - 1) // self.num_rows

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
        """[N * W + 1]: row w of sample i is tokens[offsets[i * W + w] : offsets[i * W + w + 1]]."""
        offsets: np.ndarray = np.load(self.directory / "offsets.npy")
        return offsets

    @cached_property
    def num_trained(self) -> np.ndarray:
        """[N * W]: how many tokens of each row are trained."""
        num_trained: np.ndarray = np.load(self.directory / "trained.npy")
        return num_trained

    @property
    def has_verdicts(self) -> bool:
        return (self.directory / "verdicts.npy").exists()

    @cached_property
    def verdicts(self) -> np.ndarray:
        """[N]: whether each answer is a good one; of judged answers only."""
        verdicts: np.ndarray = np.load(self.directory / "verdicts.npy")
        return verdicts

    @cached_property
    def targets(self) -> Targets:
        """What the teacher expects of each token; of a file that has one only."""
        return Targets.open(self.directory)

    @cached_property
    def chats(self) -> Chats:
        """The texts and pictures of each sample; of samples that may have pictures only."""
        return Chats(self.directory)

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenFile, (self.directory, self._facts)


def token_key(source: dict[str, Any], recipe: dict[str, Any], view: TokenizerView) -> str:  # Any: JSON
    """sha256 over the identities of the rows and of their recipe, and all else that decides their tokens."""
    parts = [source, recipe, view.fingerprint, tokenizers.__version__, _code_version()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def cached_tokens(
    cache_dir: Path,
    key: str,
    samples: Callable[[], Iterable[Sample]],
    view: TokenizerView,
    *,
    max_prompt_len: int | None = None,
) -> TokenFile:
    """The cache entry of this key, tokenised from `samples()` if it is not there or not whole.

    The samples are of one kind. Of a prompt with more than `max_prompt_len` tokens the last ones are kept, and BOS.
    """
    found = entry(cache_dir, key, lambda directory: _write(directory, samples(), view, max_prompt_len))
    return TokenFile(found.directory, found.facts, was_cached=found.was_there)


def batches(samples: Iterable[S]) -> Iterator[list[S]]:
    """As many at a time as keep the tokenizer's threads busy in little memory."""
    batch: list[S] = []
    size = 0
    for sample in samples:
        batch.append(sample)
        size += size_of(sample)
        if len(batch) == _BATCH_SAMPLES or size >= _BATCH_SIZE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def size_of(sample: Sample) -> int:
    """Characters, or tokens of a row that is tokens already."""
    match sample:
        case TokenRow():
            return len(sample.ids)
        case Example():
            return sum(len(segment.text) for segment in sample.segments)
        case Pair():
            return size_of(sample.chosen) + size_of(sample.rejected)
        case Preference():
            return 2 * len(sample.prompt) + len(sample.chosen) + len(sample.rejected)
        case Judged():
            return len(sample.prompt) + len(sample.completion)
        case Steps():
            return len(sample.prompt) + sum(map(len, sample.steps))


def _write(
    directory: Path, samples: Iterable[Sample], view: TokenizerView, max_prompt_len: int | None
) -> dict[str, Any]:  # Any: JSON
    lengths: list[int] = []
    trained: list[int] = []
    verdicts: list[bool] = []
    num_rows = 1
    num_cut = 0
    may_split = trains_eos = has_classes = False
    targets = TargetWriter(directory)
    chats = ChatWriter(directory)
    with (directory / "tokens.bin").open("wb") as tokens_file, (directory / "mask.bin").open("wb") as mask_file:
        for batch in batches(samples):
            for sample, rows in zip(batch, encode_any(batch, view), strict=True):
                may_split = may_split or (isinstance(sample, Example) and sample.may_split)
                if isinstance(sample, Example) and sample.pictures is not None:
                    chats.add(sample)
                has_classes = isinstance(sample, Steps)
                num_rows = len(rows)
                if isinstance(sample, Judged):
                    verdicts.append(sample.label)
                if isinstance(sample, TokenRow) and sample.targets:
                    targets.add(sample.targets)
                if isinstance(sample, Judged | Preference) and max_prompt_len is not None:
                    rows, is_cut = _cut_prompts(rows, max_prompt_len, view)
                    num_cut += is_cut
                for tokens in rows:
                    mask_T = _mask(tokens, sample)
                    tokens_file.write(np.array(tokens.ids, np.int32).tobytes())
                    mask_file.write(mask_T.tobytes())
                    lengths.append(len(tokens.ids))
                    trained.append(int(np.count_nonzero(mask_T)))
                    trains_eos = trains_eos or view.eos_id in tokens.labels
    chats.close()
    np.save(directory / "offsets.npy", np.cumsum([0, *lengths], dtype=np.int64))
    np.save(directory / "trained.npy", np.array(trained, np.int64))
    if verdicts:
        np.save(directory / "verdicts.npy", np.array(verdicts, bool))
    return {
        "num_rows": num_rows,
        "has_classes": has_classes,
        "num_cut_prompts": num_cut,
        "may_split": may_split,
        "trains_eos": trains_eos,
        "has_teacher": targets.close(),
    }


def _mask(tokens: Tokens, sample: Sample) -> np.ndarray:
    """uint8: what mask.bin holds of a row. A text that is scored counts as trained whole."""
    if isinstance(sample, Pair):
        return np.ones(len(tokens.ids), np.uint8)
    labels_T = np.array(tokens.labels, np.int32)
    is_trained_T = labels_T != MASKED
    return np.asarray((labels_T + 1) * is_trained_T if isinstance(sample, Steps) else is_trained_T, np.uint8)


def _cut_prompts(rows: tuple[Tokens, ...], most: int, view: TokenizerView) -> tuple[tuple[Tokens, ...], bool]:
    """The rows with at most so many tokens before the answer, and whether that took any away."""
    cut = tuple(_cut_prompt(row, most, view) for row in rows)
    return cut, any(len(after.ids) < len(before.ids) for after, before in zip(cut, rows, strict=True))


def _cut_prompt(row: Tokens, most: int, view: TokenizerView) -> Tokens:
    num_prompt = next((t for t, label in enumerate(row.labels) if label != MASKED), len(row.labels))
    bos_id = view.tokenizer.token_to_id(view.bos_token) if view.bos_token else None
    num_kept = int(num_prompt > 0 and row.ids[0] == bos_id)
    start = max(num_kept, num_prompt - max(most - num_kept, 0))
    return Tokens(row.ids[:num_kept] + row.ids[start:], row.labels[:num_kept] + row.labels[start:])


def _mapped(path: Path, dtype: type[np.generic]) -> np.ndarray:
    """The file as a plain array: a memmap is slow to slice, and an empty file cannot be mapped."""
    return np.asarray(np.memmap(path, dtype, "r")) if path.stat().st_size else np.empty(0, dtype)


def _code_version() -> str:
    """sha256 over the code that makes tokens of rows, so that no change of it finds old tokens."""
    packages = [*ftl.formats.__path__, *ftl.sources.__path__, *ftl.tokens.__path__]
    files = sorted(file for package in packages for file in Path(package).glob("**/*.py"))
    return hashlib.sha256(
        b"".join(file.read_bytes() for file in (*files, Path(__file__), Path(teacher.__file__)))
    ).hexdigest()
