"""Keeps the memory of a pipeline as large as the recordings in flight, however many there are."""

import ctypes
from contextlib import suppress
from math import prod

import numpy as np


def aligned(*shape: int) -> np.ndarray:
    """An uninitialised float32 array at an address that TensorFlow takes over: others it copies, and keeps both."""
    size = prod(shape)
    raw = np.empty(size + 16, np.float32)
    skip = -raw.ctypes.data % 64 // 4
    return raw[skip : skip + size].reshape(shape)


def give_back() -> None:
    """Returns freed memory to the system. glibc would keep it, and memory would grow with the number of recordings."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
