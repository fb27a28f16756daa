"""The one door for files from outside: kind, size and expansion are checked before a reader sees a byte of them.

A file may be damaged or hostile. Only regular files are opened (a pipe blocks, a device never ends), and each is read
to the size that it had when it was opened, however it grows. What a file says it holds is compared with its own size
and with free memory: nothing is unpacked to more than `RATIO` times the file, where that is more than `ALWAYS`.
"""

import errno
import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from tfkfin.base import machine
from tfkfin.base.errors import InputError

if TYPE_CHECKING:
    import numpy as np

ALWAYS, RATIO = 64 << 20, 100  # bytes that any file may unpack to, and bytes in memory per byte of a file
TEXT = 32 << 20  # bytes of a JSON file or another text that is read as a whole: whatever is larger is none of ours
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
          stat.S_IFBLK: "a device"}


def size_of(path: Path) -> int:
    """Bytes of a regular file, which links may lead to.

    Raises:
        InputError: it is a folder, pipe, socket or device, or a link that leads to itself or to nothing.
        OSError: there is none.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        why = {errno.ELOOP: "that leads to itself", errno.ENOENT: "to what is not there"}.get(error.errno)
        if not why or not os.path.islink(path):
            raise
        raise InputError(f"{path} is a link {why}: move it away, or fetch what it leads to") from None
    return _size(path, found)


def _size(path: Path, found: os.stat_result) -> int:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise InputError(f"{path} is {kind}, not a file: move it away")
    return found.st_size


class _Whole(io.FileIO):
    """A regular file, which ends where it ended when it was opened."""

    def __init__(self, path: Path):
        size_of(path)  # opening a device may already do something
        super().__init__(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))
        try:
            self._end = _size(path, os.fstat(self.fileno()))  # it may have become a pipe since
        except InputError:
            self.close()
            raise

    def readinto(self, buffer) -> int | None:
        return super().readinto(memoryview(buffer).cast("B")[: max(0, self._end - self.tell())])

    def readall(self) -> bytes:
        return super().read(max(0, self._end - self.tell())) or b""


def opened(path: Path) -> io.BufferedReader:
    """A file, opened for reading bytes; raises as `size_of`."""
    return io.BufferedReader(_Whole(path), 1 << 16)


def opened_text(path: Path, encoding: str = "utf-8", newline: str | None = None) -> io.TextIOWrapper:
    """A file, opened for reading text; raises as `size_of`."""
    return io.TextIOWrapper(opened(path), encoding, newline=newline)


def content(path: Path, most: int = TEXT) -> bytes:
    """The bytes of a file.

    Raises:
        InputError: they are more than `most`; or as `size_of`.
    """
    if (size := size_of(path)) > most:
        raise InputError(f"{path} has {size / 1e6:.3g} MB, and one of its kind at most {most / 1e6:.3g}: move it away")
    with opened(path) as file:
        return file.read(most)


def text(path: Path, most: int = TEXT) -> str:
    """A file as text; raises UnicodeDecodeError where it is none, else as `content`."""
    return io.TextIOWrapper(io.BytesIO(content(path, most)), "utf-8").read()  # \r\n is \n, as `open` has it


def sha256(path: Path) -> str:
    """The digest of a file's content; raises as `size_of`."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def most(path: Path) -> int:
    """Bytes of memory that what a file holds may take."""
    return max(ALWAYS, RATIO * size_of(path))


def holds(path: Path, size: float, what: str) -> None:
    """Raises InputError where no honest file of its size unpacks to `size` bytes."""
    if size > most(path):
        raise InputError(f"{path}: {what} would unpack to {size / 1e9:.3g} GB out of a file of "
                         f"{size_of(path) / 1e6:.3g} MB, which no recording does: fetch it again")


def unpacks(path: Path, size: float, what: str) -> None:
    """Makes sure, before memory is taken, that `what` of a file may take `size` bytes of memory.

    Raises:
        InputError: no honest file of its size holds so much, or so much memory is not free.
    """
    holds(path, size, what)
    machine.afford(2 * size, f"{path}: {what}", "close other programs, or read fewer recordings at once")


def names(path: Path) -> list[str]:
    """The names of the arrays in an .npz file."""
    with opened(path) as file, zipfile.ZipFile(file) as archive:
        return list(_members(archive))


def arrays(path: Path, wanted: Iterable[str] | None = None) -> "dict[str, np.ndarray]":
    """Arrays of an .npz file: those `wanted` that it has, None: all. No other one is unpacked.

    Raises:
        InputError: they would unpack to more than such a file can hold.
        Exception: the file is damaged, which zipfile, zlib and NumPy report by errors of many kinds.
    """
    from numpy.lib import format as npy

    with opened(path) as file, zipfile.ZipFile(file) as archive:
        there = _members(archive)
        chosen = {name: there[name] for name in (there if wanted is None else wanted) if name in there}
        unpacks(path, sum(_unpacked(archive, member) for member in chosen.values()), ", ".join(chosen)[:80])
        found = {}
        for name, member in chosen.items():
            with archive.open(member) as part:
                found[name] = npy.read_array(part, allow_pickle=False)
        return found


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    return {each.filename.removesuffix(".npy"): each for each in archive.infolist() if each.filename.endswith(".npy")}


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """Bytes of an array in memory, in which every number may become one of eight bytes."""
    from numpy.lib import format as npy

    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # zipfile reads others without bounds
        raise ValueError(f"{member.filename} is not packed as NumPy does it")
    with archive.open(member) as part:
        readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        shape, _, kind = readers[npy.read_magic(part)](part)
    if min(shape, default=0) < 0 or prod(shape) * kind.itemsize > member.file_size:
        raise ValueError(f"{member.filename} says its shape is {shape}, and it has {member.file_size} bytes")
    return prod(shape) * max(8, kind.itemsize)
