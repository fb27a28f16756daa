"""`recordings.toml`: the description of a folder of own recordings.

    rate_hz = 1000                     # not needed where files contain it: EDF, BDF, XDF
    unit = "mV"                        # V, mV or uV; likewise
    files = "p{subject}_day{session}*.csv"  # {subject} {session} {run} {label} {repetition} stand for numbers, * for
                                       # anything; {label} also for movements' names; "p{subject}/{label}_{run}.npy".
                                       # {subject} and {session} may be words or dates: numbered in order
    channels = ["ch1", "ch2"]          # columns by name, or by number from 1; default: all, or all in volts;
                                       # "emg:1-8" are columns of an array, or channels of a stream of XDF
    label = "movement"                 # column of movements, 0 is rest; default: {label}, or annotations of EDF+ and
                                       # marks of XDF, of which it may name one stream
    repetition = "trial"               # column; default: {repetition}, or executions of a movement count as 1, 2...
    labels = "p{subject}_day{session}_labels.csv"   # where label and repetition are columns of other files
    start = "onset"                    # in those files: columns of seconds, where a row is a movement, not a sample
    duration = "length"                # or stop = "end"
    hold = true                        # annotations and rows that last no time are held until the next
    time = "t"                         # column of s, ms, us or ns, which must agree with rate_hz
    rest = 5                           # the label of rest, a number or a name, beside 0 and the usual names;
                                       # false: none, so that movements are counted from 1 where labels are from 0

    [movements]                        # names, which label, {label} and annotations may use instead of numbers
    1 = "fist"

A folder of Ninapro files may have a recordings.toml with [movements] and rate_hz alone, and one of BIDS with
[movements], label (a column of events.tsv), hold and rest. `tfkfin.recordings.draft` drafts one for own files.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tfkfin.base import reading
from tfkfin.base.errors import InputError
from tfkfin.base.files import read_toml
from tfkfin.recordings import checks, formats, recording

SHEET = "recordings.toml"
_MOST = 4
REST = "rest"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
UNITS = recording.VOLTS
Column = Annotated[int, Field(ge=1)] | str
_NUMBERS = ("subject", "session", "run", "repetition")
_WORDS = "subject", "session"  # which may be words, too
_ALONE = {"movements", "rate_hz", "label", "hold", "rest"}  # keys of a sheet beside Ninapro's or BIDS' files
RESTS = ("", REST, "resting", "at rest", "hand at rest", "relax", "relaxed", "relaxation", "neutral", "idle", "none",
         "no movement", "no motion", "no gesture", "nomovement", "nomotion", "baseline")


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
    hold: bool = False
    time: Column | None = None
    rest: Literal[False] | Annotated[int, Field(ge=-32768, le=32767)] | str | None = None
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
        if not self.files and set(self.model_fields_set) - _ALONE:
            raise ValueError("files is missing: how are the recordings named?")
        if self.label is not None and "{label}" in self.files:
            raise ValueError("label and {label} both give the movement: keep one")
        if self.labels and self.label is None:
            raise ValueError("labels names files, and label is missing: which of their columns is it?")
        ends = self.stop is not None or self.duration is not None
        if (self.start is not None) != (ends or self.hold and bool(self.labels)) or ends and not self.labels:
            raise ValueError("start goes with labels and with stop or duration, or hold = true")
        if self.stop is not None and self.duration is not None:
            raise ValueError("stop and duration both say how long a movement lasts: keep one")
        if self.repetition is not None and "{repetition}" in self.files:
            raise ValueError("repetition and {repetition} both give the repetition: keep one")
        if clash := self.clash(lambda column: column):
            raise ValueError(clash)
        if len({name.lower() for name in self.movements.values()}) < len(self.movements):
            raise ValueError("two movements have the same name")
        return self

    def clash(self, name: Callable[[Column], Column]) -> str:
        """Which column has two meanings, in a message; "" where none has. `name` makes two ways to name one alike."""
        once: dict[Column, str] = {}
        beside = () if self.labels else (("label", self.label), ("repetition", self.repetition))
        for key, column in (*beside, ("time", self.time), *(("channels", each) for each in self.channels or ())):
            for each in () if column is None else _each(name(column)):
                if each in once:
                    return f"{key} has column {column}, which {once[each]} has already" + (
                        ": a label or a clock is no electrode" if key == "channels" != once[each] else "")
                once[each] = key
        return ""

    def number(self, text: str) -> int | None:
        """The number of a movement given by number or name, 0 for rest; None: not in [movements]."""
        word = re.sub(r"^(\d+)\.0+$", r"\1", plain(text))
        if word.isdecimal():
            return self.numbered(int(word)) if len(word) <= 5 and int(word) <= 32767 else None
        named = {plain(name): number for number, name in self.movements.items()}
        if word in named:
            return self.numbered(named[word])
        return 0 if word in RESTS or word == plain(str(self.rest)) else None

    def numbered(self, labels: Any) -> Any:
        """The numbers of movements here, by their labels in the files: one, or an array."""
        if self.rest is False:
            return labels + 1
        own = [number for number, name in self.movements.items() if plain(name) == plain(str(self.rest))]
        return labels * (labels != (own[0] if own else self.rest if isinstance(self.rest, int) else 0))

    @property
    def names(self) -> dict[int, str]:
        """The names of movements, by their number here."""
        return {number: name for label, name in self.movements.items() if (number := self.numbered(label)) or not label}


def plain(name: str) -> str:
    """A movement's name without what files and people write differently: case, blanks, _ and -."""
    return re.sub(r"[\s_-]+", " ", name).strip().lower()


