"""Text: .csv, .tsv and .txt, separated by commas, semicolons, tabs or blanks, with or without a header line."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfkfin.base.errors import InputError
from tfkfin.recordings import checks
from tfkfin.recordings.formats import Format, Table, Wanted

_LONGEST = 1 << 20  # characters of a line


class Layout(NamedTuple):
    """A file's delimiter (None: blanks), the names in its header line, if any, and its first row of values."""

    delimiter: str | None
    heading: tuple[str, ...]
    first: tuple[str, ...]
    comma: bool  # decimal commas, which only occur with semicolons and tabs

    @property
    def names(self) -> list[int | str]:
        return list(self.heading or range(1, len(self.first) + 1))


def read(path: Path, wanted: Wanted) -> Table:
    """Columns by number from 1, or by name where there is a header line; the others may hold anything."""
    layout = _layout(path)
    places = {i + 1: i for i in range(len(layout.first))} | {name: i for i, name in enumerate(layout.heading)}
    chosen = [name for name in (layout.names if wanted is None else wanted) if name in places]
    columns = {}
    for numbers in (True, False):  # all numbers at once, then all text
        names = [name for name in chosen if _is_number(layout.first[places[name]], layout.comma) is numbers]
        if not names:
            continue
        checks.fits(path, 5 * path.stat().st_size)  # two bytes such as "1," become eight in memory
        with checks.refused_as(f"{path} cannot be read as numbers"), open(path, encoding="utf-8-sig") as file:
            lines = (line.replace(",", ".") for line in file) if layout.comma else file
            values = np.loadtxt(lines, np.float64 if numbers else str, delimiter=layout.delimiter, comments=None,
                                skiprows=int(bool(layout.heading)), usecols=[places[name] for name in names],
                                ndmin=2, quotechar='"')
        columns |= {name: values[:, i] for i, name in enumerate(names)}
    return Table({name: columns[name] for name in chosen})


def _layout(path: Path) -> Layout:
    with checks.refused_as(f"{path} cannot be read as text"), open(path, encoding="utf-8-sig") as file:
        lines = [file.readline(_LONGEST).strip("\r\n") for _ in range(2)]
    delimiter = next((mark for mark in ";\t" if mark in lines[0]), "," if "," in lines[0] else None)
    comma = delimiter in (";", "\t") and "," in lines[1]
    one, two = (tuple(cell.strip().strip('"') for cell in line.split(delimiter)) for line in lines)
    heading = not all(_is_number(cell, comma) for cell in one)
    first = two if heading else one
    if len(first) != len(one):
        raise InputError(f"{path} has {len(one)} columns in its first line and {len(first)} in its second")
    return Layout(delimiter, one if heading else (), first, comma)


def _is_number(cell: str, comma: bool) -> bool:
    return bool(re.fullmatch(r"(?i)[-+]?(nan|inf|(\d+\.?\d*|\.\d+)(e[-+]?\d+)?)",
                             cell.replace(",", ".") if comma else cell))


FORMAT = Format(("csv", "tsv", "txt"), read, lambda path: _layout(path).names)
