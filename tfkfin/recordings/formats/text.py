"""Text: .csv, .tsv and .txt, separated by commas, semicolons, tabs or blanks, with or without a heading.

Lines above the heading, comments or others, are skipped, and a sampling rate that they state is the file's.
"""

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfkfin.base import reading
from tfkfin.base.errors import InputError, refused_as
from tfkfin.recordings import checks
from tfkfin.recordings.formats import UNITS, Format, Table, Wanted

_LONGEST = 1 << 20  # characters of a line
_HEAD = 200  # lines within which the values begin
_CELLS = 1 << 20  # that are read at once as text
_COMMENT = re.compile(r"\s*(#|%|//|!)+\s*")
_RATE = re.compile(r"(?i)(?:sampl\w*[ _-]*(?:rate|freq\w*)|^\W*freq\w*|\bfs\b|\bsrate\b)[^\d\n]{0,20}?"
                   r"(\d+(?:\.\d+)?)\s*(k?)")
_UNIT = re.compile(r"(?i).*?[\s,;:_/(\[]+(V|mV|[uµμ]V|nV)\s*[\])]?\s*")  # "EMG 1, mV", "ch1 (uV)", "emg_V"


class Layout(NamedTuple):
    """Where values begin and what the lines above them say; delimiter None: blanks."""

    delimiter: str | None
    heading: tuple[str, ...]
    first: tuple[str, ...]  # the first row of values
    comma: bool  # decimal commas, which only occur with semicolons and tabs
    above: int  # lines before the values
    encoding: str
    units: tuple[str, ...]  # of the columns, "" where the heading has none
    rate_hz: float | None

    @property
    def names(self) -> list[int | str]:
        """Columns by name, or by number from 1 where the name is missing or not the only one."""
        counts = Counter(self.heading)
        return [name if name and counts[name] == 1 else i + 1 for i, name in enumerate(
            self.heading or [""] * len(self.first))]


def read(path: Path, wanted: Wanted) -> Table:
    """Columns by number from 1, or by name where there is a heading; the others may hold anything."""
    layout = _layout(path)
    places = {i + 1: i for i in range(len(layout.first))} | {name: i for i, name in enumerate(layout.names)}
    chosen = [name for name in (layout.names if wanted is None else wanted) if name in places]
    if twice := [name for name in wanted or () if name not in places and layout.heading.count(str(name)) > 1]:
        raise InputError(f"{path} has several columns named {twice[0]}: say which by number, counted from 1")
    checks.fits(path, 5 * reading.size_of(path))  # two bytes such as "1," become eight in memory
    numbers = [name for name in chosen if _is_number(layout.first[places[name]], layout.comma)]
    try:
        columns = _load(path, layout, {name: places[name] for name in numbers}, np.float64)
    except ValueError:  # some cell is no number
        columns = {}
    with refused_as(f"{path} cannot be read as text"):
        texts = _load(path, layout, {name: places[name] for name in chosen if name not in columns}, str)
    columns |= {name: _numbers(np.char.strip(values), layout.comma) if name in numbers else np.char.strip(values)
                for name, values in texts.items()}
    units = {name: layout.units[places[name]] for name in chosen if layout.units[places[name]]}
    return Table({name: columns[name] for name in chosen}, layout.rate_hz, units)


def _load(path: Path, layout: Layout, places: dict[int | str, int], kind: type) -> dict[int | str, np.ndarray]:
    """Columns of one type."""
    if not places:
        return {}
    how = {"delimiter": layout.delimiter, "comments": None, "usecols": list(places.values()), "ndmin": 2,
           "quotechar": '"'}
    with reading.opened_text(path, layout.encoding) as file:
        rows = islice(file, layout.above, None)
        if kind is str:
            values = _texts(path, (line for line in rows if line.strip()), how)
        else:
            values = np.loadtxt((line.replace(",", ".") if layout.comma else line for line in rows), kind, **how)
    return dict(zip(places, values.T, strict=True))


