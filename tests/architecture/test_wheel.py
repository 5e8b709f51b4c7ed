"""The wheel: both packages and the folders that ship with them, and nothing that a run has made in the checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_wheel_holds_what_ships_and_nothing_that_was_made(tmp_path: Path) -> None:
    made = ROOT / "examples/quickstart/data"
    made.mkdir(exist_ok=True)
    (made / "made-by-a-test.jsonl").write_text("{}")
    try:
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)]
        subprocess.run(command, check=True, capture_output=True)
    finally:
        (made / "made-by-a-test.jsonl").unlink()
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {
        "ftl/cli/__init__.py",
        "ftl_runtime/__main__.py",
        "ftl/_data/images/Dockerfile",
        "ftl/_data/examples/quickstart/cfg.yml",
        "ftl/_data/examples/dpo/cfg.yml",
        "ftl/_data/examples/tiny.py",
    }
    assert shipped | {"ftl/_data/cloud_templates/docker.yml", "ftl/_data/images/requirements-cpu.txt"} <= names
    assert [name for name in names if name.startswith("ftl/_data/examples/") and name.count("/") > 4] == []
