"""What Modal prints while it builds an image, line by line as it comes."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from ftl.redact import redacted

_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@contextmanager
def build_log(file: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """While Modal's client is at work inside: each line of a build's log is told, and kept in `file`.

    The client prints logs to stdout and nothing else when it is to be quiet; nothing is written where nothing is built.
    """
    import modal
    from modal.output import OutputManager

    lines = _Lines(file, tell)
    with redirect_stdout(lines), modal.enable_output():
        OutputManager.get().set_quiet_mode(True)
        try:
            yield
        finally:
            OutputManager.get().flush_lines()
            lines.end()


class _Lines(io.TextIOBase):
    """A stream that passes on whole lines, without colours, moves of the cursor and secrets."""

    def __init__(self, file: Path, tell: Callable[[str], None]) -> None:
        self._file, self._tell, self._rest = file, tell, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *whole, self._rest = (self._rest + text.replace("\r", "\n")).split("\n")
        for line in whole:
            self._pass_on(line)
        return len(text)

    def end(self) -> None:
        self._pass_on(self._rest)
        self._rest = ""

    def _pass_on(self, line: str) -> None:
        shown = redacted(_CONTROLS.sub("", line)).rstrip()
        if not shown:
            return
        with self._file.open("a", encoding="utf-8") as kept:
            kept.write(f"{shown}\n")
        self._tell(shown)
