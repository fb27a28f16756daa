"""Takes recordings out of a Ninapro archive with distrust, and keeps the SHA-256 sums of what was fetched."""

import errno
import hashlib
import os
import re
import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from tfkfin.console import InputError
from tfkfin.recordings.download.transfer import FetchError, room

_RECORDING = re.compile(r"S(\d+)_(?:E(\d)_A1|A1_E(\d))\.mat", re.IGNORECASE)
_BLOCK = 1 << 20
_LARGEST = 8 << 30  # bytes of a member, and _ALL of them together: the true ones have some 0.2 GB
_ALL = 16 << 30
_RATIO = 100  # bytes out of one byte in. Recordings are compressed already, so theirs is about 1
_SUM = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_OWNER = "# Ninapro "


class Damaged(Exception):
    """The archive is not what its maker packed. Another fetch may help."""


def unpack(archive: Path, subject: int, targets: Mapping[int, Path], go_on: Callable[[], None]) -> dict[Path, str]:
    """Checks the CRC of every member of `archive` and writes the recordings asked for.

    Names in the archive decide nothing but which exercise a member is: files go where `targets` says, each in one
    step, and nothing goes anywhere before the whole archive is checked.

    Args:
        targets: exercise -> file to write, which must not be there.
        go_on: called now and then; raises to stop.

    Returns:
        File written -> its SHA-256.

    Raises:
        Damaged: cut short, a wrong CRC, or not a zip archive.
        FetchError: unsafe (members that leave the folder, links, bombs, encryption), of another subject, without one
            of the exercises, or larger than the disk.
    """
    partial = {exercise: path.with_name(f".{path.name}.tfkfin.part") for exercise, path in targets.items()}
    try:
        with _whole(archive, lambda: zipfile.ZipFile(archive)) as opened:
            _refuse(opened, archive.stat().st_size)
            chosen = _choose(opened, subject, targets)
            for path in targets.values():
                path.parent.mkdir(exist_ok=True)
            room(path.parent, sum(info.file_size for info in chosen.values()))
            sums = {}
            for info in opened.infolist():
                exercise = next((key for key, value in chosen.items() if value is info), None)
                digest = _read(archive, opened, info, partial.get(exercise), go_on)
                if exercise is not None:
                    sums[targets[exercise]] = digest
        for exercise, path in targets.items():
            if path.exists():
                raise FetchError(f"{path} appeared meanwhile and is never overwritten")
            os.replace(partial[exercise], path)
        return sums
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)


def _whole(archive: Path, action: Callable):
    """What `action` gives; whatever zipfile lets escape on damaged bytes is Damaged."""
    try:
        return action()
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, struct.error, IndexError) as bad:
        raise Damaged(f"damaged ({bad or type(bad).__name__})") from bad
    except OSError as error:
        if error.errno != errno.EINVAL:  # a seek to before the start
            raise
        raise Damaged(f"damaged ({error.strerror})") from error


def _refuse(opened: zipfile.ZipFile, size: int) -> None:
    members = opened.infolist()
    for info in members:
        name = info.orig_filename
        kind = stat.S_IFMT(info.external_attr >> 16)
        if re.match(r"[/\\]|[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
            raise FetchError(f"unsafe archive: its member {name!r} leaves the folder; nothing was unpacked")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise FetchError(f"unsafe archive: its member {name!r} is a link or a device; nothing was unpacked")
        if info.flag_bits & 1:
            raise FetchError(f"its member {name!r} is encrypted")
        if info.file_size > min(_LARGEST, _RATIO * max(info.compress_size, _BLOCK)):
            raise FetchError(f"unsafe archive: its member {name!r} would unpack from {info.compress_size} to "
                             f"{info.file_size} bytes; nothing was unpacked")
    # Members that share their bytes are each modest, but not together.
    if sum(info.file_size for info in members) > min(_ALL, _RATIO * max(size, _BLOCK)):
        raise FetchError(f"unsafe archive: {size} bytes would unpack to more than it can hold; nothing was unpacked")


def _choose(opened: zipfile.ZipFile, subject: int, exercises) -> dict[int, zipfile.ZipInfo]:
    chosen, there = {}, []
    for info in opened.infolist():
        folders, name = re.split(r"[/\\]", info.filename)[:-1], re.split(r"[/\\]", info.filename)[-1]
        match = _RECORDING.fullmatch(name)
        if not match or "__MACOSX" in folders:  # ._S1_E1_A1.mat does not match either
            continue
        there.append(name)
        number, exercise = int(match[1]), int(match[2] or match[3])
        if number == subject and exercise in exercises and chosen.setdefault(exercise, info) is not info:
            raise FetchError(f"the archive has two recordings of exercise {exercise}")
    missing = [str(exercise) for exercise in exercises if exercise not in chosen]
    if missing:
        raise FetchError(f"the archive has no exercise {', '.join(missing)} of subject {subject}, "
                         f"only {', '.join(sorted(there)) or 'other things'}")
    return chosen


def _read(archive: Path, opened: zipfile.ZipFile, info, target: Path | None, go_on: Callable) -> str:
    """Reads a member to its end, where zipfile compares the CRC; writes it too if `target` is given. Its SHA-256."""
    digest, size = hashlib.sha256(), 0
    if info.is_dir():
        return ""
    with _whole(archive, lambda: opened.open(info)) as member, open(target or os.devnull, "wb") as file:
        while block := _whole(archive, lambda: member.read(_BLOCK)):
            go_on()
            size += len(block)
            digest.update(block)
            if target:
                file.write(block)
        if target:
            file.flush()
            os.fsync(file.fileno())
    if size != info.file_size:
        raise Damaged(f"damaged ({info.filename} has {size} bytes of {info.file_size})")
    return digest.hexdigest()


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Sums:
    """`SHA256SUMS` of a folder, as `sha256sum --check` reads it. Lines of others in it stay as they are."""

    def __init__(self, folder: Path, database: str):
        self._folder, self._path, self._lock = folder, folder / "SHA256SUMS", threading.Lock()
        try:
            self._lines = self._path.read_text("utf-8").splitlines() if self._path.exists() else []
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self._path} cannot be read ({error}): move it away") from error
        owner = next((line.removeprefix(_OWNER).split(",")[0] for line in self._lines if line.startswith(_OWNER)), None)
        if owner not in (None, database):
            raise InputError(f"{folder} holds {owner}, whose files have the same names as those of {database}: "
                             "choose another folder with --to")
        if owner is None:
            self._lines.insert(0, f"{_OWNER}{database}, fetched by python -m tfkfin.data download")

    def get(self, path: Path) -> str | None:
        name = self._name(path)
        return next((match[1] for line in self._lines if (match := _SUM.fullmatch(line)) and match[2] == name), None)

    def record(self, sums: Mapping[Path, str | None]) -> None:
        """Notes new sums; None takes one out."""
        with self._lock:
            names = {self._name(path): digest for path, digest in sums.items()}
            kept = [line for line in self._lines if not ((match := _SUM.fullmatch(line)) and match[2] in names)]
            self._lines = kept + [f"{digest}  {name}" for name, digest in names.items() if digest]
            fresh = self._path.with_name(".SHA256SUMS.tfkfin.part")
            fresh.write_text("\n".join(self._lines) + "\n", "utf-8")
            os.replace(fresh, self._path)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()
