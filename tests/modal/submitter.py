"""Launchers to be killed: reads run ids, one a line, and submits each in a process of its own, whose id it prints.

Modal's client is imported once, and used in the children alone, because a connection does not live through a fork.
"""

import os
import sys

import modal  # noqa: F401

from ftl import jobs, launch
from ftl.backends import modal as _  # noqa: F401

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        record = jobs.load(line.strip())
        launch.submit(record, launch.backend_of(record))
        os._exit(0)
    sys.stdout.write(f"{child}\n")
    sys.stdout.flush()
    os.waitpid(child, 0)
