"""Sums over blocks of one stride, and where windows run by that stride: what `feature_sums` builds features from.

Sums inside a block are float32 about the block's own mean or maximum; all that joins blocks is float64.
"""

from functools import cached_property

import numpy as np

from tfkfin.data import feature_formulas as formulas

CHUNK = 32  # rows added in float32 before going on in float64 (and in uint8 for counts)
PIECE = 1 << 17  # samples x channels worked on at once: three such float32 arrays stay in the cache
SHORTEST_RUN = 4  # windows: below it the direct formula costs no more


def plan(starts: np.ndarray, length: int) -> tuple[int, list[tuple[int, int]]]:
    """The stride, and the runs [low, high) of `starts` that go by it; no runs where no stride divides `length`."""
    steps = np.diff(starts)
    fit = steps[(steps > 0) & (steps <= length)]
    fit = fit[length % fit == 0] if len(fit) else fit
    if not len(fit):
        return length, []
    stride = int(np.bincount(fit).argmax())
    edges = np.concatenate([[0], np.flatnonzero(steps != stride) + 1, [len(starts)]])
    long = np.flatnonzero(np.diff(edges) >= SHORTEST_RUN)
    return stride, [(int(edges[i]), int(edges[i + 1])) for i in long]


def covered(runs) -> int:
    """How many windows the runs hold."""
    return sum(high - low for low, high in runs)


def pieces(runs, stride: int, length: int, channels: int):
    """Cuts runs so that one piece's samples fit the cache; a piece repeats the k - 1 blocks before it."""
    most = max(PIECE // (stride * channels), 4 * (length // stride))
    for low, high in runs:
        count = -(-(high - low) // most)
        for i in range(count):
            yield low + (high - low) * i // count, low + (high - low) * (i + 1) // count


def _total(terms):
    """Column sums of (R, Q) terms or masks, as float64."""
    if terms.dtype == bool:
        terms = terms.view(np.uint8)
    parts = [terms[i : i + CHUNK].sum(0, dtype=terms.dtype) for i in range(0, len(terms), CHUNK)]
    return sum(part.astype(np.float64) for part in parts)


def _dot(a, b):
    """Column sums of a * b, (R, Q), as float64."""
    parts = [np.einsum("rq,rq->q", a[i : i + CHUNK], b[i : i + CHUNK]) for i in range(0, len(a), CHUNK)]
    return sum(part.astype(np.float64) for part in parts)


class Blocks:
    """Samples (n d, C) of a piece, laid out (d, n C): row i holds sample i of each block; sums run down columns.

    Two more rows repeat the next block's first samples, for terms of two or three neighbours; past the end they are 0.
    """

    def __init__(self, x: np.ndarray, stride: int):
        self.stride, self.channels = stride, x.shape[1]
        n = len(x) // stride
        self.ahead = np.zeros((stride + 2, n, self.channels), np.float32)
        self.ahead[:stride] = x.reshape(n, stride, -1).transpose(1, 0, 2)
        for row in (stride, stride + 1):
            block = row // stride
            self.ahead[row, : n - block] = self.ahead[row % stride, block:]
        self.ahead = self.ahead.reshape(stride + 2, -1)
        self.x = self.ahead[:stride]

    @cached_property
    def mean(self):
        return (_total(self.x) / self.stride).astype(np.float32)

    @cached_property
    def centre(self):
        """The piece's mean (C,) float64: near enough to all blocks' means for sums about it to keep their digits."""
        return self.mean.reshape(-1, self.channels).mean(0, dtype=np.float64)

    @cached_property
    def centred(self):
        return self.x - self.mean

    @cached_property
    def squared(self):
        return self.centred * self.centred

    @cached_property
    def first(self):
        return _total(self.centred)

    @cached_property
    def second(self):
        return _dot(self.centred, self.centred)

    @cached_property
    def away(self):
        """The blocks' means less the piece's (n C,) float64."""
        return (self.mean.reshape(-1, self.channels) - self.centre).ravel()

    @cached_property
    def step(self):
        return self.ahead[1:] - self.ahead[:-1]  # (d + 1, n C)


def _moments(b, low, high):
    """Sums of z and z^2, z = x - the piece's centre, from y = x - the block's mean (the mean need not be exact)."""
    away = b.away
    return b.first + b.stride * away, b.second + away * (2 * b.first + b.stride * away)


def _high_moments(b, low, high):
    away, first, second = b.away, b.first, b.second
    third, fourth = _dot(b.squared, b.centred), _dot(b.squared, b.squared)
    cubes = third + away * (3 * second + away * (3 * first + b.stride * away))
    return cubes, fourth + away * (4 * third + away * (6 * second + away * (4 * first + b.stride * away)))


def _softmax(b, low, high):
    """Sums of e^z and z e^z, z = x - the piece's maximum, by way of the block's: nothing overflows or loses digits."""
    top = b.x.max(0)
    y = b.x - top
    e = np.exp(y)
    total, weighted = _total(e), _dot(y, e)
    tops = top.reshape(-1, b.channels).astype(np.float64)
    down = (tops - tops.max(0)).ravel()
    scale = np.exp(down)
    return total * scale, (weighted + down * total) * scale


def _logs(b, low, high):
    some = b.x != 0
    return _total(np.log(np.where(some, np.abs(b.x), np.float32(1)))), _total(some)


def _crossings(b, low, high):
    below = b.ahead[low : high + 1] < 0
    return (_total((below[1:] != below[:-1]) & (np.abs(b.step[low:high]) > formulas.ZC_THRESHOLD)),)


def _bends(b, low, high):
    bend = b.step[low + 1 : high + 1] - b.step[low:high]
    return (_dot(bend, bend),)


def _patterns(b, low, high):
    rows = (b.ahead[low + i : high + i] for i in range(3))
    return tuple(_total(mask) for mask in formulas.patterns(*rows))


# name: (samples that a term reaches ahead, sums over rows low..high of the blocks)
SUMS = {
    "moments": (0, _moments),
    "high_moments": (0, _high_moments),
    "softmax": (0, _softmax),
    "logs": (0, _logs),
    "abs": (0, lambda b, low, high: (_total(np.abs(b.x)),)),
    "path": (1, lambda b, low, high: (_total(np.abs(b.step[low:high])),)),
    "jumps": (1, lambda b, low, high: (_total(np.abs(b.step[low:high]) > formulas.WAMP_THRESHOLD),)),
    "steps": (1, lambda b, low, high: (_dot(b.step[low:high], b.step[low:high]),)),
    "crossings": (1, _crossings),
    "turns": (2, lambda b, low, high: (_total(formulas.turns(b.step[low:high], b.step[low + 1 : high + 1])),)),
    "bends": (2, _bends),
    "patterns": (2, _patterns),
}
