"""Memory: arrays that TensorFlow need not copy, memory that goes back to the system, arrays kept on disk."""

import ctypes
import mmap
import tempfile
import weakref
from collections.abc import Callable, Hashable
from contextlib import suppress
from math import prod
from pathlib import Path

import numpy as np


def aligned(*shape: int) -> np.ndarray:
    """Zeros, float32, at an address that TensorFlow can use without a copy.

    Their memory returns to the system as soon as nothing refers to them.
    """
    return np.frombuffer(mmap.mmap(-1, max(1, 4 * prod(shape))), np.float32, prod(shape)).reshape(shape)


def give_back() -> None:
    """Returns freed memory to the system. glibc would keep it, so that use would grow with every recording."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


class Spool:
    """Arrays in temporary files: made once, later mapped into memory.

    The files vanish when the process ends. On a full disk arrays are made anew each time.
    """

    def __init__(self, folder: str | Path | None = None):
        """`folder`: for the files; by default the system's for temporary files."""
        self._folder, self._files = folder, {}

    def __call__(self, key: Hashable, make: Callable[[], tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
        """What `make()` gave when it was called first for this `key`, read-only, aligned as by `aligned`."""
        if key not in self._files:
            arrays = make()
            with suppress(OSError):
                self._files[key] = self._written(arrays)
            return arrays
        file, parts = self._files[key]
        return tuple(np.memmap(file, dtype, "r", offset, shape) for dtype, offset, shape in parts)

    def _written(self, arrays: tuple[np.ndarray, ...]):
        file, parts = tempfile.TemporaryFile(dir=self._folder), []
        try:
            for array in arrays:
                file.seek(-file.tell() % 64, 1)
                parts.append((array.dtype, file.tell(), array.shape))
                file.write(np.ascontiguousarray(array))
            file.flush()
        except OSError:
            file.close()
            raise
        weakref.finalize(self, file.close)
        return file, parts
