"""The program that `tfkfin.base.hdf5` starts: it parses HDF5 in processes without rights. Knows h5py and NumPy alone.

It loads h5py once and waits. For every file it forks a guard, which forks a reader, sets its limits and says how it
ended. The reader can open nothing (no files, no network), start nothing, write no file and take no more than its share
of memory and time; when it has read one file it ends. So whatever a file does to HDF5's library ends there.
"""

import codecs
import ctypes
import json
import mmap
import os
import resource
import select
import signal
import socket
import sys

import h5py
import numpy as np

_MOST = 10_000  # entries of a file
_NO_NEW_PRIVILEGES, _LANDLOCK_RULESET, _LANDLOCK_RESTRICT = 38, 444, 446
_EVERY_ACCESS = 0x1FFF  # of Landlock's first version: reading, writing, making, removing and running files


def main() -> None:
    """Takes (a socket, a file, memory for its values) from stdin, a socket, until that is closed."""
    control = socket.socket(fileno=0)
    codecs.lookup("ascii"), codecs.lookup("latin-1")  # readers cannot load anything
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asks; when that ends, so does this
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while fds := socket.recv_fds(control, 1, 3)[1]:
        if os.fork() == 0:
            control.close()
            guard(socket.socket(fileno=fds[0]), *fds[1:])
            os._exit(0)
        for fd in fds:
            os.close(fd)


def guard(peer: socket.socket, source: int, target: int) -> None:
    """Waits for a reader and says how it ended; kills it when its time is over, or nobody waits any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    lines = peer.makefile("rb")
    ask = json.loads(lines.readline())
    alive, theirs = os.pipe()
    reader = os.fork()
    if reader == 0:
        read(peer, lines, source, target, ask)
        os._exit(0)
    os.close(theirs)
    waiting = select.poll()
    waiting.register(alive, 0)
    waiting.register(peer, 0)
    late = not waiting.poll(1000 * ask["seconds"])
    os.kill(reader, signal.SIGKILL)  # nothing, where it has ended
    code = os.waitstatus_to_exitcode(os.waitpid(reader, 0)[1])
    say(peer, {"ended": "late" if late else signal.Signals(-code).name if code < 0 else f"exit code {code}"})


def read(peer: socket.socket, lines, source: int, target: int, ask: dict) -> None:
    """Answers with what there is in the file, then puts the pieces that are asked for into `target`, memory."""
    try:
        memory = mmap.mmap(target, 0)
        with open(source, "rb", closefd=False) as plain:
            confine(ask["memory"], ask["seconds"])
            with h5py.File(plain, "r") as file:
                found = entries(file, ask["deep"])
                say(peer, {"entries": {name: told(item) for name, item in found.items()}})
                while line := lines.readline():
                    name, axis, first, last, place = json.loads(line)
                    item = found[name]
                    shape = (*item.shape[:axis], last - first, *item.shape[axis + 1 :]) if item.shape else ()
                    where = (slice(None),) * axis + (slice(first, last),) if item.shape else ()
                    item.read_direct(np.ndarray(shape, item.dtype, memory, place), where)
                    say(peer, {})
    except MemoryError:
        say(peer, {"error": ""})
    except Exception as error:  # on damaged bytes HDF5 and h5py raise anything
        say(peer, {"error": f"{error or type(error).__name__}"[:500]})


def say(peer: socket.socket, what: dict) -> None:
    peer.sendall(json.dumps(what).encode() + b"\n")


def entries(file: h5py.File, deep: bool) -> dict:
    """Path -> dataset or group of what lies in the file itself. Soft and external links may lead to other files."""
    found, groups, kinds = {}, [("", file)], (h5py.Dataset, h5py.Group) if deep else h5py.Dataset
    while groups:
        path, group = groups.pop()
        for key in group:
            if isinstance(group.get(key, getlink=True), h5py.HardLink) and isinstance(item := group[key], kinds):
                found[path + key] = item
                if isinstance(item, h5py.Group):
                    groups.append((f"{path}{key}/", item))
            if len(found) > _MOST:
                raise ValueError(f"more than {_MOST} entries")
    return found


def told(item) -> dict | None:
    """What is said of a dataset; None of a group."""
    if isinstance(item, h5py.Group):
        return None
    numeric = item.shape is not None and item.dtype.kind in "biuf"
    return {"shape": item.shape or (), "dtype": item.dtype.str if numeric else "", "chunk": item.chunks or (),
            "elsewhere": bool(item.external or item.is_virtual)}


def confine(memory: int, seconds: int) -> None:
    """Gives up, for good, what reading an open file does not need."""
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:
            memory += int(file.read().split()[0]) * mmap.PAGESIZE  # what is mapped already
        libc = ctypes.CDLL(None)
        rules = libc.syscall(_LANDLOCK_RULESET, (ctypes.c_uint64 * 1)(_EVERY_ACCESS), ctypes.c_size_t(8), 0)
        libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        if rules >= 0:  # not every kernel has it
            libc.syscall(_LANDLOCK_RESTRICT, rules, 0)
    for name, most in {"AS": memory, "CPU": seconds + 1, "FSIZE": 0, "CORE": 0, "NPROC": 0, "NOFILE": 0}.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, 2 * (most if hard == resource.RLIM_INFINITY else min(most, hard),))


if __name__ == "__main__":
    main()
