"""Rows that are not on this machine: which of them a check reads, and what the addresses of a config say."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Thread

from ftl.config.address import is_address
from ftl.config.load import Loaded
from ftl.errors import ConfigError, FtlError, Problem
from ftl.inspect.datasets import Listed, open_rows
from ftl.inspect.hub import is_reachable
from ftl.sources import MissingPackageError, Source, UnreachableError
from ftl.sources.remote import look_up, shown_address

MAX_HUB_ROWS = 10_000
"""Rows of a Hub repository that a check reads; --all-rows reads all of them."""
MAX_FETCHED_BYTES = 256 * 2**20
"""Files behind the addresses of one dataset that a check fetches; --all-rows fetches any."""
_BUDGET_S = 10.0
_ALL_ROWS = "`ftl check --all-rows` reads them"


class UnreadError(Exception):
    """The rows of a dataset are not checked here, and nothing is wrong for that; the message is a sentence."""


@dataclass(frozen=True)
class Lookup:
    """What the addresses of the datasets say: there, how large, or why not."""

    answers: Mapping[str, int | FtlError | None]
    """Address -> its bytes, None where the other side does not tell, or what is wrong; silent ones are not here."""

    @classmethod
    def of(cls, datasets: Sequence[Listed], *, budget_s: float = _BUDGET_S) -> "Lookup":
        """Ask for all at once, for `budget_s` seconds at most."""
        answers: dict[str, int | FtlError | None] = {}

        def ask(address: str, key: str) -> None:
            try:
                answers[address] = look_up(address, key)
            except FtlError as e:
                answers[address] = e

        wanted = {address: key for dataset in datasets for address, key in addresses_of(dataset)}
        threads = [Thread(target=ask, args=pair, daemon=True) for pair in wanted.items()]
        deadline = time.monotonic() + budget_s
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return cls(dict(answers))

    def problems(self, dataset: Listed) -> list[Problem]:
        """What is wrong with its addresses; `where` is the key of each."""
        found: list[Problem] = []
        for address, _ in addresses_of(dataset):
            answer = self.answers.get(address)
            if isinstance(answer, ConfigError) and not isinstance(answer, MissingPackageError):
                found += [problem for problem in answer.problems if isinstance(problem, Problem)]
        return found

    def unanswered(self, dataset: Listed) -> list[str]:
        """A sentence for each address of it that was not found out about."""
        said = []
        for address, _ in addresses_of(dataset):
            answer = self.answers.get(address, UnreachableError(f"{shown_address(address)}: does not answer"))
            if isinstance(answer, FtlError) and (
                isinstance(answer, MissingPackageError) or not isinstance(answer, ConfigError)
            ):
                said.append(_without_key(answer))
        return said

    def num_bytes(self, dataset: Listed) -> int:
        """Of all its addresses that tell."""
        answers = (self.answers.get(address) for address, _ in addresses_of(dataset))
        return sum(answer for answer in answers if isinstance(answer, int))


class Remote:
    """Opens the rows of datasets that are not on this machine."""

    def __init__(self, loaded: Loaded, lookup: Lookup, *, all_rows: bool) -> None:
        self._loaded = loaded
        self._lookup = lookup
        self._all_rows = all_rows

    def open(self, dataset: Listed) -> tuple[Source, int | None] | None:
        """Its rows, and how many of them to read, all if None; nothing where an address of it is wrong.

        Raises UnreadError, and ConfigError as `open_rows`.
        """
        if self._lookup.problems(dataset):
            return None
        try:
            return self._fetched(dataset) if addresses_of(dataset) else self._of_the_hub(dataset)
        except (MissingPackageError, UnreachableError) as e:
            raise UnreadError(f"{dataset.key}: the rows are not checked: {_without_key(e)}") from e

    def _fetched(self, dataset: Listed) -> tuple[Source, int | None]:
        unanswered = self._lookup.unanswered(dataset)
        if unanswered:
            raise UnreadError(f"{dataset.key}: the rows are not checked: {'; '.join(unanswered)}")
        num_bytes = self._lookup.num_bytes(dataset)
        if num_bytes > MAX_FETCHED_BYTES and not self._all_rows:
            size = f"{num_bytes / 2**20:,.0f} MiB, more than the {MAX_FETCHED_BYTES // 2**20} MiB that a check fetches"
            raise UnreadError(f"{dataset.key}: the rows are not checked: they are {size}; {_ALL_ROWS}")
        return open_rows(dataset, self._loaded), None

    def _of_the_hub(self, dataset: Listed) -> tuple[Source, int | None]:
        if not self._is_hub_there:
            raise UnreadError(f"{dataset.key}: the rows are not checked: the Hub does not answer")
        source = open_rows(dataset, self._loaded, is_streamed=not self._all_rows)
        if self._all_rows:
            return source, None
        if source.must_be_counted:
            why = "`shards`" if source.shards else "`split`"
            reason = f"all rows of {source.label} must be read to know which of them {why} chooses"
            raise UnreadError(f"{dataset.key}: the rows are not checked: {reason}; {_ALL_ROWS}")
        return source, MAX_HUB_ROWS

    @cached_property
    def _is_hub_there(self) -> bool:
        return is_reachable()


def addresses_of(dataset: Listed) -> list[tuple[str, str]]:
    """Each address it names, with the key that names it."""
    section = dataset.section
    found = [(section.path, f"{dataset.key}.path")] if section.path and is_address(section.path) else []
    files = [(given, f"{dataset.key}.data_files.{n}") for n, given in enumerate(section.data_files)]
    return found + [(given, key) for given, key in files if is_address(given)]


def _without_key(error: FtlError) -> str:
    """The sentence without the key in front of it."""
    said = []
    for problem in error.problems:
        if isinstance(problem, Problem):
            sentence = ": ".join(part for part in (problem.given, problem.allowed) if part)
            said.append(f"{sentence}; {problem.remedy}" if problem.remedy else sentence)
        else:
            said.append(problem)
    return "; ".join(said)
