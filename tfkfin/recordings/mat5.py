"""Reads names, shapes and sizes of the variables of a MATLAB v5 file, and checks them against the file's bytes.

This happens before memory is allocated for values, so that a damaged file cannot exhaust it.

Reference: "MAT-File Format", MathWorks, chapter 1: level 5 elements, tables 1-1 and 1-3.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

HEADER = 128  # bytes before the first element
MATRIX, COMPRESSED = 14, 15  # element types
_NUMERIC = {6: 8, 7: 4, 8: 1, 9: 1, 10: 2, 11: 2, 12: 4, 13: 4, 14: 8, 15: 8}  # class -> bytes a value in memory
_STORED = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}  # type -> bytes a value in the file
_COMPLEX = 0x0800
_HEAD = 4096  # bytes of an element that hold its flags, dimensions and name
_MOST_DIMENSIONS, _LONGEST_NAME, _MOST_VARIABLES = 32, 256, 10_000


class Inconsistent(ValueError):
    """The header of a variable contradicts the file."""


@dataclass(frozen=True)
class Variable:
    """A variable of `size` bytes in memory; `numeric`: a full array of real numbers, whose shape has been checked."""

    name: str
    shape: tuple[int, ...]
    numeric: bool
    size: int


def elements(file, order: str) -> Iterator[tuple[int, int, int]]:
    """(position, type, bytes of content) of a file's elements, which may reach beyond the end of a damaged file.

    Args:
        file: opened.
        order: "<" or ">", the file's byte order.
    """
    size, position = file.seek(0, 2), HEADER
    while position < size:
        file.seek(position)
        tag = file.read(8)
        kind, count = struct.unpack(order + "II", tag) if len(tag) == 8 else (MATRIX, size)
        if kind not in (MATRIX, COMPRESSED):
            return
        yield position, kind, count
        position += 8 + count


def variables(path: Path, order: str) -> Iterator[Variable]:
    """The variables of a file whose elements are complete, without their values.

    Raises:
        Inconsistent, struct.error, zlib.error: the file is damaged.
    """
    with open(path, "rb") as file:
        for i, (position, kind, count) in enumerate(elements(file, order)):
            if i == _MOST_VARIABLES:
                raise Inconsistent(f"more than {_MOST_VARIABLES} variables")
            file.seek(position + 8)
            packed = file.read(min(count, 16 * _HEAD))
            head = struct.pack(order + "II", kind, count) + packed[:_HEAD]
            if kind == COMPRESSED:
                head = zlib.decompressobj().decompress(packed, _HEAD)
            if found := _variable(head, order):
                yield found


def _variable(head: bytes, order: str) -> Variable | None:
    """The variable that an element holds; None where it has no name, as in MATLAB's workspaces."""
    kind, whole = struct.unpack_from(order + "II", head)
    if kind != MATRIX:
        raise Inconsistent(f"an element of type {kind} where a matrix is expected")
    if not whole:
        return None
    flags, position = _part(head, 8, order, 6, 8)
    word, _ = struct.unpack(order + "II", flags)
    kind = word & 0xFF
    if kind > 16:  # a MATLAB object, which has another layout
        return None
    dims, position = _part(head, position, order, 5, 4 * _MOST_DIMENSIONS)
    name, position = _part(head, position, order, 1, _LONGEST_NAME)
    name = name.decode("latin-1").strip("\0")
    if kind not in _NUMERIC or word & _COMPLEX:
        return Variable(name, (), False, 0) if name else None
    shape = struct.unpack(f"{order}{len(dims) // 4}i", dims)
    stored, count, _ = _tag(head, position, order)
    if min(shape, default=-1) < 0 or count > whole or stored not in _STORED or prod(shape) * _STORED[stored] != count:
        raise Inconsistent(f"{name[:40]} has shape {shape}, but {count} bytes")
    return Variable(name, shape, True, prod(shape) * _NUMERIC[kind]) if name else None


def _part(head: bytes, position: int, order: str, kind: int, most: int) -> tuple[bytes, int]:
    """The content of a part, of type `kind` and at most `most` bytes, and the position of the next part."""
    found, count, at = _tag(head, position, order)
    if found != kind or count > most or at + count > len(head):
        raise Inconsistent(f"a part of type {found} and {count} bytes in an element's head")
    return head[at : at + count], position + 8 if at == position + 4 else at + -(-count // 8) * 8


def _tag(head: bytes, position: int, order: str) -> tuple[int, int, int]:
    """(type, bytes of content, position of content); up to four bytes may lie inside the tag (small element format)."""
    word, count = struct.unpack_from(order + "II", head, position)
    return (word & 0xFFFF, word >> 16, position + 4) if word >> 16 else (word, count, position + 8)
