"""The formulas of the features: each takes the statistics of windows, `Samples` or `sums.WindowSums`, and gives (N, C).

`Samples` is the definition that every faster way must equal. Samples are float32, as in the pipeline; sums are float64.
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
    """above / below, and 0 where `below` is 0, as in a flat window."""
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below != 0)


def not_flat(variance, square):
    """`variance`, or 0 where it is no more than the rounding of samples whose mean square is `square`."""
    return np.where(variance <= FLAT * square, 0.0, variance)


class Samples:
    """Windows `x` (N, C, L) float32 at `rate_hz`, with the statistics that several formulas share, computed once.

    `tfkfin.features.sums.WindowSums` has the same statistics under the same names, from sums over blocks. A formula
    that uses these names alone works on both.
    """

    def __init__(self, x: np.ndarray, rate_hz: float):
        self.x, self.rate_hz, self.length = x, rate_hz, x.shape[-1]

    @cached_property
    def wide(self):
        return self.x.astype(np.float64)

    @cached_property
    def square(self):
        """Mean square (N, C)."""
        return np.einsum("ncl,ncl->nc", self.wide, self.wide) / self.length

    @cached_property
    def centred(self):
        return self.wide - self.wide.mean(-1, keepdims=True)

    @cached_property
    def var(self):
        return not_flat(np.einsum("ncl,ncl->nc", self.centred, self.centred) / self.length, self.square)

    @cached_property
    def step(self):
        return np.diff(self.x, axis=-1)  # float32: `WindowSums` compares the same values with the thresholds

    @cached_property
    def step_var(self):
        """Variance of first differences (N, C)."""
        return not_flat(np.diff(self.wide, axis=-1).var(-1), self.square)

    @cached_property
    def bend_var(self):
        """Variance of second differences (N, C)."""
        return not_flat(np.diff(self.wide, 2, axis=-1).var(-1), self.square)

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

    absolute = property(lambda w: np.abs(w.wide).sum(-1))  # sum |x|
    path = property(lambda w: np.abs(np.diff(w.wide)).sum(-1))  # sum |x[i+1] - x[i]|
    jumps = property(lambda w: (np.abs(w.step) > WAMP_THRESHOLD).sum(-1))
    turns = property(lambda w: turns(w.step[..., :-1], w.step[..., 1:]).sum(-1))
    patterns = property(lambda w: [mask.sum(-1) for mask in patterns(w.x[..., :-2], w.x[..., 1:-1], w.x[..., 2:])])

    @property
    def crossings(self):
        below = self.x < 0
        return ((below[..., 1:] != below[..., :-1]) & (np.abs(self.step) > ZC_THRESHOLD)).sum(-1)

    @property
    def logs(self):
        """sum ln|x| over the samples that are not 0, and their number."""
        some = self.wide != 0
        return np.log(np.where(some, np.abs(self.wide), 1.0)).sum(-1), some.sum(-1)

    @property
    def softmax(self):
        """sum e^y and sum y e^y with y = x - max x, so that nothing overflows."""
        y = self.wide - self.wide.max(-1, keepdims=True)
        e = np.exp(y)
        return e.sum(-1), np.einsum("ncl,ncl->nc", y, e)

    def moment_ratio(self, order):
        """mean (x - mean x)^order / sd^order; 0 for a flat window."""
        sd = np.sqrt(self.var)[..., None]
        return (ratio(self.centred, np.broadcast_to(sd, self.centred.shape)) ** order).mean(-1)


def entropy(w):
    """H = -sum p ln p of p = e^x / sum e^x, as ln(sum e^y) - sum y e^y / sum e^y with y = x - max x."""
    total, weighted = w.softmax
    return np.maximum(np.log(total) - weighted / total, 0.0)


def log_detector(w):
    logs, count = w.logs
    return np.where(count > 0, np.exp(ratio(logs, count)), 0.0)


def turns(before, after):
    """Where the slope changes sign: steps `before` and `after` a sample are of opposite sign and large enough."""
    opposite = ((before > 0) & (after < 0)) | ((before < 0) & (after > 0))
    return opposite & (np.maximum(np.abs(before), np.abs(after)) > SSC_THRESHOLD)


def kurtosis(w):
    return np.where(w.var == 0, 0.0, w.moment_ratio(4) - 3)


def mobility(var, var_step):
    return np.sqrt(ratio(var_step, var))


def complexity(var, var_step, var_bend):
    return ratio(mobility(var_step, var_bend), mobility(var, var_step))


def burg(x, order):
    """Burg's a_1..a_order (..., order) of x_t = -sum a_k x_{t-k} + e. The mean is kept; where x is 0 they are 0.

    Stage i minimises the energy of both prediction errors: k = -2 sum f_t b_{t-1} / sum (f_t^2 + b_{t-1}^2).
    """
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
    return bits(np.stack(w.patterns, -1) / (w.length - 2))


def histogram_entropy(w):
    n, c, length = w.x.shape
    bins = np.clip((w.wide + HIST_RANGE) * (HIST_BINS / (2 * HIST_RANGE)), 0, HIST_BINS - 1).astype(np.int64)
    bins += np.arange(n * c).reshape(n, c, 1) * HIST_BINS
    counts = np.bincount(bins.ravel(), minlength=n * c * HIST_BINS).reshape(n, c, HIST_BINS)
    return bits(counts / length) * np.log(2)


def sample_entropy(w):
    """-ln(A / B): B and A count pairs of windows of m and m + 1 samples that differ by less than 0.2 sd everywhere.

    Where A or B is 0, the value is the largest that the length allows, ln((L-m)(L-m-1)/2). A flat window gives 0.
    """
    m, x = SAMPEN_ORDER, w.wide
    tolerance = SAMPEN_TOLERANCE * np.sqrt(w.var)[..., None]
    short, long = np.zeros(w.var.shape), np.zeros(w.var.shape)
    for lag in range(1, w.length - m):
        near = np.abs(x[..., lag:] - x[..., :-lag]) < tolerance
        both = near[..., : -m] & near[..., 1 : -m + 1]  # m = 2 neighbours are near; below, the third too
        short += both.sum(-1)
        long += (both & near[..., m:]).sum(-1)
    most = (w.length - m) * (w.length - m - 1) / 2
    found = (long > 0) & (short > 0)
    value = np.where(found, np.log(np.where(found, short, 1.0) / np.where(found, long, 1.0)), np.log(most))
    return np.where(w.var > 0, value, 0.0)
