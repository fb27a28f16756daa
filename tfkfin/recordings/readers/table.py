"""Reads own recordings, files of any format in `tfkfin.recordings.formats`, as a `recordings.toml` describes them.

See `tfkfin.recordings.sheet`, and `python -m tfkfin.data sheet DIR`, which drafts one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tfkfin.base.errors import InputError
from tfkfin.base.quoted import toml
from tfkfin.recordings import checks, doubts, formats
from tfkfin.recordings import sheet as sheets
from tfkfin.recordings.formats import VOLTS, Table
from tfkfin.recordings.readers import Reader, bids, ninapro
from tfkfin.recordings.recording import UNKNOWN, Recording, RecordingFile, joined, to_samples
from tfkfin.recordings.sheet import SHEET, Sheet

_FROM_ZERO = "repetitions in the names of files count from 0: each is one more here"


def find(folder: Path, paths: Sequence[Path]) -> list[RecordingFile]:
    """The recordings below `folder` whose files match the sheet's pattern.

    Files that differ only in {label}, {repetition} or {run} form one recording.
    """
    sheet = sheets.of(folder)
    if not sheet.files:
        if not bids.knows(folder, paths) and {"label", "hold", "rest"} & sheet.model_fields_set:
            raise InputError(f"{folder / SHEET}: files is missing: how are the recordings named?")
        return (bids if bids.knows(folder, paths) else ninapro).find(folder, paths)
    found = sheets.matched(sheet, sheet.files, folder, paths)
    if not found:
        raise InputError(f"{folder / SHEET} says files = \"{sheet.files}\", and {folder} has no such file")
    if unknown := [path for path, fields in found.items()
                   if "label" in fields and sheet.number(fields["label"]) is None]:
        raise InputError(f"{unknown[0]}: {found[unknown[0]]['label']!r} is no movement that {folder / SHEET} lists in "
                         "[movements]")
    people, sessions = (sheets.numbers_of({fields.get(name, 1) for fields in found.values()})
                        for name in ("subject", "session"))
    labels = sheets.matched(sheet, sheet.labels, folder, paths) if sheet.labels else {}
    groups: dict[tuple, dict[tuple, Path]] = {}
    for path, fields in found.items():
        who = people[fields.get("subject", 1)], sessions[fields.get("session", 1)]
        own = groups.setdefault(who, {})
        key = tuple(str(fields.get(name, "")).lower() for name in ("label", "repetition", "run"))
        if key in own:
            raise InputError(f"subject {who[0]}, session {who[1]} has two files, "
                             f"{own[key]} and {path}: keep one, or tell them apart by {{session}} or {{run}} in files")
        own[key] = path
    made, notes = [], _remarks(sheet, list(found.values()))
    for (subject, session), own in groups.items():
        first, *more = own.values()
        beside = [_labels_of(path, found[path], labels) for path in own.values()] if sheet.labels else []
        told = [f"{what} {number} is {value}" for what, number, numbers in (
            ("subject", subject, people), ("session", session, sessions)) for value, n in numbers.items()
            if n == number != value]
        made.append(RecordingFile(first, subject, 1, session, "table", tuple(more), tuple(beside),
                                  notes=(*told, *notes)))
    return made


def _labels_of(path: Path, fields: dict, labels: dict[Path, dict]) -> Path:
    """The file of labels that belongs to a signal file."""
    own = [other for other, its in labels.items()
           if all(fields.get(name, value) == value for name, value in its.items())]
    if len(own) != 1:
        raise InputError(f"{path} has {len(own) or 'no'} files of labels that {SHEET} names: "
                         f"{', '.join(str(other) for other in own[:3]) or 'correct labels'}")
    return own[0]


def read(file: RecordingFile, emg: np.ndarray | None = None) -> Recording:
    """One recording, in volts; see `tfkfin.recordings.readers.read`.

    Raises:
        InputError: there is no sheet above the file, or it has an unknown key, a missing column, invalid values, or a
            unit or rate that contradicts the file.
    """
    folder = sheets.above(Path(file.path))
    if folder is None:
        raise InputError(f"{file.path} has no {SHEET} beside or above it: describe its columns there, or let "
                         "python -m tfkfin.data sheet draft one")
    sheet, notes = sheets.of(folder), list(file.notes)
    fields = sheets.matched(sheet, sheet.files, folder, file.signals)
    if _FROM_ZERO in notes:
        fields = {path: of | {"repetition": of["repetition"] + 1} for path, of in fields.items()}
    beside = file.beside or [None] * len(file.signals)
    parts = [_part(Path(path), sheet, fields[path], other, notes)
             for path, other in zip(file.signals, beside, strict=True)]
    count = sheet.repetition is None and "{repetition}" not in sheet.files
    whole = joined(file, parts, emg, notes, count, sheet.names)
    for c, why in doubts.channels(whole.emg).items():
        if doubts.tells(whole.emg[:, c], whole.labels):
            raise InputError(f"{file.path}: channel {c + 1} of channels {why}, and it tells the movement: it is a "
                             f"label, no electrode. Take it out of channels in {SHEET}")
    return whole


def _remarks(sheet: Sheet, every: Sequence[Mapping]) -> list[str]:
    """What the names of all files leave in doubt: which label is rest, and repetitions that count from 0."""
    moving = [of for of in every if sheet.number(of.get("label", "1")) != 0]
    words = sorted({of["label"] for of in every if of not in moving} | (
        {sheet.movements[0]} if 0 in sheet.movements and sheet.rest is None else set()))
    sure = {word for word in words if sheet.rest is not None or sheets.plain(word) == sheets.REST
            or word.isdecimal() and 0 in sheet.movements}
    return [_FROM_ZERO] * any(of.get("repetition") == 0 for of in moving) + [
        f"{word!r} is taken for rest: if it is a movement, rest = false in {SHEET} counts it as 1"
        if word.isdecimal() or sheets.plain(word) not in sheets.RESTS else f"{word!r} is taken for rest"
        for word in words if word not in sure]


def _part(path: Path, sheet: Sheet, fields: dict, beside: Path | None, notes: list[str]) -> Recording:
    """The recording of one signal file and its file of labels; repetitions are 0 where they are unknown."""
    keys = sheet.label, sheet.repetition, sheet.time, *(sheet.channels or ())
    names = formats.of(path).names(path) if any(isinstance(key, int) for key in keys) else ()
    if clash := sheet.clash(lambda column: names[column - 1] if isinstance(column, int) and column <= len(names)
                            else column):
        raise InputError(f"{path}: {clash}. Correct {SHEET}")
    marks = formats.of(path).marks(path)
    own = [] if sheet.labels else [n for n in (sheet.label, sheet.repetition) if n is not None and n not in marks]
    extra = [*own, *([] if sheet.time is None else [sheet.time])]
    table = formats.read(path, None if sheet.channels is None else [*sheet.channels, *extra])
    notes += table.notes
    if sheet.channels is None:
        taken = {names[name - 1] if isinstance(name, int) and name <= len(names) else name for name in extra}
        channels = [name for name in table.columns if name not in taken]
        more = formats.read(path, [*channels[:1], *extra]).columns if extra else {}
        table = replace(table, columns={**more, **table.columns})
    else:
        channels = list(sheet.channels)
    rate = _rate(path, sheet, table, notes)
    volts = [_volts(path, sheet, table, name) for name in channels]
    if len({len(column) for column in volts}) != 1:
        raise InputError(f"{path}: channels {', '.join(map(str, channels)) or '(none)'} are not equally long")
    checks.shape(path, next((column.shape for column in volts if column.ndim > 2), (2, 1)))
    emg = checks.signal(path, np.column_stack(volts))
    if table.places:
        only = {sheet.label} & {*marks} or marks
        table = replace(table, events=[each._replace(start_s=each.start_s / rate, stop_s=each.stop_s / rate)
                                       for each in table.events if each.stream in only])
        sheet = sheet.model_copy(update={"label": None}) if sheet.label in marks else sheet
    labels, repetitions = _labels(path, sheet, fields, table, beside, len(emg), rate, notes)
    if not len(emg) == len(labels) == len(repetitions):
        raise InputError(f"{path}: channels, label and repetition have {len(emg)}, {len(labels)} and "
                         f"{len(repetitions)} samples, but equally many are needed")
    cued = not (labels == UNKNOWN).all()
    return Recording(RecordingFile(path, 1), emg, np.maximum(labels, 0), repetitions, rate, seams=tuple(table.seams),
                     cued=cued)


def _rate(path: Path, sheet: Sheet, table: Table, notes: list[str]) -> float:
    """The rate, on which sheet, file and a column of times have to agree."""
    rate = sheet.rate_hz or table.rate_hz
    if rate is None:
        raise InputError(f"{path} {table.doubt}: give rate_hz in {SHEET}")
    if table.rate_hz and abs(rate - table.rate_hz) > 1e-6 * rate:
        raise InputError(f"{path} is at {table.rate_hz:g} Hz, and {SHEET} says rate_hz = {rate:g}: leave it out")
    if sheet.time is not None:
        notes += doubts.about_clock(path, sheet.time, checks.numbers(path, "time", table.columns[sheet.time]), rate)
    return rate


def _volts(path: Path, sheet: Sheet, table: Table, name: int | str) -> np.ndarray:
    """A channel (T,), or several (T, C), in volts."""
    values, said = table.columns[name], table.units.get(name)
    units = [sheet.unit or ""] if said is None else [said] if isinstance(said, str) else said
    for unit in () if said is None else units:
        if unit not in VOLTS or VOLTS[unit] != VOLTS.get(sheet.unit or unit):
            raise InputError(f"{path}: {name} is in {unit or 'no unit'}, and " + (
                f"{SHEET} says unit = \"{sheet.unit}\": leave it out" if sheet.unit else
                "not in volts: choose other channels"))
    if units == [""]:
        raise InputError(f"{path} does not say its unit: give unit = \"V\", \"mV\" or \"uV\" in {SHEET}")
    with np.errstate(over="ignore"):  # Inf is refused later
        scale = np.array([VOLTS[unit] for unit in units])
        return np.asarray(checks.numbers(path, f"channel {name}", values) * (scale if len(scale) > 1 else scale[0]),
                          np.float32)


def _labels(path: Path, sheet: Sheet, fields: dict, table: Table, beside: Path | None, length: int, rate: float,
            notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and repetitions (T,) of one file, from its name, its columns, its file of labels, or its annotations."""
    repetition = np.full(length, fields.get("repetition", 0), np.int16)
    if "label" in fields:
        labels = np.full(length, sheet.number(fields["label"]), np.int16)
    elif sheet.label is None:
        if not table.events and formats.of(path).marks(path):  # where nobody was asked for anything
            return np.full(length, UNKNOWN, np.int16), repetition
        if not table.events:
            raise InputError(f"{path} has no annotations, and {SHEET} has no label: which column, or which "
                             "part of the name, is the movement?")
        return _annotated(path, sheet, table, length, rate, repetition, notes)
    else:
        where, columns = (path, table.columns) if beside is None else (beside, formats.read(
            beside, [n for n in (sheet.label, sheet.repetition, sheet.start, sheet.stop, sheet.duration)
                     if n is not None]).columns)
        labels = _numbers(where, sheet, columns[sheet.label])
        if sheet.repetition is not None:
            repetition = checks.column(where, "repetition", columns[sheet.repetition])
        if sheet.start is not None:
            start, stop = (None if name is None else checks.numbers(where, str(name), columns[name])
                           for name in (sheet.start, sheet.stop))
            if sheet.duration is not None:
                stop = start + checks.numbers(where, "duration", columns[sheet.duration])
            of_each = repetition if sheet.repetition is not None else np.full(len(labels), fields.get("repetition", 0))
            rows = zip(start, start if stop is None else stop, labels.tolist(), of_each.tolist(), strict=True)
            return to_samples(where, rows, length, rate, sheet.hold)
        moving = labels > 0
        if sheet.hold:
            labels = labels[np.maximum.accumulate(np.where(moving, np.arange(len(labels)), 0))]
        elif moving.any() and not (moving[1:] & moving[:-1]).any():
            raise InputError(f"{where}: {moving.sum()} marks in column {sheet.label} last one sample each: hold = true "
                             f"in {SHEET} holds each until the next")
    if sheet.repetition is not None and "label" in fields:
        repetition = checks.column(path, "repetition", table.columns[sheet.repetition])
    return labels, repetition


