"""Rows from everywhere: local files and directories, Hub repositories, https:, s3:, gs: and hf: addresses.

source = open_source(dataset, resolve, seed=42, download_dir=None)
for row in source.scan():          # Row, or a Problem in the place of a broken one
    ...
"""

from ftl.sources.find import open_source
from ftl.sources.package import MissingPackageError
from ftl.sources.retry import UnreachableError
from ftl.sources.row import Row
from ftl.sources.source import Source

__all__ = ["MissingPackageError", "Row", "Source", "UnreachableError", "open_source"]
