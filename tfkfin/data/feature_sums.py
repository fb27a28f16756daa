"""Features of a run of windows in O(1) a window: sums over blocks of one stride, then sums over blocks.

A window of k strides is k blocks, so each sample is touched once, not k times. Blocks add up in float64, by doubling:
no running totals, so nothing drifts and a spike stays in its own windows.
A feature answers NaN where its sums would cancel; the caller then asks the direct formula.
"""

from functools import cached_property

import numpy as np

from tfkfin.data import feature_formulas as formulas
from tfkfin.data.feature_blocks import SUMS, Blocks

CANCEL = 1e-8  # variance / (distance from the piece's mean)^2 below which float64 sums lose float32 digits


def slide(blocks: np.ndarray, k: int) -> np.ndarray:
    """Sums of k neighbouring rows: (n + k - 1, ...) -> (n, ...), as a tree of doublings."""
    n = len(blocks) - k + 1
    total, done, size = None, 0, 1
    while k:
        if k & 1:
            part = blocks[done : done + n]
            total = part.copy() if total is None else np.add(total, part, out=total)
            done += size
        k >>= 1
        if k:
            blocks, size = blocks[:-size] + blocks[size:], size * 2
    return np.zeros((n,) + blocks.shape[1:]) if total is None else total


def _rows(parts, channels):
    """Block sums, each (n C,), as one (n, parts, C)."""
    return np.stack([part.reshape(-1, channels) for part in parts], axis=1)


class Sums:
    """Window sums of a piece: `sums[name]` is a tuple of (n, C) float64, made when first asked for."""

    def __init__(self, x: np.ndarray, stride: int, length: int):
        self.x, self.stride, self.length = x, stride, length
        self.blocks, self.table = Blocks(x, stride), {}
        self.n = (len(x) - length) // stride + 1

    def __getitem__(self, name):
        if name not in self.table:
            self.table[name] = self._sum(*SUMS[name])
        return self.table[name]

    def _sum(self, reach, of):
        """A window has `length - reach` terms: whole blocks, then the head of one more, so no term crosses its end."""
        whole, rest = divmod(self.length - reach, self.stride)
        head = _rows(of(self.blocks, 0, rest), self.blocks.channels) if rest else 0.0
        full = head + _rows(of(self.blocks, rest, self.stride), self.blocks.channels)
        total = slide(full, whole)[: self.n]
        if rest:
            total += head[whole : whole + self.n]
        return tuple(np.moveaxis(total, 1, 0))

    def sample(self, i):
        """Each window's sample i (n, C); from its end where i < 0."""
        i %= self.length
        return self.x[i : i + (self.n - 1) * self.stride + 1 : self.stride].astype(np.float64)

    @cached_property
    def moments(self):
        """Mean, variance and mean square (n, C); NaN where the variance would lose its digits."""
        first, second = (s / self.length for s in self["moments"])
        var = second - first**2
        var = np.where(var >= CANCEL * first**2, var, np.nan)
        mean = self.blocks.centre + first
        square = var + mean**2
        return mean, formulas.not_flat(var, square), square

    @cached_property
    def shape(self):
        """Variance, third and fourth central moments (n, C); NaN where powers of 4 would lose or leave float32."""
        var = self.moments[1]
        first, second, third, fourth = (s / self.length for s in self["moments"] + self["high_moments"])
        safe = ((var >= 1e-4 * first**2) & (var > 1e-16) & (var < 1e16)) | (var == 0)
        cubes = third - 3 * first * second + 2 * first**3
        return np.where(safe, var, np.nan), cubes, fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4

    def slope_variance(self, name, terms, rise):
        """Variance (n, C) of differences from their squares and their sum `rise`; NaN for ramps, where it cancels."""
        square, mean = self[name][0] / terms, rise / terms
        var = np.where(square >= 1.1 * mean**2, square - mean**2, np.nan)
        return formulas.not_flat(var, self.moments[2])

    @cached_property
    def hjorth(self):
        rise = self.sample(-1) - self.sample(0)
        return self.moments[1], self.slope_variance("steps", self.length - 1, rise)

    @cached_property
    def bend_variance(self):
        rise = (self.sample(-1) - self.sample(-2)) - (self.sample(1) - self.sample(0))
        return self.slope_variance("bends", self.length - 2, rise)


def entropy(s):
    total, weighted = s["softmax"]
    total = np.where(total > 1e-250, total, np.nan)  # the window lies some 570 below the piece's highest sample
    return np.maximum(np.log(total) - weighted / total, 0.0)


def log_detector(s):
    logs, count = s["logs"]
    return np.where(count > 0, np.exp(formulas.ratio(logs, count)), 0.0)


def skewness(s):
    var, third, _ = s.shape
    return formulas.ratio(third, var**1.5)


def kurtosis(s):
    var, _, fourth = s.shape
    return np.where(var == 0, 0.0, formulas.ratio(fourth, var**2) - 3)


def permutation_entropy(s):
    return formulas.bits(np.stack(s["patterns"], -1) / (s.length - 2))
