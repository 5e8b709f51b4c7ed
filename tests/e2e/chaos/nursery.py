"""A process that has imported all that a training needs, and forks supervisors, whose trainers and senders are forks
too: a tenth of a second each where a start takes ten. The processes, their signals, locks and pipes are those of a real
attempt; only `exec` is left out.

in    {"job": "job.json", "env": {...}, "output": "file", "pids": "file"}    out   {"pid": 123}
in    {"wait": 123, "timeout_s": 60}                                         out   {"status": 0}, or null
"""

import contextlib
import importlib
import inspect
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

_PIDS = "FTL_CHAOS_PIDS"
"""The file that every process of an attempt writes itself into: its role and id, a line each."""
_ROLES = {
    "ftl_runtime": "supervisor",
    "ftl_runtime.rank": "trainer",
    "ftl_runtime.checkpoint.sync": "sync",
}


class Nursery:
    """The nursery as its parent sees it."""

    def __init__(self, env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env=os.environ | env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def start(self, job: Path, output: Path, pids: Path, env: dict[str, str]) -> int:
        """A supervisor of the job, in a session of its own; its process id."""
        return int(self._ask(job=str(job), output=str(output), pids=str(pids), env=env)["pid"])

    def wait(self, pid: int, timeout_s: float) -> int | None:
        """How the supervisor ended, as subprocess tells it; None while it lives."""
        status: int | None = self._ask(wait=pid, timeout_s=timeout_s)["status"]
        return status

    def close(self) -> None:
        self._process.communicate(timeout=30)

    def _ask(self, **request: Any) -> dict[str, Any]:  # Any: JSON
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def _main() -> None:
    _import_all()
    for line in sys.stdin:
        request = json.loads(line)
        if "job" in request:
            answer: dict[str, Any] = {"pid": _bear_supervisor(request)}
        else:
            answer = {"status": _status(request["wait"], time.monotonic() + request["timeout_s"])}
        print(json.dumps(answer), flush=True)


def _import_all() -> None:
    """What trainers and senders import, less what ftl_runtime.lean leaves out of them."""
    for name in ("comet_ml", "deepspeed", "bitsandbytes", "torchao", "datasets"):
        sys.modules[name] = None  # type: ignore[assignment]
    for name in (
        "huggingface_hub.hf_api",
        "peft.tuners.lora.model",
        "torch.distributed.fsdp",
        "transformers.models.llama.modeling_llama",
        "ftl_runtime.checkpoint.bucket",
        "ftl_runtime.checkpoint.hub",
        "ftl_runtime.checkpoint.sync",
        "ftl_runtime.run",
        "ftl_runtime.supervisor",
    ):
        importlib.import_module(name)


def _bear_supervisor(request: dict[str, Any]) -> int:
    if (pid := os.fork()) == 0:
        _live_as_supervisor(request)
    return pid


def _live_as_supervisor(request: dict[str, Any]) -> NoReturn:
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    output = os.open(request["output"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    env = os.environ | request["env"] | {_PIDS: request["pids"]}
    subprocess.Popen = _Forked  # type: ignore[misc]
    _live("ftl_runtime", [request["job"]], (null, output, output), (), env)


class _Forked(subprocess.Popen):  # type: ignore[type-arg]
    """A Popen that forks where the command is one of our modules; pipes, waiting and signals are Popen's own."""

    def _execute_child(self, *given: Any) -> None:  # Any: private to subprocess, and other in each Python
        execute = super()._execute_child  # type: ignore[misc]
        told = inspect.signature(execute).bind(*given).arguments
        command = told["args"]
        if command[:2] != [sys.executable, "-m"] or command[2] not in _ROLES:
            execute(*given)
            return
        fds = (told["p2cread"], told["c2pwrite"], told["errwrite"])
        sys.stdout.flush()
        if (pid := os.fork()) == 0:
            if told["start_new_session"]:
                os.setsid()
            _live(command[2], command[3:], fds, told["pass_fds"], told["env"])
        self.pid = pid
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(told[name] for name in pipes))


def _live(
    module: str, arguments: list[str], fds: tuple[int, int, int], keep: tuple[int, ...], env: dict[str, str]
) -> NoReturn:
    """Be what `python -m module arguments` would be."""
    code: object = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):  # as after an exec: handlers are gone, what is ignored stays so
            signal.signal(number, signal.SIG_DFL)
        for target, fd in enumerate(fds):
            if fd not in (-1, target):
                os.dup2(fd, target)
        low = 3
        for fd in (*sorted(keep), 1 << 12):
            os.closerange(low, fd)
            low = fd + 1
        os.environ.clear()
        os.environ.update(env)
        # Without closefd, what is replaced here would close the descriptors behind the back of what replaces it.
        sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        sys.argv = [module, *arguments]
        role = _ROLES[module] + (f"-{os.environ.get('RANK', '0')}" if _ROLES[module] == "trainer" else "")
        with Path(os.environ[_PIDS]).open("a") as file:
            file.write(f"{role} {os.getpid()}\n")
        import faults

        faults.arm(role)
        sys.modules.pop(module, None)  # runpy warns of modules that are there
        runpy.run_module("ftl_runtime.__main__" if module == "ftl_runtime" else module, run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code if isinstance(code, int) else 0)


def _status(pid: int, until: float) -> int | None:
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until:
            return None
        time.sleep(0.01)


if __name__ == "__main__":
    _main()
