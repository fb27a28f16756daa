"""Reads and writes MATLAB files: v5 through scipy, v7.3 through `base.hdf5`, by the same three functions.

Files are not trusted: a variable's size in memory is compared with the file's size and with the free memory before it
is read, and links to other files are not followed. Of v5 files, names, shapes and sizes of variables are read and
checked against the file's bytes before memory is allocated for values, so that a damaged file cannot exhaust it.

`signals` reads v7.3 files inside tf.data, with tensorflow-io (extra: `io`), so without Python's lock. It reads local
files block by block, but loads a file on `http://` into memory each time it opens it: so remote files are first copied
into the cache (`remote`).

Reference: "MAT-File Format", MathWorks, chapter 1: level 5 elements, tables 1-1 and 1-3.
"""

import io
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfkfin.base import hdf5, reading
from tfkfin.base.errors import InputError, refused_as
from tfkfin.base.files import replacing

_HEADER = 128  # bytes of a v5 header: 116 text, 8 subsystem offset, 2 version, 2 byte order
_HDF5_BLOCK = 512  # bytes that MATLAB reserves for its header before the HDF5 superblock
MATRIX, COMPRESSED = 14, 15  # element types
_NUMERIC = {6: 8, 7: 4, 8: 1, 9: 1, 10: 2, 11: 2, 12: 4, 13: 4, 14: 8, 15: 8}  # class -> bytes a value in memory
_STORED = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}  # type -> bytes a value in the file
_COMPLEX = 0x0800
_HEAD = 4096  # bytes of an element that hold its flags, dimensions and name
_MOST_DIMENSIONS, _LONGEST_NAME, _MOST_VARIABLES = 32, 256, 10_000


class Inconsistent(ValueError):
    """The header of a variable contradicts the file."""


class Variable(NamedTuple):
    """A variable of `size` bytes in memory; `numeric`: a full array of real numbers, whose shape has been checked."""

    name: str
    shape: tuple[int, ...]
    numeric: bool
    size: int


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the variables in `path`, as MATLAB shows them, without reading values.

    A variable that is not a full array of real numbers has the shape ().
    """
    if is_v73(path):
        return _v73(path, None)
    return {variable.name: variable.shape for variable in _v5(path)}


def load(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The variables `names` of `path`, each in MATLAB's axis order; absent names are left out.

    Raises:
        InputError: `path` is not a MATLAB file of version 5 or 7.3, is cut short, or is damaged, a variable is not of
            real numbers, or larger than the file or the memory can hold.
    """
    if is_v73(path):
        return _v73(path, names)
    from scipy.io import loadmat

    _afford(path, {variable.name: _fits(path, variable.name, variable.size, variable.numeric)
                   for variable in _v5(path) if variable.name in names})
    with _guarded(path), reading.opened(path) as file:
        found = loadmat(file, variable_names=list(names))
    return {name: found[name] for name in names if name in found}


def save(path: Path, variables: Mapping[str, np.ndarray], text: str, v73: bool = False) -> None:
    """Writes a new MATLAB file atomically. Equal input gives equal bytes (v5).

    Args:
        path: of the file; its folder is made. An existing file is never overwritten.
        variables: name -> array (rows, columns).
        text: header text, at most 116 ASCII characters.
        v73: writes HDF5 as MATLAB 7.3 does, instead of compressed v5.
    """
    if path.exists():
        raise InputError(f"{path} is there already and is never overwritten: choose another folder or move it away")
    with replacing(path) as partial:
        (_save_v73 if v73 else _save_v5)(partial, variables, text.encode("ascii").ljust(116)[:116])


def _v5(path: Path) -> list[Variable]:
    with _guarded(path):
        found = list(variables(path))
    for name, count in Counter(variable.name for variable in found).most_common(1):
        if count > 1:  # scipy reads the first of them
            raise InputError(f"{path} is damaged ({name[:40]} is there twice): fetch it again")
    return found


def _order(header: bytes) -> str:
    return "<" if header[126:128] == b"IM" else ">"


def _fits(path: Path, name: str, size: int, numeric: bool) -> int:
    """`size`, a variable's bytes in memory; raises InputError if its file is too small for it."""
    if not numeric:
        raise InputError(f"{path}: {name} is not numeric, but an array of real numbers is needed. MATLAB writes the "
                         "fields of a struct as arrays by save new.mat -struct name")
    reading.holds(path, size, name)
    return size


def _afford(path: Path, sizes: dict[str, int]) -> None:
    """Raises InputError unless variables of these bytes together are what the file can hold, and fit into memory."""
    reading.unpacks(path, sum(sizes.values()), " with ".join(sizes))


def _guarded(path: Path):
    return refused_as(f"{path} is damaged or cannot be read", remedy=": fetch it again")  # for scipy raises anything


def is_v73(path: Path) -> bool:
    """True for v7.3, False for a complete v5 file; raises InputError for anything else."""
    with refused_as(f"{path} cannot be read", OSError):
        size = reading.size_of(path)
        with reading.opened(path) as file:
            header = file.read(_HEADER)
            if header[:8] == b"\x89HDF\r\n\x1a\n" or (file.seek(_HDF5_BLOCK) and file.read(4) == b"\x89HDF"):
                return True
            if len(header) < _HEADER or header[126:128] not in (b"IM", b"MI"):
                what = "is empty (0 bytes)" if size == 0 else "is not a MATLAB file of version 5 or 7.3"
                raise InputError(f"{path} {what}: fetch it again, or convert it with scipy.io.savemat")
            ends = [position + 8 + count for position, _, count in elements(file, _order(header))]
    if ends and ends[-1] > size:
        raise InputError(f"{path} is cut short ({size} bytes of at least {ends[-1]}): fetch it again")
    return False


