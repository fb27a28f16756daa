"""Features of a run of windows in O(1) a window: sums over blocks of one stride, then sums over blocks.

A window of k strides is k blocks, so each sample is touched once, not k times. Blocks add up in float64, by doubling:
no running totals, so nothing drifts and a spike stays in its own windows.
A feature answers NaN where its sums would cancel; the caller then asks the direct formula.
"""

from functools import cached_property

import numpy as np

from tfkfin.features import formulas
from tfkfin.features.blocks import SUMS, block_sums

PLAIN = 0.1  # variance / mean square from which float32 sums of squares about 0 keep the variance's digits
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


def _about(centre, stride, mean, first, second, *high):
    """Sums of powers of x - centre from block means and sums of powers of y = x - mean; all (n, C), centre (C,)."""
    away = mean - centre
    lump = stride * away
    sums = [first + lump, second + away * (2 * first + lump)]
    if high:
        third, fourth = high
        sums.append(third + away * (3 * second + away * (3 * first + lump)))
        sums.append(fourth + away * (4 * third + away * (6 * second + away * (4 * first + lump))))
    return sums


def _below(highest, top, total, weighted):
    """Sums of e^z and z e^z, z = x - highest, from the same about the blocks' maxima `top`."""
    down = top - highest
    scale = np.exp(down)
    return [total * scale, (weighted + down * total) * scale]


class Sums:
    """Window sums of a piece x (T, C): `sums[name]` is a list of (n, C) float64, one for each of its parts."""

    def __init__(self, x: np.ndarray, stride: int, length: int, needs: tuple[str, ...]):
        self.x, self.stride, self.length = x, stride, length
        self.n = (len(x) - length) // stride + 1
        self.table = {}
        self._add(needs)

    def _add(self, needs):
        x, stride, length = self.x, self.stride, self.length
        for name, (full, heads) in block_sums(x, stride, length, needs).items():
            if name in ("moments", "high_moments"):
                self.centre = full[0].mean(0)
                full = _about(self.centre, stride, *full)
            elif name == "softmax":
                full = _below(full[0].max(0), *full)
            self.table[name] = self._windows(full, heads, (length - SUMS[name][0]) // stride)

    def _windows(self, full, heads, whole):
        totals = [slide(part, whole)[: self.n] for part in full]
        for total, head in zip(totals, heads, strict=False):
            total += head[whole : whole + self.n]
        return totals

    def __getitem__(self, name):
        if name not in self.table:
            self._add((name,))
        return self.table[name]

    def sample(self, i):
        """Each window's sample i (n, C); from its end where i < 0."""
        i %= self.length
        return self.x[i : i + (self.n - 1) * self.stride + 1 : self.stride].astype(np.float64)

    @cached_property
    def moments(self):
        """Mean, variance and mean square (n, C); NaN where the variance would lose its digits.

        Sums of x and x^2 do where no mean is large beside its deviation, as in EMG; else sums about the blocks' means.
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

    @cached_property
    def shape(self):
        """Variance, third and fourth central moments (n, C); NaN where powers of 4 would lose or leave float32."""
        first, second, third, fourth = (s / self.length for s in self["high_moments"])
        var = self.moments[1]
        safe = ((var >= 1e-4 * first**2) & (var > 1e-16) & (var < 1e16)) | (var == 0)
        cubes = third - 3 * first * second + 2 * first**3
        return np.where(safe, var, np.nan), cubes, fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4

    def slope_variance(self, name, terms, rise):
        """Variance (n, C) of differences from their squares and their sum `rise`; NaN for ramps, where it cancels."""
        square, mean = self[name][0] / terms, rise / terms
        var = np.where((square >= 1.1 * mean**2) & (square < np.inf), square - mean**2, np.nan)
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
    if total.min() < 1e-250:  # the window lies some 570 below the piece's highest sample
        total = np.where(total < 1e-250, np.nan, total)
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
