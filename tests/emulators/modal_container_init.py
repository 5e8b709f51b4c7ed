"""Makes the place a container runs in, then becomes its first process. Started by modal_containers.py as root.

    python modal_container_init.py PLACE.json DESCRIPTOR

PLACE.json: {"root": DIR, "binds": [[SOURCE, TARGET, is_read_only], ...], "argv": [...], "env": {...}, "cwd": DIR}.
The process makes namespaces for mounts and processes of its own, binds each source to its target below root, and runs
argv chrooted there as process 1: when that ends or is killed, the kernel kills everything it started. The number it
has outside is written to that descriptor; the exit status is that of argv, 128 + N for signal N.
Imports nothing that is not needed: it is started for each container.
"""

# Importing pathlib would double the time this takes.
# ruff: noqa: PTH103, PTH112, PTH120, PTH123
import ctypes
import json
import os
import signal
import sys

CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER = 0x00020000, 0x20000000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)


def main(place_file: str, descriptor: int) -> int:
    with open(place_file) as f:
        place = json.load(f)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    uid, gid = os.geteuid(), os.getegid()
    flags = CLONE_NEWNS | CLONE_NEWPID | (0 if uid == 0 else CLONE_NEWUSER)
    _check(libc.unshare(flags), "unshare")
    if uid != 0:
        for name, content in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as f:
                f.write(content)
    _mount("none", "/", MS_REC | MS_PRIVATE)
    child = os.fork()
    if child == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _become(place, descriptor)
    os.write(descriptor, b"%d\n" % child)
    os.close(descriptor)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status >= 0 else 128 - status


def _become(place: dict, descriptor: int) -> None:
    os.close(descriptor)
    os.setsid()
    root = place["root"]
    for source, target, is_read_only in place["binds"]:
        where = root + target
        if os.path.isdir(source):
            os.makedirs(where, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(where), exist_ok=True)
            if not os.path.lexists(where):
                os.close(os.open(where, os.O_CREAT | os.O_WRONLY))
        _mount(source, where, MS_BIND | MS_REC)
        if is_read_only:
            _mount("none", where, MS_BIND | MS_REMOUNT | MS_RDONLY)
    os.makedirs(root + "/proc", exist_ok=True)
    if libc.mount(b"proc", (root + "/proc").encode(), b"proc", 0, None) != 0:
        _mount("/proc", root + "/proc", MS_BIND | MS_REC)  # inside some containers a new one is forbidden
    os.chroot(root)
    os.chdir(place["cwd"])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.execve(place["argv"][0], place["argv"], place["env"])


def _mount(source: str, target: str, flags: int) -> None:
    _check(libc.mount(source.encode(), target.encode(), None, flags, None), f"mount {source} on {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
