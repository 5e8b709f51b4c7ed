"""The oldest modal client that pyproject.toml allows, beside the newest that the lock installs."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from modal_emulator import ModalEmulator

ROOT = Path(__file__).parents[2]
LOCK = ROOT / ".ci/requirements-modal-oldest.txt"
SMOKE = Path(__file__).with_name("sdk_smoke.py")


def test_the_oldest_client_is_the_one_pyproject_allows() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "modal>=1.6.3,<2" in extras["modal"]
    assert re.search(r"^modal==1\.6\.3 ", LOCK.read_text(), re.MULTILINE)


def test_the_oldest_client_and_its_entrypoint_do_what_the_newest_do(tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    subprocess.run([*command, "--require-hashes", "--target", str(site), "-r", str(LOCK)], check=True)
    with ModalEmulator.start(tmp_path / "modal", sites=(site,)) as emulator:
        env = {k: v for k, v in os.environ.items() if not k.startswith("MODAL_")} | emulator.client_env(tmp_path)
        ran = subprocess.run(
            [sys.executable, str(SMOKE)],
            env=env | {"PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert ran.returncode == 0, ran.stderr + emulator.log_text() + emulator.log.read_text()
        assert json.loads(ran.stdout) == {
            "version": "1.6.3",
            "in_container": "1.6.3",
            "name": "ann",
            "tries": 2,
            "log": ["a warning\n", "hello ann\n"],
            "listed": ["runs/r1", "runs/r1/up.txt"],
            "read": "went up",
        }
        assert emulator.unknown == {}
        assert emulator.fsck() == []
