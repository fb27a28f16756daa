"""Reads Ninapro recordings (DB1, DB2, DB3, DB5, DB6, DB7, and files with the same layout) without changing them.

Ninapro: Atzori et al., Sci Data 1:140053 (2014). Labels are the corrected ones (`restimulus` with `rerepetition`,
Gijsberts et al. 2014), because the cue (`stimulus`) precedes the movement by most of a second. DB6 (Palermo et al.
2017) was recorded on five days, twice a day: these are ten sessions.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfkfin.base.errors import InputError
from tfkfin.recordings import checks, matfile
from tfkfin.recordings.databases import databases
from tfkfin.recordings.readers import Reader
from tfkfin.recordings.recording import LARGEST_V, OWN_UNIT_HZ, Header, Recording, RecordingFile

_NAME = re.compile(r"S(\d{1,4})_(?:E(\d{1,2})_A1|A1_E(\d{1,2}))\.mat", re.IGNORECASE)
_DB6 = re.compile(r"S(\d{1,4})_D(\d{1,3})_T([12])\.mat", re.IGNORECASE)  # subject, day, 1 (morning) or 2 (afternoon)
_EMPTY = (8, 9)  # columns of DB6 without an electrode, from 0: 16 columns hold 14 electrodes
_EXPECTED = "S{n}_E{k}_A1.mat or S{n}_A1_E{k}.mat, such as S1_E1_A1.mat"
_LABELS = (("restimulus", "rerepetition"), ("stimulus", "repetition"))
_OLD_FORCE = (1, 2, 4, 6, 8, 9, 16, 32, 40)  # `stimulus` of exercise D in the 2017 release of DB2 and DB3


def find(folder: Path, paths: Sequence[Path]) -> list[RecordingFile]:
    """Recordings of all exercises among the files below `folder`, by file names alone."""
    days = [RecordingFile(path, int(m[1]), session=2 * int(m[2]) - 2 + int(m[3])) for path in paths
            if (m := _DB6.fullmatch(path.name))]
    return days + [RecordingFile(path, int(m[1]), int(m[2] or m[3])) for path in paths
                   if (m := _NAME.fullmatch(path.name))]


def header(file: RecordingFile) -> Header:
    """Reads labels and rate only."""
    return _header(file, *_load(Path(file.path), ()))


def read(file: RecordingFile, emg: np.ndarray | None = None) -> Recording:
    """Reads the signal and its labels; see `tfkfin.recordings.readers.read`."""
    path = Path(file.path)
    _, names, data = _load(path, ("emg",) if emg is None else ())
    emg = checks.signal(path, data.pop("emg") if emg is None else emg)
    head = _header(file, emg.shape, names, data)
    if emg.shape[1] > head.num_channels:
        if np.ptp(emg[:, _EMPTY], axis=0).any():
            raise InputError(f"{path}: columns {_EMPTY[0] + 1} and {_EMPTY[1] + 1} of DB6 have no electrode, but a "
                             "signal here: describe the file in a recordings.toml")
        emg = np.delete(emg, _EMPTY, axis=1)
    emg, notes = emg[: len(head.labels)], head.notes
    if np.abs(emg[:: max(1, len(emg) // 100_000)]).max() > LARGEST_V and head.rate_hz > OWN_UNIT_HZ:
        notes += (f"emg exceeds {LARGEST_V:g}: it may not be in volts",)
    return Recording(file, emg, head.labels, head.repetitions, head.rate_hz, notes, head.synthetic)


def _load(path: Path, names: tuple[str, ...]) -> tuple[tuple, tuple[str, str], dict]:
    """The shape of emg, the names of the two label variables, and these, `names` and scalars as stored."""
    there = matfile.shapes(path)
    labels = next((pair for pair in _LABELS if set(pair) <= set(there)), None)
    missing = [name for name, ok in (("emg", "emg" in there), (" with ".join(_LABELS[0]), labels)) if not ok]
    if missing:
        raise InputError(f"{path} has no variable {' and no '.join(missing)}, only {', '.join(there) or 'none'}: "
                         "it is not a Ninapro recording, or not the whole of one")
    if there.get("frequency", (1, 1)) != (1, 1):
        raise InputError(f"{path}: frequency is not a single number, but samples a second are needed")
    scalars = (name for name in ("frequency", "subject", "exercise", "synthetic") if there.get(name) == (1, 1))
    return there["emg"], labels, matfile.load(path, (*names, *labels, *scalars))


def _header(file: RecordingFile, shape: tuple, names: tuple[str, str], data: dict) -> Header:
    """Labels, rate and notes from what was loaded."""
    path, (label, repetition) = Path(file.path), names
    checks.shape(path, shape)
    notes = [] if label == _LABELS[0][0] else [f"no {_LABELS[0][0]} with {_LABELS[0][1]}: cue labels are used"]
    labels, repetitions = (checks.column(path, name, data[name]) for name in (label, repetition))
    lengths = shape[0], len(labels), len(repetitions)
    if len(set(lengths)) > 1:
        notes.append(f"emg, {label}, {repetition} have {lengths[0]}, {lengths[1]}, {lengths[2]} samples: "
                     f"cut to {min(lengths)}")
    labels, repetitions = labels[: min(lengths)], repetitions[: min(lengths)]
    checks.has_movement(path, labels, repetitions)
    scalars = {name: float(value.item()) for name, value in data.items()
               if value.size == 1 and value.dtype.kind in "biuf"}
    notes += [f"the file says {name} {scalars[name]:g}, its name {getattr(file, name)}: the name is used"
              for name in ("subject", "exercise") if name in scalars and scalars[name] != getattr(file, name)]
    rate_hz = _rate(path, shape[1], scalars.get("frequency"), notes)
    labels = _numbering(labels, shape[1], file.exercise, file.all_exercises, notes)
    channels = shape[1]
    if _DB6.fullmatch(path.name) and channels == databases()["db6"].channels + len(_EMPTY):
        channels -= len(_EMPTY)
        notes.append(f"columns {_EMPTY[0] + 1} and {_EMPTY[1] + 1}, which have no electrode, are left out")
    return Header(file, labels, repetitions, rate_hz, channels, tuple(notes), bool(scalars.get("synthetic", 0)))


def _rate(path: Path, channels: int, frequency: float | None, notes: list[str]) -> float:
    if frequency is not None:
        return checks.rate(path, frequency)
    name = "db6" if _DB6.fullmatch(path.name) else {10: "db1", 16: "db5"}.get(channels, "db2")
    notes.append(f"no variable frequency: {databases()[name].rate_hz:g} Hz is assumed, the rate of {name.upper()}")
    return databases()[name].rate_hz


def _numbering(labels: np.ndarray, channels: int, exercise: int, wanted: bool, notes: list[str]) -> np.ndarray:
    """Labels, numbered through all exercises if wanted and not so already; adds a note on their numbers."""
    sizes = databases()["db1" if channels in (10, 16) else "db2"].movements
    offset = sum(sizes[: exercise - 1])
    movements = np.unique(labels[labels > 0])
    span = f"labels {movements[0]} to {movements[-1]}"
    if exercise == 1 or exercise > len(sizes):
        return labels
    if movements[0] > offset:
        notes.append(f"{span} are numbered through all exercises already: kept")
    elif not wanted:
        notes.append(f"{span} are numbered within exercise {exercise}: kept")
    else:
        notes.append(f"{span} are numbered within exercise {exercise}: numbered from {offset + 1} instead")
        rank = set(movements.tolist()) <= set(_OLD_FORCE) and movements[-1] > sizes[exercise - 1]
        local = np.searchsorted(_OLD_FORCE, labels) + 1 if rank else labels
        labels = np.where(labels > 0, local + offset, 0).astype(np.int16)
    return labels


READER = Reader(lambda folder, paths: bool(find(folder, paths)), find, read, header, _EXPECTED)
