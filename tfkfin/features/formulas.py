"""The features' formulas on whole windows: the definition that every faster way must equal.

Each formula takes `Samples` and gives (N, C). Samples are float32, as the pipeline carries them; sums are float64.
A window is *flat* when its variance is within float32 rounding of its mean square (FLAT): its variance counts as 0.
"""

from functools import cached_property

import numpy as np

FLAT = 1e-12  # variance / mean square: a standard deviation of 8 float32 steps
TINY = float(np.finfo(np.float32).tiny)
ZC_THRESHOLD = 0.0  # x: a crossing counts when it steps by more than this
SSC_THRESHOLD = 0.0  # x: a turn counts when the larger of its two steps exceeds this
WAMP_THRESHOLD = 0.1  # x: 0.1 sd of a standardised channel
HIST_BINS, HIST_RANGE = 32, 4.0  # 32 bins over -4..4 (sd of a standardised channel); the end bins take what lies beyond
SAMPEN_ORDER, SAMPEN_TOLERANCE = 2, 0.2  # template samples; tolerance in sd of the window
AR_ORDER = 4


def ratio(above, below):
    """above / below, and 0 where `below` is 0: what a flat window answers."""
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below != 0)


def not_flat(variance, square):
    """`variance`, with 0 where it is only the rounding of samples whose mean square is `square`."""
    return np.where(variance <= FLAT * square, 0.0, variance)


