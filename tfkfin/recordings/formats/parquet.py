"""Parquet: columns by name; needs pyarrow (the extra `formats`).

What a file says of its sizes may be wrong, and a page of it may unpack to any size, so the heads of its pages are read
before pyarrow unpacks them. Text is read as a dictionary, whose longest word tells how wide a column of it will be.

Reference: apache/parquet-format, parquet.thrift (FileMetaData, PageHeader), and Thrift's compact protocol
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tfkfin.base import reading
from tfkfin.base.errors import refused_as
from tfkfin.recordings.formats import Format, Table, Wanted, package

_HEAD, _SMALLEST = 1 << 16, 1 << 12  # bytes of a page's head at most, and that each page counts at least
_LISTED = 100_000  # columns, groups of rows or keys of one file
_PLAIN = re.compile("u?int|float|double|half|bool|string|large_string|dictionary|timestamp")  # 8 bytes a value
_OBJECT = 128  # bytes of a value that becomes an object
_DELTAS = 7  # encoding DELTA_BYTE_ARRAY: each text begins as the one before, so that a bit stands for any length


def read(path: Path, wanted: Wanted) -> Table:
    """Columns by name, or by number from 1; the others are not read."""
    with _open(path) as file, refused_as(f"{path} is damaged"):
        there = file.schema_arrow.names
        named = {i + 1: name for i, name in enumerate(there)} | {name: name for name in there}
        chosen = [name for name in (there if wanted is None else wanted) if name in named]
        kinds = {field.name: str(field.type) for field in file.schema_arrow}
        nested = {field.name for field in file.schema_arrow if field.type.num_fields}  # lists and structs: no columns
        flat = list(dict.fromkeys(named[name] for name in chosen if named[name] not in nested))
        for name in nested & {named[name] for name in chosen}:  # which says its type in every row
            reading.unpacks(path, 4 * len(kinds[name][:40]) * file.metadata.num_rows, name)
        texts = _check(path, file, {name: kinds[name] for name in flat})
        table = (_open(path, read_dictionary=texts) if texts else file).read(columns=flat)
        return Table({name: _values(path, named[name], table[named[name]]) if named[name] in flat else
                      np.full(file.metadata.num_rows, kinds[named[name]][:40], object) for name in chosen})


def names(path: Path) -> list[str]:
    with _open(path) as file:
        return file.schema_arrow.names


def _open(path: Path, **how: Any):
    parquet = package("pyarrow.parquet", path)
    reading.size_of(path)
    with refused_as(f"{path} is not a whole Parquet file"):
        return parquet.ParquetFile(path, thrift_container_size_limit=_LISTED, **how)


def _values(path: Path, name: str, column: Any) -> np.ndarray:
    """A column (T,); of text, cells that are equal are one object."""
    if not hasattr(column.type, "value_type") or not str(column.type.value_type).endswith(("string", "binary")):
        return column.to_numpy()
    whole = column.unify_dictionaries().combine_chunks()
    words = np.append(whole.dictionary.to_numpy(zero_copy_only=False).astype(object), None)
    reading.unpacks(path, 4 * max(map(len, filter(None, words)), default=0) * len(whole), name)
    return words[whole.indices.fill_null(-1).to_numpy()]


def _check(path: Path, file: Any, wanted: Mapping[str, str]) -> list[str]:
    """The columns of text among those `wanted`, name -> type, all of which fit into memory.

    Raises:
        InputError: they don't, or their pages would unpack to more than such a file can hold.
    """
    about, size, texts = file.metadata, 0, []
    with reading.opened(path) as content:
        groups = _columns(content, reading.size_of(path))
        for c in range(about.num_columns):
            if (name := about.schema.column(c).path) not in wanted:
                continue
            text = about.schema.column(c).physical_type == "BYTE_ARRAY"
            texts += [name] * text
            size += about.num_rows * (8 if _PLAIN.match(wanted[name]) else _OBJECT + about.schema.column(c).length)
            for columns in groups:
                reading.unpacks(path, size, name)
                size += _pages(content, columns[c], text, reading.most(path))
    reading.unpacks(path, size, ", ".join(wanted)[:80])
    return texts


def _pages(file: BinaryIO, column: dict[int, Any], text: bool, most: int) -> int:
    """Bytes to which the pages of a column (ColumnMetaData) in a group of rows unpack, counted up to `most`."""
    at = min(column[9], column.get(11) or column[9])  # the first page of data, or of a dictionary before it
    end, size = at + column[7], 0
    while at < end and size <= most:
        file.seek(at)
        head, length = _struct(file.read(_HEAD), 0)
        if text and _DELTAS in (head.get(5, {}).get(2), head.get(8, {}).get(4)):
            raise ValueError("text in the encoding DELTA_BYTE_ARRAY is not read: write the file with another")
        size += max(head[2], _SMALLEST)
        at += length + max(0, head[3])
    return size


def _columns(file: BinaryIO, end: int) -> list[list[dict[int, Any]]]:
    """What a file's foot says of each group of rows: its columns, of each what ColumnMetaData has.

    pyarrow would say it too, but ends the whole process where it doesn't like a column's numbers.
    """
    file.seek(end - 8)
    length = int.from_bytes(file.read(4), "little")
    file.seek(end - 8 - length)
    foot, _ = _struct(file.read(length), 0)
    return [[column[3] for column in group[1]] for group in foot[4]]


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """A struct of Thrift's compact protocol, number of field -> value, and where it ends."""
    found: dict[int, Any] = {}
    field = 0
    while tag := data[at]:
        at += 1
        if tag >> 4:
            field += tag >> 4
        else:
            field, at = _signed(data, at)
        found[field], at = (None, at) if tag & 15 in (1, 2) else _value(tag & 15, data, at)  # true and false
    return found, at + 1


def _value(kind: int, data: bytes, at: int) -> tuple[Any, int]:
    """A value, and where it ends; texts, decimals and bytes are passed over."""
    if kind in (4, 5, 6):
        return _signed(data, at)
    if kind == 8:
        length, at = _number(data, at)
        return None, at + length
    if kind in (9, 10):
        count, of, at = data[at] >> 4, data[at] & 15, at + 1
        if count == 15:
            count, at = _number(data, at)
        if count > len(data):
            raise ValueError(f"a list says that it has {count} values")
        values = []
        for _ in range(count):
            value, at = _value(of, data, at)
            values.append(value)
        return values, at
    if kind == 12:
        return _struct(data, at)
    if kind in (1, 2, 3, 7):
        return None, at + (8 if kind == 7 else 1)
    raise ValueError(f"a value of the kind {kind} is none of Parquet's")


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A whole number in seven bits a byte, and where it ends."""
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at


def _signed(data: bytes, at: int) -> tuple[int, int]:
    """A whole number whose last bit is its sign, and where it ends."""
    value, at = _number(data, at)
    return (value >> 1) ^ -(value & 1), at


FORMAT = Format(("parquet", "pq"), read, names)
