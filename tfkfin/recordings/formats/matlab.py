"""MATLAB: variables of .mat files, v5 or 7.3, each a column (T, 1) or several channels (T, C).

Structs, cells and text are not read; arrays beside them are.
"""

from pathlib import Path

from tfkfin.recordings import matfile
from tfkfin.recordings.formats import Format, Table, Wanted


def read(path: Path, wanted: Wanted) -> Table:
    names = names_of(path) if wanted is None else tuple(map(str, wanted))
    found = matfile.load(path, names)
    return Table({name: found[name] for name in names if name in found})


def names_of(path: Path) -> tuple[str, ...]:
    """Variables that are arrays of numbers."""
    shapes = matfile.shapes(path)
    if shapes and not any(shapes.values()):
        matfile.load(path, tuple(shapes))  # says that these are none
    return tuple(name for name, shape in shapes.items() if shape)


FORMAT = Format(("mat",), read, names_of)
