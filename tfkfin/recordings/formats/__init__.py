"""Kinds of files that hold columns: one module a kind, which registers itself as `FORMAT` by being here.

What the columns mean a sheet says (`tfkfin.recordings.sheet`), or the file itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tfkfin.base import registry
from tfkfin.base.console import InputError
from tfkfin.recordings import checks, recording

ROOM = "recordings/formats"
VOLTS = recording.VOLTS | {"µV": 1e-6, "μV": 1e-6, "nV": 1e-9}  # two letters mu are in use


@dataclass(frozen=True)
class Event:
    """Something that was marked: seconds from the first sample, and what it is called."""

    start_s: float
    stop_s: float
    text: str


@dataclass(frozen=True)
class Table:
    """What was read of a file.

    Attributes:
        columns: name, or number from 1 -> values (T,), or (T, C) where one name holds several channels. Numbers, or
            text where that is what is there.
        rate_hz: of the columns, where the file says so.
        units: of columns, where the file says so, as it writes them.
        events: what the file marks in time.
    """

    columns: Mapping[int | str, np.ndarray]
    rate_hz: float | None = None
    units: Mapping[int | str, str] = field(default_factory=dict)
    events: Sequence[Event] = ()


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        suffixes: of its files' names, without the dot.
        read: (path, the columns wanted; None: all that may be channels) -> what is there of these, in their order.
        names: path -> the columns that there are, for drafts and for messages.
    """

    suffixes: tuple[str, ...]
    read: Callable[[Path, Sequence[int | str] | None], Table]
    names: Callable[[Path], Sequence[int | str]]


def suffixes() -> tuple[str, ...]:
    """All that are known, sorted."""
    return tuple(sorted(suffix for name in registry.names(ROOM) for suffix in _format(name).suffixes))


def of(path: Path) -> Format:
    """The format of a file, by its name."""
    suffix = path.suffix.lower().lstrip(".")
    for name in registry.names(ROOM):
        if suffix in _format(name).suffixes:
            return _format(name)
    raise InputError(f"{path} is of no known kind: known are {', '.join(suffixes())}")


def read(path: Path, wanted: Sequence[int | str] | None) -> Table:
    """The wanted columns of a file; None: all that may be channels.

    Raises:
        InputError: not a whole file of its kind, an extra that is not installed, or a column that is not there.
    """
    checks.openable(path)
    checks.fits(path, 2 * path.stat().st_size)
    table = of(path).read(path, wanted)
    if missing := [name for name in wanted or () if name not in table.columns]:
        there = ", ".join(map(str, of(path).names(path)))
        raise InputError(f"{path} has no column {missing[0]}, only {there}: correct recordings.toml")
    return table


def needing(extra: str, package: str, path: Path) -> InputError:
    """What is said where the package that reads a file is not installed."""
    return InputError(f'{path} needs {package}: pip install "tfkfin[{extra}]"')


def _format(name: str) -> Format:
    return registry.load(ROOM, name, "FORMAT")
