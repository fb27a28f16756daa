"""HDF5 files, read by a process without rights: its library is written in C and overflows on crafted files.

`hdf5_reader` is that process's program. It loads h5py alone, once (0.2 s), and forks a reader for every file; values
come back in shared memory. Nothing else in this package opens HDF5 to read it.
"""

import atexit
import json
import mmap
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from math import prod
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from tfkfin.base import machine, reading
from tfkfin.base.errors import InputError

SECONDS, BYTES_A_SECOND = 60, 2 << 20  # that reading may take: always, and more for large files
_PROGRAM = Path(__file__).with_name("hdf5_reader.py")
_LONGEST = 64 << 20  # bytes of an answer
_PLACES, _PIECE = 4, 2 << 20  # for pieces of so many bytes, or of a chunk


class Unreadable(ValueError):
    """No reader could read a file: it is damaged, or made to do harm."""


class Stored(NamedTuple):
    """What a file says of a dataset. `numeric`: its values are real numbers; `size`: bytes that they, or a chunk, take.

    `elsewhere`: other files hold the values.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype
    numeric: bool
    size: int
    elsewhere: bool


class Opened:
    """An open file: `entries` by path; None is a group, which are there only if the file was opened `deep`."""

    def __init__(self, peer: socket.socket, lines: IO[bytes], memory: IO[bytes], ask: dict):
        self._peer, self._lines, self._memory, self._limits = peer, lines, memory, ask
        self._ask(ask)
        self.entries = self._answer()

    def read(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """The values of datasets of real numbers; whoever asks has looked at their sizes.

        They come in pieces, by turns in a few places of the shared memory: one is copied while the next are read.
        """
        values = {name: np.empty(self.entries[name].shape, self.entries[name].dtype) for name in names}
        pieces = [piece for name, value in values.items() if value.size
                  for piece in _pieces(name, value, self.entries[name].chunk, self._limits["shared"] // _PLACES)]
        place = -(-max((part.nbytes for _, part in pieces), default=1) // mmap.PAGESIZE) * mmap.PAGESIZE
        places = max(1, min(_PLACES, self._limits["shared"] // place))
        memory = mmap.mmap(self._memory.fileno(), places * place)
        for i in range(len(pieces) + places - 1):
            if i < len(pieces):
                self._ask([*pieces[i][0], i % places * place])
            if 0 <= (done := i - places + 1) < len(pieces):
                part = pieces[done][1]
                self._answer()
                part[...] = np.ndarray(part.shape, part.dtype, memory, done % places * place)
        return values

    def _ask(self, what: object) -> None:
        with suppress(BrokenPipeError):  # it has ended, and has said how
            self._peer.sendall(json.dumps(what).encode() + b"\n")

    def _answer(self) -> dict[str, Stored | None]:
        line = self._lines.readline(_LONGEST)
        if not line:
            raise InputError("the process that reads HDF5 has ended: give the command once more")
        try:
            told = json.loads(line)
            error, ended = told.get("error"), told.get("ended")
            found = {name: one and _stored(**one) for name, one in told.get("entries", {}).items()}
        except (ValueError, TypeError, AttributeError):
            raise Unreadable("its reader answers nonsense") from None
        if error is not None:
            raise Unreadable(" ".join(error.split())) if error else MemoryError
        if ended is not None:
            raise Unreadable(f"reading it takes longer than {self._limits['seconds']} s" if ended == "late" else
                             f"reading it ended the reader: {ended}")
        return found


def _pieces(name: str, value: np.ndarray, chunk: tuple[int, ...], most: int) -> list:
    """((name, axis, first, last), that part of `value`): whole chunks, as many as are quick to copy."""
    if not value.shape:
        return [((name, 0, 0, 1), value)]
    axis = int(np.argmax(value.shape))
    length, rows = value.shape[axis], chunk[axis] if chunk else 1
    step = rows * max(1, min(_PIECE, most) * length // (value.nbytes * rows))
    before = (slice(None),) * axis
    return [((name, axis, first, min(first + step, length)), value[(*before, slice(first, first + step))])
            for first in range(0, length, step)]


def _stored(shape: list[int], dtype: str, chunk: list[int], elsewhere: bool) -> Stored:
    numeric = re.fullmatch("[<>|=][biuf][0-9]{1,2}", dtype) is not None
    kind = np.dtype(dtype if numeric else "V")
    if min(shape, default=0) < 0 or min(chunk, default=1) < 1 or chunk and len(chunk) != len(shape):
        raise ValueError(shape, chunk)
    return Stored(tuple(shape), tuple(chunk), kind, numeric, kind.itemsize * max(prod(shape), prod(chunk)), elsewhere)


@contextmanager
def opened(source: IO[bytes], deep: bool = False) -> Iterator[Opened]:
    """An HDF5 file, of which a reader has read what it holds (`deep`: in groups too, not at the top alone), no values.

    Raises:
        Unreadable: it is damaged, its reader crashed, or takes too much time.
        MemoryError: it takes more memory than it may have.
    """
    size = os.fstat(source.fileno()).st_size
    ask = {"deep": deep, "seconds": SECONDS + size // BYTES_A_SECOND,
           "memory": 8 * reading.ALWAYS + min(2 * reading.RATIO * size, machine.memory())}
    largest = resource.getrlimit(resource.RLIMIT_FSIZE)[0]  # which holds for files in memory too
    ask["shared"] = ask["memory"] if largest < 0 else min(ask["memory"], largest)
    ours, theirs = socket.socketpair()
    with unnamed() as memory, ours, ours.makefile("rb") as lines:
        with theirs:
            os.ftruncate(memory.fileno(), ask["shared"])
            fds = [theirs.fileno(), source.fileno(), memory.fileno()]
            try:
                socket.send_fds(_started(os.getpid()), [b"."], fds)
            except BrokenPipeError:  # somebody has ended it
                _started.cache_clear()
                socket.send_fds(_started(os.getpid()), [b"."], fds)
        yield Opened(ours, lines, memory, ask)


def unnamed() -> IO[bytes]:
    """A file without a name, in memory where the system has such."""
    return open(os.memfd_create("tfkfin"), "w+b") if hasattr(os, "memfd_create") else tempfile.TemporaryFile()


@cache
def _started(process: int) -> socket.socket:
    """Where to ask for readers; of this process alone, not of those that are forked from it."""
    ours, theirs = socket.socketpair()
    start = f"import runpy, sys; sys.path[:] = sys.argv[1:]; runpy.run_path({str(_PROGRAM)!r}, run_name='__main__')"
    with theirs:
        program = subprocess.Popen([sys.executable, "-I", "-S", "-c", start, *filter(None, sys.path)], stdin=theirs,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"})

    @atexit.register
    def end() -> None:
        ours.close()
        program.kill()
        program.wait()

    return ours
