"""Own recordings: a folder of .csv, .npy or .npz files with a small `recordings.toml` that says what is in them.

    rate_hz = 1000
    unit = "mV"                        # V, mV or uV
    files = "subject{subject}*.csv"    # {subject} and {session} stand for numbers, * for anything
    channels = ["ch1", "ch2"]          # columns by name, or by number from 1 where there is no heading
    label = "movement"                 # column of movements: 0 is rest
    repetition = "trial"               # left out: a movement's runs are counted 1, 2, 3...

In a .npz, names are keys, and one key may hold all channels (T, C).
"""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tfkfin.console import InputError
from tfkfin.recordings import checks
from tfkfin.recordings.readers import Reader
from tfkfin.recordings.recording import Header, Recording, RecordingFile

SHEET = "recordings.toml"
_VOLTS = {"V": 1.0, "mV": 1e-3, "uV": 1e-6}
Column = Annotated[int, Field(ge=1)] | str


class Sheet(BaseModel):
    """`recordings.toml`, checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate_hz: Annotated[float, Field(gt=0)]
    unit: Literal["V", "mV", "uV"]
    files: Annotated[str, Field(pattern=r"^[^/]*\{subject\}[^/]*\.(csv|npy|npz)$")]
    channels: Annotated[tuple[Column, ...], Field(min_length=1)]
    label: Column
    repetition: Column | None = None


def find(folder: Path, paths: Sequence[Path]) -> list[RecordingFile]:
    """Every recording that the sheet's pattern names among the files below `folder`."""
    sheet = _sheet(folder)
    parts = re.split(r"(\{subject\}|\{session\}|\*)", sheet.files)
    written = {"{subject}": r"(?P<subject>\d+)", "{session}": r"(?P<session>\d+)", "*": ".*?"}
    pattern = re.compile("".join(written.get(p, re.escape(p)) for p in parts))
    found = [(path, match.groupdict()) for path in sorted(paths) if (match := pattern.fullmatch(path.name))]
    if not found:
        raise InputError(f"{folder / SHEET} says files = \"{sheet.files}\", and {folder} has no such file")
    return [RecordingFile(path, int(of["subject"]), 1, int(of.get("session", 1))) for path, of in found]


def header(file: RecordingFile) -> Header:
    """The recording without its signal; these formats have to be read for it."""
    whole = read(file)
    return Header(file, whole.labels, whole.repetitions, whole.rate_hz, whole.num_channels, whole.notes, False)


def read(file: RecordingFile, emg: np.ndarray | None = None) -> Recording:
    """One recording, in volts; see `tfkfin.recordings.readers.read`.

    Raises:
        InputError: no sheet above the file, an unknown key in it, a column that is not there, or unfit values.
    """
    path = Path(file.path)
    folder = next((up for up in path.parents if (up / SHEET).is_file()), None)
    if folder is None:
        raise InputError(f"{path} has no {SHEET} beside or above it: say there what its columns are")
    sheet = _sheet(folder)
    table = _npz(path) if path.suffix == ".npz" else _table(path)
    parts = [_column(path, table, name) for name in sheet.channels]
    emg = np.column_stack(parts) * _VOLTS[sheet.unit] if emg is None else emg
    emg = checks.signal(path, np.asarray(emg, np.float32))
    labels = checks.column(path, "label", _column(path, table, sheet.label))
    notes = []
    if sheet.repetition is None:
        repetitions = count_repetitions(labels)
        notes.append("no repetition column: the runs of each movement are counted")
    else:
        repetitions = checks.column(path, "repetition", _column(path, table, sheet.repetition))
    if not len(emg) == len(labels) == len(repetitions):
        raise InputError(f"{path}: channels, label and repetition have {len(emg)}, {len(labels)} and "
                         f"{len(repetitions)} samples, but equally many are needed")
    checks.has_movement(path, labels, repetitions)
    return Recording(file, emg, labels, repetitions, sheet.rate_hz, tuple(notes))


def count_repetitions(labels: np.ndarray) -> np.ndarray:
    """(T,) int16: k during the k-th run of a movement, 0 during rest."""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(labels)) + 1])
    runs, counts, seen = labels[starts], np.zeros(len(starts), np.int16), {}
    for i, movement in enumerate(runs.tolist()):
        if movement:
            counts[i] = seen[movement] = seen.get(movement, 0) + 1
    return np.repeat(counts, np.diff(np.append(starts, len(labels))))


def _sheet(folder: Path) -> Sheet:
    path = folder / SHEET
    try:
        return Sheet(**tomllib.loads(path.read_text("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = first["loc"][0] if first["loc"] else "a value"
        raise InputError(f"{path}: {key}: {first['msg']}. Known keys: {', '.join(Sheet.model_fields)}") from error


def _npz(path: Path) -> dict:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except Exception as error:  # a damaged archive fails in zipfile, zlib or numpy
        raise InputError(f"{path} is not a whole .npz of plain arrays: {error}") from error


def _table(path: Path) -> dict:
    """Columns of a .csv or .npy by number from 1, and by name where a .csv has a heading."""
    names = []
    try:
        if path.suffix == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            with open(path, encoding="utf-8-sig") as file:
                first = file.readline()
            mark = max(",;\t", key=first.count)
            names = [cell.strip().strip('"') for cell in first.split(mark)]
            heading = any(re.search(r"[A-Za-z_]", re.sub(r"(?i)nan|inf|e[-+]?\d", "", cell)) for cell in names)
            names = names if heading else []
            values = np.loadtxt(path, np.float64, delimiter=mark, skiprows=int(heading), ndmin=2, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as numbers: {error}") from error
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise InputError(f"{path} is not a table of numbers (samples, columns)")
    return {i + 1: values[:, i] for i in range(values.shape[1])} | {n: values[:, i] for i, n in enumerate(names)}


def _column(path: Path, table: dict, name: int | str) -> np.ndarray:
    if name not in table:
        raise InputError(f"{path} has no column {name}, only {', '.join(map(str, table))}: correct {SHEET}")
    return table[name]


READER = Reader(lambda folder, paths: folder / SHEET in paths, find, read, header, f"as {SHEET} says", (SHEET,))
