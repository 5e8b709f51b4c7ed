"""The command line as tests call it."""

import json
import subprocess
from collections.abc import Callable

Ftl = Callable[..., "subprocess.CompletedProcess[str]"]


def run_ids(ftl: Ftl) -> list[str]:
    """The ids of all runs, newest first, as `ftl ps --json` gives them."""
    return [json.loads(line)["run"] for line in ftl("ps", "--json").stdout.splitlines()]
