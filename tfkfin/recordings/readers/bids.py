"""BIDS: folders of EMG as the Brain Imaging Data Structure lays them out since 1.11, in EDF or BDF.

Movements are the events that last: numbered by `value` where every name has one of its own, else by their names'
order. `repetition`, where `events.tsv` has it, is taken as it is; else a movement's executions are counted.
Reference: https://bids-specification.readthedocs.io, "Electromyography"
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfkfin.base.console import InputError
from tfkfin.base.files import read_json
from tfkfin.recordings import checks, events, formats
from tfkfin.recordings import sheet as sheets
from tfkfin.recordings.formats import VOLTS
from tfkfin.recordings.readers import Reader
from tfkfin.recordings.recording import Header, Recording, RecordingFile, header_of

ROOT = "dataset_description.json"
_SIDECARS = ("_events.tsv", "_channels.tsv", "_emg.json", "_events.json", ROOT)
_NOTHING, _FILLED = ("", "n/a"), "BAD_ACQ_SKIP"  # what MNE marks filled-up samples by


def knows(folder: Path, paths: Sequence[Path]) -> bool:
    return folder / ROOT in paths and any(_is_emg(path) for path in paths)


def find(folder: Path, paths: Sequence[Path]) -> list[RecordingFile]:
    """One recording a subject and session; its tasks and runs are joined in order."""
    files = {path: entities(path) for path in paths if _is_emg(path) and "derivatives" not in path.parts}
    subjects, sessions = ({label: i for label, i in _numbered({of.get(key, "1") for of in files.values()})}
                          for key in ("sub", "ses"))
    groups: dict[tuple[int, int], dict[tuple, Path]] = {}
    for path, of in sorted(files.items()):
        own = groups.setdefault((subjects[of["sub"]], sessions[of.get("ses", "1")]), {})
        run = of.get("run", "")
        key = of.get("task", ""), int(run) if run.isdecimal() else 0, run
        if key in own:
            raise InputError(f"{own[key]} and {path} were recorded at once or twice: keep one in the folder")
        own[key] = path
    made = []
    for (subject, session), own in sorted(groups.items()):
        first, *more = (own[key] for key in sorted(own))
        beside = sorted({path for one in (first, *more) for end in _SIDECARS[:3] for path in _above(one, end, paths)})
        made.append(RecordingFile(first, subject, 1, session, "bids", tuple(more), tuple(beside)))
    return made


def header(file: RecordingFile) -> Header:
    """The recording without its signal; the file has to be read for it."""
    return header_of(file, read(file))


def read(file: RecordingFile, emg: np.ndarray | None = None) -> Recording:
    """One recording, in volts; see `tfkfin.recordings.readers.read`.

    Raises:
        InputError: a sidecar is missing or does not fit its signals, or there is no event that lasts.
    """
    notes = _said_of_names(file)
    rows = [_events(path) for path in file.signals]
    named = _movements(file, [row for of in rows for row in of], notes)
    parts = [_run(path, of, named, notes) for path, of in zip(file.signals, rows, strict=True)]
    if len({part.num_channels for part in parts}) > 1 or len({part.rate_hz for part in parts}) > 1:
        raise InputError(f"{file}: runs have {sorted({p.num_channels for p in parts})} channels and rates "
                         f"{sorted({p.rate_hz for p in parts})}, which must be the same")
    seams = tuple(np.cumsum([len(part.labels) for part in parts])[:-1].tolist())
    labels = np.concatenate([part.labels for part in parts])
    repetitions = np.concatenate([part.repetitions for part in parts])
    if not repetitions.any():
        repetitions = events.count_repetitions(labels, seams)
        notes.append("events have no repetition: the executions of each movement are counted")
    checks.has_movement(file.path, labels, repetitions)
    signal = parts[0].emg if len(parts) == 1 else np.concatenate([part.emg for part in parts])
    names = {number: name for name, number in named.items() if number and name not in (str(number), called(number))}
    return Recording(file, signal if emg is None else emg, labels, repetitions, parts[0].rate_hz,
                     tuple(dict.fromkeys(notes)), _synthetic(file), seams, names)


def called(movement: int) -> str:
    """What a movement without a name is called in a dataset."""
    return f"movement {movement}" if movement else sheets.REST


def entities(path: Path) -> dict[str, str]:
    """The parts of a BIDS name: {"sub": "01", "ses": "2", ...}."""
    return dict(part.split("-", 1) for part in path.name.split("_")[:-1] if "-" in part)


@dataclass(frozen=True)
class Row:
    """One event: seconds, what it is called, its code and its repetition, "" where that is not told."""

    start_s: float
    stop_s: float
    name: str
    value: str
    repetition: int


def _is_emg(path: Path) -> bool:
    return path.suffix.lower() in (".edf", ".bdf") and path.stem.endswith("_emg") and path.name.startswith("sub-")


def _numbered(labels: set[str]) -> list[tuple[str, int]]:
    """Labels with their numbers: their own where all are numbers that differ, else by order."""
    own = {int(label) for label in labels if label.isdecimal()}
    ordered = sorted(labels)
    return [(label, int(label) if len(own) == len(labels) and min(own) > 0 else i + 1) for i, label in
            enumerate(ordered)]


def _said_of_names(file: RecordingFile) -> list[str]:
    of = entities(file.path)
    return [f"{what} {number} is {key}-{of[key]}" for what, key, number in
            (("subject", "sub", file.subject), ("session", "ses", file.session))
            if key in of and (not of[key].isdecimal() or int(of[key]) != number)]


def _above(path: Path, end: str, paths: Sequence[Path] | None = None) -> list[Path]:
    """Sidecars of a file by BIDS' inheritance: beside or above it, none of whose entities differ; the nearest last."""
    own, found = entities(path), []
    for folder in path.parents:
        there = sorted(folder.glob(f"*{end}")) if paths is None else [p for p in paths if p.parent == folder]
        applies = [p for p in there if p.name.endswith(end) and entities(p).items() <= own.items() or p.name == end[1:]]
        found = sorted(applies, key=lambda p: len(entities(p))) + found
        at_root = folder / ROOT in paths if paths is not None else (folder / ROOT).is_file()
        if at_root:
            break
    return found


