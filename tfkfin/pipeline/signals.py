"""Endless synthetic one-channel windows of what people record, for FINs that hold on any recording.

Nothing here knows a subject, an electrode or a device. A window is surface EMG or its envelope, with its own level, and
may be disturbed in one of the ways of `KINDS`: amplitude, spectrum, bursts, spikes, hum, drift, offset and what
converters do to a signal are drawn anew for every window, far wider than recordings vary. Amplitudes are in standard
deviations of a recording's channel, which is what FINs see.
"""

from collections.abc import Callable

import numpy as np
from scipy import fft

AMPLITUDE = (0.6, 1.1)  # sd of a window, log-normal: median and sd of the logarithm, from near silence to bursts
WIDE, WIDE_SHARE = (2e-3, 60.0), 0.2  # sd of some windows, log-uniform: four decades within a channel
LOW_HZ, HIGH_HZ = (5.0, 60.0), (120.0, 500.0)  # where the pass band begins and ends; amplifiers and skin differ
NYQUIST_HZ, SLOW_SHARE = (35.0, 120.0), 0.3  # end of the band of devices that record at 80 to 250 Hz, and their share
ENVELOPE_HZ = (1.0, 80.0)  # how fast the amplitude fluctuates inside a window
SMOOTHING_HZ = (1.0, 40.0)  # low-pass that devices smooth an envelope by
PEAK = 500.0  # sd; artefacts beyond are clipped as amplifiers do


def windows(rng: np.random.Generator, count: int, length: int, rate_hz: float = 2000.0,
            kind: str | None = None) -> np.ndarray:
    """`count` random windows (count, length) float32, in standard deviations; the same `rng` state, the same windows.

    Args:
        kind: one of `KINDS`; None: all of them, each with its share.
    """
    names = list(KINDS)
    kinds = (rng.choice(len(names), count, p=[share for _, share in KINDS.values()]) if kind is None
             else np.full(count, names.index(kind)))
    smoothed = (kinds == names.index("envelope")) | (
        np.isin(kinds, [names.index(name) for name in EITHER]) & (rng.random(count) < 0.5))
    x = np.empty((count, length))
    for rows, make in ((~smoothed, _emg), (smoothed, _envelope)):
        x[rows] = make(rng, int(rows.sum()), length, rate_hz)
    for number, name in enumerate(names):
        rows, change = kinds == number, KINDS[name][0]
        if change and rows.any():
            x[rows] = change(rng, x[rows], np.arange(length) / rate_hz)
    return np.clip(x, -PEAK, PEAK).astype(np.float32)


# === EMG ===


def _emg(rng: np.random.Generator, count: int, length: int, rate_hz: float) -> np.ndarray:
    """Band-limited Gaussian noise and a train of motor unit action potentials, under a log-normal envelope, with some
    mains hum, drift and offset, scaled to an amplitude of its own."""
    x = _interference(rng, count, length, rate_hz)
    share = rng.beta(0.5, 1.5, (count, 1))  # of spike trains in the power: from pure noise to single units
    x = np.sqrt(1 - share) * x + np.sqrt(share) * _potentials(rng, count, length, rate_hz)
    slow = rng.random(count) < SLOW_SHARE
    x[slow] = _low_passed(x[slow], _log_uniform(rng, int(slow.sum()), *NYQUIST_HZ), rate_hz)
    x *= _modulation(rng, count, length, rate_hz)
    x /= np.sqrt(np.mean(x**2, axis=1, keepdims=True)) + 1e-9
    x += _disturbance(rng, count, length, rate_hz)
    wide = rng.random((count, 1)) < WIDE_SHARE
    return x * np.where(wide, _log_uniform(rng, count, *WIDE), _log_normal(rng, count, *AMPLITUDE))


def _interference(rng: np.random.Generator, count: int, length: int, rate_hz: float) -> np.ndarray:
    f = _frequencies(length, rate_hz)
    low, high = rng.uniform(*LOW_HZ, (count, 1)), rng.uniform(*HIGH_HZ, (count, 1))
    tilt = rng.uniform(0.0, 1.2, (count, 1))  # EMG's power falls with frequency
    shape = 1 / np.sqrt(1 + (low / np.maximum(f, 1e-3)) ** 4) / np.sqrt(1 + (f / high) ** 6)
    return _shaped(rng, shape * (100.0 / (100.0 + f)) ** tilt, length)


