"""Fetches Ninapro DB2, DB3, DB7 from their site: one archive a subject, of which it unpacks the exercises asked for.

Behind `python -m tfkfin.data download`. What is good is never fetched again, what is not ours is never touched, and
the same command goes on wherever the last one ended. Data may be used, not passed on, and ask to be cited.
"""

import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tfkfin.console import InputError
from tfkfin.recordings.download.archive import Damaged, Sums, sha256, unpack
from tfkfin.recordings.download.order import SOURCES, Order, Outcome, recordings
from tfkfin.recordings.download.part import Part
from tfkfin.recordings.download.transfer import FetchError, Patience, Stopped, Transfer, room
from tfkfin.recordings.readers import ninapro


class Download:
    """Carries out an order.

    Args:
        tell: called with a line for the user.
        progress: called with an archive's name, bytes new, bytes there, and bytes in all (or None).
    """

    def __init__(self, order: Order, patience: Patience, tell: Callable[[str], None], progress: Callable):
        self._order, self._tell, self._progress = order, tell, progress
        self._facts, self._source = ninapro.DATABASES[order.database], SOURCES[order.database]
        self._transfer = Transfer(patience, tell)
        try:
            order.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{order.folder} cannot be made ({error.strerror}): choose another with --to") from error
        self._sums = Sums(order.folder, order.database)
        self._there = recordings(order.folder)

    def run(self) -> list[Outcome]:
        """Fetches what is missing, and tells what became of each subject, in order.

        Raises:
            InputError: the disk is too small for it, or another download is at work in the folder.
        """
        with _alone(self._order.folder):
            if self._there:
                self._tell(f"checking {len(self._there)} recordings that are there")
            self._check_room()
            done = self._in_parallel()
        for outcome in done.values():
            if isinstance(outcome, BaseException):
                raise outcome
        return [done[subject] for subject in self._order.subjects]

    def _in_parallel(self) -> dict[int, Outcome | BaseException]:
        waiting: queue.SimpleQueue = queue.SimpleQueue()
        done: dict[int, Outcome | BaseException] = {}
        for subject in self._order.subjects:
            waiting.put(subject)

        def work() -> None:
            while True:
                try:
                    subject = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    done[subject] = self._subject(subject)
                except BaseException as error:  # ours to raise, in the thread of the user
                    done[subject] = error
                    self._transfer.stop.set()

        # Daemons: an interrupt does not have to wait for a server that says nothing. Parts bear any end.
        threads = [threading.Thread(target=work, daemon=True) for _ in range(self._order.connections)]
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                threads[0].join(0.1)
                threads[-1].join(0.1)
        except BaseException:
            self._transfer.stop.set()
            for thread in threads:
                thread.join(1)
            raise
        return done

    def _subject(self, subject: int) -> Outcome:
        began, bytes_new = time.monotonic(), [0]

        def progress(new: int, size: int, length: int | None) -> None:
            bytes_new[0] += new
            self._progress(self._archive(subject).name, new, size, length)

        outcome = Outcome(subject, "failed")
        try:
            if self._transfer.stop.is_set():
                raise Stopped
            missing = self._missing(subject)
            state = self._obtain(subject, missing, progress) if missing else "there already"
            self._check(subject)
            self._drop(subject)
            outcome = replace(outcome, state=state)
        except FetchError as error:
            outcome = replace(outcome, failure=str(error))
            if error.everyone:
                self._transfer.stop.set()
        except InputError as error:
            outcome = replace(outcome, failure=str(error))
        except Stopped:
            outcome = replace(outcome, state="not tried", failure="not tried")
        except OSError as error:  # a full disk, no right to write: the same for all
            outcome = replace(outcome, failure=f"{error.strerror or error}: {error.filename or self._order.folder}")
            self._transfer.stop.set()
        outcome = replace(outcome, fetched=bytes_new[0], seconds=time.monotonic() - began)
        if outcome.state in ("fetched", "unpacked", "failed"):
            self._tell(f"subject {subject}: {outcome.failure or outcome.state}, {outcome.fetched / 1e6:.1f} MB in "
                       f"{outcome.seconds:.0f} s")
        return outcome

    def _archive(self, subject: int) -> Path:
        return self._order.folder / self._source.archive.format(subject).split("/")[-1]

    def _target(self, subject: int, exercise: int) -> Path:
        return self._order.folder / self._source.folder.format(subject) / f"S{subject}_E{exercise}_A1.mat"

    def _missing(self, subject: int) -> dict[int, Path]:
        """Exercise -> file to write. Files that are there are read through or compared with their sum."""
        missing = {}
        for exercise in self._order.exercises:
            path = self._there.get((subject, exercise))
            if path is None:
                missing[exercise] = self._target(subject, exercise)
            elif (digest := self._sums.get(path)) is None:
                try:
                    ninapro.read(ninapro.RecordingFile(path, subject, exercise))
                except InputError as error:
                    raise FetchError(f"{error} (it is not ours: move it away, and it will be fetched)") from error
                self._sums.record({path: sha256(path)})
            elif digest != sha256(path):
                self._set_aside(path)
                missing[exercise] = self._target(subject, exercise)
        return missing

    def _obtain(self, subject: int, missing: dict[int, Path], progress: Callable) -> str:
        archive = self._archive(subject)
        if archive.exists() and self._sums.get(archive) not in (None, sha256(archive)):
            self._set_aside(archive)
        if archive.exists():
            try:
                self._unpack(archive, subject, missing)
            except Damaged as error:
                raise FetchError(f"{archive} is {error} and not ours: move it away, and it will be fetched") from error
            return "unpacked"
        part, digest = self._fetch(subject, missing, progress)
        if self._order.keep_zips:
            self._sums.record({archive: digest})
            part.become(archive)
        else:
            part.discard()
        return "fetched"

    def _fetch(self, subject: int, missing: dict[int, Path], progress: Callable) -> tuple[Part, str]:
        """A whole and checked archive, unpacked, and its SHA-256."""
        url = f"{self._order.url.rstrip('/')}/{self._source.archive.format(subject)}"
        for last in (False, True):
            part = self._transfer.fetch(url, self._archive(subject), b"PK\x03\x04", progress)
            digest = sha256(part.path)  # now, so that next to nothing is between unpacking and the final name
            try:
                self._unpack(part.path, subject, missing)
                return part, digest
            except FetchError as error:
                if not error.everyone:
                    part.discard()
                raise
            except Damaged as error:
                part.discard()
                self._tell(f"{self._archive(subject).name}: {error}" + ("" if last else "; fetching it once more"))
                reason = error
        raise FetchError(f"it came {reason} twice from {url}")

    def _unpack(self, archive: Path, subject: int, missing: dict[int, Path]) -> None:
        def go_on() -> None:
            if self._transfer.stop.is_set():
                raise Stopped

        sums = unpack(archive, subject, missing, go_on)
        self._sums.record(sums)
        self._there |= {(subject, exercise): path for exercise, path in missing.items()}

    def _check(self, subject: int) -> None:
        for exercise in self._order.exercises:
            ninapro.header(ninapro.RecordingFile(self._there[subject, exercise], subject, exercise))

    def _drop(self, subject: int) -> None:
        """Removes an archive of which nothing more is needed, if the user said so, and only one that we fetched."""
        archive = self._archive(subject)
        if not self._order.keep_zips and archive.exists() and self._sums.get(archive) == sha256(archive):
            archive.unlink()
            self._sums.record({archive: None})

    def _set_aside(self, path: Path) -> None:
        """Gives a file that is no longer as it was fetched another name, so that nothing is lost."""
        other = next(name for n in range(1, 1000) if not (name := path.with_name(f"{path.name}.changed{n}")).exists())
        os.rename(path, other)
        self._tell(f"{path.name} is not as it was fetched: kept as {other.name}")

    def _check_room(self) -> None:
        """Compares the disk with the first missing archive's size times the number of them: a guess, but an early one.

        The true sizes are compared as each file begins.
        """
        order = self._order
        todo = [subject for subject in order.subjects if not self._archive(subject).exists()
                and any((subject, exercise) not in self._there for exercise in order.exercises)]
        path = self._source.archive.format(todo[0]) if todo else ""
        size = self._transfer.size(f"{order.url.rstrip('/')}/{path}") if todo else None
        if size is None:
            return
        unpacked = len(todo) * size * len(order.exercises) / len(self._facts.movements)
        kept = len(todo) if order.keep_zips else min(len(todo), order.connections)
        begun = sum(Part(self._archive(subject)).size for subject in todo)
        try:
            room(order.folder, int(unpacked + kept * size - begun))
        except FetchError as error:
            raise InputError(f"{error}: fetch fewer --subjects, drop archives with --no-keep-zips, or choose another "
                             "disk with --to") from error


@contextmanager
def _alone(folder: Path):
    """Keeps two downloads from writing to one folder; a lock of the system's, gone with the process."""
    import filelock

    lock = filelock.FileLock(folder / ".tfkfin-download.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise InputError(f"another download is at work in {folder}: wait for it, or choose another folder") from error
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror}): choose another with --to") from error
    try:
        yield
    finally:
        lock.release()
