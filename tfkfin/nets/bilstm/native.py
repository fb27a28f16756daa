"""The compiled Bi-LSTM of `bilstm.c`: loading it, and running it on blocks of sequences.

Nothing happens at import; `build` compiles the library at the first call. One thread pool serves the whole process, so
several networks running at once share the cores instead of oversubscribing them. README.md has the memory layouts.
"""

import ctypes
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tfkfin.base import machine
from tfkfin.nets.bilstm import build
from tfkfin.nets.bilstm.buffers import Buffers, Kept, budget
from tfkfin.nets.bilstm.build import NativeUnavailable

WIDEST = 3  # vectors in a block: more do not fit the registers

_lock = threading.Lock()
_loaded: dict = {}  # "kernel" -> Kernel, or "error" -> why there is none


def load() -> "Kernel":
    """The kernel, built and loaded at the first call.

    Raises:
        NativeUnavailable: no compiler, or it fails, or the cache folder cannot be written.
    """
    with _lock:
        if "kernel" not in _loaded and "error" not in _loaded:
            try:
                _loaded["kernel"] = Kernel(build.library())
            except (OSError, AttributeError, NativeUnavailable) as error:  # AttributeError: a function is missing
                _loaded["error"] = str(error)
        if "error" in _loaded:
            raise NativeUnavailable(_loaded["error"])
        return _loaded["kernel"]


def reset() -> None:
    """Forgets the loaded kernel, or why there was none; a forked child needs it because threads are not inherited."""
    _loaded.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=reset)


def _at(array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


class Kernel:
    """The loaded library and what its calls share: threads, buffers, states kept between forward and backward."""

    def __init__(self, path: Path):
        self.library = ctypes.CDLL(str(path))  # a CDLL call releases the GIL
        for name in ("lanes", "pack_floats", "state_floats", "work_floats"):
            getattr(self.library, f"bilstm_{name}").restype = ctypes.c_int64
        self.lanes = self.library.bilstm_lanes()
        self.threads = machine.cores()
        self.pool = ThreadPoolExecutor(self.threads, thread_name_prefix="tfkfin")
        self.buffers = Buffers(budget())
        self.kept = Kept(self.buffers)

    def blocks(self, sequences: int) -> list[tuple[int, int]]:
        """(vectors, first sequence) of each block: as wide as pays, and as many as keep every thread busy."""
        vectors = -(-sequences // self.lanes)
        count = -(-vectors // WIDEST)
        count = min(vectors, -(-count // self.threads) * self.threads)
        plan, first = [], 0
        for i in range(count):
            width = vectors // count + (i < vectors % count)
            plan.append((width, first))
            first += width * self.lanes
        return plan

    def _call(self, name: str, dims, *args) -> int:
        converted = [ctypes.c_int64(a) if isinstance(a, int) else a if a is None else _at(a) for a in args]
        return getattr(self.library, f"bilstm_{name}")(_at(dims), *converted)

    def _pack(self, dims, weights):
        packed = self.buffers.take(self._call("pack_floats", dims))
        pointers = (ctypes.c_void_p * len(weights))(*[w.ctypes.data for w in weights])
        self.library.bilstm_pack(_at(dims), pointers, _at(packed))
        return packed

    def _state(self, dims, width: int, train: bool):
        return self.buffers.take(self._call("state_floats", dims, width, int(train)))

    def _run_split(self, dims, packed, x, out) -> None:
        """One block for several threads: the two directions of a layer side by side."""
        (width, first), = self.blocks(x.shape[0])
        state = self._state(dims, width, False)
        self._call("load", dims, width, first, x, state)
        for level in range(int(dims[4])):
            jobs = [self.pool.submit(self._call, "layer", dims, width, first, 0, level, way, packed, state, out)
                    for way in (0, 1)]
            for job in jobs:
                job.result()
        self.buffers.give(state)

    def _run_block(self, dims, block, packed, x, out, train: bool):
        """Forward of one block; a training forward hands back the state its backward needs."""
        state = self._state(dims, block[0], train)
        self._call("forward", dims, *block, int(train), packed, x, state, out)
        if train:
            return state
        return self.buffers.give(state)

    def forward(self, x, weights, readout: str, keep: bool):
        """Top layer's final states (N, units or 2 units) of x (N, T, D), and a token of what was kept (0: nothing)."""
        x, weights, dims = _arguments(x, weights, readout)
        out = np.zeros((x.shape[0], int(dims[3]) * (2 if dims[5] else 1)), np.float32)
        packed, plan = self._pack(dims, weights), self.blocks(x.shape[0])
        token = 0
        if len(plan) == 1 and self.threads > 1 and not keep:
            self._run_split(dims, packed, x, out)
        else:
            jobs = [self.pool.submit(self._run_block, dims, b, packed, x, out, keep) for b in plan]
            states = [job.result() for job in jobs]
            token = self.kept.add(states) if keep else 0
        self.buffers.give(packed)
        return out, np.int64(token)

    def _back_block(self, dims, block, packed, x, dout, state, dw, dx) -> None:
        if state is None:
            spare = np.empty_like(dout)
            state = self._run_block(dims, block, packed, x, spare, True)
        work = self.buffers.take(self._call("work_floats", dims, block[0]))
        self._call("backward", dims, *block, packed, state, dout, work, dw, dx)
        self.buffers.give(work)
        self.buffers.give(state)

    def backward(self, x, weights, readout: str, dout, token: int):
        """Gradients of sum(dout * forward) wrt x and each weight; the block sums are added in a fixed order."""
        x, weights, dims = _arguments(x, weights, readout)
        dout, dx = np.ascontiguousarray(dout, np.float32), np.empty_like(x)
        packed, plan = self._pack(dims, weights), self.blocks(x.shape[0])
        states = self.kept.take(int(token)) or [None] * len(plan)
        dw = np.empty((len(plan), sum(w.size for w in weights)), np.float32)
        jobs = [self.pool.submit(self._back_block, dims, block, packed, x, dout, state, dw[i], dx)
                for i, (block, state) in enumerate(zip(plan, states))]
        for job in jobs:
            job.result()
        self.buffers.give(packed)
        total, ends = dw.sum(axis=0), np.cumsum([w.size for w in weights])
        return [dx, *(part.reshape(w.shape) for part, w in zip(np.split(total, ends[:-1]), weights))]


def _arguments(x, weights, readout: str):
    """Contiguous float32 arrays, and dims = {N, T, D, U, L, both} as the C side reads them."""
    x = np.ascontiguousarray(x, np.float32)
    weights = [np.ascontiguousarray(w, np.float32) for w in weights]
    dims = np.array([*x.shape, weights[1].shape[0], len(weights) // 6, readout == "both"], np.int64)
    return x, weights, dims