def _potentials(rng: np.random.Generator, count: int, length: int, rate_hz: float) -> np.ndarray:
    """Poisson trains of one biphasic potential a window, unit variance."""
    fires = rng.random((count, length)) < _log_uniform(rng, count, 4.0, 400.0) / rate_hz
    impulses = fires * rng.lognormal(0.0, 0.5, (count, length))
    t = np.arange(-32, 33) / rate_hz
    width = rng.uniform(0.0008, 0.004, (count, 1))  # seconds
    order = rng.random((count, 1)) < 0.5
    x = _convolved(impulses, np.where(order, -t / width, 1 - (t / width) ** 2) * np.exp(-0.5 * (t / width) ** 2))
    return x / (np.sqrt(np.mean(x**2, axis=1, keepdims=True)) + 1e-9) * (np.abs(x).max(axis=1, keepdims=True) > 0)


def _modulation(rng: np.random.Generator, count: int, length: int, rate_hz: float) -> np.ndarray:
    """Log-normal amplitude over time; some windows also begin or end a contraction."""
    corner = _log_uniform(rng, count, *ENVELOPE_HZ)
    slow = _shaped(rng, 1 / (1 + (_frequencies(length, rate_hz) / corner) ** 2), length)
    depth = rng.uniform(0.0, 0.9, (count, 1)) * (rng.random((count, 1)) < 0.8)
    return np.exp(depth * slow) * _contraction(rng, count, length, 0.25, (0.01, 0.2))


def _disturbance(rng: np.random.Generator, count: int, length: int, rate_hz: float) -> np.ndarray:
    """Mains hum, drift and offset, relative to the window's own amplitude; most windows have little."""
    t = np.arange(length) / rate_hz
    mains = rng.choice([50.0, 60.0], (count, 1)) * rng.choice([1, 2, 3], (count, 1), p=[0.7, 0.15, 0.15])
    size = np.abs(rng.standard_normal((3, count, 1))) * (rng.random((3, count, 1)) < [[[0.3]], [[0.3]], [[0.5]]])
    return (0.4 * size[0] * _sine(rng, mains * t) + 0.15 * size[2] * rng.choice([-1.0, 1.0], (count, 1))
            + 0.3 * size[1] * _sine(rng, rng.uniform(0.2, 4.0, (count, 1)) * t))


# === Envelopes ===


def _envelope(rng: np.random.Generator, count: int, length: int, rate_hz: float) -> np.ndarray:
    """Rectified and smoothed EMG, less the channel's mean: flat at rest, far above it in a contraction."""
    f = _frequencies(length, rate_hz)
    force = _shaped(rng, 1 / (1 + (f / _log_uniform(rng, count, 0.3, 8.0)) ** 4), length, ensemble=True)
    ripple = _shaped(rng, 1 / (1 + (f / _log_uniform(rng, count, *SMOOTHING_HZ)) ** 4), length, ensemble=True)
    x = np.exp(rng.uniform(0, 1.2, (count, 1)) * force)
    x *= np.maximum(1 + rng.uniform(0, 0.5, (count, 1)) * ripple, 0.02)
    x *= _contraction(rng, count, length, 0.5, (0.03, 0.5))
    quiet = np.where(rng.random((count, 1)) < 0.15, 0.01, 1.0)
    return _log_normal(rng, count, 0.7, 1.2) * quiet * x - rng.uniform(0.15, 1.6, (count, 1))


# === Disturbances: (rng, windows (N, L), times (L,) s) -> windows ===


def _with_offset(rng, x, t):
    return x + rng.uniform(-5, 5, (len(x), 1))


def _with_drift(rng, x, t):
    sway = _sine(rng, rng.uniform(0.1, 8, (len(x), 1)) * t) + rng.uniform(-1, 1, (len(x), 1))
    return x + _log_normal(rng, len(x), 0.7, 0.8) * sway


def _with_hum(rng, x, t):
    mains = rng.choice([50.0, 60.0], (len(x), 1))
    harmonics = (_sine(rng, k * mains * t) * rng.uniform(0, 0.6, (len(x), 1)) for k in (2, 3, 5))
    return x + _log_normal(rng, len(x), 0.8, 0.8) * (_sine(rng, mains * t) + sum(harmonics))


def _with_spikes(rng, x, t):
    hits = rng.random(x.shape) < rng.uniform(1, 20, (len(x), 1)) * (t[1] - t[0])
    near = np.arange(-40, 41) * (t[1] - t[0])
    bell = np.exp(-0.5 * (near / _log_uniform(rng, len(x), 3e-4, 6e-3)) ** 2)
    return x + _convolved(hits * rng.uniform(3, 40, x.shape) * rng.choice([-1.0, 1.0], x.shape), bell)


def _clipped(rng, x, t):
    most = _log_normal(rng, len(x), 1.0, 0.6)
    return np.clip(x, -most * rng.uniform(0.5, 1.5, (len(x), 1)), most)


