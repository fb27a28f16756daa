"""MATLAB: variables of .mat files, v5 or 7.3, each a column (T, 1) or several channels (T, C)."""

from pathlib import Path

from tfkfin.recordings import matfile
from tfkfin.recordings.formats import Format, Table, Wanted


def read(path: Path, wanted: Wanted) -> Table:
    numeric = (name for name, shape in matfile.shapes(path).items() if shape)
    names = tuple(numeric) if wanted is None else tuple(map(str, wanted))
    found = matfile.load(path, names)
    return Table({name: found[name] for name in names if name in found})


FORMAT = Format(("mat",), read, lambda path: list(matfile.shapes(path)))
