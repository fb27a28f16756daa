"""NumPy: .npy, a table (T, columns), and .npz, where each name is a column (T,) or several channels (T, C)."""

import zipfile
from pathlib import Path

import numpy as np

from tfkfin.base.errors import InputError
from tfkfin.recordings import checks
from tfkfin.recordings.formats import Format, Table, Wanted


def read(path: Path, wanted: Wanted) -> Table:
    columns = _columns(path)
    return Table({name: columns[name] for name in (columns if wanted is None else wanted) if name in columns})


def _columns(path: Path) -> dict[int | str, np.ndarray]:
    with checks.refused_as(f"{path} is not a whole {path.suffix} of plain arrays"):
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path) as archive:
                checks.fits(path, 2 * sum(member.file_size for member in archive.infolist()))
            with np.load(path, allow_pickle=False) as values:
                return {key: values[key] for key in values.files}
        values = np.load(path, mmap_mode="r", allow_pickle=False)  # compares the file's size with its header
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise InputError(f"{path} is not a table of numbers (samples, columns)")
    if values.shape[0] < values.shape[1]:  # channels first
        values = values.T
    return {i + 1: values[:, i] for i in range(values.shape[1])}


FORMAT = Format(("npy", "npz"), read, lambda path: list(_columns(path)))
