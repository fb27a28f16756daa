"""Downloads Ninapro DB2, DB3, DB7 from their site: one archive per subject, of which it unpacks the wanted exercises.

Complete files are not downloaded again, files that it did not download are not changed, and the same call continues an
interrupted one. Archives are not trusted, and SHA-256 sums of downloaded files are kept. The data may be used and must
be cited, but not passed on.
"""

import errno
import os
import re
import shutil
import stat
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from tfkfin.base import reading
from tfkfin.base.console import format_numbers
from tfkfin.base.errors import InputError, refused_as
from tfkfin.base.files import alone, replacing, sweep, write_text
from tfkfin.recordings.databases import databases
from tfkfin.recordings.transfer import STALL_S, FetchError, PartialFile, Stopped, Transfer, room, stamp

SITE = "https://ninapro.hevs.ch/files"
SOURCES = ("db2", "db3", "db7")  # what the site gives, of `databases`
_RECORDING = re.compile(r"S(\d+)_(?:E(\d)_A1|A1_E(\d))\.mat", re.IGNORECASE)  # not ._S1_E1_A1.mat
_BLOCK = 1 << 20
_LARGEST = 8 << 30  # bytes unpacked: Ninapro's archives have about 0.6 GB
_RATIO = 100  # bytes unpacked per byte: about 1 for recordings, which are compressed already
_SUM = re.compile(r"[0-9a-f]{64} [ *](.+)")
_OWNER = "# Ninapro "


class Outcome(NamedTuple):
    """The result for one subject."""

    subject: int
    state: str  # fetched, unpacked, there already, failed, not tried
    failure: str
    fetched: int  # bytes, in this run
    seconds: float