def _each(column: Column) -> Iterator[Column]:
    """The columns of a name such as "emg:1-8"."""
    part = formats.part_of(column)
    yield from [f"{part[0]}:{i}" for i in range(part[1], part[2] + 1)] if part else [column]


def of(folder: Path) -> Sheet:
    """The sheet of a folder.

    Raises:
        InputError: it is not TOML, or has an unknown key or an invalid value.
    """
    path = folder / SHEET
    reading.size_of(path)
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(64)
def _read(path: Path, _changed: int) -> Sheet:
    try:
        found = read_toml(path)
        unknown = [key for key in found if key not in Sheet.model_fields][:1]  # pydantic explains each
        return Sheet(**{key: value for key, value in found.items() if key in Sheet.model_fields or key in unknown})
    except ValidationError as error:
        first = error.errors()[0]
        key = f"{first['loc'][0]}: " if first["loc"] else ""
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{path}: {key}{message}. Known keys: {', '.join(Sheet.model_fields)}") from error


def above(path: Path) -> Path | None:
    """The nearest folder above a file that has a sheet."""
    return next((up for up in path.parents if (up / SHEET).exists()), None)


def matched(sheet: Sheet, pattern: str, folder: Path, paths: Sequence[Path]) -> dict[Path, dict[str, int | str]]:
    """The files below `folder` that match a pattern, in natural order, each with the values of its braces.

    People and sessions are numbers, or words where no file matches with numbers.
    """
    tails = {path: "/".join(path.relative_to(folder).parts[-1 - pattern.count("/"):])
             for path in sorted(paths, key=lambda path: natural(str(path)))}
    own = [name for name in _WORDS if "{%s}" % name in pattern]
    few = pattern.count("*") + pattern.count("{label}") <= _MOST - 2  # each word multiplies the time
    for words in ((), *((name,) for name in own), own) if few else ((),):
        expression, found = _expression(sheet, pattern, words), {}
        for path, tail in tails.items():
            if match := expression.fullmatch(tail):
                found[path] = {name: text if name == "label" or name in words else int(text)
                               for name, text in match.groupdict().items()}
        if found:
            break
    return found


def _expression(sheet: Sheet, pattern: str, words: Sequence[str]) -> re.Pattern:
    names = sorted({re.sub(r"\\?[ _-]", "[ _-]", re.escape(name)) for name in (*RESTS[1:], *sheet.movements.values())},
                   key=len, reverse=True)
    groups = {"{%s}" % name: rf"(?P<{name}>\d{{1,9}}{'|[^/]{1,100}?' if name in words else ''})" for name in _NUMBERS}
    groups |= {"*": "[^/]{0,100}?", "{label}": rf"(?P<label>\d{{1,5}}|{'|'.join(names)}|[^/]{{1,100}}?)",
               "{repetition}": r"(?P<repetition>\d{1,4})"}
    used: set[str] = set()
    parts = []
    for part in re.split(r"(\{\w+\}|\*)", pattern):
        parts.append(f"(?P={part[1:-1]})" if part in used else groups.get(part, re.escape(part)))
        used |= {part} & groups.keys() - {"*"}
    return re.compile("".join(parts), re.IGNORECASE)


def numbers_of(values: set[int | str]) -> dict[int | str, int]:
    """Numbers of people or sessions: their own, or, of words and dates, by order."""
    own = [value for value in values if isinstance(value, int) and not re.fullmatch(r"(19|20)\d{6}", str(value))]
    days = [plain(str(value))[:3] in DAYS for value in values]
    order = sorted(values, key=(lambda value: DAYS.index(plain(str(value))[:3])) if all(days) else
                   lambda value: natural(str(value)))
    return {value: int(value) if len(own) == len(values) else i + 1 for i, value in enumerate(order)}


def natural(text: str) -> list:
    """A key that sorts numbers in text by size."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]
