"""Readers of recordings: each module in this folder reads one layout of folders, and registers itself as `READER`.

`find` asks each reader whether it knows the folder. Each RecordingFile names its reader for `header` and `read`.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfkfin.base import reading, registry
from tfkfin.base.console import format_numbers, warn_once
from tfkfin.base.errors import InputError
from tfkfin.recordings import doubts, formats, remote, sheet
from tfkfin.recordings.recording import Header, Recording, RecordingFile, header_of


class Reader(NamedTuple):
    """A layout of folders.

    Attributes:
        knows: (folder, files at any depth below it) -> whether the folder has this layout.
        find: (folder, files at any depth below it) -> its recordings, by file names alone.
        read: (file, its signal (T, C) if that has been read already, else None) -> the recording.
        header: file -> the recording without its signal, where that takes less time than to read all of it.
        needs: endings of the names of files that a remote folder has to send before recordings can be found.
        expected: names of files, for the message about a folder without recordings.
    """

    knows: Callable[[Path, Sequence[Path]], bool]
    find: Callable[[Path, Sequence[Path]], list[RecordingFile]]
    read: Callable[[RecordingFile, np.ndarray | None], Recording]
    header: Callable[[RecordingFile], Header] | None = None
    expected: str = ""
    needs: tuple[str, ...] = ()


def reader(name: str) -> Reader:
    return registry.load("recordings/readers", name, "READER")


def find(folder: str | Path, subjects: Iterable[int] | None = None, exercise: int | Sequence[int] = 1,
         rate_hz: float = 0.0) -> list[RecordingFile]:
    """Finds recordings at any depth below `folder`, by file names alone, in order of subject and session.

    Args:
        folder: links are followed; `__MACOSX` and `._*` (left by macOS archives) are skipped. Or a URL, `s3://`,
            `az://`, `http://`: the wanted files are fetched into the cache of `tfkfin.recordings.remote`.
        subjects: the wanted subjects; default: all.
        exercise: where formats number exercises, as Ninapro does: the k of S{n}_E{k}_A1.mat. "Exercise B" is 1 in DB2,
            DB3, DB7 and 2 in DB1, DB5. Of several, such as (1, 2, 3), movements are numbered consecutively: 49 in DB2.
        rate_hz: samples a second of files that do not say it, as most of Ninapro; 0: what the files say.

    Raises:
        InputError: no such folder or files, a wanted subject is missing, or two files are of one subject and session.
    """
    if url := remote.url_of(folder):
        tree = remote.Tree(url)
        where, paths, fetch = tree.folder, tree.paths, tree.fetch
    else:
        where = Path(folder)
        if not where.is_dir():
            raise InputError(f"{folder} is {'a file' if where.exists() else 'not there'}: give the folder of "
                             f"{reader('ninapro').expected}")
        paths, fetch = walk(where), lambda paths: None
    others = (name for name in registry.names("recordings/readers") if name != "ninapro")  # which knows every folder
    name = next((name for name in others if reader(name).knows(where, paths)), "ninapro")
    fetch([path for path in paths if path.name.endswith(reader(name).needs)])
    found = [replace(file, rate_hz=rate_hz) for file in _found(url or where, name, where, paths)]
    for line in left_out(where, paths, found):
        warn_once(line)
    files = _chosen(url or where, name, found, subjects, exercise)
    fetch([path for file in files for path in file.paths])
    return files


def known(folder: Path, paths: Sequence[Path]) -> str:
    """The reader that reads a folder without a sheet, "" for none."""
    return next((name for name in registry.names("recordings/readers") if reader(name).knows(folder, paths)), "")


def left_out(folder: Path, paths: Sequence[Path], found: Sequence[RecordingFile]) -> list[str]:
    """A line for each kind of file of which some were found and others were not."""
    used, lines = {path for file in found for path in file.paths}, []
    for suffix in sorted({path.suffix.lower() for file in found for path in file.signals}):
        left = [str(path.relative_to(folder)) for path in paths if path.suffix.lower() == suffix and path not in used]
        if left:
            lines.append(f"{len(left)} {suffix} files in {folder} have other names than the recordings found, and are "
                         f"left out: {', '.join(left[:4])}{' ...' if len(left) > 4 else ''}")
    return lines


def header(file: RecordingFile) -> Header:
    """The recording without its signal, which takes milliseconds instead of a second.

    Errors are those of `read`, except that NaN and Inf in the signal are not detected.
    """
    _check(file)
    own = reader(file.reader)
    return _named(own.header(file) if own.header else header_of(file, own.read(file, None)))


def read(file: RecordingFile, emg: np.ndarray | None = None) -> Recording:
    """Reads the signal and its labels.

    Args:
        file: from `find`.
        emg: the signal (T, C), if it has been read from this file already (see `tfkfin.recordings.matfile.signals`).

    Raises:
        InputError: the file is damaged, a variable is missing, has a wrong shape or is not numeric, the signal has NaN
            or Inf, or the labels have no movement.
    """
    _check(file)
    recording = _named(reader(file.reader).read(file, emg))
    return replace(recording, notes=tuple(dict.fromkeys((*doubts.of(recording), *recording.notes))))


def _check(file: RecordingFile) -> None:
    """Raises InputError where a signal is no file; what is missing its reader says."""
    for path in file.signals:
        with suppress(FileNotFoundError):
            reading.size_of(path)


def by_subject(files: Iterable[RecordingFile]) -> dict[int, tuple[RecordingFile, ...]]:
    """Subject -> its files in order of session."""
    found: dict[int, tuple[RecordingFile, ...]] = {}
    for file in files:
        found[file.subject] = (*found.get(file.subject, ()), file)
    return found


def _named(recording: Any) -> Any:
    """A recording or header; where it has no names of movements, those of the recordings.toml above its file.

    Raises:
        InputError: it has another rate than the user says.
    """
    said = recording.file.rate_hz
    if said and abs(recording.rate_hz / said - 1) > 1e-6:
        raise InputError(f"{recording.file.path} is at {recording.rate_hz:g} Hz, and {said:g} Hz is said: leave out "
                         "source.rate_hz")
    folder = None if recording.names else sheet.above(Path(recording.file.path))
    return recording if folder is None else replace(recording, names=dict(sheet.of(folder).movements))


def _found(where: str | Path, name: str, folder: Path, paths: Sequence[Path]) -> list[RecordingFile]:
    found = reader(name).find(folder, paths)
    if not found:
        zipped = " (it holds .zip archives: unpack them)" if any(p.suffix.lower() == ".zip" for p in paths) else ""
        own = any(path.suffix.lower().lstrip(".") in formats.suffixes() for path in paths)
        what = "is empty" if not paths else "holds no recordings"
        zipped += f"; python -m tfkfin.data sheet {where} drafts a sheet for own recordings" if own else ""
        raise InputError(f"{where} {what}: files named {reader(name).expected} are expected at any depth{zipped}")
    return found


def _chosen(where: str | Path, name: str, found: list[RecordingFile], subjects: Iterable[int] | None,
            exercise: int | Sequence[int]) -> list[RecordingFile]:
    """One file per session and exercise of each wanted subject."""
    wanted, shown = {exercise} if isinstance(exercise, int) else set(exercise), exercise
    if len(wanted) > 1:
        found, shown = [replace(file, all_exercises=True) for file in found], format_numbers(wanted)
    files: dict[tuple[int, int, int], RecordingFile] = {}
    for file in (file for file in found if file.exercise in wanted):
        twin = files.setdefault((file.subject, file.session, file.exercise), file)
        if twin.path != file.path and not (twin.path.exists() and twin.path.samefile(file.path)):
            what = f"exercise {file.exercise}" if name == "ninapro" else f"session {file.session}"
            raise InputError(f"subject {file.subject}, {what} has two files, {twin.path} and {file.path}: "
                             "keep one in the folder")
    if not files:
        there = format_numbers({file.exercise for file in found})
        raise InputError(f"{where} holds no recording of exercise {shown}, only of {there}: choose one of these")
    whole = {s for s, *_ in files if wanted <= {e for of, _, e in files if of == s}}
    missing = sorted(set(subjects or {s for s, *_ in files}) - whole)
    if missing:
        raise InputError(f"{where} has no subject {format_numbers(missing)} for exercise {shown}: "
                         f"it has {format_numbers(whole) or 'none'}")
    return [files[key] for key in sorted(files) if not subjects or key[0] in set(subjects)]


def walk(folder: Path) -> list[Path]:
    """Every file below a folder, without hidden ones and those of macOS."""
    names, seen = [], set()
    for root, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        folders[:] = sorted(name for name in folders if name != "__MACOSX" and real not in seen)
        if real not in seen:  # else a link to a folder above would be followed forever
            names += [Path(root, name) for name in sorted(files) if not name.startswith(".")]
        seen.add(real)
    return names
