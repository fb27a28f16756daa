"""MATLAB files: v5 through scipy, v7.3 (HDF5) through h5py, behind the same three functions.

Nothing is taken at its word: what a variable takes in memory is known, and compared with the file and with the memory
that is free, before it is read; and no other file is read in its place.
"""

import io
import struct
import zlib
from collections import Counter
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np

from tfkfin.base import machine
from tfkfin.base.console import InputError
from tfkfin.base.files import replacing
from tfkfin.recordings import mat5

_HEADER = mat5.HEADER  # bytes of a v5 header: 116 of text, 8 of subsystem offset, 2 of version, 2 of byte order
_MATRIX, _COMPRESSED = mat5.MATRIX, mat5.COMPRESSED
_HDF5_BLOCK = 512  # bytes MATLAB keeps free for its header before the HDF5 superblock
_ALWAYS, _RATIO = 256 << 20, 100  # bytes a variable may have whatever its file, and out of each byte of a file


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the variables in `path`, as MATLAB would show them, without reading their values.

    What is no full array of real numbers has the shape ().
    """
    if is_v73(path):
        return _v73(path, None)
    return {variable.name: variable.shape for variable in _v5(path)}


def load(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The variables `names` of `path`, each in MATLAB's own axis order; names that are not there are left out.

    Raises:
        InputError: `path` is not a MATLAB file of version 5 or 7.3, is cut short, or is damaged, a variable is not of
            real numbers, or larger than the file or the memory can hold.
    """
    if is_v73(path):
        return _v73(path, names)
    from scipy.io import loadmat

    _afford(path, {variable.name: _fits(path, variable.name, variable.size, variable.numeric)
                   for variable in _v5(path) if variable.name in names})
    found = _guarded(path, lambda: loadmat(str(path), variable_names=list(names)))
    return {name: found[name] for name in names if name in found}


def save(path: Path, variables: Mapping[str, np.ndarray], text: str, v73: bool = False) -> None:
    """Writes a new MATLAB file in one step: a reader sees the whole of it or nothing. Equal input, equal bytes (v5).

    Args:
        path: where to; its folder is made. An existing file is never overwritten.
        variables: name -> array (rows, columns).
        text: header text, at most 116 ASCII characters; readers show it.
        v73: HDF5 as MATLAB 7.3 writes it, instead of compressed v5.
    """
    if path.exists():
        raise InputError(f"{path} is there already and is never overwritten: choose another folder or move it away")
    with replacing(path) as partial:
        (_save_v73 if v73 else _save_v5)(partial, variables, text.encode("ascii").ljust(116)[:116])


def _v5(path: Path) -> list[mat5.Variable]:
    with open(path, "rb") as file:
        order = "<" if file.read(_HEADER)[126:128] == b"IM" else ">"
    found = _guarded(path, lambda: list(mat5.variables(path, order)))
    for name, count in Counter(variable.name for variable in found).most_common(1):
        if count > 1:  # scipy reads the first of them
            raise InputError(f"{path} is damaged ({name[:40]} is there twice): fetch it again")
    return found


def _fits(path: Path, name: str, size: int, numeric: bool) -> int:
    """`size`, bytes of a variable in memory, which its file can hold."""
    if not numeric:
        raise InputError(f"{path}: {name} is not numeric, but an array of real numbers is needed")
    there = path.stat().st_size
    if size > max(_ALWAYS, _RATIO * there):
        raise InputError(f"{path}: {name} would unpack to {size / 1e9:.3g} GB out of a file of {there / 1e6:.3g} MB, "
                         "which no recording does: fetch it again")
    return size


def _afford(path: Path, sizes: dict[str, int]) -> None:
    """Makes sure that there is memory for variables of these bytes; asked once, which takes as long as small ones."""
    machine.afford(2 * sum(sizes.values()), f"{path}: {' with '.join(sizes)}",
                   "close other programs, or read fewer recordings at once")


def _guarded(path: Path, action):
    try:
        return action()
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{path} says that it takes more memory than there is: fetch it again") from None
    except Exception as error:  # scipy's parser lets anything escape on damaged bytes: zlib, struct, Type, Value...
        raise InputError(f"{path} is damaged ({error or type(error).__name__}): fetch it again") from error