def _v73(path: Path, names: tuple[str, ...] | None) -> dict:
    """Arrays `names`, or with None the shapes of all. MATLAB stores (rows, columns) as HDF5 (columns, rows)."""
    with _guarded(path), reading.opened(path) as content, hdf5.opened(content) as file:
        if names is None:
            return {key: item.shape[::-1] if item.numeric else () for key, item in file.entries.items()}
        wanted = {key: _size(path, key, file.entries[key]) for key in names if key in file.entries}
        _afford(path, wanted)
        return {key: value.T for key, value in file.read(wanted).items()}


def _size(path: Path, name: str, item: hdf5.Stored) -> int:
    """Bytes of a dataset in memory."""
    if item.elsewhere:
        raise InputError(f"{path}: {name} takes its values from other files, which are not read")
    return _fits(path, name, item.size, item.numeric)


def _save_v5(path: Path, variables: Mapping[str, np.ndarray], text: bytes) -> None:
    from scipy.io import savemat

    with open(path, "wb") as file:
        file.write(text + bytes(8) + struct.pack("<H2s", 0x0100, b"IM"))
        for name, value in variables.items():
            plain = io.BytesIO()
            savemat(plain, {name: value})
            # savemat's compression searches for repetitions, of which a noisy signal has none: it takes ten times as
            # long and saves hardly more. Its header contains the time, so equal input would give different files.
            noisy = value.dtype.kind == "f" and value.size > 1
            zipper = zlib.compressobj(1, strategy=zlib.Z_HUFFMAN_ONLY if noisy else zlib.Z_DEFAULT_STRATEGY)
            packed = zipper.compress(plain.getbuffer()[_HEADER:]) + zipper.flush()
            file.write(struct.pack("<II", COMPRESSED, len(packed)) + packed)


def _save_v73(path: Path, variables: Mapping[str, np.ndarray], text: bytes) -> None:
    import h5py

    classes = {"float32": "single", "float64": "double"}
    memory = io.BytesIO()  # the HDF5 library crashes on a full disk
    with h5py.File(memory, "w", userblock_size=_HDF5_BLOCK, track_order=True) as file:
        for name, value in variables.items():
            value = np.atleast_2d(value)
            item = file.create_dataset(name, data=value.T, compression="gzip" if value.size > 1 else None,
                                       compression_opts=1 if value.size > 1 else None)
            item.attrs["MATLAB_class"] = np.bytes_(classes.get(value.dtype.name, value.dtype.name))
    memory.seek(0)
    memory.write(text + bytes(8) + struct.pack("<H2s", 0x0200, b"IM"))
    path.write_bytes(memory.getbuffer())


def elements(file, order: str) -> Iterator[tuple[int, int, int]]:
    """(position, type, bytes of content) of a file's elements, which may reach beyond the end of a damaged file.

    Args:
        file: opened.
        order: "<" or ">", the file's byte order.
    """
    size, position = file.seek(0, 2), _HEADER
    while position < size:
        file.seek(position)
        tag = file.read(8)
        kind, count = struct.unpack(order + "II", tag) if len(tag) == 8 else (MATRIX, size)
        if kind not in (MATRIX, COMPRESSED):
            return
        yield position, kind, count
        position += 8 + count


def variables(path: Path) -> Iterator[Variable]:
    """The variables of a file whose elements are complete, without their values.

    Raises:
        Inconsistent, struct.error, zlib.error: the file is damaged.
    """
    with reading.opened(path) as file:
        order = _order(file.read(_HEADER))
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


def signals(paths: Sequence[Path], channels: int):
    """A tf.data.Dataset of the signals (C, T) of v7.3 files, in order and in the type they are stored in.

    None where tensorflow-io is not installed, a file is not v7.3, types differ, or a file has another number of
    channels. HDF5 stores MATLAB's (rows, columns) as (columns, rows), so tensorflow-io sees a channel as one element.
    """
    if find_spec("tensorflow_io") is None or not all(p.suffix.lower() == ".mat" and is_v73(p) for p in paths):
        return None
    types = set()
    for path in paths:
        with _guarded(path), reading.opened(path) as content, hdf5.opened(content) as file:
            emg = file.entries["emg"]
            _afford(path, {"emg": _size(path, "emg", emg)})
            types.add(emg.dtype.name if emg.shape[0] == channels else "")
    return stream([str(path) for path in paths], channels, *types) if len(types) == 1 and "" not in types else None


def stream(addresses: Sequence[str], channels: int, dtype: str):
    """As `signals`, for files whose `emg` is known to have this type; addresses may be `http://` URLs."""
    import tensorflow as tf
    import tensorflow_io as tfio

    spec = tf.TensorSpec((channels, None), dtype)
    return tf.data.Dataset.from_tensor_slices(list(addresses)).flat_map(
        lambda address: tfio.IODataset.from_hdf5(address, "/emg", spec=spec).batch(channels, drop_remainder=True))