@dataclass
class Download:
    """The download of a database, with a field for each option of the command; `run` carries it out.

    Raises:
        InputError: there is no such database, subject or exercise, or an option is out of range.
    """

    database: str
    folder: Path
    subjects: Sequence[int] = ()  # empty: all
    exercises: Sequence[int] = (1,)
    url: str = SITE
    connections: int = 2
    keep_zips: bool = True
    stall_s: float = STALL_S
    tell: Callable[[str], object] = lambda line: None  # called with lines for the user
    progress: Callable[[PartialFile], object] = lambda part: None

    def __post_init__(self):
        if self.database not in SOURCES:
            raise InputError(f"database '{self.database}' cannot be fetched: choose {', '.join(SOURCES)}")
        self.source = databases()[self.database]
        self.subjects, self._packed = self.subjects or range(1, self.source.subjects + 1), len(self.source.movements)
        for what, numbers, last in (("subject", self.subjects, self.source.subjects),
                                    ("exercise", self.exercises, self._packed)):
            if beyond := [number for number in numbers if number > last]:
                raise InputError(f"{self.database} has no {what} {format_numbers(beyond)}: it has 1-{last}")
        if not re.match(r"https?://[^/]", self.url):
            raise InputError(f"'{self.url}' is not an address: write http://... or https://...")
        if not 1 <= self.connections <= 4:
            raise InputError(f"{self.connections} connections: 1 to 4 are allowed, to leave some to others")
        if not 0.1 <= self.stall_s <= 3600:
            raise InputError(f"--stall is {self.stall_s:g}, but 0.1 to 3600 seconds are possible")
        if self.folder.exists() and not self.folder.is_dir() or (self.folder / "recordings.toml").exists():
            raise InputError(f"{self.folder} is a file or holds own recordings: choose another folder with --to")
        self._transfer = Transfer(self.stall_s, self.tell, self.progress)

    def run(self) -> list[Outcome]:
        """Downloads what is missing and returns the result for each subject, in order.

        Raises:
            InputError: the disk is too small, or the folder contains a recording twice or is not writable.
        """
        with (refused_as(f"{self.folder} cannot be made or written to", OSError, remedy=": choose another with --to"),
              alone(self.folder / ".tfkfin-download.lock", f"another download is at work in {self.folder}")):
            return self._run()

    def _run(self) -> list[Outcome]:
        self._sums = Checksums(self.folder, self.database)
        found = recordings(str(path) for path in sorted(self.folder.rglob("*")) if path.is_file())
        if twins := next((paths for paths in found.values() if len(paths) > 1), None):
            raise InputError(f"{twins[0]} and {twins[1]} are the same recording: keep one in the folder")
        self._there = {key: Path(paths[0]) for key, paths in found.items()}
        if self._there:
            self.tell(f"checking {len(self._there)} recordings in the folder")
        self._check_room()
        with ThreadPool(self.connections) as pool:  # of daemon threads: interrupts do not wait for silent servers
            work = pool.map_async(self._subject, self.subjects, chunksize=1)
            try:
                while not work.ready():
                    work.wait(0.1)  # with a limit, as Windows cannot interrupt an unlimited wait
                return work.get()
            finally:
                self._transfer.stop.set()
                work.wait(1)

    def _subject(self, subject: int) -> Outcome:
        began, part, state, failure, fatal = time.monotonic(), self._part(subject), "failed", "", True
        try:
            self._transfer.pause()
            state, fatal = self._obtain(subject, part), False
        except Stopped:
            state = failure = "not tried"
        except (InputError, OSError) as error:  # OSError, such as a full disk: concerns all
            failure, fatal = str(error), getattr(error, "everyone", isinstance(error, OSError))
        finally:
            if fatal:
                self._transfer.stop.set()
        seconds = time.monotonic() - began
        if state in ("fetched", "unpacked", "failed"):
            self.tell(f"subject {subject}: {failure or state}, {part.fetched / 1e6:.1f} MB in {seconds:.0f} s")
        return Outcome(subject, state, failure, part.fetched, seconds)

    def _part(self, subject: int) -> PartialFile:
        """The download of a subject's archive."""
        path = self.source.archive.format(subject)
        return PartialFile(f"{self.url.rstrip('/')}/{path}", self.folder / Path(path).name)

    def _obtain(self, subject: int, part: PartialFile) -> str:
        """Makes sure that a subject's recordings are in the folder; returns the state for its Outcome."""
        from tfkfin.recordings.readers import ninapro

        missing = {}
        for exercise in self.exercises:
            target = self.folder / self.source.folder.format(subject) / f"S{subject}_E{exercise}_A1.mat"
            if not self._is_here(self._there.get((subject, exercise), target)):
                missing[exercise] = self._there[subject, exercise] = target
        state = self._extract(subject, part, missing) if missing else "there already"
        for exercise in self.exercises:
            file = ninapro.RecordingFile(self._there[subject, exercise], subject, exercise)
            if self._sums.get(file.path):
                ninapro.header(file)
                continue
            try:
                ninapro.read(file)
            except InputError as error:
                raise InputError(f"{error} (tfkfin did not download it: move it away, and it will be)") from error
            self._sums.record({file.path: reading.sha256(file.path)})
        archive = part.target
        if not self.keep_zips and archive.exists() and self._sums.get(archive) == reading.sha256(archive):  # ours
            archive.unlink()
            self._sums.record({archive: None})
        return state

    def _is_here(self, path: Path) -> bool:
        """Whether a file exists unchanged, or was not downloaded by us. A changed file is renamed."""
        if not path.exists():
            return False
        if (known := self._sums.get(path)) is None or known == reading.sha256(path):
            return True
        other = next(name for n in range(1, 1000) if not (name := path.with_name(f"{path.name}.changed{n}")).exists())
        path.rename(other)
        self.tell(f"{path.name} has changed since its download: kept as {other.name}")
        return False

    def _extract(self, subject: int, part: PartialFile, missing: dict[int, Path]) -> str:
        """Unpacks the archive in the folder, or downloads it, twice if it is damaged."""
        archive = part.target
        if self._is_here(archive):
            try:
                self._sums.record(unpack(archive, subject, missing, self._transfer.pause))
            except Damaged as error:
                raise InputError(f"{archive} is {error}, and not from tfkfin: move it away, and it will be "
                                 "fetched") from error
            return "unpacked"
        for again in ("; fetching it once more", ""):
            self._transfer.fetch(part, starts=b"PK\x03\x04")
            digest = reading.sha256(part.path)  # before unpacking, so that `finish` can follow it at once
            try:
                self._sums.record(unpack(part.path, subject, missing, self._transfer.pause))
            except FetchError as error:
                if not error.everyone:
                    part.discard()
                if not isinstance(error, Damaged):
                    raise
                self.tell(f"{archive.name}: {error}{again}")
                reason = error
            else:
                if self.keep_zips:
                    self._sums.record({archive: digest})
                    part.finish()
                part.discard()
                return "fetched"
        raise FetchError(f"it came {reason} twice from {part.url}")

    def _check_room(self) -> None:
        """Raises FetchError early if the missing archives will not fit on the disk, by the size of the first one.

        The true size is checked again when each download begins.
        """
        parts = [part for subject in self.subjects if not (part := self._part(subject)).target.exists()
                 and any((subject, exercise) not in self._there for exercise in self.exercises)]
        try:
            size = stamp(parts[0].url)[0] if parts else 0
        except InputError:  # the download will report why
            return
        kept = len(parts) if self.keep_zips else min(len(parts), self.connections)
        unpacked = len(parts) * len(self.exercises) / self._packed
        room(self.folder, size * (kept + unpacked) - sum(part.size for part in parts), ": fetch fewer --subjects, drop "
             "archives with --no-keep-zips, or choose another disk with --to")


