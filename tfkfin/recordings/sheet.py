"""`recordings.toml`: the description of a folder of own recordings, and `draft`, which guesses one.

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

A folder of Ninapro or BIDS files may have a recordings.toml with [movements] alone. A draft is made from names of
files and columns and from amplitudes; the user has to check it.
"""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tfkfin.base.errors import InputError
from tfkfin.base.files import read_toml
from tfkfin.base.quoted import toml
from tfkfin.recordings import checks, formats, health, recording

SHEET = "recordings.toml"
_MOST = 4
REST = "rest"
UNITS = recording.VOLTS
Column = Annotated[int, Field(ge=1)] | str
_NUMBERS = ("subject", "session", "run", "repetition")
_FIELDS = {  # words that precede a number in a file name
    "subject": r"(s|sub|subj|subject|p|par|participant|person|patient|user|id)",
    "session": r"(s|ses|sess|session|day|d|week|visit)",
    "repetition": r"(rep|repetition|t|trial|r|try)",
    "run": r"(run|block|part|set)",
    "label": r"(m|mov|move|movement|g|gesture|c|class|label|motion|task)",
}
_LABEL = r"(?i).*(label|class|gesture|move|motion|stimulus|target|posture|activity).*|y"
_REPETITION = r"(?i).*(rep|trial).*"
_TIME = r"(?i)(t|time|timestamp|sec|seconds|time ?\[?\(?s.*)"
_LABELS_OF = r"(?i)label|annot|event|marker|target"
_toml = partial(json.dumps, ensure_ascii=False)  # numbers, text and lists are written alike in both
MOST = 100  # different values that a column of labels may have


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


def draft(folder: Path, paths: Sequence[Path]) -> str:
    """The text of a drafted recordings.toml.

    Args:
        folder: the recordings'.
        paths: the files below it.

    Raises:
        InputError: no file has a known format.
    """
    known = [path for path in paths if path.suffix.lower().lstrip(".") in formats.suffixes()]
    if not known:
        raise InputError(f"{folder} holds no files of a known kind: {', '.join(formats.suffixes())}")
    labels = [path for path in known if re.search(_LABELS_OF, path.stem)]
    signals = [path for path in known if path not in labels] or labels
    labels = [] if signals == labels else labels
    pattern, words, left = _pattern(folder, signals)
    lines = [f'files = "{pattern}"' + "   # {subject} {session} {run} {label} {repetition} stand for numbers, * for "
             "anything", *left]
    if labels:
        lines += [f'labels = "{_pattern(folder, labels)[0]}"']
    moving = next((path for path in signals if REST not in path.stem.lower()), signals[0])
    settings, names = _columns(moving, "{label}" in pattern, labels[0] if labels else None)
    names = names or words
    table = ["", "[movements]", *(f'{i + 1} = {toml(name)}' for i, name in enumerate(
        sorted({name for name in names if name.lower() != REST})))] if names else []
    text = "\n".join([f"# A draft for {len(signals)} files: read it through, correct it, then: python -m tfkfin.data "
                      f"info {folder}", *settings, *lines, *table]) + "\n"
    tomllib.loads(text)
    return text


def _pattern(folder: Path, paths: Sequence[Path]) -> tuple[str, list[str], list[str]]:
    """The pattern that most file names follow, the words found in {label}, and remarks on the other files."""
    blank = "" if any("_" in path.stem for path in paths) else " "  # else blanks belong to the names of movements
    split = {path: re.split(rf"([_\-./{blank}])", path.relative_to(folder).as_posix()) for path in paths}
    shape = Counter(tuple(parts[1::2]) for parts in split.values()).most_common(1)[0][0]
    rows = [parts[::2] for parts in split.values() if tuple(parts[1::2]) == shape]
    columns = [sorted({row[i] for row in rows}) for i in range(len(rows[0]))]
    places, words, taken = [], [], set()
    for i, values in enumerate(columns):
        whole = [re.fullmatch(r"([A-Za-z]*)(\d+)", value) for value in values]
        prefixes = {match[1] for match in whole if match} if all(whole) else set()
        if len(prefixes) == 1 and i < len(columns) - 1:
            prefix = prefixes.pop()
            before = columns[i - 1][0] if not prefix and i and len(columns[i - 1]) == 1 else prefix
            field = _field(before, taken, len(values) > 1 or len(rows) == 1)
            places.append(f"{prefix}{{{field}}}" if field else values[0] if len(values) == 1 else "*")
            taken |= {field} - {None}
        elif len(values) == 1:
            places.append(values[0])
        elif "label" not in taken and len(values) <= MOST and not any(re.search(r"\d", value) for value in values):
            places.append("{label}")
            taken |= {"label"}
            words = values
        else:
            places.append("*")
    text = "".join(a + b for a, b in zip(places, [*shape, ""], strict=True))
    others = len(paths) - len(rows)
    remarks = [f"# {others} files have other names and are left out"] if others else []
    if "{subject}" not in text:
        remarks.append("# no {subject} was found in the names: all files are taken to be of one person")
    return text.replace('"', '\\"'), words, remarks