def _quantised(rng, x, t):
    step = _log_normal(rng, len(x), 0.15, 1.0)
    return (np.round(x / step) + rng.uniform(-0.5, 0.5, (len(x), 1))) * step


def _still(rng, x, t):
    """A dead electrode, or one that hardly moves."""
    level = rng.uniform(-2, 2, (len(x), 1)) * (rng.random((len(x), 1)) < 0.7)
    tiny = _log_uniform(rng, len(x), 1e-4, 0.1) * (rng.random((len(x), 1)) < 0.6)
    return level + tiny * (x - x.mean(axis=1, keepdims=True)) / (x.std(axis=1, keepdims=True) + 1e-9)


def _with_rest(rng, x, t):
    """A flat level before or after the signal."""
    level, at = rng.uniform(-1.6, 0, (len(x), 1)), rng.uniform(0, 1, (len(x), 1)) * t[-1]
    width = _log_uniform(rng, len(x), 5e-4, 0.03) * rng.choice([-1.0, 1.0], (len(x), 1))
    return level + (x - level) * _step((t - at) / width)


# What windows may be: how they are changed, and their share in training.
KINDS: dict[str, tuple[Callable | None, float]] = {
    "emg": (None, 0.34), "envelope": (None, 0.24), "offset": (_with_offset, 0.06), "drift": (_with_drift, 0.06),
    "hum": (_with_hum, 0.05), "spikes": (_with_spikes, 0.05), "clipped": (_clipped, 0.04),
    "quantised": (_quantised, 0.05), "still": (_still, 0.04), "rest": (_with_rest, 0.07)}
EITHER = ("quantised", "rest")  # of which half are envelopes


# === Random parts ===


def _log_normal(rng: np.random.Generator, count: int, median: float, sd: float) -> np.ndarray:
    return median * np.exp(sd * rng.standard_normal((count, 1)))


def _log_uniform(rng: np.random.Generator, count: int, low: float, high: float) -> np.ndarray:
    return np.exp(rng.uniform(np.log(low), np.log(high), (count, 1)))


def _sine(rng: np.random.Generator, cycles: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * (cycles + rng.random((len(cycles), 1))))


def _step(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(np.clip(-x, -30, 30)))


def _contraction(rng: np.random.Generator, count: int, length: int, share: float,
                 widths: tuple[float, float]) -> np.ndarray:
    """Amplitudes (N, L) that rise or fall somewhere, in a share of windows; in the others 1."""
    edge, width = rng.uniform(-0.3, 1.3, (count, 1)), rng.uniform(*widths, (count, 1))
    step = _step(rng.choice([-1.0, 1.0], (count, 1)) * (np.arange(length) / length - edge) / width)
    floor = np.where(rng.random((count, 1)) < share, rng.uniform(0.0, 0.6, (count, 1)), 1.0)
    return floor + (1 - floor) * step


def _frequencies(length: int, rate_hz: float) -> np.ndarray:
    return fft.rfftfreq(fft.next_fast_len(length + length // 4, real=True) // 2 * 2, 1 / rate_hz)


def _shaped(rng: np.random.Generator, shape: np.ndarray, length: int, ensemble: bool = False) -> np.ndarray:
    """Gaussian noise (N, length) with the amplitude spectra `shape` (N, size // 2 + 1), of unit variance: each window,
    or all windows on average (`ensemble`)."""
    size = 2 * (shape.shape[1] - 1)
    noise = rng.standard_normal((2, *shape.shape), np.float32)
    x = fft.irfft(shape * (noise[0] + 1j * noise[1]), size, axis=1)[:, :length]
    power = np.mean(x**2, axis=1, keepdims=True)
    if ensemble:
        power = (4 * (shape[:, 1:-1] ** 2).sum(axis=1, keepdims=True) + shape[:, :1] ** 2) / size**2
    return x / (np.sqrt(power) + 1e-9)


def _convolved(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Windows (N, L) by kernels (N, K), less the first and last K / 2 samples of the result or so."""
    size = fft.next_fast_len(x.shape[1] + kernel.shape[1], real=True)
    return fft.irfft(fft.rfft(x, size, axis=1) * fft.rfft(kernel, size, axis=1), size, axis=1)[:, : x.shape[1]]


def _low_passed(x: np.ndarray, cut_hz: np.ndarray, rate_hz: float) -> np.ndarray:
    f = fft.rfftfreq(x.shape[1], 1 / rate_hz)
    return fft.irfft(fft.rfft(x, axis=1) / (1 + (f / cut_hz) ** 16), x.shape[1], axis=1)
