"""Reads and writes MATLAB files: v5 through scipy, v7.3 (HDF5) through h5py, by the same three functions.

Files are not trusted: a variable's size in memory is compared with the file's size and with the free memory before it
is read, and links to other files are not followed.
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
from tfkfin.base.errors import InputError
from tfkfin.base.files import replacing
from tfkfin.recordings import mat5

_HEADER = mat5.HEADER  # bytes of a v5 header: 116 text, 8 subsystem offset, 2 version, 2 byte order
_HDF5_BLOCK = 512  # bytes that MATLAB reserves for its header before the HDF5 superblock
_ALWAYS, _RATIO = 256 << 20, 100  # bytes that any variable may have, and bytes of a variable per byte of its file


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
    found = _guarded(path, lambda: loadmat(str(path), variable_names=list(names)))
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


def _v5(path: Path) -> list[mat5.Variable]:
    with open(path, "rb") as file:
        order = _order(file.read(_HEADER))
    found = _guarded(path, lambda: list(mat5.variables(path, order)))
    for name, count in Counter(variable.name for variable in found).most_common(1):
        if count > 1:  # scipy reads the first of them
            raise InputError(f"{path} is damaged ({name[:40]} is there twice): fetch it again")
    return found


def _order(header: bytes) -> str:
    return "<" if header[126:128] == b"IM" else ">"


def _fits(path: Path, name: str, size: int, numeric: bool) -> int:
    """`size`, a variable's bytes in memory; raises InputError if its file is too small for it."""
    if not numeric:
        raise InputError(f"{path}: {name} is not numeric, but an array of real numbers is needed")
    there = path.stat().st_size
    if size > max(_ALWAYS, _RATIO * there):
        raise InputError(f"{path}: {name} would unpack to {size / 1e9:.3g} GB out of a file of {there / 1e6:.3g} MB, "
                         "which no recording does: fetch it again")
    return size


def _afford(path: Path, sizes: dict[str, int]) -> None:
    """Raises InputError unless variables of these bytes fit into memory."""
    machine.afford(2 * sum(sizes.values()), f"{path}: {' with '.join(sizes)}",
                   "close other programs, or read fewer recordings at once")


def _guarded(path: Path, action):
    try:
        return action()
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{path} needs more memory than there is: fetch it again") from None
    except Exception as error:  # on damaged bytes scipy raises zlib, struct, Type, Value and other errors
        raise InputError(f"{path} is damaged ({error or type(error).__name__}): fetch it again") from error


def is_v73(path: Path) -> bool:
    """True for v7.3, False for a complete v5 file; raises InputError for anything else."""
    try:
        if not path.is_file() and path.exists():
            raise InputError(f"{path} is not a file: give the folder of recordings")  # opening a pipe would block
        size = path.stat().st_size
        with open(path, "rb") as file:
            header = file.read(_HEADER)
            hdf5 = header[:8] == b"\x89HDF\r\n\x1a\n" or (file.seek(_HDF5_BLOCK) and file.read(4) == b"\x89HDF")
            if hdf5:
                return True
            if len(header) < _HEADER or header[126:128] not in (b"IM", b"MI"):
                what = "is empty (0 bytes)" if size == 0 else "is not a MATLAB file of version 5 or 7.3"
                raise InputError(f"{path} {what}: fetch it again, or convert it with scipy.io.savemat")
            ends = [position + 8 + count for position, _, count in mat5.elements(file, _order(header))]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if ends and ends[-1] > size:
        raise InputError(f"{path} is cut short ({size} bytes of at least {ends[-1]}): fetch it again")
    return False


def _v73(path: Path, names: tuple[str, ...] | None) -> dict:
    """Arrays `names`, or with None the shapes of all. MATLAB stores (rows, columns) as HDF5 (columns, rows)."""
    import h5py

    def read():
        with h5py.File(path, "r") as file:
            # Soft and external links are not followed: they may lead to other files.
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


def checked(path: Path, item):
    """An HDF5 dataset that can be read.

    Raises:
        InputError: its values lie in other files, or do not fit into its file or into memory.
    """
    _afford(path, {item.name.lstrip("/"): _size(path, item)})
    return item


def _size(path: Path, item) -> int:
    """Bytes of a dataset in memory."""
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
            # savemat's compression searches for repetitions, of which a noisy signal has none: it takes ten times as
            # long and saves hardly more. Its header contains the time, so equal input would give different files.
            noisy = value.dtype.kind == "f" and value.size > 1
            zipper = zlib.compressobj(1, strategy=zlib.Z_HUFFMAN_ONLY if noisy else zlib.Z_DEFAULT_STRATEGY)
            packed = zipper.compress(plain.getbuffer()[_HEADER:]) + zipper.flush()
            file.write(struct.pack("<II", mat5.COMPRESSED, len(packed)) + packed)


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