def _field(before: str, taken: set[str], differs: bool) -> str | None:
    """The field that a number stands for: by the word before it, else the first field not yet found."""
    for field, words in _FIELDS.items():
        if field not in taken and re.fullmatch(words, before.lower()):
            return field
    if not differs:
        return None
    return next(field for field in ("subject", "repetition" if "label" in taken else "session", "run", None)
                if field not in taken)


def _columns(path: Path, labelled: bool, labels: Path | None) -> tuple[list[str], list[str]]:
    """Lines for rate, unit, channels and labels, and the names of movements where labels are words."""
    if path.suffix.lower() in (".edf", ".bdf"):
        return _self_describing(path, labelled)
    columns = formats.read(path, formats.of(path).names(path)).columns
    times = [name for name, v in columns.items() if re.fullmatch(_TIME, str(name)) and v.dtype.kind in "iuf"]
    label = None if labelled else _label(columns, times)
    repetition = next((name for name, v in columns.items() if re.fullmatch(_REPETITION, str(name))
                       and v.dtype.kind in "iuf" and name != label), None)
    channels = [name for name, v in columns.items() if name not in (*times, label, repetition)
                and v.dtype.kind in "iuf" and v.ndim < 3 and len(v) > 1]
    names = [] if label is None else _words(columns[label])
    lines = _rate(columns[times[0]].reshape(-1), times[0]) if times else \
        ["# rate_hz = 2000   # samples a second: fill in"]
    lines += _unit([columns[name] for name in channels]) + [f"channels = {_toml(channels)}"]
    if labels is not None:
        beside = formats.read(labels, formats.of(labels).names(labels)).columns
        label = _label(beside, []) or next(iter(beside))
        names = _words(beside[label])
        repetition = next((name for name in beside if re.fullmatch(_REPETITION, str(name))), None)
        for key, words in (("start", r"(?i)(onset|start|begin).*"), ("stop", r"(?i)(stop|end|offset).*"),
                           ("duration", r"(?i)(dur|length).*")):
            lines += [f"{key} = {_toml(name)}" for name in beside if re.fullmatch(words, str(name))][:1]
    lines += [f"label = {_toml(label)}"] if label is not None else [] if labelled else \
        ['# label = "?"   # which column is the movement?']
    return lines + ([f"repetition = {_toml(repetition)}"] if repetition is not None else []), names


def _self_describing(path: Path, labelled: bool) -> tuple[list[str], list[str]]:
    """As `_columns`, for files that contain their rate and unit, and perhaps movements as annotations."""
    table = formats.read(path, None)
    known = sorted({event.text for event in table.events if event.stop_s > event.start_s})
    lines = [f"# rate and unit are in the files: {table.rate_hz or 0:g} Hz, {', '.join(set(table.units.values()))}"]
    if not known and not labelled:
        lines.append('# label = "?"   # there are no annotations: which signal is the label?')
    return lines, known


def _words(values: np.ndarray) -> list[str]:
    """The different values of a column of text; none for a column of numbers."""
    return [] if values.dtype.kind in "biuf" else sorted(set(values.astype(str).tolist()))


def _label(columns: dict, times: list) -> int | str | None:
    """The column most likely to hold movements: by name, else text, else whole numbers that rarely change."""
    named = [name for name in columns if re.fullmatch(_LABEL, str(name))]
    text = [name for name, v in columns.items() if v.dtype.kind not in "biuf" and len(np.unique(v)) <= MOST]
    rare = [name for name, v in columns.items() if name not in times and v.dtype.kind in "biuf" and v.size == len(v)
            and (v == np.round(v)).all() and 1 < len(np.unique(v)) <= MOST
            and np.count_nonzero(np.diff(v.reshape(-1))) < len(v) / 20 and not re.fullmatch(_REPETITION, str(name))]
    return next(iter([*named, *text, *rare]), None)


def _rate(times: np.ndarray, name: int | str) -> list[str]:
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    if 0 < step < 0.1:
        return [f"rate_hz = {round(1 / step, 3):g}   # by column {name}", f"time = {_toml(name)}"]
    return [f"# rate_hz = {1000 / step if step else 2000:g}   # column {name} steps by {step:g}: in ms? fill in"]


def _unit(channels: list[np.ndarray]) -> list[str]:
    """The unit in which these amplitudes are plausible for EMG."""
    if not channels:
        return ['# unit = "mV"   # no channels were found: fill in']
    size = float(np.median([np.median(np.std(np.asarray(v, float), axis=0)) for v in channels]))
    unit = next((unit for unit, volts in UNITS.items() if health.is_likely(size * volts)), None)
    if unit is None:
        return [f'# unit = "V"   # amplitudes of {size:.3g} fit none of V, mV, uV: fill in']
    return [f'unit = "{unit}"   # a guess: amplitudes of {size:.3g} are most likely {unit}']