class Damaged(FetchError):
    """The archive is damaged; downloading it again may help."""


def recordings(names: Iterable[str]) -> dict[tuple[int, int], list[str]]:
    """(subject, exercise) -> those of `names` that are this recording; normally one."""
    found: dict[tuple[int, int], list[str]] = {}
    for name, path in ((name, PureWindowsPath(name)) for name in names):  # accepts / and \
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
        with reading.opened(archive) as file, zipfile.ZipFile(file) as opened, ExitStack() as stack:
            _refuse(opened.infolist(), archive.stat().st_size)
            chosen = _choose(opened.namelist(), subject, targets)
            room(archive.parent, sum(opened.getinfo(name).file_size for name in chosen))
            for path in chosen.values():
                sweep(path)
            partial = {name: stack.enter_context(replacing(path)) for name, path in chosen.items()}
            for info in opened.infolist():
                pause()
                with opened.open(info) as member, open(partial.get(info.filename, os.devnull), "wb") as target:
                    shutil.copyfileobj(member, target, _BLOCK)  # to its end, where zipfile checks the CRC
            sums = {path: reading.sha256(partial[name]) for name, path in chosen.items()}
            if appeared := [path for path in sums if path.exists()]:
                raise FetchError(f"{appeared[0]} appeared meanwhile and is never overwritten")
        return sums
    except Exception as error:  # on damaged bytes zipfile raises many; OSError with EINVAL: a seek before the start
        of_system = isinstance(error, OSError) and error.errno != errno.EINVAL
        if of_system or isinstance(error, InputError | Stopped | MemoryError):
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
                ("is encrypted", info.flag_bits & 1),
                ("is packed as none of Ninapro's", info.compress_type not in (  # zipfile reads others without bounds
                    zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))):
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


class Checksums:
    """`SHA256SUMS` of a folder, as `sha256sum --check` reads it. Other lines in it are kept."""

    def __init__(self, folder: Path, database: str):
        self._path, self._lock = folder / "SHA256SUMS", threading.Lock()
        with refused_as(f"{self._path} cannot be read", OSError, UnicodeDecodeError, remedy=": move it away"):
            lines = reading.text(self._path).splitlines() if self._path.exists() else []
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
