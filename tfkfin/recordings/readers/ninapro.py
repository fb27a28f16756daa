"""Reads Ninapro recordings (DB1 to DB8, and files with the same layout) without changing them.

Ninapro: Atzori et al., Sci Data 1:140053 (2014). Labels are the corrected ones (`restimulus` with `rerepetition`,
Gijsberts et al. 2014), because the cue (`stimulus`) precedes the movement by most of a second. DB6 (Palermo et al.
2017) was recorded on five days, twice a day: these are ten sessions. Those of DB8 are its acquisitions, `_A1` to `_A3`.

Most files do not say their rate. Which databases a file may be from follows from its name, its variables, and the files
found with it; where these do not agree on one rate, the user is asked.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from tfkfin.base.errors import InputError
from tfkfin.recordings import checks, matfile
from tfkfin.recordings import sheet as sheets
from tfkfin.recordings.databases import Database, databases, movement_names
from tfkfin.recordings.readers import Reader
from tfkfin.recordings.recording import Header, Recording, RecordingFile

_NAME = re.compile(r"S(\d{1,9})_(?:E(\d{1,2})_A(\d)|A(\d)_E(\d{1,2}))\.mat", re.IGNORECASE)
_DB6 = re.compile(r"S(\d{1,9})_D(\d{1,3})_T([12])\.mat", re.IGNORECASE)  # subject, day, 1 (morning) or 2 (afternoon)
_EMPTY = (8, 9)  # columns of DB6 without an electrode, from 0: 16 columns hold 14 electrodes
_EXPECTED = "S{n}_E{k}_A1.mat or S{n}_A1_E{k}.mat, such as S1_E1_A1.mat"
_SIDES = ("acc", "gyro", "mag", "glove", "inclin")  # other sensors, by which databases differ
_LABELS = (("restimulus", "rerepetition"), ("stimulus", "repetition"))
_OLD_FORCE = (1, 2, 4, 6, 8, 9, 16, 32, 40)  # `stimulus` of exercise D in the 2017 release of DB2 and DB3


def find(folder: Path, paths: Sequence[Path]) -> list[RecordingFile]:
    """Recordings of all exercises among the files below `folder`, by file names alone."""
    found = [RecordingFile(path, int(m[1]), session=2 * int(m[2]) - 2 + int(m[3])) for path in paths
             if (m := _DB6.fullmatch(path.name))]
    found += [RecordingFile(path, int(m[1]), int(m[2] or m[5]), int(m[3] or m[4])) for path in paths
              if (m := _NAME.fullmatch(path.name))]
    siblings = tuple(file.path for file in found)
    return [replace(file, siblings=siblings) for file in found]


def header(file: RecordingFile) -> Header:
    """Reads labels and rate only."""
    return _header(file, *_load(Path(file.path), ()))


def read(file: RecordingFile, emg: np.ndarray | None = None) -> Recording:
    """Reads the signal and its labels; see `tfkfin.recordings.readers.read`."""
    path = Path(file.path)
    there, names, data = _load(path, ("emg",) if emg is None else ())
    emg = checks.signal(path, data.pop("emg") if emg is None else emg)
    head = _header(file, there | {"emg": emg.shape}, names, data)
    if emg.shape[1] > head.num_channels:
        if np.ptp(emg[:, _EMPTY], axis=0).any():
            raise InputError(f"{path}: columns {_EMPTY[0] + 1} and {_EMPTY[1] + 1} of DB6 have no electrode, but a "
                             "signal here: describe the file in a recordings.toml")
        emg = np.delete(emg, _EMPTY, axis=1)
    return Recording(file, emg[: len(head.labels)], head.labels, head.repetitions, head.rate_hz, head.notes,
                     head.synthetic, names=head.names)


def _load(path: Path, names: tuple[str, ...]) -> tuple[dict[str, tuple], tuple[str, str], dict]:
    """The shapes of all variables, the names of the two of labels, and these, `names` and scalars as stored."""
    there = matfile.shapes(path)
    labels = next((pair for pair in _LABELS if set(pair) <= set(there)), None)
    missing = [name for name, ok in (("emg", "emg" in there), (" with ".join(_LABELS[0]), labels)) if not ok]
    if missing:
        raise InputError(f"{path} has no variable {' and no '.join(missing)}, only {', '.join(there) or 'none'}: "
                         "it is not a Ninapro recording, or not the whole of one")
    if there.get("frequency", (1, 1)) != (1, 1):
        raise InputError(f"{path}: frequency is not a single number, but samples a second are needed")
    scalars = (name for name in ("frequency", "subject", "exercise", "synthetic") if there.get(name) == (1, 1))
    return there, labels, matfile.load(path, (*names, *labels, *scalars))


def _header(file: RecordingFile, there: dict[str, tuple], names: tuple[str, str], data: dict) -> Header:
    """Labels, rate and notes from what was loaded."""
    path, (label, repetition), shape = Path(file.path), names, there["emg"]
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
    fitting = _fitting(file, there, len(np.unique(labels[labels > 0])))
    rate_hz = _rate(file, shape[1], scalars.get("frequency"), fitting, notes)
    labels = _numbering(file, labels, fitting, notes)
    channels = shape[1]
    if _DB6.fullmatch(path.name) and channels == databases()["db6"].channels + len(_EMPTY):
        channels -= len(_EMPTY)
        notes.append(f"columns {_EMPTY[0] + 1} and {_EMPTY[1] + 1}, which have no electrode, are left out")
    synthetic = bool(scalars.get("synthetic", 0))
    return Header(file, labels, repetitions, rate_hz, channels, tuple(notes), synthetic,
                  names={} if synthetic else _names(file, np.unique(labels[labels > 0]), fitting))


def _fitting(file: RecordingFile, there: Mapping[str, tuple], movements: int) -> dict[str, Database]:
    """The databases that a file and those found with it may be from, by their names and variables."""
    name, every = Path(file.path).name, databases()
    if _DB6.fullmatch(name):
        return {"db6": every["db6"]}
    found = {name: of for name, of in every.items() if name != "db6" and _fits(of, there)
             and file.exercise <= len(of.movements) and movements <= of.movements[file.exercise - 1]}
    if "db1" in found and (m := _NAME.fullmatch(name)) and m[4]:  # which alone writes S1_A1_E1
        return {"db1": found["db1"]}
    for path in file.siblings if len({of.rate_hz for of in found.values()}) > 1 else ():
        if (m := _NAME.fullmatch(path.name)) and path.is_file():
            exercise, acquisition, shapes = int(m[2] or m[5]), int(m[3] or m[4]), {}
            with suppress(InputError):  # a damaged one tells nothing here, and is refused when it is read
                shapes = matfile.shapes(path)
            found = {name: of for name, of in found.items() if exercise <= len(of.movements)
                     and acquisition <= of.acquisitions and (not shapes or _fits(of, shapes))} or found
    whole = {name: of for name, of in found.items() if of.sides and set(of.sides) <= set(there)}
    return whole if len({of.rate_hz for of in found.values()}) > 1 and whole else found


def _fits(of: Database, there: Mapping[str, tuple]) -> bool:
    """Whether a file with variables of these shapes may be one of a database: variables may lack, but none be other."""
    channels = there.get("emg", (0, 0))[-1]
    return channels in (of.channels, *of.fewer) and all(
        name in of.sides and there[name][-1:] in ((of.sides[name],), (of.sides[name] * channels // of.channels,))
        for name in _SIDES if name in there)


def _rate(file: RecordingFile, channels: int, frequency: float | None, fitting: Mapping[str, Database],
          notes: list[str]) -> float:
    """Samples a second: what the file says, the user, or all databases that it may be from; else the user is asked."""
    folder = sheets.above(Path(file.path))
    asked = file.rate_hz or (sheets.of(folder).rate_hz if folder else None)
    rates = {of.rate_hz for of in fitting.values()}
    if frequency is not None and asked and abs(asked / checks.rate(file.path, frequency) - 1) > 1e-6:
        raise InputError(f"{file.path} is at {frequency:g} Hz, and rate_hz = {asked:g} is given: leave it out")
    if frequency is not None or asked:
        return checks.rate(file.path, asked if frequency is None else frequency)
    if len(rates) == 1:
        notes.append(f"no variable frequency: {min(rates):g} Hz is assumed, the rate of "
                     f"{', '.join(name.upper() for name in fitting)}")
        return rates.pop()
    which = " or ".join(f"{name.upper()}'s at {of.rate_hz:g} Hz" for name, of in fitting.items())
    raise InputError(f"{file.path} does not say its rate: it has no variable frequency, and {channels} channels "
                     f"{f'may be {which}' if which else 'with these variables are those of no database'}. Say it: "
                     f"rate_hz = ... in a {sheets.SHEET} in its folder, or --set source.rate_hz=...")


def _names(file: RecordingFile, labels: np.ndarray, fitting: Mapping[str, Database]) -> dict[int, str]:
    """Names of movements, where all databases that a file may be from agree, all are there, and none is given."""
    folder, sizes = sheets.above(Path(file.path)), {of.movements[file.exercise - 1] for of in fitting.values()}
    known = movement_names(len(labels)) if sizes == {len(labels)} else ()
    firsts = {1, *(1 + sum(of.movements[: file.exercise - 1]) for of in fitting.values())}
    whole = labels[0] in firsts and labels[-1] - labels[0] == len(labels) - 1
    if not known or not whole or folder and sheets.of(folder).movements:
        return {}
    return dict(zip(labels.tolist(), known, strict=True))


def _movements(path: Path) -> int:
    """How many movements a file has; 0: it cannot be read."""
    with suppress(InputError):
        _, (label, _), data = _load(path, ())
        return int(np.sum(np.unique(data[label]) > 0))
    return 0


def _sizes(file: RecordingFile, own: int, fitting: Mapping[str, Database]) -> Sequence[int]:
    """The numbers of movements in the exercises of the database that this person's files agree with best."""
    counts = {file.exercise: own}
    for path in file.siblings:
        if (m := _NAME.fullmatch(path.name)) and int(m[1]) == file.subject and path.is_file():
            counts.setdefault(int(m[2] or m[5]), _movements(path))
    options = [of.movements for of in (fitting or databases()).values() if max(counts) <= len(of.movements)]
    fits = [sizes for sizes in options if all(count <= sizes[k - 1] for k, count in counts.items())]
    exact = [sizes for sizes in fits if all(count == sizes[k - 1] for k, count in counts.items())]
    return next(iter([*exact, *fits, *options]), databases()["db2"].movements)


def _numbering(file: RecordingFile, labels: np.ndarray, fitting: Mapping[str, Database],
               notes: list[str]) -> np.ndarray:
    """Labels, numbered through all exercises if wanted and not so already; adds a note on their numbers."""
    movements, exercise = np.unique(labels[labels > 0]), file.exercise
    if exercise == 1:
        return labels
    sizes = _sizes(file, len(movements), fitting)
    if exercise > len(sizes):
        return labels
    offset = sum(sizes[: exercise - 1])
    span = f"labels {movements[0]} to {movements[-1]}"
    if movements[0] > offset:
        notes.append(f"{span} are numbered through all exercises already: kept")
    elif not file.all_exercises:
        notes.append(f"{span} are numbered within exercise {exercise}: kept")
    else:
        notes.append(f"{span} are numbered within exercise {exercise}: numbered from {offset + 1} instead")
        rank = set(movements.tolist()) <= set(_OLD_FORCE) and movements[-1] > sizes[exercise - 1]
        local = np.searchsorted(_OLD_FORCE, labels) + 1 if rank else labels
        labels = np.where(labels > 0, local + offset, 0).astype(np.int16)
    return labels


READER = Reader(lambda folder, paths: bool(find(folder, paths)), find, read, header, _EXPECTED)
