"""Looks for a secret in files, however it is packed there."""

import base64
import io
import sqlite3
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote


def forms(secret: str) -> Iterator[bytes]:
    """The secret as it is, URL-encoded, and what base64 makes of it at each of the three places it can begin."""
    yield secret.encode()
    yield quote(secret, safe="").encode()
    for skipped in range(3):
        encoded = base64.b64encode(b"\0" * skipped + secret.encode())
        yield encoded[4 if skipped else 0 : -4]  # without what its neighbours decide


def contents(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """The content, and that of what is packed in it: a .pt file is a zip, and a database cuts long cells in pieces."""
    yield name, content
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            for inner in packed.namelist():
                yield from contents(f"{name}!{inner}", packed.read(inner))
    elif content.startswith(b"SQLite format 3\0"):
        yield from _cells(name)


def leaks(files: dict[str, bytes], wanted: list[bytes]) -> list[str]:
    return [
        f"{place} holds {form!r}"
        for name, content in files.items()
        for place, inner in contents(name, content)
        for form in wanted
        if form in inner
    ]


def below(*folders: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for root in folders for path in root.rglob("*") if path.is_file()}


def _cells(path: str) -> Iterator[tuple[str, bytes]]:
    """Every text and blob of a database file, with what its log still holds."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in database.execute(f'SELECT * FROM "{table}"'):
                for cell in row:
                    if isinstance(cell, str | bytes):
                        yield f"{path}!{table}", cell.encode() if isinstance(cell, str) else cell
    finally:
        database.close()
