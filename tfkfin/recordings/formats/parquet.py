"""Parquet: columns by name; needs pyarrow (the extra `formats`)."""

from collections.abc import Sequence
from pathlib import Path

from tfkfin.base.errors import InputError
from tfkfin.recordings.formats import Format, Table, package


def read(path: Path, wanted: Sequence[int | str] | None) -> Table:
    """Columns by name, or by number from 1; the others are not read."""
    file = _open(path)
    there = file.schema_arrow.names
    named = {i + 1: name for i, name in enumerate(there)} | {name: name for name in there}
    chosen = [name for name in (there if wanted is None else wanted) if name in named]
    try:
        table = file.read(columns=[named[name] for name in chosen])
        return Table({name: table[named[name]].to_numpy() for name in chosen})
    except Exception as error:  # Arrow's own exceptions
        raise InputError(f"{path} is damaged: {error}") from error
    finally:
        file.close()


def names(path: Path) -> list[str]:
    with _open(path) as file:
        return file.schema_arrow.names


def _open(path: Path):
    parquet = package("pyarrow.parquet", path)
    try:
        return parquet.ParquetFile(path)
    except Exception as error:  # ArrowInvalid, OSError
        raise InputError(f"{path} is not a whole Parquet file: {error}") from error


FORMAT = Format(("parquet", "pq"), read, names)
