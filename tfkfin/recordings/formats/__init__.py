"""File formats that hold columns: each module in this folder is one, and registers itself as `FORMAT`.

What the columns mean is in `recordings.toml` (`tfkfin.recordings.sheet`) or in the file itself.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfkfin.base import reading, registry
from tfkfin.base.errors import InputError
from tfkfin.base.extras import required
from tfkfin.recordings import checks, recording

ROOM = "recordings/formats"  # where `registry` finds formats
Wanted = Sequence[int | str] | None  # columns of a file, by name, or by number from 1; None: all that may be channels
_PART = re.compile(r"(.+):(\d{1,4})(?:-(\d{1,4}))?")  # "emg:1-8": columns 1 to 8 of emg, a name that holds several
VOLTS = recording.VOLTS | {"µV": 1e-6, "μV": 1e-6, "nV": 1e-9}  # Unicode has two letters mu
UNITS = {unit.lower(): unit for unit in VOLTS} | {  # as devices and programs write them, in small letters
    word + end: unit for word, unit in (("volt", "V"), ("millivolt", "mV"), ("microvolt", "uV"), ("nanovolt", "nV"))
    for end in ("", "s")}


class Annotation(NamedTuple):
    """A marked interval: seconds from the first sample, its text, and the stream of the file that holds it."""

    start_s: float
    stop_s: float
    text: str
    stream: str = ""


@dataclass(frozen=True)
class Table:
    """The content of a file.

    Attributes:
        columns: name, or number from 1 -> values (T,), or (T, C) where one name holds several channels; numbers or
            text.
        rate_hz: the columns' rate, if the file contains it.
        units: the columns' units as the file spells them, if it contains them; of several channels one each.
        events: the file's annotations.
        notes: remarks on how it was read.
        seams: samples at which the recording begins anew, after a gap.
        places: whether annotations are given in samples, not seconds.
        doubt: why it has no rate.
    """

    columns: Mapping[int | str, np.ndarray]
    rate_hz: float | None = None
    units: Mapping[int | str, str | Sequence[str]] = field(default_factory=dict)
    events: Sequence[Annotation] = ()
    notes: Sequence[str] = ()
    seams: Sequence[int] = ()
    places: bool = False
    doubt: str = "does not say its rate"


class Format(NamedTuple):
    """A file format.

    Attributes:
        suffixes: of file names, without the dot.
        read: (path, wanted columns; None: all that may be channels) -> those of them that the file has, in this order.
        names: path -> the names of all columns, for drafts and messages.
        marks: path -> the names of its streams that hold annotations alone, if it has several kinds.
    """

    suffixes: tuple[str, ...]
    read: Callable[[Path, Wanted], Table]
    names: Callable[[Path], Sequence[int | str]]
    marks: Callable[[Path], Sequence[str]] = lambda path: ()


def suffixes() -> tuple[str, ...]:
    """The suffixes of all formats, sorted."""
    return tuple(sorted(suffix for each in _formats() for suffix in each.suffixes))


def of(path: Path) -> Format:
    """The format of a file, by its suffix.

    Raises:
        InputError: none is known, or it is a pipe or something else that is no file.
    """
    reading.size_of(path)
    suffix = path.suffix.lower().lstrip(".")
    if found := [each for each in _formats() if suffix in each.suffixes]:
        return found[0]
    raise InputError(f"{path} has no known suffix: known are {', '.join(suffixes())}")


def read(path: Path, wanted: Wanted) -> Table:
    """The wanted columns of a file; None: all that may be channels.

    Raises:
        InputError: the file is damaged, a package that reads it is missing, or a wanted column is.
    """
    checks.fits(path, 2 * reading.size_of(path))
    parts = {name: found for name in wanted or () if (found := part_of(name))}
    if parts:
        there = set(of(path).names(path))
        parts = {name: found for name, found in parts.items() if name not in there and found[0] in there}
    whole = None if wanted is None else list(dict.fromkeys(parts[n][0] if n in parts else n for n in wanted))
    table = of(path).read(path, whole)
    columns, notes, units = dict(table.columns), list(table.notes), dict(table.units)
    for name, values in table.columns.items():
        if values.ndim == 2 and values.shape[0] < values.shape[1]:
            columns[name] = values.T
            notes += [f"{name} has shape {values.shape}: turned to (samples, columns)"] * (values.shape[0] > 1)
    for name, (whole_name, first, last) in parts.items():
        if columns[whole_name].ndim != 2 or not 1 <= first <= last <= columns[whole_name].shape[1]:
            raise InputError(f"{path}: {whole_name} has shape {columns[whole_name].shape}, so there is no {name}: "
                             "correct recordings.toml")
        columns[name] = columns[whole_name][:, first - 1 : last]
        units |= {name: units[whole_name][first - 1 : last]} if whole_name in units else {}
    table = replace(table, columns={name: columns[name] for name in (columns if wanted is None else wanted)
                                    if name in columns}, notes=notes, units=units)
    if missing := [name for name in wanted or () if name not in table.columns]:
        there = ", ".join(map(str, of(path).names(path)))
        raise InputError(f"{path} has no column {missing[0]}, only {there}: correct recordings.toml")
    return table


def part_of(name: int | str) -> tuple[str, int, int] | None:
    """The name, first and last column that "emg:1-8" or "emg:9" stands for; None for other names."""
    found = _PART.fullmatch(str(name))
    return (found[1], int(found[2]), int(found[3] or found[2])) if found else None


def package(name: str, path: Path) -> Any:
    """A module of the extra `formats`.

    Raises:
        InputError: it is not installed, and `path` needs it.
    """
    return required(name, "formats", f"{path} needs {name.partition('.')[0]}")


def _formats() -> list[Format]:
    return [registry.load(ROOM, name, "FORMAT") for name in registry.names(ROOM)]
