"""The token cache: what a source tokenises to, uncut, in files named by all that decides it.

One directory a source, for N examples: tokens.bin (int32), mask.bin (uint8, 1 = trained), offsets.npy, trained.npy,
and manifest.json, written last. Any number of processes may build it at once.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

import ftl.formats
import ftl.tokens
from ftl.errors import ConfigError, Problem
from ftl.formats.example import Example
from ftl.formats.readers import data_files
from ftl.tokens import MASKED, TokenizerView, encode
from ftl_runtime.data.sources import Source

_BATCH_EXAMPLES = 1000
_BATCH_CHARS = 4_000_000


class TokenFile:
    """The tokens of one source, mapped into memory when first read; may be sent to other processes."""

    def __init__(self, directory: Path, manifest: dict[str, Any]) -> None:
        self.directory = directory
        self.may_split: bool = manifest["may_split"]
        """Its examples are cut into several rows where they are too long."""
        self.trains_eos: bool = manifest["trains_eos"]
        """At least one EOS is a label."""

    @cached_property
    def tokens(self) -> np.ndarray:
        return np.memmap(self.directory / "tokens.bin", np.int32, "r")

    @cached_property
    def mask(self) -> np.ndarray:
        return np.memmap(self.directory / "mask.bin", np.uint8, "r")

    @cached_property
    def offsets(self) -> np.ndarray:
        """[N + 1]: example i is tokens[offsets[i] : offsets[i + 1]]."""
        offsets: np.ndarray = np.load(self.directory / "offsets.npy")
        return offsets

    @cached_property
    def num_trained(self) -> np.ndarray:
        """[N]: how many tokens of each example are trained."""
        num_trained: np.ndarray = np.load(self.directory / "trained.npy")
        return num_trained

    def __reduce__(self) -> tuple[Any, ...]:
        manifest = {"may_split": self.may_split, "trains_eos": self.trains_eos}
        return TokenFile, (self.directory, manifest)


def source_key(source: Source, view: TokenizerView) -> str:
    """sha256 over the contents of the files and all else that decides their tokens."""
    files = [_sha256(file) for file in data_files(source.path)]
    parts = [files, source.recipe.identity, view.fingerprint, tokenizers.__version__, _code_version()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def cached_tokens(
    cache_dir: Path, key: str, examples: Callable[[], Iterable[Example]], view: TokenizerView
) -> TokenFile:
    """The cache entry of this key, tokenised from `examples()` if it is not there or not whole."""
    directory = cache_dir / key
    found = _open(directory)
    if found is None:
        cache_dir.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f"{key}.", suffix=".tmp", dir=cache_dir))
        try:
            _write(temporary, examples(), view)
            _publish(temporary, directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        found = _open(directory)
        assert found is not None, f"{directory} vanished while it was being read"
    return found


def _open(directory: Path) -> TokenFile | None:
    try:
        manifest = json.loads((directory / "manifest.json").read_text())
        is_whole = all((directory / name).stat().st_size == size for name, size in manifest["bytes"].items())
    except (OSError, ValueError, KeyError):
        return None
    return TokenFile(directory, manifest) if is_whole else None


def _write(directory: Path, examples: Iterable[Example], view: TokenizerView) -> None:
    lengths: list[int] = []
    trained: list[int] = []
    may_split = trains_eos = False
    with (directory / "tokens.bin").open("wb") as tokens_file, (directory / "mask.bin").open("wb") as mask_file:
        for batch in _batches(examples):
            may_split = may_split or any(example.may_split for example in batch)
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
    sizes = {file.name: file.stat().st_size for file in directory.iterdir()}
    manifest = {"bytes": sizes, "may_split": may_split, "trains_eos": trains_eos}
    (directory / "manifest.json").write_text(json.dumps(manifest))


def _publish(temporary: Path, directory: Path) -> None:
    """Gives the finished entry its name, unless another process was first; a broken entry makes way."""
    for _ in range(10):
        try:
            temporary.rename(directory)
            return
        except OSError:
            if _open(directory) is not None:
                return
            broken = Path(tempfile.mkdtemp(suffix=".broken", dir=directory.parent))
            try:
                directory.rename(broken / "entry")
            except FileNotFoundError:
                pass  # another process has just moved it
            finally:
                shutil.rmtree(broken, ignore_errors=True)
    raise ConfigError(Problem(str(directory), "cannot be replaced", remedy="remove this directory of the token cache"))


def _batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
    batch: list[Example] = []
    num_chars = 0
    for example in examples:
        batch.append(example)
        num_chars += sum(len(segment.text) for segment in example.segments)
        if len(batch) == _BATCH_EXAMPLES or num_chars >= _BATCH_CHARS:
            yield batch
            batch, num_chars = [], 0
    if batch:
        yield batch


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _code_version() -> str:
    """sha256 over the code that makes tokens of rows, so that no change of it finds old tokens."""
    packages = [*ftl.formats.__path__, *ftl.tokens.__path__]
    files = sorted(file for package in packages for file in Path(package).glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in (*files, Path(__file__)))).hexdigest()
