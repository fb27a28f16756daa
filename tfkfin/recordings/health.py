"""Measures flat or clipped channels, mains hum, amplitudes, envelopes and missing repetitions of a recording."""

from itertools import product
from typing import NamedTuple

import numpy as np

from tfkfin.recordings.recording import Recording, flat_channels

MAINS_HZ = (50.0, 60.0)
_PLATEAU = 3  # samples in a row at the extreme value make a plateau: one is a peak, two occur by quantisation
_TIMES = 5  # plateaus of a clipped channel
_COARSE = 16  # different values: of fewer the extreme ones are a quiet signal's, not the converter's ends
SLOW_HZ, _SLOW = 10.0, 0.75  # an envelope has more than this share of its power below 10 Hz
_TINY = float(np.finfo(float).tiny)
SMALLEST, LARGEST = 0.5e-6, 5e-3  # V: RMS that surface EMG may have in movements


class Health(NamedTuple):
    """Findings on one recording. Channels count from 1.

    Attributes:
        flat, clipped: channels that never change, and channels with plateaus at their largest or least value.
        mains: share of the power within 1 Hz of 50 and of 60 Hz, median over channels. White noise in a band of
            430 Hz has 0.005.
        rms_v: RMS about the mean in movements, volts, median over the channels that are not flat.
        missing: pairs (movement, repetition) without a sample, though both numbers occur.
    """

    flat: tuple[int, ...]
    clipped: tuple[int, ...]
    mains: tuple[float, ...]
    rms_v: float
    missing: tuple[tuple[int, int], ...]


def examine(recording: Recording) -> Health:
    """Examines one recording."""
    flat = flat_channels(recording)
    clipped = tuple(c + 1 for c in range(recording.num_channels)
                    if c + 1 not in flat and is_clipped(recording.emg[:, c]))
    return Health(flat, clipped, mains_share(recording.emg, recording.rate_hz), amplitude(recording),
                  missing_pairs(recording))


def amplitude(recording: Recording) -> float:
    """RMS about the mean in movements, volts, median over channels that are not flat; 0 where all are."""
    moving = np.flatnonzero((recording.labels > 0) | (not recording.cued))  # 100,000 samples suffice
    sizes = np.std(recording.emg[moving[:: max(1, len(moving) // 100_000)]], axis=0, dtype=np.float64)
    return float(np.median(sizes[sizes > 0])) if (sizes > 0).any() else 0.0


def is_likely(rms_v: float) -> bool:
    """Whether this RMS is plausible for surface EMG in movements."""
    return SMALLEST <= rms_v <= LARGEST


def volts(value: float) -> str:
    """An amplitude in V, mV or uV, whichever is readable: 2.3e-5 gives "23 uV"."""
    unit, size = next(((unit, size) for unit, size in (("V", 1.0), ("mV", 1e-3)) if abs(value) >= size), ("uV", 1e-6))
    return f"{value / size:.3g} {unit}"


def is_clipped(signal: np.ndarray) -> bool:
    """True if `signal` (T,) has several plateaus at its largest or at its least value.

    The floor of a rectified signal, where it rests, is none; nor are the few steps of the converter of a quiet one.
    """
    largest, least = signal.max(), signal.min()
    floor = least >= 0 and np.median(signal) - least < 0.25 * (largest - least)
    for extreme in (largest,) if floor else (largest, least):
        at = np.flatnonzero(signal == extreme)  # n in a row: the first and the n-th are n - 1 apart
        if np.sum(at[_PLATEAU - 1 :] - at[: -_PLATEAU + 1] == _PLATEAU - 1) >= _TIMES:
            return len(np.unique(signal)) > _COARSE
    return False


def envelope(recording: Recording) -> float:
    """The share of the power below SLOW_HZ if the signals are rectified and smoothed, else 0: median over channels."""
    if recording.emg.min() < 0:
        return 0.0
    hertz, power = _spectrum(recording.emg, recording.rate_hz)
    total = power[1:].sum(axis=0)
    share = float(np.median((power[1:][hertz[1:] < SLOW_HZ].sum(axis=0) / np.maximum(total, _TINY))[total > 0]))
    return share if share > _SLOW else 0.0


def mains_share(emg: np.ndarray, rate_hz: float) -> tuple[float, ...]:
    """Share of the power within 1 Hz of each of MAINS_HZ; the mean is removed. 0 above Nyquist."""
    hertz, power = _spectrum(emg, rate_hz)
    total = np.maximum(power[2:].sum(axis=0), _TINY)
    return tuple(float(np.median(power[np.abs(hertz - tone) <= 1.01].sum(axis=0) / total)) for tone in MAINS_HZ)


def _spectrum(emg: np.ndarray, rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Hertz (F,) and power (F, C) of up to 60 s of a signal, about its mean."""
    length = int(2 * rate_hz)  # 2 s, so 0.5 Hz a bin
    chosen = np.unique(np.linspace(0, max(0, len(emg) - length), 30).astype(int))
    power = np.zeros((length // 2 + 1, emg.shape[1]))
    for start in chosen:
        part = emg[start : start + length].astype(np.float64)
        part = (part - part.mean(axis=0)) * np.hanning(len(part))[:, None]
        power += np.abs(np.fft.rfft(part, length, axis=0)) ** 2
    return np.fft.rfftfreq(length, 1 / rate_hz), power


def missing_pairs(recording: Recording) -> tuple[tuple[int, int], ...]:
    """(movement, repetition) pairs without a sample, among the movements and repetitions that occur."""
    active = (recording.labels > 0) & (recording.repetitions > 0)
    movements, repetitions = recording.labels[active].tolist(), recording.repetitions[active].tolist()
    there = set(zip(movements, repetitions, strict=True))
    return tuple(pair for pair in product(sorted({*movements}), sorted({*repetitions})) if pair not in there)
