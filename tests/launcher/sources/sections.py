"""Opening a dataset section in tests whose files lie in the working directory."""

from pathlib import Path
from typing import Any

from ftl.config.data import DatasetSection
from ftl.errors import Problem
from ftl.sources import Row, Source, open_source


def opened(**section: Any) -> Source:  # Any: fields of DatasetSection
    def resolve(given: str) -> Path | None:
        return Path(given) if Path(given).exists() else None

    return open_source(DatasetSection.model_validate(section), resolve, seed=42, download_dir=None)


def scanned(**section: Any) -> list[Row | Problem]:
    return list(opened(**section).scan())


def values(column: str, **section: Any) -> list[Any]:
    """That column of every row; the sentence of every problem."""
    return [str(row) if isinstance(row, Problem) else row.data[column] for row in scanned(**section)]
