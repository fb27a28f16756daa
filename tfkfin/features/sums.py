"""Statistics of windows that follow each other by one stride, at a cost per window that does not grow with its length.

A window of k strides consists of k blocks of one stride. Each sample is added once, into its block; sums over windows
are then sums over k blocks, computed by doubling (`slide`). There are no running totals, so rounding does not
accumulate and a spike affects only the windows that contain it. Sums inside a block are float32 about the block's own
mean or maximum; sums over blocks are float64. A statistic is NaN where its sums would cancel: there `catalogue` uses
`formulas.Samples`.
"""

from functools import cached_property

import numpy as np

from tfkfin.features import formulas

CHUNK = 32  # rows that are added in float32 (counts: in uint8) before the sum goes on in float64
PIECE = 1 << 18  # samples x channels whose blocks are summed at once: a few such float32 arrays fit the cache
RUN = 1 << 15  # windows x channels joined at once
SHORTEST_RUN = 4  # windows: with fewer the formulas on formed windows cost no more
PLAIN = 0.1  # variance / mean square from which float32 sums of squares about 0 keep the variance's digits
CANCEL = 1e-8  # variance / (distance from the centre)^2 below which float64 sums lose float32 digits


def plan(starts: np.ndarray, length: int) -> tuple[int, list[tuple[int, int]]]:
    """The stride, and the runs [low, high) of `starts` that follow it; no runs where no stride divides `length`."""
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
    """Cuts long runs [low, high) of windows into pieces; neighbouring pieces share k - 1 blocks."""
    most = max(RUN // channels, 8 * (length // stride))
    for low, high in runs:
        count = -(-(high - low) // most)
        for i in range(count):
            yield low + (high - low) * i // count, low + (high - low) * (i + 1) // count


def _total(terms):
    """Column sums of terms or masks (R, Q): float32 within a chunk, float64 over several."""
    if terms.dtype == bool:
        terms = terms.view(np.uint8)
    return _chunked(lambda rows: terms[rows].sum(0, dtype=terms.dtype), len(terms))


def _dot(a, b):
    """Column sums of a * b (R, Q), added likewise."""
    return _chunked(lambda rows: np.einsum("rq,rq->q", a[rows], b[rows]), len(a))


def _chunked(of, count):
    if count <= CHUNK:
        return of(slice(None)).astype(np.float32, copy=False)
    parts = (of(slice(i, i + CHUNK)) for i in range(0, count, CHUNK))
    return sum(part.astype(np.float64) for part in parts)


class _Blocks:
    """n blocks of samples x (n d, C), laid out (d, n C): row i holds sample i of each block, so sums run down columns.

    `reach` further rows hold what follows each block, for terms of two or three neighbours; past the end of `x` they
    are 0.
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
        """Block mean, y = x - mean, and the sums of y (not quite 0, as the mean is rounded) and y^2."""
        mean = (_total(self.x) / self.stride).astype(np.float32)
        y = self.x - mean
        return mean, y, _total(y), _dot(y, y)

    @cached_property
    def step(self):
        return self.ahead[1:] - self.ahead[:-1]  # (d + reach - 1, n C)


def _high_moments(b, low, high):
    mean, y, first, second = b.moments
    square = y * y
    return mean, first, second, _dot(square, y), _dot(square, square)


def _softmax(b, low, high):
    """The block's maximum, and the sums of e^y and y e^y with y = x - maximum, which cannot overflow."""
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


# name: (samples beyond its own that a term uses, (blocks, low, high) -> its parts over rows low..high)
SUMS = {
    "plain": (0, lambda b, low, high: (_total(b.x), _dot(b.x, b.x))),
    "moments": (0, lambda b, low, high: (b.moments[0], *b.moments[2:])),
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
    """For each sum of `needs`, lists of (n, C) float64: over whole blocks, and over the first rows of each block.

    A window has `length - reach` terms: whole blocks and the first rows of one more, so no term crosses its end.
    """
    found, furthest = {name: ([], []) for name in needs}, max((SUMS[name][0] for name in needs), default=0)
    step = max(1, PIECE // (stride * x.shape[1]))
    count = len(x) // stride
    for i in range(0, count, step):
        b = _Blocks(x[i * stride : (i + step) * stride + 2], min(step, count - i), stride, furthest)
        for name, (full, first_rows) in found.items():
            reach, of = SUMS[name]
            rest = (length - reach) % stride
            full.append(of(b, rest, stride))
            if rest:
                first_rows.append(of(b, 0, rest))
                full[-1] = [a + b for a, b in zip(full[-1], first_rows[-1], strict=True)]
    shape = (count, x.shape[1])
    return {name: tuple(_joined(parts, shape) for parts in both) for name, both in found.items()}


def _joined(parts, shape):
    return [np.concatenate(part, dtype=np.float64).reshape(shape) for part in zip(*parts, strict=True)]


def slide(rows: np.ndarray, k: int) -> np.ndarray:
    """Sums of k neighbouring rows: (n + k - 1, ...) -> (n, ...), by doubling."""
    n = len(rows) - k + 1
    total, done, size = None, 0, 1
    while k:
        if k & 1:
            part = rows[done : done + n]
            total = part.copy() if total is None else np.add(total, part, out=total)
            done += size
        k >>= 1
        if k:
            rows, size = rows[:-size] + rows[size:], size * 2
    return np.zeros((n,) + rows.shape[1:]) if total is None else total


def _about(centre, stride, mean, first, second, *high):
    """Sums of powers of x - centre from block means and sums of powers of y = x - mean, by the binomial theorem."""
    away = mean - centre
    lump = stride * away
    sums = [first + lump, second + away * (2 * first + lump)]
    if high:
        third, fourth = high
        sums.append(third + away * (3 * second + away * (3 * first + lump)))
        sums.append(fourth + away * (4 * third + away * (6 * second + away * (4 * first + lump))))
    return sums


def _below(highest, top, total, weighted):
    """Sums of e^z and z e^z with z = x - highest, from those about the blocks' maxima `top`."""
    down = top - highest
    scale = np.exp(down)
    return [total * scale, (weighted + down * total) * scale]


def _sum(name):
    return property(lambda self: self[name][0])


class WindowSums:
    """The statistics of `formulas.Samples` (N, C) of the windows of a piece x (T, C); `sums[name]`: parts of one sum.

    Args:
        needs: the sums (keys of SUMS) that will be asked for; others are computed when they are.
    """

    absolute, path, jumps, crossings, turns = map(_sum, ("abs", "path", "jumps", "crossings", "turns"))
    logs, patterns = property(lambda self: self["logs"]), property(lambda self: self["patterns"])
    var, square = property(lambda self: self.moments[1]), property(lambda self: self.moments[2])

    def __init__(self, x: np.ndarray, stride: int, length: int, needs: tuple[str, ...]):
        self.x, self.stride, self.length = x, stride, length
        self.n = (len(x) - length) // stride + 1
        self.table = {}
        self._add(needs)

    def _add(self, needs):
        x, stride, length = self.x, self.stride, self.length
        for name, (full, first_rows) in block_sums(x, stride, length, needs).items():
            if name in ("moments", "high_moments"):
                self.centre = full[0].mean(0)
                full = _about(self.centre, stride, *full)
            elif name == "softmax":
                full = _below(full[0].max(0), *full)
            self.table[name] = self._windows(full, first_rows, (length - SUMS[name][0]) // stride)

    def _windows(self, full, first_rows, whole):
        totals = [slide(part, whole)[: self.n] for part in full]
        for total, first in zip(totals, first_rows, strict=False):
            total += first[whole : whole + self.n]
        return totals

    def __getitem__(self, name):
        if name not in self.table:
            self._add((name,))
        return self.table[name]

    def sample(self, i):
        """Sample i of each window (n, C); i < 0 counts from its end."""
        i %= self.length
        return self.x[i : i + (self.n - 1) * self.stride + 1 : self.stride].astype(np.float64)

    @cached_property
    def moments(self):
        """Mean, variance and mean square (n, C); NaN where the variance would lose its digits.

        Sums of x and x^2 suffice where every mean is small beside its sd, as in EMG; else sums about the blocks' means.
        """
        if "high_moments" not in self.table:
            mean, square = (s / self.length for s in self["plain"])
            var = square - mean**2
            if np.all((var >= PLAIN * square) & (square < np.inf)):
                return mean, var, square
        name = "high_moments" if "high_moments" in self.table else "moments"
        first, second = (s / self.length for s in self[name][:2])
        var = second - first**2
        var = np.where((var >= CANCEL * first**2) & (var < np.inf), var, np.nan)
        mean = self.centre + first
        square = var + mean**2
        return mean, formulas.not_flat(var, square), square

    def moment_ratio(self, order):
        """As of `Samples`, for order 3 or 4; NaN where fourth powers would lose digits or leave float32's range.

        With a_k = mean (x - c)^k: central moments are a_3 - 3 a_1 a_2 + 2 a_1^3 and
        a_4 - 4 a_1 a_3 + 6 a_1^2 a_2 - 3 a_1^4.
        """
        first, second, third, fourth = (s / self.length for s in self["high_moments"])
        safe = ((self.var >= 1e-4 * first**2) & (self.var > 1e-16) & (self.var < 1e16)) | (self.var == 0)
        central = third - 3 * first * second + 2 * first**3 if order == 3 else \
            fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4
        return formulas.ratio(central, np.where(safe, self.var, np.nan) ** (order / 2))

    def _difference_var(self, name, terms, rise):
        """Variance of differences (n, C) from the sum of their squares and their sum `rise`; NaN for ramps."""
        square, mean = self[name][0] / terms, rise / terms
        var = np.where((square >= 1.1 * mean**2) & (square < np.inf), square - mean**2, np.nan)
        return formulas.not_flat(var, self.square)

    @cached_property
    def step_var(self):
        return self._difference_var("steps", self.length - 1, self.sample(-1) - self.sample(0))

    @cached_property
    def bend_var(self):
        rise = (self.sample(-1) - self.sample(-2)) - (self.sample(1) - self.sample(0))
        return self._difference_var("bends", self.length - 2, rise)

    @property
    def softmax(self):
        total, weighted = self["softmax"]  # NaN where the window lies some 570 below the highest sample
        return np.where(total < 1e-250, np.nan, total), weighted
