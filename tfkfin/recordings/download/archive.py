"""Unpacks recordings from untrusted Ninapro archives, and records SHA-256 sums of downloaded files."""

import errno
import hashlib
import os
import re
import shutil
import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path, PureWindowsPath

from tfkfin.base.errors import InputError
from tfkfin.base.files import replacing, sweep, write_text
from tfkfin.recordings.transfer import FetchError, room

_RECORDING = re.compile(r"S(\d+)_(?:E(\d)_A1|A1_E(\d))\.mat", re.IGNORECASE)  # not ._S1_E1_A1.mat
_BLOCK = 1 << 20
_LARGEST = 8 << 30  # bytes unpacked: Ninapro's archives have about 0.6 GB
_RATIO = 100  # bytes unpacked per byte: about 1 for recordings, which are compressed already
_SUM = re.compile(r"[0-9a-f]{64} [ *](.+)")
_OWNER = "# Ninapro "
# What zipfile raises on damaged bytes; OSError with EINVAL comes from a seek before the start.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, struct.error, IndexError, OSError)


class Damaged(FetchError):
    """The archive is damaged; downloading it again may help."""


def recordings(names: Iterable[str]) -> dict[tuple[int, int], list[str]]:
    """(subject, exercise) -> those of `names` that are this recording; normally one."""
    found: dict[tuple[int, int], list[str]] = {}
    for name in names:
        path = PureWindowsPath(name)  # accepts / and \
        if (match := _RECORDING.fullmatch(path.name)) and "__MACOSX" not in path.parts:
            found.setdefault((int(match[1]), int(match[2] or match[3])), []).append(name)
    return found


def unpack(archive: Path, subject: int, targets: Mapping[int, Path], pause: Callable[[], None]) -> dict[Path, str]:
    """Checks the CRC of every member of `archive` and writes the wanted recordings.

    Names in the archive only decide which exercise a member is. Files are written to `targets`, atomically, and only
    after the whole archive has been checked.

    Args:
        targets: exercise -> file to write, which must not exist.
        pause: called before each member; raises to stop.

    Returns:
        File written -> its SHA-256.

    Raises:
        Damaged: the archive is cut short, has a wrong CRC or is not a zip archive.
        FetchError: the archive is unsafe, does not fit on the disk, or lacks a recording.
    """
    try:
        with zipfile.ZipFile(archive) as opened, ExitStack() as stack:
            _refuse(opened.infolist(), archive.stat().st_size)
            chosen = _choose(opened.namelist(), subject, targets)
            room(archive.parent, sum(opened.getinfo(name).file_size for name in chosen))
            for path in chosen.values():
                sweep(path)
            partial = {name: stack.enter_context(replacing(path)) for name, path in chosen.items()}
            for info in opened.infolist():
                pause()
                with opened.open(info) as member, open(partial.get(info.filename, os.devnull), "wb") as file:
                    shutil.copyfileobj(member, file, _BLOCK)  # to its end, where zipfile checks the CRC
            sums = {path: sha256(partial[name]) for name, path in chosen.items()}
            if appeared := [path for path in sums if path.exists()]:
                raise FetchError(f"{appeared[0]} appeared meanwhile and is never overwritten")
        return sums
    except _DAMAGE as error:
        if isinstance(error, InputError) or isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise Damaged(f"damaged ({error or type(error).__name__})") from error


def _refuse(members: list[zipfile.ZipInfo], size: int) -> None:
    sizes = [("it", size, sum(info.file_size for info in members))]  # together, as members may share bytes
    for info in members:
        what, path = f"its member {info.orig_filename!r}", PureWindowsPath(info.orig_filename)
        sizes.append((what, info.compress_size, info.file_size))
        for reason, holds in (
                ("leaves the folder", path.anchor or ".." in path.parts),
                ("is a link or a device", stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR)),
                ("is encrypted", info.flag_bits & 1)):
            if holds:
                raise FetchError(f"unsafe archive: {what} {reason}; nothing was unpacked")
    for what, packed, unpacked in sizes:
        if unpacked > min(_LARGEST, _RATIO * max(packed, _BLOCK)):
            raise FetchError(f"unsafe archive: {what} would unpack from {packed} to {unpacked} bytes, more than it can "
                             "hold; nothing was unpacked")


def _choose(names: list[str], subject: int, targets: Mapping[int, Path]) -> dict[str, Path]:
    """Member -> file to write."""
    found, chosen = recordings(names), {}
    for exercise, path in targets.items():
        name, *twins = found.get((subject, exercise), [None])
        if twins:
            raise FetchError(f"the archive has two recordings of exercise {exercise}")
        if not name:
            there = ", ".join(sorted(PureWindowsPath(name).name for names in found.values() for name in names))
            raise FetchError(f"the archive has no exercise {exercise} of subject {subject}, only "
                             f"{there or 'other things'}")
        chosen[name] = path
    return chosen


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Checksums:
    """`SHA256SUMS` of a folder, as `sha256sum --check` reads it. Other lines in it are kept."""

    def __init__(self, folder: Path, database: str):
        self._path, self._lock = folder / "SHA256SUMS", threading.Lock()
        try:
            lines = self._path.read_text("utf-8").splitlines() if self._path.exists() else []
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self._path} cannot be read ({error}): move it away") from error
        owner = next((line.removeprefix(_OWNER).split(",")[0] for line in lines if line.startswith(_OWNER)), None)
        if owner not in (None, database):
            raise InputError(f"{folder} holds {owner}, whose files have the same names as those of {database}: "
                             "choose another folder with --to")
        if owner is None:
            lines.insert(0, f"{_OWNER}{database}, fetched by python -m tfkfin.data download")
        # Keys: a file's name for its line, the line number for any other line.
        self._lines = {match[1] if (match := _SUM.fullmatch(line)) else i: line for i, line in enumerate(lines)}

    def get(self, path: Path) -> str | None:
        return self._lines.get(self._name(path), "")[:64] or None

    def record(self, sums: Mapping[Path, str | None]) -> None:
        """Writes new sums; None removes one."""
        with self._lock:
            for path, digest in sums.items():
                self._lines.pop(name := self._name(path), None)
                if digest:
                    self._lines[name] = f"{digest}  {name}"
            write_text(self._path, "\n".join(self._lines.values()) + "\n")

    def _name(self, path: Path) -> str:
        return path.relative_to(self._path.parent).as_posix()
