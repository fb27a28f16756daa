"""`recordings.toml`: the description of a folder of own recordings.

    rate_hz = 1000                     # not needed where files contain it: EDF, BDF
    unit = "mV"                        # V, mV or uV; likewise
    files = "p{subject}_day{session}*.csv"  # {subject} {session} {run} {label} {repetition} stand for numbers, * for
                                       # anything; {label} also for movements' names; "p{subject}/{label}_{run}.npy"
    channels = ["ch1", "ch2"]          # columns by name, or by number from 1; default: all, or all in volts
    label = "movement"                 # column of movements, 0 is rest; default: {label}, or annotations of EDF+
    repetition = "trial"               # column; default: {repetition}, or executions of a movement count as 1, 2...
    labels = "p{subject}_day{session}_labels.csv"   # where label and repetition are columns of other files
    start = "onset"                    # in those files: columns of seconds, where a row is a movement, not a sample
    duration = "length"                # or stop = "end"
    time = "t"                         # column of seconds, which must agree with rate_hz

    [movements]                        # names, which label, {label} and annotations may use instead of numbers
    1 = "fist"

A folder of Ninapro or BIDS files may have a recordings.toml with [movements] alone.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tfkfin.base.errors import InputError
from tfkfin.base.files import read_toml
from tfkfin.recordings import checks, formats, recording

SHEET = "recordings.toml"
_MOST = 4
REST = "rest"
UNITS = recording.VOLTS
Column = Annotated[int, Field(ge=1)] | str
_NUMBERS = ("subject", "session", "run", "repetition")


class Sheet(BaseModel):
    """`recordings.toml`, validated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate_hz: Annotated[float, Field(ge=checks.SLOWEST_HZ, le=checks.FASTEST_HZ)] | None = None
    unit: Literal["V", "mV", "uV"] | None = None
    files: str = ""
    channels: Annotated[tuple[Column, ...], Field(min_length=1)] | None = None
    label: Column | None = None
    repetition: Column | None = None
    labels: str = ""
    start: Column | None = None
    stop: Column | None = None
    duration: Column | None = None
    time: Column | None = None
    movements: dict[Annotated[int, Field(ge=0, le=32767)], str] = {}

    @field_validator("files", "labels")
    @classmethod
    def _known(cls, pattern: str) -> str:
        if pattern and PurePosixPath(pattern).suffix.lower().lstrip(".") not in formats.suffixes():
            raise ValueError(f"it must end in .{', .'.join(formats.suffixes())}")
        if unknown := set(re.findall(r"\{(.*?)\}", pattern)) - {*_NUMBERS, "label"}:
            raise ValueError(f"{{{unknown.pop()}}} is none of {', '.join(f'{{{n}}}' for n in (*_NUMBERS, 'label'))}")
        if len(pattern) > 500 or pattern.count("*") + pattern.count("{label}") > _MOST:
            # Matching time grows by a power for each more.
            raise ValueError(f"it may hold * and {{label}} {_MOST} times in all")
        return pattern

    @model_validator(mode="after")
    def _whole(self) -> "Sheet":
        if not self.files and set(self.model_fields_set) - {"movements"}:
            raise ValueError("files is missing: how are the recordings named?")
        if self.label is not None and "{label}" in self.files:
            raise ValueError("label and {label} both give the movement: keep one")
        if self.labels and self.label is None:
            raise ValueError("labels names files, and label is missing: which of their columns is it?")
        ends = self.stop is not None or self.duration is not None
        if (self.start is not None) != ends or ends and not self.labels:
            raise ValueError("start goes with labels and with stop or duration")
        if len({name.lower() for name in self.movements.values()}) < len(self.movements):
            raise ValueError("two movements have the same name")
        return self

    def number(self, text: str) -> int | None:
        """The number of a movement given by number or name; None: not in [movements]."""
        text = text.strip()
        if text.isdecimal():
            return int(text) if len(text) <= 5 and int(text) <= 32767 else None
        named = {REST: 0} | {name.lower(): number for number, name in self.movements.items()}
        return named.get(text.lower())


def of(folder: Path) -> Sheet:
    """The sheet of a folder.

    Raises:
        InputError: it is not TOML, or has an unknown key or an invalid value.
    """
    path = folder / SHEET
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(64)
def _read(path: Path, _changed: int) -> Sheet:
    try:
        return Sheet(**read_toml(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = f"{first['loc'][0]}: " if first["loc"] else ""
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{path}: {key}{message}. Known keys: {', '.join(Sheet.model_fields)}") from error


def above(path: Path) -> Path | None:
    """The nearest folder above a file that has a sheet."""
    return next((up for up in path.parents if (up / SHEET).is_file()), None)


def matched(sheet: Sheet, pattern: str, folder: Path, paths: Sequence[Path]) -> dict[Path, dict[str, int | str]]:
    """The files below `folder` that match a pattern, in natural order, each with the values of its braces."""
    words = sorted(map(re.escape, (REST, *sheet.movements.values())), key=len, reverse=True)
    groups = {"{%s}" % name: rf"(?P<{name}>\d{{1,4}})" for name in _NUMBERS}
    groups |= {"*": "[^/]{0,100}?", "{label}": rf"(?P<label>\d{{1,5}}|{'|'.join(words)}|[^/]{{1,100}}?)"}
    used: set[str] = set()
    parts = []
    for part in re.split(r"(\{\w+\}|\*)", pattern):
        parts.append(f"(?P={part[1:-1]})" if part in used else groups.get(part, re.escape(part)))
        used |= {part} & groups.keys() - {"*"}
    expression, found = re.compile("".join(parts), re.IGNORECASE), {}
    for path in sorted(paths, key=lambda path: _natural(str(path))):
        tail = "/".join(path.relative_to(folder).parts[-1 - pattern.count("/"):])
        if match := expression.fullmatch(tail):
            found[path] = {name: text if name == "label" else int(text) for name, text in match.groupdict().items()}
    return found


def _natural(text: str) -> list:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]
