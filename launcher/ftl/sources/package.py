"""Packages that a source needs and that may not be installed here."""

from ftl.errors import ConfigError, Problem

_REMEDY = "pip install 'ftl-launcher[data]'"


class MissingPackageError(ConfigError):
    """The rows may be all right where the training runs; this machine lacks what reads them."""


def missing_package(key: str, given: str) -> MissingPackageError:
    """What to raise where `given` says which package is missing; `key` is the key of the config that needs it."""
    return MissingPackageError(Problem(key, given, None, _REMEDY))
