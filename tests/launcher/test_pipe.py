"""Output that nobody reads to its end, as in `ftl schema | head -1`."""

import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = "base_model: m\nlearning_rate: 1\ndatasets: [{path: org/d, type: alpaca}]\n"


@pytest.mark.parametrize(
    "arguments",
    [("schema",), ("explain", "cfg.yml", "--all"), ("explain", "cfg.yml", "--json"), ("migrate", "cfg.yml")],
    ids=" ".join,
)
def test_closed_pipe_ends_the_command_without_a_word(arguments: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "cfg.yml").write_text(CONFIG + "".join(f"# {n}\n" for n in range(99)) + "flash_attention: true\n")
    command = [sys.executable, "-c", "from ftl.cli import main; main()", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()  # before it writes anything, so that it does not matter how much that is
    said = process.stderr.read().decode()
    assert process.wait(timeout=60) == 141  # as SIGPIPE
    assert said == ""
