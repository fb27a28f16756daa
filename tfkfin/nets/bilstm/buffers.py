"""Memory of the compiled Bi-LSTM: aligned buffers that are reused, and states kept from a forward to its backward."""

import os
import threading
from collections import OrderedDict

import numpy as np

from tfkfin.base import machine

ALIGN = 16  # floats: one cache line, the widest vector
KEPT = 0.8  # of the budget may hold kept states; the rest is for what a call works in


def budget() -> int:
    """Bytes for all buffers: TFKFIN_KEEP_MB, else half of the memory this process can still take."""
    if os.environ.get("TFKFIN_KEEP_MB"):
        return int(float(os.environ["TFKFIN_KEEP_MB"]) * 2**20)
    return machine.memory() // 2


class Buffers:
    """Free list of float32 buffers. A buffer is taken by one task at a time and its contents are left as they were.

    Attributes:
        limit: bytes that buffers taken and free may hold together; beyond it free ones return to the system.
    """

    def __init__(self, limit: int):
        self.limit, self._taken = limit, 0
        self._free: list[np.ndarray] = []
        self._lock = threading.Lock()

    def take(self, floats: int) -> np.ndarray:
        """The smallest free buffer of at least `floats` that is not wastefully large, or a new one."""
        with self._lock:
            fit = [b for b in self._free if floats <= b.size <= 2 * floats + 4096]
            if fit:
                best = min(fit, key=lambda b: b.size)
                self._free = [b for b in self._free if b is not best]
                self._taken += best.nbytes
                return best
            self._taken += 4 * floats
        raw = np.empty(floats + ALIGN, np.float32)
        skip = (-raw.ctypes.data // 4) % ALIGN
        return raw[skip:skip + floats]

    def give(self, buffer: np.ndarray) -> None:
        """Hands a buffer back; those unused for longest return to the system when all hold too much."""
        with self._lock:
            self._taken -= buffer.nbytes
            self._free.append(buffer)
            while len(self._free) > 1 and self._taken + sum(b.nbytes for b in self._free) > self.limit:
                self._free.pop(0)


class Kept:
    """States of training forwards, by token, until their backward takes them.

    A forward whose backward never runs would keep its states for ever, so the oldest go first when the budget is full;
    a backward that finds nothing recomputes its forward.
    """

    def __init__(self, buffers: Buffers):
        self._buffers, self._states, self._lock = buffers, OrderedDict(), threading.Lock()
        self._last = self._bytes = 0
        self._limit = KEPT * buffers.limit

    def add(self, states: list[np.ndarray]) -> int:
        """Keeps the states of one call; the token is 0 when they are too large to keep."""
        size = sum(s.nbytes for s in states)
        if size > self._limit:
            self._release(states)
            return 0
        with self._lock:
            while self._bytes + size > self._limit:
                self._release(self._pop(next(iter(self._states))))
            self._last += 1
            self._states[self._last] = states
            self._bytes += size
            return self._last

    def take(self, token: int) -> list[np.ndarray] | None:
        """The states of a token, which are the caller's from now on; None when they are gone."""
        with self._lock:
            return self._pop(token) if token in self._states else None

    def _pop(self, token: int) -> list[np.ndarray]:
        states = self._states.pop(token)
        self._bytes -= sum(s.nbytes for s in states)
        return states

    def _release(self, states: list[np.ndarray]) -> None:
        for state in states:
            self._buffers.give(state)
