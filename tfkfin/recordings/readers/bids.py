"""Reads and writes EMG datasets in the Brain Imaging Data Structure (BIDS, since 1.11), in EDF or BDF.

Movements are the events with a duration, named by `trial_type`, or by `value` where all have one `trial_type`; `label`
in a recordings.toml names another column, and `hold = true` there lets events without a duration last until the next.
Numbers are `value` where each name has its own, else the order of names. Repetitions are the column `repetition` of
`events.tsv`; without it each movement's executions are counted.

`write` gives metadata that recordings do not have (filters, electrodes, mains) as "n/a". The dataset is read back with
the same labels and repetitions, and signals to one step of the format's resolution.

Reference: https://bids-specification.readthedocs.io, "Electromyography"
"""

import csv
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfkfin import __version__
from tfkfin.base import reading
from tfkfin.base.console import unfinished
from tfkfin.base.errors import InputError, refused_as
from tfkfin.base.files import bury, making, partial_of, read_json, replacing, write_json, write_text
from tfkfin.recordings import checks, formats
from tfkfin.recordings import sheet as sheets
from tfkfin.recordings.formats import VOLTS
from tfkfin.recordings.readers import Reader
from tfkfin.recordings.recording import Recording, RecordingFile, from_samples, joined, to_samples

ROOT = "dataset_description.json"
_SIDECARS = ("_events.tsv", "_channels.tsv", "_emg.json", "_events.json", ROOT)
_NO_NAMES = ("onset", "duration", "sample", "response_time", "repetition", "trial", "trial_type", "stim_file", "HED")
_MISSING, _PADDING = ("", "n/a"), "BAD_ACQ_SKIP"  # MNE's annotation of padding samples
_TEXTS = Path(__file__).with_name("bids.json")  # what `write` says in every dataset


def knows(folder: Path, paths: Sequence[Path]) -> bool:
    return folder / ROOT in paths and any(_is_emg(path) for path in paths)


def find(folder: Path, paths: Sequence[Path]) -> list[RecordingFile]:
    """One recording per subject and session; tasks and runs are joined in order."""
    files = {path: entities(path) for path in paths if _is_emg(path) and "derivatives" not in path.parts}
    subjects, sessions = (_numbered({of.get(key, "1") for of in files.values()}) for key in ("sub", "ses"))
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


def read(file: RecordingFile, emg: np.ndarray | None = None) -> Recording:
    """One recording, in volts; see `tfkfin.recordings.readers.read`.

    Raises:
        InputError: a sidecar is missing or contradicts its signals, or no event has a duration.
    """
    notes, root = _label_notes(file), _root(file.path)
    sheet = sheets.of(root) if (root / sheets.SHEET).exists() else sheets.Sheet()
    rows = [_events(path, sheet.hold) for path in file.signals]
    whole = [row for path in sorted(root.rglob("sub-*_emg.*df")) if _is_emg(path)
             for row in _events(path, sheet.hold)]  # of every recording of the dataset
    column = str(sheet.label or _naming(file.path, whole, notes))
    if sheet.label and not all(column in row.more for of in rows for row in of):
        raise InputError(f"{file.path}: its events.tsv has no column {column}, which {root / sheets.SHEET} says is the "
                         "label")
    rows = [[row._replace(name=_text(row, column) or _text(row, "value")) for row in of] for of in rows]
    every = {_text(row, column) or _text(row, "value") for row in whole}
    named = _movements(file, [row for of in rows for row in of], notes, sheet, every)
    parts = [_run(path, of, named, sheet.hold, notes) for path, of in zip(file.signals, rows, strict=True)]
    names = {number: name for name, number in named.items() if number and name not in (str(number),
                                                                                        default_name(number))}
    count = not any(part.repetitions.any() for part in parts)
    return joined(file, parts, emg, notes, count, names, bool(_metadata(file.path).get("Synthetic", False)))


def default_name(movement: int) -> str:
    """The name in a dataset of a movement that has none."""
    return f"movement {movement}" if movement else sheets.REST


def entities(path: Path) -> dict[str, str]:
    """The entities of a BIDS file name: {"sub": "01", "ses": "2", ...}."""
    return dict(part.split("-", 1) for part in path.name.split("_")[:-1] if "-" in part)


class Row(NamedTuple):
    """One row of events.tsv: seconds, name and code (or ""), repetition (or 0), and all columns."""

    start_s: float
    stop_s: float
    name: str
    value: str
    repetition: int
    more: dict[str, str]


