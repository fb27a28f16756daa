"""Downloads Ninapro DB2, DB3, DB7 from their site: one archive per subject, of which it unpacks the wanted exercises.

Complete files are not downloaded again, files that it did not download are not changed, and the same call continues an
interrupted one. The data may be used and must be cited, but not passed on.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

from tfkfin.base.console import format_numbers
from tfkfin.base.errors import InputError
from tfkfin.recordings.download.archive import Checksums, Damaged, recordings, sha256, unpack
from tfkfin.recordings.transfer import STALL_S, FetchError, PartialFile, Stopped, Transfer, room

SITE = "https://ninapro.hevs.ch/files"
_ATZORI = ("M. Atzori et al., Electromyography data for non-invasive naturally-controlled robotic hand prostheses, "
           "Scientific Data 1:140053 (2014), doi 10.1038/sdata.2014.53")
_GIJSBERTS = ("A. Gijsberts et al., Movement error rate for evaluation of machine learning methods for sEMG-based hand "
              "movement classification, IEEE TNSRE 22(4):735-744 (2014), doi 10.1109/TNSRE.2014.2303394 (the labels)")
_KRASOULIS = ("A. Krasoulis et al., Improved prosthetic hand control with concurrent use of myoelectric and inertial "
              "measurements, J. NeuroEng. Rehabil. 14:71 (2017), doi 10.1186/s12984-017-0284-4")


class Origin(NamedTuple):
    """A database on the site: its archives, papers to cite, and options to train on it."""

    archive: str
    folder: str  # in its archives, to which they are unpacked
    cite: tuple[str, ...]
    train: str


SOURCES = {
    "db2": Origin("DB2_Preproc/DB2_s{}.zip", "DB2_s{}", (_ATZORI, _GIJSBERTS), "--pipeline db2_within"),
    "db3": Origin("db3_Preproc/s{}_0.zip", "DB3_s{}", (_ATZORI, _GIJSBERTS), "--pipeline db3_amputee"),
    "db7": Origin("DB7_Preproc/Subject_{}.zip", "Subject_{}", (_KRASOULIS, _ATZORI), "--pipeline own "
                  "--set split.train_repetitions=1,3,4,6 --set split.test_repetitions=2,5"),
}


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
    subjects: tuple[int, ...] = ()  # empty: all
    exercises: tuple[int, ...] = (1,)
    url: str = SITE
    connections: int = 2
    keep_zips: bool = True
    stall_s: float = STALL_S
    tell: Callable[[str], object] = lambda line: None  # called with lines for the user
    progress: Callable[[PartialFile], object] = lambda part: None

    def __post_init__(self):
        from tfkfin.recordings.readers import ninapro

        if self.database not in SOURCES:
            raise InputError(f"database '{self.database}' cannot be fetched: choose {', '.join(SOURCES)}")
        self._source, facts = SOURCES[self.database], ninapro.DATABASES[self.database]
        self.subjects, self._packed = self.subjects or tuple(range(1, facts.subjects + 1)), len(facts.movements)
        for what, numbers, last in (("subject", self.subjects, facts.subjects),
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
        import filelock

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self.folder / ".tfkfin-download.lock", timeout=0):  # released when the process ends
                return self._run()
        except filelock.Timeout as error:
            raise InputError(f"another download is at work in {self.folder}: wait for it, or choose another") from error
        except OSError as error:
            raise InputError(f"{self.folder} cannot be made or written to ({error.strerror or error}): choose another "
                             "with --to") from error

    def _run(self) -> list[Outcome]:
        self._sums, self._there = Checksums(self.folder, self.database), {}
        paths = (str(path) for path in sorted(self.folder.rglob("*")) if path.is_file())
        for key, (path, *twins) in recordings(paths).items():
            if twins:
                raise InputError(f"{path} and {twins[0]} are the same recording: keep one in the folder")
            self._there[key] = Path(path)
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
        outcome = Outcome(subject, state, failure, part.fetched, time.monotonic() - began)
        if state in ("fetched", "unpacked", "failed"):
            self.tell(f"subject {subject}: {failure or state}, {outcome.fetched / 1e6:.1f} MB in "
                      f"{outcome.seconds:.0f} s")
        return outcome

    def _part(self, subject: int) -> PartialFile:
        """The download of a subject's archive."""
        path = self._source.archive.format(subject)
        return PartialFile(f"{self.url.rstrip('/')}/{path}", self.folder / Path(path).name)

    def _obtain(self, subject: int, part: PartialFile) -> str:
        """Makes sure that a subject's recordings are in the folder; returns the state for its Outcome."""
        from tfkfin.recordings.readers import ninapro

        missing = {}
        for exercise in self.exercises:
            target = self.folder / self._source.folder.format(subject) / f"S{subject}_E{exercise}_A1.mat"
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
            self._sums.record({file.path: sha256(file.path)})
        archive = part.target
        if not self.keep_zips and archive.exists() and self._sums.get(archive) == sha256(archive):  # downloaded by us
            archive.unlink()
            self._sums.record({archive: None})
        return state

    def _is_here(self, path: Path) -> bool:
        """Whether a file exists unchanged, or was not downloaded by us. A changed file is renamed."""
        if not path.exists():
            return False
        if (known := self._sums.get(path)) is None or known == sha256(path):
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
            digest = sha256(part.path)  # before unpacking, so that `finish` can follow it at once
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
        from tfkfin.recordings.webroot import stamp

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
