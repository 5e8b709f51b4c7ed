"""A Hub that takes the connection and says nothing, asked by the real client in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

from hub_server import HubServer

ASKED = """
from ftl.errors import FtlError
from ftl.sources.hubrepo import Repo, check_access, check_revision, resolve_commit
repo = Repo("org/rows", "main")
questions = [(resolve_commit, {"delays_s": ()}), (check_access, {"delays_s": ()}), (check_revision, {})]
for ask, options in questions:
    try:
        ask(repo, **options)
    except FtlError as error:
        print(type(error).__name__, str(error).split(": ", 2)[-1])
"""


def test_every_question_is_given_up(hub: HubServer, tmp_path: Path) -> None:
    hub.add("dataset", "org/rows", {"a.jsonl": b'{"n": 1}\n'})
    hub.disturb("hang", times=9)
    env = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "FTL_STORE_SILENCE_S": "0.3"}
    told = subprocess.run([sys.executable, "-c", ASKED], env=env, capture_output=True, text=True, timeout=50)
    hub.heal()
    assert (
        told.stdout.splitlines() == [f"UnreachableError {hub.url} does not answer (SilenceError); try again later"] * 3
    ), told.stderr
    assert hub.num_outwaited == 0