def _is_emg(path: Path) -> bool:
    return path.suffix.lower() in (".edf", ".bdf") and path.stem.endswith("_emg") and path.name.startswith("sub-")


def _whole(text: str) -> int:
    """A whole number; raises ValueError where it is none, or has too many digits."""
    if len(text) > 9:
        raise ValueError(f"{text[:20]}... has {len(text)} characters")
    return int(text)


def _real(value: object) -> float | None:
    """A number of a JSON file, which may have any number of digits; None where it is none, or too large."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    return float(value) if known else None


def _numbered(labels: set[str]) -> dict[str, int]:
    """Labels with numbers: the labels themselves where all are different numbers, else by order."""
    own = {int(label) for label in labels if label.isdecimal()}
    numeric = len(own) == len(labels) and min(own, default=0) > 0
    return {label: int(label) if numeric else i + 1 for i, label in enumerate(sorted(labels))}


def _label_notes(file: RecordingFile) -> list[str]:
    """Remarks where BIDS labels differ from the numbers used here."""
    of = entities(file.path)
    return [f"{what} {number} is {key}-{of[key]}" for what, key, number in
            (("subject", "sub", file.subject), ("session", "ses", file.session))
            if key in of and (not of[key].isdecimal() or int(of[key]) != number)]


def _above(path: Path, end: str, paths: Sequence[Path] | None = None) -> list[Path]:
    """Sidecars that apply to a file (BIDS' inheritance): in its folder or above, no entity differs; nearest last."""
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
    """The rows of the nearest .tsv file; none if there is no such file."""
    files = _above(path, end)
    if not files:
        return []
    found, left = [], reading.size_of(files[-1])
    with refused_as(f"{files[-1]} cannot be read"), reading.opened_text(files[-1], "utf-8-sig", "") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if (left := left - len(row)) < -1:  # each cell ends in a tab or a line's end
                raise InputError(f"{files[-1]}: rows have fewer cells than its heading, which has {len(row)}: "
                                 "complete them")
            found.append({key: (value or "").strip() for key, value in row.items() if key})
    return found


def _metadata(path: Path) -> dict:
    """The metadata of a file from every _emg.json that applies; nearer ones take precedence."""
    metadata = {}
    for file in _above(path, "_emg.json"):
        metadata |= read_json(file, "repair it") or {}
    return metadata


def _events(path: Path, hold: bool) -> list[Row]:
    """Events with a duration, without those that mark bad or missing samples; `hold`: others last until the next."""
    found, brief = [], 0
    for row in _table(path, "_events.tsv"):
        with refused_as(f"{path}: its events.tsv has a row that is not numbers", ValueError):
            start, duration = (float("nan" if row.get(key, "") in _MISSING else row[key]) for key in
                               ("onset", "duration"))
            repetition = _whole(row["repetition"]) if row.get("repetition", "") not in _MISSING else 0
        if row.get("trial_type", "").upper().startswith(("BAD", "EDGE", "BOUNDARY")):
            continue
        lasts, value = duration > 0, row.get("value", "")
        brief += not lasts
        if lasts or hold:
            found.append(Row(start, start + duration if lasts else start, "", "" if value in _MISSING else value,
                             repetition, row))
    if not found:
        raise InputError(f"{path} has no events.tsv with events that last: its movements are unknown" + bool(brief) * (
            f". {brief} last no time: hold = true in a {sheets.SHEET} holds each until the next"))
    return found


def _root(path: Path) -> Path:
    return next((up for up in path.parents if (up / ROOT).is_file()), path.parent)


def _text(row: Row, column: str) -> str:
    return "" if row.more.get(column, "") in _MISSING else row.more[column]


def _naming(path: Path, rows: list[Row], notes: list[str]) -> str:
    """The column that names the movements.

    Raises:
        InputError: another column than `trial_type` seems to tell movements apart.
    """
    rows = [row for row in rows if sheets.plain(_text(row, "trial_type")) not in sheets.RESTS[1:]]
    types = {_text(row, "trial_type") for row in rows}
    able = {}
    for column in dict.fromkeys(key for row in rows for key in row.more if key not in _NO_NAMES):
        values = {_text(row, column) for row in rows} - {""}
        if len(types) < len(values) <= len(rows) / 2 and (len(types) == 1 or not any(v.isdecimal() for v in values)):
            able[column] = sorted(values)
    if types == {""} or not able:
        return "trial_type"
    if list(able) == ["value"] and len(types) == 1:
        notes.append(f"every trial_type is {types.pop()!r}: movements are named by value")
        return "value"
    which = "; ".join(f"{column} has {', '.join(values[:4])}" for column, values in able.items())
    raise InputError(f"{path}: which column of events.tsv names the movements? trial_type has "
                     f"{', '.join(sorted(types)[:4])}; {which}. Say label = \"trial_type\" or "
                     f"label = \"{next(iter(able))}\" in a {sheets.SHEET} beside {ROOT}")


def _movements(file: RecordingFile, rows: list[Row], notes: list[str], sheet: sheets.Sheet,
               every: set[str]) -> dict[str, int]:
    """The number of every movement of a recording, by name."""
    codes = {(row.name, row.value) for row in rows}
    whole = all(value.isdecimal() and len(value) < 10 and int(value) < 2**15 for _, value in codes)
    if whole and len(codes) == len({name for name, _ in codes}) == len({value for _, value in codes}):
        return {name: int(value) for name, value in codes}
    names = {row.name for row in rows}
    if sheet.movements:
        known = {name: sheet.number(name) for name in names}
        if unknown := sorted(name for name, number in known.items() if number is None):
            raise InputError(f"{_root(file.path) / sheets.SHEET} does not list the movement {unknown[0]!r} in "
                             "[movements]")
        return known
    if all(name.isdecimal() for name in names):
        with refused_as(f"{file.path}: its events.tsv has a movement that is none"):
            return {name: _whole(name) for name in names}
    notes.append("movements are numbered by the order of their names")
    moved = [name for name in sorted(every | names) if sheet.number(name) != 0]
    return {name: i + 1 for i, name in enumerate(moved)} | {name: 0 for name in (every | names) - set(moved)}


def _run(path: Path, rows: list[Row], named: dict[str, int], hold: bool, notes: list[str]) -> Recording:
    """One file of signals with its labels."""
    rows_of = {row["name"]: row for row in _table(path, "_channels.tsv") if row.get("name")}
    chosen = [name for name, row in rows_of.items() if row.get("type", "").upper() == "EMG"]
    if rows_of and not chosen:
        raise InputError(f"{path}: its channels.tsv lists no channel of type EMG")
    table, metadata = formats.read(path, chosen or None), _metadata(path)
    if table.rate_hz is None:
        raise InputError(f"{path} has no signal in volts")
    for name, unit in ((name, table.units.get(name, "")) for name in table.columns):
        listed = rows_of.get(name, {}).get("units", unit)
        if unit not in VOLTS or listed not in (*VOLTS, *_MISSING):
            raise InputError(f"{path}: {name} is in {unit or 'no unit'}, its channels.tsv says {listed}: not volts")
        if VOLTS.get(listed, VOLTS[unit]) != VOLTS[unit]:  # MNE-BIDS writes V for every file
            notes.append(f"channels.tsv says {listed}, the signal files {unit}: the latter is used")
    rate = metadata.get("SamplingFrequency", table.rate_hz)
    if (real := _real(rate)) is None or not abs(real / table.rate_hz - 1) <= 1e-3:
        raise InputError(f"{path} is at {table.rate_hz:g} Hz, and its emg.json says {str(rate)[:60]}")
    emg = np.column_stack([values * VOLTS[table.units[name]] for name, values in table.columns.items()])
    emg = emg[: _length(table, metadata, len(emg))]
    if bad := [name for name in table.columns if rows_of.get(name, {}).get("status") == "bad"]:
        notes.append(f"channels marked as bad: {', '.join(bad)}")
    emg, rate = checks.signal(path, emg.astype(np.float32)), real
    movements = ((row.start_s, row.stop_s, named[row.name], row.repetition) for row in rows)
    return Recording(RecordingFile(path, 1), emg, *to_samples(path, movements, len(emg), rate, hold), rate)


def _length(table: formats.Table, metadata: dict, length: int) -> int:
    """The number of samples without the padding that completes the last record."""
    rate = table.rate_hz
    padded = [event.start_s for event in table.events if event.text == _PADDING and event.stop_s * rate > length - 1]
    seconds = min(padded, default=metadata.get("RecordingDuration"))  # MNE-BIDS gives the last sample's time
    real = _real(seconds)
    return max(1, round(real * rate)) if real is not None and 0 <= real * rate < length else length


def write(recordings: Iterable[Recording], folder: Path, name: str, kind: str = "bdf") -> list[Path]:
    """Writes a new dataset and returns its signal files.

    Args:
        recordings: each of one subject and session; several of the same become its runs.
        folder: the dataset's; it must not exist, or be empty.
        name: the dataset's.
        kind: "bdf", 24 bits a sample, or "edf", 16 bits.

    Raises:
        InputError: the folder is not empty, or edfio is not installed.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already, and nothing in it is overwritten: choose another folder")
    partial = partial_of(folder)
    unfinished.add(partial)
    with making(folder.parent):
        bury(folder)
        try:
            written = _write_all(recordings, partial, name, kind)
            if folder.is_dir():
                folder.rmdir()
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            unfinished.discard(partial)
    return [folder / path.relative_to(partial) for path in written]


def _write_all(recordings: Iterable[Recording], folder: Path, name: str, kind: str) -> list[Path]:
    runs, written, people, names, texts = Counter(), [], {}, {}, read_json(_TEXTS)
    for recording in recordings:
        people[f"sub-{recording.subject:02d}"] = None
        names |= recording.names
        for begin, end in pairwise([0, *recording.seams, len(recording.labels)]):
            runs[place := (recording.subject, recording.file.session)] += 1
            written.append(_write_run(recording, slice(begin, end), runs[place], folder, kind, texts["emg"]))
    if names:
        texts["events"]["trial_type"]["Levels"] = {names[number]: f"movement {number}" for number in sorted(names)}
    write_json(folder / f"task-{texts['emg']['TaskName']}_events.json", texts["events"])
    write_text(folder / "participants.tsv", "\n".join(["participant_id", *people, ""]))
    write_text(folder / "README.md", texts["readme"].format(name=name, people=len(people), files=len(written),
                                                            version=__version__))
    write_json(folder / "dataset_description.json", texts["dataset"] | {  # last: only with it is the folder a dataset
        "Name": name, "GeneratedBy": [{"Name": "tfkfin", "Version": __version__}]})
    return written


def _write_run(recording: Recording, part: slice, run: int, folder: Path, kind: str, about: dict) -> Path:
    ids = [f"sub-{recording.subject:02d}", f"ses-{recording.file.session:02d}"]
    stem = "_".join([*ids, f"task-{about['TaskName']}", f"run-{run:02d}"])
    beside = folder.joinpath(*ids, "emg")
    beside.mkdir(parents=True, exist_ok=True)
    emg, rate = recording.emg[part], recording.rate_hz
    channels = [f"EMG{c + 1:02d}" for c in range(emg.shape[1])]
    path = beside / f"{stem}_emg.{kind}"
    with replacing(path) as partial:
        _write_signals(partial, emg, rate, channels, kind)
    write_text(beside / f"{stem}_channels.tsv", "name\ttype\tunits\tsampling_frequency\n" + "".join(
        f"{name}\tEMG\tuV\t{rate:.15g}\n" for name in channels))
    rows = (f"{start / rate:.9g}\t{(stop - start) / rate:.9g}\t{recording.names.get(movement, default_name(movement))}"
            f"\t{movement}\t{repetition or 'n/a'}\n" for start, stop, movement, repetition in
            from_samples(recording.labels[part], recording.repetitions[part]) if movement or repetition)
    write_text(beside / f"{stem}_events.tsv", "onset\tduration\ttrial_type\tvalue\trepetition\n" + "".join(rows))
    known = {"SamplingFrequency": rate, "EMGChannelCount": len(channels), "RecordingDuration": len(emg) / rate}
    write_json(beside / f"{stem}_emg.json", about | known | ({"Synthetic": True} if recording.synthetic else {}))
    return path


def _write_signals(path: Path, emg: np.ndarray, rate: float, channels: list[str], kind: str) -> None:
    """Microvolts in records of about a second; the last record is filled up with the last value."""
    edfio = formats.package("edfio", path)
    samples = max(1, round(rate))
    padded = np.pad(emg.astype(np.float64) * 1e6, ((0, -len(emg) % samples), (0, 0)), "edge")
    signal, file = (edfio.BdfSignal, edfio.Bdf) if kind == "bdf" else (edfio.EdfSignal, edfio.Edf)
    signals = [signal(np.ascontiguousarray(padded[:, c]), rate, label=name, physical_dimension="uV")
               for c, name in enumerate(channels)]
    file(signals, data_record_duration=samples / rate).write(path)


READER = Reader(lambda folder, paths: knows(folder, paths) and folder / sheets.SHEET not in paths, find, read,
                expected="sub-1/emg/sub-1_task-move_emg.edf", needs=_SIDECARS)