def _table(path: Path, end: str) -> list[dict[str, str]]:
    """The rows of the nearest .tsv; none where there is no such file."""
    files = _above(path, end)
    if not files:
        return []
    try:
        with open(files[-1], encoding="utf-8-sig", newline="") as file:
            return [{key: (value or "").strip() for key, value in row.items() if key} for row in
                    csv.DictReader(file, delimiter="\t")]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{files[-1]} cannot be read: {error}") from error


def _said(path: Path) -> dict:
    """The metadata of a file: every _emg.json that applies, the nearest overruling."""
    said = {}
    for file in _above(path, "_emg.json"):
        said |= read_json(file, "repair it") or {}
    return said


def _events(path: Path) -> list[Row]:
    """Events that last, but those that mark what is not to be used."""
    found = []
    for row in _table(path, "_events.tsv"):
        name, value = row.get("trial_type", ""), row.get("value", "")
        try:
            start, duration = (float("nan" if row.get(key, "") in _NOTHING else row[key]) for key in
                               ("onset", "duration"))
            repetition = int(row["repetition"]) if row.get("repetition", "") not in _NOTHING else 0
        except ValueError as error:
            raise InputError(f"{path}: its events.tsv has a row that is not numbers: {error}") from error
        if not duration > 0 or name.upper().startswith(("BAD", "EDGE", "BOUNDARY")):
            continue
        name, value = ("" if text in _NOTHING else text for text in (name, value))
        found.append(Row(start, start + duration, name or value, value, repetition))
    if not found:
        raise InputError(f"{path} has no events.tsv with events that last: nothing tells its movements")
    return found


