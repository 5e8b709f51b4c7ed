"""The check of whole data files on a laptop: every row is read and rendered, nothing is tokenised."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftl.errors import ConfigError, Problem
from ftl.formats.example import Conversation, Example, FormatOptions, Rendered, RowError
from ftl.formats.readers import Row, scan_rows
from ftl.formats.render import find_format

MAX_REPORTED = 5  # rows named one by one in a report


def check_dataset(path: Path, type: str, keys: Mapping[str, Any], max_rows: int | None = None) -> list[Problem]:
    """As `check_file`, with the keys of the dataset as the config has them. Any: they are of many types."""
    return check_file(path, type, FormatOptions.read(keys), max_rows)


def check_file(path: Path, type: str, options: FormatOptions, max_rows: int | None = None) -> list[Problem]:
    """What is wrong with the first `max_rows` rows of a file or directory, each problem with its file and line.

    At most MAX_REPORTED rows are named; a last problem then counts the others. Rows that are all right but train
    nothing are a problem only when there are no others.
    """
    problems: list[Problem] = []
    num_bad = num_trained = 0
    try:
        for count, row in enumerate(scan_rows(path), start=1):
            verdict = _check(row, type, options)
            if isinstance(verdict, Problem):
                num_bad += 1
                problems += [verdict] if num_bad <= MAX_REPORTED else []
            else:
                num_trained += verdict
            if count == max_rows:
                break
    except ConfigError as e:  # the path itself is wrong
        return [problem for problem in e.problems if isinstance(problem, Problem)]
    if num_bad > MAX_REPORTED:
        problems.append(Problem(str(path), f"{num_bad - MAX_REPORTED} more broken rows"))
    if not num_bad and not num_trained:
        remedy = "check the columns with the answers, or `roles` and `roles_to_train`"
        problems.append(Problem(str(path), "no row has a text to train on", remedy=remedy))
    return problems


def check_row(type: str, row: Mapping[str, Any], options: FormatOptions) -> str | None:
    """What is wrong with a row, in one sentence; None when nothing is."""
    try:
        find_format(type, options.family).read(row, options)
    except RowError as e:
        return str(e)
    return None


def _check(row: Row | Problem, type: str, options: FormatOptions) -> Problem | bool:
    """The problem of a row, or whether a row without one has anything to train on."""
    if isinstance(row, Problem):
        return row
    try:
        return _is_trained(find_format(type, options.family).read(row.data, options))
    except RowError as e:
        return Problem(row.where, str(e))


def _is_trained(rendered: Rendered) -> bool:
    if isinstance(rendered, Conversation):
        return any(turn.train and turn.content for turn in rendered.turns)
    return not isinstance(rendered, Example) or any(segment.train and segment.text for segment in rendered.segments)
