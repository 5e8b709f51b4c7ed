"""What the tests of the emulated Modal run in its containers. It stands for a user's code, which is mounted."""

import os
import signal
import sys
import time
from pathlib import Path

VOLUME = Path("/vol")


def hello(name: str) -> dict[str, object]:
    import modal

    print(f"hello {name}", flush=True)
    print("a warning", file=sys.stderr, flush=True)
    (VOLUME / "hello.txt").write_text(name)
    return {
        "name": name,
        "cwd": str(Path.cwd()),
        "env": dict(os.environ),
        "root": sorted(path.name for path in Path("/").iterdir()),
        "modal": modal.__version__,
    }


def fail_once() -> int:
    """The number of tries it took; the first raises."""
    tries = VOLUME / "tries"
    number = int(tries.read_text()) + 1 if tries.exists() else 1
    tries.write_text(str(number))
    if number == 1:
        raise ValueError("the first try fails")
    return number


def wait_for_interrupt() -> str:
    """What was saved when it was interrupted; the first time it only waits."""
    saved = VOLUME / "interrupted.txt"
    if saved.exists():
        return saved.read_text()
    try:
        print("waiting", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        saved.write_text("saved in time")
        raise
    return "was not interrupted"


def ignore_interrupt() -> str:
    """Ends only when it is killed, the first time."""
    started = VOLUME / "ignored.txt"
    if started.exists():
        return started.read_text()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    started.write_text("committed in the background")
    print("deaf", flush=True)
    time.sleep(60)
    return "was not killed"


def commit_half() -> None:
    """Writes two files, commits after the first, and waits."""
    import modal

    (VOLUME / "committed.txt").write_text("committed")
    modal.Volume.from_name("emulator").commit()
    (VOLUME / "lost.txt").write_text("never committed")
    print("half committed", flush=True)
    time.sleep(60)


def wait_for_cancellation() -> None:
    import modal.exception

    try:
        print("working", flush=True)
        time.sleep(60)
    except modal.exception.InputCancellation:
        (VOLUME / "cancelled.txt").write_text("told")
        raise


def read_while_open() -> list[str]:
    """What a reload said with a file open, and what another one brought once it was closed."""
    import modal

    volume = modal.Volume.from_name("emulator")
    opened = VOLUME / "opened.txt"
    with opened.open("w"):
        try:
            volume.reload()
            said = "nothing"
        except RuntimeError as e:
            said = str(e)
    print("waiting for later.txt", flush=True)
    later = VOLUME / "later.txt"
    while not later.exists():
        time.sleep(0.05)
        volume.reload()
    return [said, later.read_text()]


def exit_once() -> str:
    """Ends its process the first time, as one that runs out of memory."""
    import modal

    crashed = VOLUME / "crashed.txt"
    if not crashed.exists():
        crashed.write_text("crashed")
        modal.Volume.from_name("emulator").commit()
        os._exit(137)
    return "survived"


def double(number: int) -> tuple[int, str]:
    return 2 * number, os.environ["MODAL_TASK_ID"]


def meet() -> dict[str, object]:
    """Once it was preempted: every container of a cluster says its rank to the first, which gives what it heard."""
    import socket

    import modal.cluster  # fills in the context that Cluster.from_context() reads

    cluster = modal.Cluster.from_context()
    rank, addresses = cluster.container_rank(), cluster.container_ips(family="ipv4")
    seen = VOLUME / f"rank-{rank}"
    if not seen.exists():
        seen.touch()
        print(f"rank {rank} waits to be preempted", flush=True)
        time.sleep(60)
    if rank > 0:
        for _ in range(200):
            try:
                with socket.create_connection((addresses[0], 29511)) as to_first:
                    to_first.sendall(str(rank).encode())
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        return {"rank": rank}
    with socket.create_server((addresses[0], 29511)) as server:
        server.settimeout(20)
        connection, _ = server.accept()
        with connection:
            heard = connection.recv(16).decode()
    return {"rank": rank, "heard": heard, "num_addresses": len(addresses)}