def _numbers(path: Path, sheet: Sheet, values: np.ndarray) -> np.ndarray:
    """A column of movements' numbers or names as numbers (T,) int16."""
    if values.dtype.kind in "biuf":
        unknown = values == UNKNOWN
        known = checks.column(path, "label", sheet.numbered(np.where(unknown, 0, values)))
        return np.where(unknown.reshape(-1), np.int16(UNKNOWN), known)
    words, where = np.unique(values.astype(str), return_inverse=True)
    numbers = [sheet.number(word) for word in words.tolist()]
    if None in numbers:
        word = str(words[numbers.index(None)])
        raise InputError(f"{path}: {word!r} is no movement that {SHEET} lists in [movements]")
    return np.array(numbers, np.int16)[where.reshape(-1)]


def _annotated(path: Path, sheet: Sheet, table: Table, length: int, rate: float, repetition: np.ndarray,
               notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and repetitions from annotations that are names or numbers of movements; the others are noted."""
    known = [(event, sheet.number(event.text)) for event in table.events]
    left = sorted({event.text for event, number in known if number is None})
    if not any(number for _, number in known):
        raise InputError(f"{path}: no annotation is a movement that {SHEET} lists in [movements]: there are "
                         f"{', '.join(left[:8])}")
    if len(streams := sorted({event.stream for event, number in known if number})) > 1:
        raise InputError(f"{path}: streams {', '.join(streams)} have movements: label = {toml(streams[0])} in {SHEET} "
                         "says which")
    if left:
        notes.append(f"annotations that are no movement of {SHEET} are left out: {', '.join(left[:5])}")
    brief = [event.text for event, number in known if number and event.stop_s == event.start_s]
    if brief and not sheet.hold:
        raise InputError(f"{path}: {len(brief)} annotations last no time ({', '.join(dict.fromkeys(brief))}): hold = "
                         f"true in {SHEET} holds each until the next")
    rows = [(event.start_s, event.stop_s, number, int(repetition[0])) for event, number in known
            if number or number == 0 and (sheet.hold or event.stop_s > event.start_s)]
    return to_samples(path, rows, length, rate, sheet.hold)


READER = Reader(lambda folder, paths: folder / SHEET in paths, find, read, expected=f"as {SHEET} says", needs=(SHEET,))
