"""What the datasets of a config give together: the samples that a training uses."""

from dataclasses import dataclass, field

from ftl.config.data import DataSection
from ftl.inspect.fit import Fitted, Parts
from ftl.inspect.tally import digest_of
from ftl.tokens import MASKED


@dataclass
class Used:
    """What is used of one side, training or evaluation."""

    rows: int = 0
    """What the evaluation split counts: a row that gives several samples is one."""
    samples: int = 0
    tokens: int = 0
    trained: int = 0

    def add(self, fitted: Fitted) -> None:
        self.rows += 1
        self.samples += len(fitted.samples)
        for parts in fitted.samples:
            self.tokens += sum(len(tokens.ids) for tokens in parts)
            self.trained += sum(len(tokens.labels) - tokens.labels.count(MASKED) for tokens in parts)


@dataclass
class Merged:
    """The samples of all datasets, as the runtime merges them: test_datasets must come first, since they win."""

    data: DataSection
    train: Used = field(default_factory=Used)
    test: Used = field(default_factory=Used)
    _seen: set[bytes] = field(default_factory=set)
    _num_merged: int = 0

    def is_duplicate(self, key: str, parts: Parts) -> bool:
        """Whether the sample is left out because another one before it is the same. A stream is not looked through."""
        if not self.data.exact_deduplication or key.startswith("pretraining_dataset"):
            return False
        digest = digest_of(parts)
        is_known = digest in self._seen
        self._seen.add(digest)
        return is_known

    def add(self, key: str, fitted: Fitted) -> None:
        """Count a sample that is not left out."""
        if key.startswith("test_datasets"):
            self.test.add(fitted)
            return
        number, self._num_merged = self._num_merged, self._num_merged + 1
        if self.data.shard_num is None or number % self.data.shard_num == self.data.shard_idx:
            self.train.add(fitted)