def _texts(path: Path, rows: Iterator[str], how: dict[str, Any]) -> np.ndarray:
    """Rows as text (T, columns), all as wide as the longest cell, which is known before memory is taken for it."""
    parts, longest, count = [], 0, 0
    most = max(1, _CELLS // len(how["usecols"]))  # rows that memory is taken for at once
    for first in rows:
        cells = np.loadtxt(chain([first], rows), object, max_rows=most, **how)
        longest, count = max(longest, *map(len, cells.flat)), count + cells.size
        reading.unpacks(path, 4 * longest * count, "text as wide as its longest cell")
        parts.append(cells.astype(str))
    return np.concatenate(parts)


def _numbers(cells: np.ndarray, comma: bool) -> np.ndarray:
    """Text as numbers, if it all is."""
    try:
        return (np.char.replace(cells, ",", ".") if comma else cells).astype(np.float64)
    except ValueError:
        return cells


def _layout(path: Path) -> Layout:
    with refused_as(f"{path} cannot be read as text"):
        encoding = _encoding(path)
        with reading.opened_text(path, encoding) as file:
            lines = [file.readline(_LONGEST).strip("\r\n") for _ in range(_HEAD)]
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise InputError(f"{path} holds no values")
    with refused_as(f"{path} cannot be read as text"):
        delimiter = _delimiter(lines[-5:])
        rows = [_cells(line, delimiter) for line in lines]
    comma = delimiter in (";", "\t") and "," in lines[-1]
    width = len(rows[-1])
    numeric = [i for i, cell in enumerate(rows[-1]) if _is_number(cell, comma)]
    above = next(i for i, row in enumerate(rows) if len(row) == width and (numeric or i or len(rows) == 1)
                 and _is_row([row[column] for column in numeric], comma))
    heading, units = _heading(path, rows[:above], lines[:above], delimiter, rows[above])
    stated = [match for line in lines[:above] if (match := _RATE.search(line))]
    rate = float(stated[0][1]) * (1000 if stated[0][2] else 1) if stated else None
    return Layout(delimiter, heading, rows[above], comma, above, encoding, units, rate)


def _heading(path: Path, rows: list[tuple[str, ...]], lines: list[str], delimiter: str | None,
             first: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the columns, () for none, and their units: of the lines above the values, the nearest that fits."""
    width = len(first)
    stripped = [_cells(_COMMENT.sub("", line, count=1), delimiter) for line in lines]
    fits = [row[:width] + ("",) * (width - len(row)) for row in stripped
            if len(row) == width or len(row) == width - 1 and not first[-1] or len(row) == width + 1 and not row[-1]]
    if not fits or width == 1 and _COMMENT.match(lines[-1]):
        if lines and len(rows[-1]) > 1 and not _COMMENT.match(lines[-1]):
            raise InputError(f"{path} has {len(rows[-1])} columns in its heading and {width} below it")
        return (), ("",) * width
    names, row = fits[-1], ("",) * width
    if len(fits) > 1 and all(not cell or re.fullmatch(r"(?i)[(\[]?([munµμ]?(s|V)|sec\w*|Hz|-|n/?a)[)\]]?", cell)
                             for cell in names):
        names, row = fits[-2], names  # a line of units
    found = (_UNIT.fullmatch(f"{name} {unit}") for name, unit in zip(names, row, strict=True))
    return names, tuple(UNITS[match[1].lower()] if match else "" for match in found)


def _is_row(cells: Sequence[str], comma: bool) -> bool:
    """Whether cells where the last row has numbers are a row of values, in which some may lack, or a heading."""
    there = [cell for cell in cells if _is_number(cell, comma)]
    return all(not cell or cell in there for cell in cells) or (
        len(there) >= len(cells) / 2 and any(re.search("[.,-]", cell) for cell in there))


def _delimiter(lines: Sequence[str]) -> str | None:
    """What parts the cells of lines of values."""
    for mark in ";\t,":
        if len(widths := {len(_cells(line, mark)) for line in lines if line.strip()}) == 1 and widths != {1}:
            return mark
    return next((mark for mark in ";\t," if mark in lines[-1]), None)


def _cells(line: str, delimiter: str | None) -> tuple[str, ...]:
    if delimiter is None:
        return tuple(cell.strip('"') for cell in re.findall(r'"[^"]*"|\S+', line))
    return tuple(cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), ()))


def _encoding(path: Path) -> str:
    """UTF-16 and UTF-8 by their marks or bytes, else Latin-1, as older programs write."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with reading.opened(path) as file:
        begin = file.read(1 << 20)
        if begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        if b"\0" in begin:
            raise InputError(f"{path} cannot be read as text: it holds bytes that are none")
        try:
            while begin:
                decoder.decode(begin)
                begin = file.read(1 << 20)
        except UnicodeDecodeError:
            return "latin-1"
    return "utf-8-sig"


def _is_number(cell: str, comma: bool) -> bool:
    return bool(re.fullmatch(r"(?i)[-+]?(nan|inf|(\d+\.?\d*|\.\d+)(e[-+]?\d+)?)",
                             cell.replace(",", ".") if comma else cell))


FORMAT = Format(("csv", "tsv", "txt"), read, lambda path: _layout(path).names)
