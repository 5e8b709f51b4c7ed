"""The manual as one Markdown page, which docs/config-reference.md is."""

from collections.abc import Iterator

from ftl.config.dialect import Table
from ftl.manual.entries import SECTIONS, Entry, entries
from ftl.manual.page import shown_default

_HEAD = """\
<!-- Made by `ftl schema --format markdown > docs/config-reference.md`. Change the fields' docstrings in
launcher/ftl/config/ and the tables in launcher/ftl/config/tables/, then make it again. -->

# Keys of a training config

A key without a value is as if it were not there. Where a list is taken, one item may stand alone. `ftl explain CFG`
says what each key of a file does, `ftl explain --key KEY` shows one of these keys with an example, and
`ftl migrate CFG` writes a file in today's spellings.
"""

_OTHERS: tuple[tuple[Table, str, str], ...] = (
    ("convert", "Older spellings", "They are read, and become what stands beside them."),
    ("ignored", "Ignored", "The training is the same without them. A note says so."),
    ("refused", "Refused", "A config that asks for one of these is not trained; `false` asks for nothing."),
    ("unbuilt", "Not built yet", "They are refused until ftl can train what they say; `false` asks for nothing."),
)


def reference() -> str:
    """Every key with what it takes, its default and what it does; then those that are not honoured, and why."""
    return "\n".join([_HEAD, *_honoured(), *(line for other in _OTHERS for line in _others(*other))])


def row(entry: Entry) -> str:
    """The entry as a row of its table."""
    if entry.table == "derived":
        return _cells(f"`{entry.name}`", entry.kind, shown_default(entry), entry.meaning)
    if entry.table == "convert":
        return _cells(f"`{entry.name}`", f"`{entry.becomes}`", entry.meaning)
    return _cells(f"`{entry.name}`", entry.meaning)


def _honoured() -> Iterator[str]:
    for section, title in SECTIONS.items():
        yield f"## {title}\n"
        yield _cells("key", "takes", "default", "meaning")
        yield _cells("---", "---", "---", "---")
        yield from (row(entry) for entry in entries().values() if entry.section == section)
        yield ""


def _others(table: Table, title: str, what: str) -> Iterator[str]:
    yield f"## {title}\n\n{what}\n"
    headings = ("key", "today", "why") if table == "convert" else ("key", "why")
    yield _cells(*headings)
    yield _cells(*("---" for _ in headings))
    yield from (row(entry) for entry in entries().values() if entry.table == table and entry.section is None)
    yield ""


def _cells(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"