class Samples:
    """Of windows: `x` (N, C, L) float32 at `rate_hz`, and what several formulas share, computed once."""

    def __init__(self, x: np.ndarray, rate_hz: float):
        self.x, self.rate_hz, self.length = x, rate_hz, x.shape[-1]

    @cached_property
    def wide(self):
        return self.x.astype(np.float64)

    @cached_property
    def square(self):
        return np.einsum("ncl,ncl->nc", self.wide, self.wide) / self.length

    @cached_property
    def centred(self):
        return self.wide - self.wide.mean(-1, keepdims=True)

    @cached_property
    def var(self):
        return not_flat(np.einsum("ncl,ncl->nc", self.centred, self.centred) / self.length, self.square)

    @cached_property
    def step(self):
        return np.diff(self.x, axis=-1)  # float32: thresholds then see the same values as in the streaming form

    @cached_property
    def hjorth(self):
        steps = np.diff(self.wide, axis=-1)
        return [self.var] + [not_flat(d.var(-1), self.square) for d in (steps, np.diff(steps, axis=-1))]

    @cached_property
    def ar(self):
        return burg(self.wide, AR_ORDER)

    @cached_property
    def spectrum(self):
        """Frequencies (K,) in Hz and one-sided power (N, C, K) in x^2, which adds up to the variance."""
        centred = np.where(self.var[..., None] > 0, self.centred, 0.0)
        power = np.abs(np.fft.rfft(centred)) ** 2 / self.length**2
        power[..., 1 : (self.length + 1) // 2] *= 2
        return np.fft.rfftfreq(self.length, 1 / self.rate_hz), power


def entropy(w):
    shifted = w.wide - w.wide.max(-1, keepdims=True)
    e = np.exp(shifted)
    total = e.sum(-1)
    return np.log(total) - np.einsum("ncl,ncl->nc", shifted, e) / total


def log_detector(w):
    size = np.abs(w.wide)
    some = size > 0
    count = some.sum(-1)
    logs = np.log(np.where(some, size, 1.0)).sum(-1)
    return np.where(count > 0, np.exp(ratio(logs, count)), 0.0)


def crossings(w):
    below = w.x < 0
    return ((below[..., 1:] != below[..., :-1]) & (np.abs(w.step) > ZC_THRESHOLD)).sum(-1)


def turns(before, after):
    """Where the slope changes sign: steps `before` and `after` a sample are of opposite sign and large enough."""
    opposite = ((before > 0) & (after < 0)) | ((before < 0) & (after > 0))
    return opposite & (np.maximum(np.abs(before), np.abs(after)) > SSC_THRESHOLD)


def moment_ratio(w, order):
    sd = np.sqrt(w.var)[..., None]
    return (ratio(w.centred, np.broadcast_to(sd, w.centred.shape)) ** order).mean(-1)


def mobility(var, var_step):
    return np.sqrt(ratio(var_step, var))


def complexity(var, var_step, var_bend):
    return ratio(mobility(var_step, var_bend), mobility(var, var_step))


def burg(x, order):
    """Burg's a_1..a_order (..., order) of x_t = -sum a_k x_{t-k} + e, without removing the mean; 0 where x is 0."""
    a = np.zeros(x.shape[:-1] + (order + 1,))
    a[..., 0] = 1
    forward, backward = x[..., 1:], x[..., :-1]
    for i in range(order):
        energy = (forward**2).sum(-1) + (backward**2).sum(-1)
        k = -2 * ratio((forward * backward).sum(-1), energy)[..., None]
        a[..., : i + 2] += k * a[..., i + 1 :: -1]
        forward, backward = (forward + k * backward)[..., 1:], (backward + k * forward)[..., :-1]
    return a[..., 1:]


def mean_frequency(w):
    f, power = w.spectrum
    return ratio(power @ f, power.sum(-1))


def median_frequency(w):
    f, power = w.spectrum
    below = np.cumsum(power, axis=-1)
    return np.where(w.var > 0, f[np.argmax(below >= below[..., -1:] / 2, axis=-1)], 0.0)


def bits(p):
    """-sum p log2 p over the last axis, with 0 log 0 = 0."""
    return -(p * np.log2(np.where(p > 0, p, 1.0))).sum(-1) + 0.0  # + 0.0: no minus zero


def spectral_entropy(w):
    _, power = w.spectrum
    return bits(ratio(power, np.broadcast_to(power.sum(-1, keepdims=True), power.shape)))


def patterns(a, b, c):
    """The six orders of three neighbours, one mask each; ties count as rising."""
    ab, bc, ac = a <= b, b <= c, a <= c
    return (ab & bc, ~ab & ~bc, ab & ~bc & ac, ab & ~bc & ~ac, ~ab & bc & ac, ~ab & bc & ~ac)


def permutation_entropy(w):
    masks = patterns(w.x[..., :-2], w.x[..., 1:-1], w.x[..., 2:])
    return bits(np.stack([m.sum(-1) for m in masks], -1) / (w.length - 2))


def histogram_entropy(w):
    n, c, length = w.x.shape
    bins = np.clip((w.wide + HIST_RANGE) * (HIST_BINS / (2 * HIST_RANGE)), 0, HIST_BINS - 1).astype(np.int64)
    bins += np.arange(n * c).reshape(n, c, 1) * HIST_BINS
    counts = np.bincount(bins.ravel(), minlength=n * c * HIST_BINS).reshape(n, c, HIST_BINS)
    return bits(counts / length) * np.log(2)


def sample_entropy(w):
    """-ln(A / B); A or B = 0 answers the largest value that the length allows, ln((L-m)(L-m-1)/2); flat is 0."""
    m, x = SAMPEN_ORDER, w.wide
    tolerance = SAMPEN_TOLERANCE * np.sqrt(w.var)[..., None]
    short, long = np.zeros(w.var.shape), np.zeros(w.var.shape)
    for lag in range(1, w.length - m):
        near = np.abs(x[..., lag:] - x[..., :-lag]) < tolerance
        both = near[..., : -m] & near[..., 1 : -m + 1]  # m = 2 neighbours near, and below the third too
        short += both.sum(-1)
        long += (both & near[..., m:]).sum(-1)
    most = (w.length - m) * (w.length - m - 1) / 2
    found = (long > 0) & (short > 0)
    value = np.where(found, np.log(np.where(found, short, 1.0) / np.where(found, long, 1.0)), np.log(most))
    return np.where(w.var > 0, value, 0.0)