def is_v73(path: Path) -> bool:
    """True for v7.3, False for a v5 file whose elements are all there; everything else is an InputError."""
    try:
        if not path.is_file() and path.exists():
            raise InputError(f"{path} is no file: give the folder of recordings")  # opening a pipe would wait for ever
        size = path.stat().st_size
        with open(path, "rb") as file:
            header = file.read(_HEADER)
            hdf5 = header[:8] == b"\x89HDF\r\n\x1a\n" or (file.seek(_HDF5_BLOCK) and file.read(4) == b"\x89HDF")
            if hdf5:
                return True
            if len(header) < _HEADER or header[126:128] not in (b"IM", b"MI"):
                what = "is empty (0 bytes)" if size == 0 else "is not a MATLAB file of version 5 or 7.3"
                raise InputError(f"{path} {what}: fetch it again, or convert it with scipy.io.savemat")
            order, position = ("<" if header[126:128] == b"IM" else ">"), _HEADER
            while position < size:
                file.seek(position)
                tag = file.read(8)
                kind, count = struct.unpack(order + "II", tag) if len(tag) == 8 else (_MATRIX, size)
                if kind not in (_MATRIX, _COMPRESSED):
                    break
                position += 8 + count
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if position > size:
        raise InputError(f"{path} is cut short ({size} bytes of at least {position}): fetch it again")
    return False


def _v73(path: Path, names: tuple[str, ...] | None) -> dict:
    """Arrays `names`, or with None the shapes of all. MATLAB stores (rows, columns) as HDF5 (columns, rows)."""
    import h5py

    def read():
        with h5py.File(path, "r") as file:
            # Links that lead elsewhere, to other files too, are not followed.
            own = [key for key in file if isinstance(file.get(key, getlink=True), h5py.HardLink)]
            data = {key: item for key in own if isinstance(item := file[key], h5py.Dataset)}
            if names is None:
                return {key: item.shape[::-1] if _is_numeric(item) else () for key, item in data.items()}
            wanted = {key: data[key] for key in names if key in data}
            _afford(path, {key: _size(path, item) for key, item in wanted.items()})
            return {key: item[()].T for key, item in wanted.items()}

    return _guarded(path, read)


def _is_numeric(item) -> bool:
    return item.shape is not None and item.dtype.kind in "biuf"


def whole(path: Path, item):
    """A dataset of HDF5 that can be read, from this very file.

    Raises:
        InputError: its values lie in other files, or are more than the file or the memory can hold.
    """
    _afford(path, {item.name.lstrip("/"): _size(path, item)})
    return item


def _size(path: Path, item) -> int:
    """Bytes in memory of a dataset that its own file can hold."""
    if item.external or item.is_virtual:
        raise InputError(f"{path}: {item.name} takes its values from other files, which are not read")
    numeric = _is_numeric(item)
    chunk = prod(item.chunks or ()) * item.dtype.itemsize if numeric else 0
    return _fits(path, item.name.lstrip("/"), max(item.nbytes, chunk) if numeric else 0, numeric)


def _save_v5(path: Path, variables: Mapping[str, np.ndarray], text: bytes) -> None:
    from scipy.io import savemat

    with open(path, "wb") as file:
        file.write(text + bytes(8) + struct.pack("<H2s", 0x0100, b"IM"))
        for name, value in variables.items():
            plain = io.BytesIO()
            savemat(plain, {name: value})
            # savemat's own compression looks for repeats, of which a noisy signal has none: ten times as slow, and
            # hardly smaller. Its header, left out here, holds the hour, so that no two files would be equal.
            noisy = value.dtype.kind == "f" and value.size > 1
            zipper = zlib.compressobj(1, strategy=zlib.Z_HUFFMAN_ONLY if noisy else zlib.Z_DEFAULT_STRATEGY)
            packed = zipper.compress(plain.getbuffer()[_HEADER:]) + zipper.flush()
            file.write(struct.pack("<II", _COMPRESSED, len(packed)) + packed)


def _save_v73(path: Path, variables: Mapping[str, np.ndarray], text: bytes) -> None:
    import h5py

    classes = {"float32": "single", "float64": "double"}
    memory = io.BytesIO()  # on a full disk HDF5's library would crash
    with h5py.File(memory, "w", userblock_size=_HDF5_BLOCK, track_order=True) as file:
        for name, value in variables.items():
            value = np.atleast_2d(value)
            item = file.create_dataset(name, data=value.T, compression="gzip" if value.size > 1 else None,
                                       compression_opts=1 if value.size > 1 else None)
            item.attrs["MATLAB_class"] = np.bytes_(classes.get(value.dtype.name, value.dtype.name))
    memory.seek(0)
    memory.write(text + bytes(8) + struct.pack("<H2s", 0x0200, b"IM"))
    path.write_bytes(memory.getbuffer())
