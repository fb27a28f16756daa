"""MATLAB files: v5 through scipy, v7.3 (HDF5) through h5py, behind the same three functions."""

import io
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tfkfin.console import InputError
from tfkfin.files import replacing

_HEADER = 128  # bytes of a v5 header: 116 of text, 8 of subsystem offset, 2 of version, 2 of byte order
_MATRIX, _COMPRESSED = 14, 15  # MAT-file level 5 element types, "MAT-File Format", table 1-1
_HDF5_BLOCK = 512  # bytes MATLAB keeps free for its header before the HDF5 superblock


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the variables in `path`, as MATLAB would show them, without reading their values."""
    if is_v73(path):
        return _v73(path, None)
    from scipy.io import whosmat

    return {name: shape for name, shape, _ in _guarded(path, lambda: whosmat(str(path)))}


def load(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The variables `names` of `path`, each in MATLAB's own axis order; names that are not there are left out.

    Raises:
        InputError: `path` is not a MATLAB file of version 5 or 7.3, is cut short, or is damaged.
    """
    if is_v73(path):
        return _v73(path, names)
    from scipy.io import loadmat

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


def _guarded(path: Path, action):
    try:
        return action()
    except MemoryError:
        raise
    except Exception as error:  # scipy's parser lets anything escape on damaged bytes: zlib, struct, Type, Value...
        raise InputError(f"{path} is damaged ({error or type(error).__name__}): fetch it again") from error


def is_v73(path: Path) -> bool:
    """True for v7.3, False for a v5 file whose elements are all there; everything else is an InputError."""
    try:
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
            data = {key: item for key, item in file.items() if isinstance(item, h5py.Dataset)}
            if names is None:
                return {key: item.shape[::-1] for key, item in data.items()}
            return {key: data[key][()].T for key in names if key in data}

    return _guarded(path, read)


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
    with h5py.File(path, "w", userblock_size=_HDF5_BLOCK, track_order=True) as file:
        for name, value in variables.items():
            value = np.atleast_2d(value)
            item = file.create_dataset(name, data=value.T, compression="gzip" if value.size > 1 else None,
                                       compression_opts=1 if value.size > 1 else None)
            item.attrs["MATLAB_class"] = np.bytes_(classes.get(value.dtype.name, value.dtype.name))
    with open(path, "r+b") as file:
        file.write(text + bytes(8) + struct.pack("<H2s", 0x0200, b"IM"))
