"""Parquet: columns by name; needs pyarrow (the extra `formats`)."""

from pathlib import Path

from tfkfin.recordings import checks
from tfkfin.recordings.formats import Format, Table, Wanted, package


def read(path: Path, wanted: Wanted) -> Table:
    """Columns by name, or by number from 1; the others are not read."""
    with _open(path) as file, checks.refused_as(f"{path} is damaged"):
        there = file.schema_arrow.names
        named = {i + 1: name for i, name in enumerate(there)} | {name: name for name in there}
        chosen = [name for name in (there if wanted is None else wanted) if name in named]
        table = file.read(columns=[named[name] for name in chosen])
        return Table({name: table[named[name]].to_numpy() for name in chosen})


def names(path: Path) -> list[str]:
    with _open(path) as file:
        return file.schema_arrow.names


def _open(path: Path):
    parquet = package("pyarrow.parquet", path)
    with checks.refused_as(f"{path} is not a whole Parquet file"):
        return parquet.ParquetFile(path)


FORMAT = Format(("parquet", "pq"), read, names)
