"""The one package that imports SkyPilot, run by the Python of SkyPilot's own environment.

SkyPilot wants an older click than huggingface-hub, so the two never share an environment. One JSON object a line on
standard input, {"id": 1, "op": "hello", ...}; one a line in answer, {"id": 1, "value": ...} or {"id": 1, "error":
{"kind": "CLASS", "text": "..."}}, in the order in which they are ready. Imports nothing of ftl, nor itself by a name
that has ftl in it, and keeps to Python 3.9.
"""

import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from .attempt import cancel, down, fetch, find, launch, stop
from .errors import said
from .everything import collect, tasks
from .logs import log
from .offers import check, ready
from .standing import state

AT_ONCE = 8
"""So many questions are answered at the same time: `ftl ps` asks for every run."""


def hello(order):
    import sky

    return {"version": sky.__version__, "python": sys.version.split()[0]}


OPS = {
    function.__name__: function
    for function in (hello, check, ready, find, launch, state, log, stop, fetch, cancel, down, collect, tasks)
}


def main():
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever SkyPilot prints
    one_at_a_time = threading.Lock()

    def answer(order):
        try:
            told = {"id": order["id"], "value": OPS[order["op"]](order)}
        except Exception as error:
            told = {"id": order["id"], "error": {"kind": type(error).__name__, "text": said(error)}}
        with one_at_a_time:
            answers.write(json.dumps(told, default=str) + "\n")
            answers.flush()

    with ThreadPoolExecutor(AT_ONCE) as threads:
        for line in sys.stdin:
            threads.submit(answer, json.loads(line))
    os._exit(0)  # a thread that reads a log would be waited for
