"""The three kinds of rules. Each gives a Problem whose `where` is a flat key, or None.

Its sentence names, in backticks, every other key it looks at: load.py then knows which rules a broken value makes
pointless.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ftl.config.data import DatasetSection
from ftl.config.dialect import Values
from ftl.config.train import TrainConfig
from ftl.errors import Problem

Rule = Callable[[TrainConfig], Problem | None]
Holds = Callable[[Values], bool]
DatasetRule = Callable[[DatasetSection, TrainConfig], Problem | None]
"""For each dataset; `where` is its own key."""


@dataclass(frozen=True)
class KeyRule:
    """A rule over the keys as given, in today's spelling where they have one: also those that ftl cannot train yet.

    Values may be of any type: the sections have not seen them.
    """

    where: str
    is_broken: Callable[[Values], bool]
    allowed: str
    remedy: str | None = None

    def __call__(self, given: Values) -> Problem | None:
        return Problem(self.where, allowed=self.allowed, remedy=self.remedy) if self.is_broken(given) else None


def is_on(given: Values, *keys: str) -> bool:
    """Whether every one of the keys is given and not switched off."""
    return all(given.get(key) not in (None, False, 0, "", "no", "none", [], {}) for key in keys)


def is_given(key: str) -> Holds:
    return lambda given: is_on(given, key)


def both(one: Holds, other: Holds) -> Holds:
    return lambda given: one(given) and other(given)


def on_and(key: str, also: Holds) -> Holds:
    return both(is_given(key), also)


def together(where: str, other: str, allowed: str, remedy: str = "keep one of them") -> KeyRule:
    """`where` and `other` are both on."""
    return KeyRule(where, lambda given: is_on(given, where, other), allowed, remedy)


def sharding_key(config: TrainConfig) -> str | None:
    """The key that cuts the weights to pieces; None where every process has them whole."""
    if config.parallel.fsdp is not None:
        return "fsdp_config"
    return "deepspeed" if config.parallel.deepspeed else None
