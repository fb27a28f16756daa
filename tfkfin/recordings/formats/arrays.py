"""NumPy: .npy, a table (T, columns), and .npz, where each name is a column (T,) or several channels (T, C)."""

from pathlib import Path

import numpy as np

from tfkfin.base import reading
from tfkfin.base.errors import InputError, refused_as
from tfkfin.recordings.formats import Format, Table, Wanted


def read(path: Path, wanted: Wanted) -> Table:
    if path.suffix.lower() == ".npz":
        with _whole(path):
            return Table(reading.arrays(path, None if wanted is None else list(map(str, wanted))))
    columns = _columns(path)
    return Table({name: columns[name] for name in (columns if wanted is None else wanted) if name in columns})


def _names(path: Path) -> list[int | str]:
    with _whole(path):
        return list(reading.names(path) if path.suffix.lower() == ".npz" else _columns(path))


def _whole(path: Path):
    return refused_as(f"{path} is not a whole {path.suffix} of plain arrays")


def _columns(path: Path) -> dict[int, np.ndarray]:
    with _whole(path):
        reading.size_of(path)
        values = np.load(path, mmap_mode="r", allow_pickle=False)  # compares the file's size with its header
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise InputError(f"{path} is not a table of numbers (samples, columns)")
    if values.shape[0] < values.shape[1]:  # channels first
        values = values.T
    return {i + 1: values[:, i] for i in range(values.shape[1])}


FORMAT = Format(("npy", "npz"), read, _names)
