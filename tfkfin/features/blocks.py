"""Sums over blocks of one stride, and where windows run by that stride: what `feature_sums` builds features from.

Sums inside a block are float32 about the block's own mean or maximum; all that joins blocks is float64.
"""

from functools import cached_property

import numpy as np

from tfkfin.features import formulas

CHUNK = 32  # rows added in float32 before going on in float64 (and in uint8 for counts)
PIECE = 1 << 18  # samples x channels whose blocks are summed at once: a few such float32 arrays fit the cache
RUN = 1 << 15  # windows x channels joined at once
SHORTEST_RUN = 4  # windows: below it the direct formula costs no more


def plan(starts: np.ndarray, length: int) -> tuple[int, list[tuple[int, int]]]:
    """The stride, and the runs [low, high) of `starts` that go by it; no runs where no stride divides `length`."""
    steps = np.diff(starts)
    fit = steps[(steps > 0) & (steps <= length)]
    counts = np.bincount(fit, minlength=length + 1)
    counts[[i for i in np.flatnonzero(counts) if length % i]] = 0
    if not counts.any():
        return length, []
    stride = int(counts.argmax())
    edges = np.concatenate([[0], np.flatnonzero(steps != stride) + 1, [len(starts)]])
    long = np.flatnonzero(np.diff(edges) >= SHORTEST_RUN)
    return stride, [(int(edges[i]), int(edges[i + 1])) for i in long]


def covered(runs) -> int:
    """How many windows the runs hold."""
    return sum(high - low for low, high in runs)


def pieces(runs, stride: int, length: int, channels: int):
    """Cuts long runs [low, high) of windows; a piece repeats the k - 1 blocks before it."""
    most = max(RUN // channels, 8 * (length // stride))
    for low, high in runs:
        count = -(-(high - low) // most)
        for i in range(count):
            yield low + (high - low) * i // count, low + (high - low) * (i + 1) // count


def _total(terms):
    """Column sums of (R, Q) terms or masks: float32 within a chunk, float64 over several."""
    if terms.dtype == bool:
        terms = terms.view(np.uint8)
    return _chunked(lambda rows: terms[rows].sum(0, dtype=terms.dtype), len(terms))


def _dot(a, b):
    """Column sums of a * b, (R, Q), in the same way."""
    return _chunked(lambda rows: np.einsum("rq,rq->q", a[rows], b[rows]), len(a))


def _chunked(of, count):
    if count <= CHUNK:
        return of(slice(None)).astype(np.float32, copy=False)
    parts = (of(slice(i, i + CHUNK)) for i in range(0, count, CHUNK))
    return sum(part.astype(np.float64) for part in parts)


class Blocks:
    """Samples (n d, C), laid out (d, n C): row i holds sample i of each of n blocks; sums run down columns.

    `reach` more rows hold what follows each block, for terms of two or three neighbours; 0 past the end of `x`.
    """

    def __init__(self, x: np.ndarray, n: int, stride: int, reach: int):
        channels = x.shape[1]
        ahead = np.empty((stride + reach, n, channels), np.float32)
        sample = np.dtype((np.void, 4 * channels))  # moved as one item, twice as fast as its floats
        rows = np.ascontiguousarray(x[: n * stride], np.float32).view(sample)
        ahead[:stride].view(sample)[..., 0] = rows.reshape(n, stride).T
        for row in range(stride, stride + reach):
            follow = x[row::stride][:n]
            ahead[row, : len(follow)] = follow
            ahead[row, len(follow) :] = 0
        self.stride, self.channels, self.ahead = stride, channels, ahead.reshape(stride + reach, -1)
        self.x = self.ahead[:stride]

    @cached_property
    def moments(self):
        """Block mean, y = x - mean, and the sums of y and y^2 (the mean is rounded, so y need not add up to 0)."""
        mean = (_total(self.x) / self.stride).astype(np.float32)
        y = self.x - mean
        return mean, y, _total(y), _dot(y, y)

    @cached_property
    def step(self):
        return self.ahead[1:] - self.ahead[:-1]  # (d + reach - 1, n C)


def _moments(b, low, high):
    mean, _, first, second = b.moments
    return mean, first, second


def _high_moments(b, low, high):
    mean, y, first, second = b.moments
    square = y * y
    return mean, first, second, _dot(square, y), _dot(square, square)


def _softmax(b, low, high):
    """The block's maximum, and sums of e^y and y e^y with y = x - maximum: nothing overflows or loses digits."""
    top = b.x.max(0)
    y = b.x - top
    e = np.exp(y)
    return top, _total(e), _dot(y, e)


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


# name: (samples that a term reaches ahead, its parts over rows low..high; all rows where it reaches none)
SUMS = {
    "plain": (0, lambda b, low, high: (_total(b.x), _dot(b.x, b.x))),
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


def block_sums(x: np.ndarray, stride: int, length: int, needs: tuple[str, ...]) -> dict[str, tuple]:
    """For each sum named, lists of (n, C) float64: over whole blocks, and over their heads where it reaches ahead.

    A window has `length - reach` terms: whole blocks and the head of one more, so no term crosses the window's end.
    """
    found, furthest = {name: ([], []) for name in needs}, max((SUMS[name][0] for name in needs), default=0)
    step = max(1, PIECE // (stride * x.shape[1]))
    count = len(x) // stride
    for i in range(0, count, step):
        b = Blocks(x[i * stride : (i + step) * stride + 2], min(step, count - i), stride, furthest)
        for name, (full, heads) in found.items():
            reach, of = SUMS[name]
            rest = (length - reach) % stride
            full.append(of(b, rest, stride))
            if rest:
                heads.append(of(b, 0, rest))
                full[-1] = [a + b for a, b in zip(full[-1], heads[-1], strict=True)]
    shape = (count, x.shape[1])
    return {name: tuple(_joined(pieces, shape) for pieces in both) for name, both in found.items()}


def _joined(pieces, shape):
    return [np.concatenate(parts, dtype=np.float64).reshape(shape) for parts in zip(*pieces, strict=True)]
