"""Endless synthetic one-channel EMG windows of wide range, for FINs that hold on any recording.

Nothing here knows a subject, an electrode or a device: amplitude, spectrum, tails, bursts, spikes, hum, drift and
offset are drawn anew for every window, far wider than recordings vary. Amplitudes are in standard deviations of a
recording, which is what FINs see.
"""

import numpy as np
from scipy import fft

AMPLITUDE = (0.6, 1.1)  # sd of a window, log-normal: median and sd of the logarithm, from near silence to bursts
LOW_HZ, HIGH_HZ = (5.0, 60.0), (120.0, 500.0)  # where the pass band begins and ends; amplifiers and skin differ
ENVELOPE_HZ = (1.0, 80.0)  # how fast the amplitude fluctuates inside a window
PEAK = 40.0  # sd; artefacts beyond are clipped as amplifiers do


def windows(rng: np.random.Generator, count: int, length: int, rate_hz: float = 2000.0) -> np.ndarray:
    """`count` random windows (count, length) float32, in standard deviations; the same `rng` state, the same windows.

    Each is a mixture: band-limited Gaussian noise and a train of motor unit action potentials, under a log-normal
    envelope, with mains hum, drift and offset, scaled to an amplitude of its own.
    """
    x = _interference(rng, count, length, rate_hz)
    share = rng.beta(0.5, 1.5, (count, 1))  # of spike trains in the power: from pure noise to single units
    x = np.sqrt(1 - share) * x + np.sqrt(share) * _spikes(rng, count, length, rate_hz)
    x *= _envelope(rng, count, length, rate_hz)
    x /= np.sqrt(np.mean(x**2, axis=1, keepdims=True)) + 1e-9
    x += _disturbance(rng, count, length, rate_hz)
    x *= AMPLITUDE[0] * np.exp(AMPLITUDE[1] * rng.standard_normal((count, 1)))
    return np.clip(x, -PEAK, PEAK).astype(np.float32)


def _shaped(rng: np.random.Generator, shape: np.ndarray, length: int) -> np.ndarray:
    """Gaussian noise (N, length) of unit variance with the amplitude spectra `shape` (N, size // 2 + 1)."""
    size = 2 * (shape.shape[1] - 1)
    noise = rng.standard_normal((2, *shape.shape), np.float32)
    x = fft.irfft(shape * (noise[0] + 1j * noise[1]), size, axis=1)[:, :length]
    return x / (np.sqrt(np.mean(x**2, axis=1, keepdims=True)) + 1e-9)


def _frequencies(length: int, rate_hz: float) -> np.ndarray:
    return fft.rfftfreq(fft.next_fast_len(length + length // 4, real=True) // 2 * 2, 1 / rate_hz)


def _interference(rng: np.random.Generator, count: int, length: int, rate_hz: float) -> np.ndarray:
    f = _frequencies(length, rate_hz)
    low, high = rng.uniform(*LOW_HZ, (count, 1)), rng.uniform(*HIGH_HZ, (count, 1))
    tilt = rng.uniform(0.0, 1.2, (count, 1))  # EMG's power falls with frequency
    shape = 1 / np.sqrt(1 + (low / np.maximum(f, 1e-3)) ** 4) / np.sqrt(1 + (f / high) ** 6)
    return _shaped(rng, shape * (100.0 / (100.0 + f)) ** tilt, length)


def _spikes(rng: np.random.Generator, count: int, length: int, rate_hz: float) -> np.ndarray:
    """Poisson trains of one biphasic potential a window, unit variance."""
    per_second = np.exp(rng.uniform(np.log(4.0), np.log(400.0), (count, 1)))
    fires = rng.random((count, length)) < per_second / rate_hz
    impulses = fires * rng.lognormal(0.0, 0.5, (count, length))
    t = np.arange(-32, 33) / rate_hz
    width = rng.uniform(0.0008, 0.004, (count, 1))  # seconds
    order = rng.random((count, 1)) < 0.5
    bell = np.exp(-0.5 * (t / width) ** 2)
    potential = np.where(order, -t / width, 1 - (t / width) ** 2) * bell
    size = fft.next_fast_len(length + len(t), real=True)
    x = fft.irfft(fft.rfft(impulses, size, axis=1) * fft.rfft(potential, size, axis=1), size, axis=1)[:, :length]
    return x / (np.sqrt(np.mean(x**2, axis=1, keepdims=True)) + 1e-9) * (np.abs(x).max(axis=1, keepdims=True) > 0)


def _envelope(rng: np.random.Generator, count: int, length: int, rate_hz: float) -> np.ndarray:
    """Log-normal amplitude over time; some windows also begin or end a contraction."""
    corner = np.exp(rng.uniform(*np.log(ENVELOPE_HZ), (count, 1)))
    slow = _shaped(rng, 1 / (1 + (_frequencies(length, rate_hz) / corner) ** 2), length)
    depth = rng.uniform(0.0, 0.9, (count, 1)) * (rng.random((count, 1)) < 0.8)
    position = np.arange(length) / length
    edge, width = rng.uniform(-0.2, 1.2, (count, 1)), rng.uniform(0.01, 0.2, (count, 1))
    side = rng.choice([-1.0, 1.0], (count, 1))
    step = 1 / (1 + np.exp(np.clip(-side * (position - edge) / width, -30, 30)))
    floor = np.where(rng.random((count, 1)) < 0.25, rng.uniform(0.02, 0.6, (count, 1)), 1.0)
    return np.exp(depth * slow) * (floor + (1 - floor) * step)


def _disturbance(rng: np.random.Generator, count: int, length: int, rate_hz: float) -> np.ndarray:
    """Mains hum, drift and offset, relative to the window's own amplitude; most windows have little."""
    t = np.arange(length) / rate_hz
    mains = rng.choice([50.0, 60.0], (count, 1)) * rng.choice([1, 2, 3], (count, 1), p=[0.7, 0.15, 0.15])
    hum = np.sin(2 * np.pi * (mains * t + rng.random((count, 1))))
    drift = np.sin(2 * np.pi * (rng.uniform(0.2, 4.0, (count, 1)) * t + rng.random((count, 1))))
    size = np.abs(rng.standard_normal((3, count, 1))) * (rng.random((3, count, 1)) < [[[0.3]], [[0.3]], [[0.5]]])
    return 0.4 * size[0] * hum + 0.3 * size[1] * drift + 0.15 * size[2] * rng.choice([-1.0, 1.0], (count, 1))