def _movements(file: RecordingFile, rows: list[Row], notes: list[str]) -> dict[str, int]:
    """Name -> number of every movement of a recording."""
    codes = {(row.name, row.value) for row in rows}
    whole = all(value.isdecimal() and int(value) < 2**15 for _, value in codes)
    if whole and len(codes) == len({name for name, _ in codes}) == len({value for _, value in codes}):
        return {name: int(value) for name, value in codes}
    names = {row.name for row in rows}
    root = next((up for up in file.path.parents if (up / ROOT).is_file()), file.path.parent)
    if (root / sheets.SHEET).is_file() and (sheet := sheets.of(root)).movements:
        known = {name: sheet.number(name) for name in names}
        if unknown := sorted(name for name, number in known.items() if number is None):
            raise InputError(f"{root / sheets.SHEET} does not list the movement {unknown[0]!r} in [movements]")
        return known
    if all(name.isdecimal() for name in names):
        return {name: int(name) for name in names}
    every = sorted({row.name for path in root.rglob("sub-*_emg.*df") if _is_emg(path) for row in _events(path)})
    notes.append("movements are numbered by the order of their names")
    moved = [name for name in every if name.lower() != sheets.REST]
    return {name: i + 1 for i, name in enumerate(moved)} | {name: 0 for name in every if name not in moved}


def _run(path: Path, rows: list[Row], named: dict[str, int], notes: list[str]) -> Recording:
    """One file of signals with its labels."""
    rows_of = {row["name"]: row for row in _table(path, "_channels.tsv") if row.get("name")}
    chosen = [name for name, row in rows_of.items() if row.get("type", "").upper() == "EMG"]
    if rows_of and not chosen:
        raise InputError(f"{path}: its channels.tsv lists no channel of type EMG")
    table, said = formats.read(path, chosen or None), _said(path)
    if table.rate_hz is None:
        raise InputError(f"{path} has no signal in volts")
    for name, unit in table.units.items():
        told = rows_of.get(name, {}).get("units", unit)
        if unit not in VOLTS or told not in (*VOLTS, *_NOTHING):
            raise InputError(f"{path}: {name} is in {unit or 'no unit'}, its channels.tsv says {told}: not volts")
        if VOLTS.get(told, VOLTS[unit]) != VOLTS[unit]:  # MNE-BIDS says V of every file, whatever its header says
            notes.append(f"channels.tsv says {told}, the files of signals {unit}: theirs is used")
    rate = said.get("SamplingFrequency", table.rate_hz)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not abs(rate / table.rate_hz - 1) <= 1e-3:
        raise InputError(f"{path} is at {table.rate_hz:g} Hz, and its emg.json says {rate}")
    emg = np.column_stack([values * VOLTS[table.units[name]] for name, values in table.columns.items()])
    emg = emg[: _length(table, said, len(emg))]
    if bad := [name for name in table.columns if rows_of.get(name, {}).get("status") == "bad"]:
        notes.append(f"channels marked as bad: {', '.join(bad)}")
    emg, rate = checks.signal(path, emg.astype(np.float32)), float(rate)
    held = ((row.start_s, row.stop_s, named[row.name], row.repetition) for row in rows)
    return Recording(RecordingFile(path, 1), emg, *events.painted(path, held, len(emg), rate), rate)


def _length(table: formats.Table, said: dict, length: int) -> int:
    """Samples that were recorded: files are filled up to whole records."""
    rate = table.rate_hz
    filled = [event.start_s for event in table.events if event.text == _FILLED and event.stop_s * rate > length - 1]
    seconds = min(filled, default=said.get("RecordingDuration"))  # MNE-BIDS gives the last sample's time as a duration
    known = isinstance(seconds, int | float) and 0 <= seconds * rate < length
    return max(1, round(seconds * rate)) if known else length


def _synthetic(file: RecordingFile) -> bool:
    return bool(_said(file.path).get("Synthetic", False))


READER = Reader(lambda folder, paths: knows(folder, paths) and folder / sheets.SHEET not in paths, find, read, header,
                "sub-1/emg/sub-1_task-move_emg.edf", _SIDECARS)
