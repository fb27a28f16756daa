"""Finds flat or clipped channels, mains hum, odd amplitudes and missing repetitions in a readable recording."""

from itertools import product
from typing import NamedTuple

import numpy as np

from tfkfin.recordings.recording import Recording, flat_channels

MAINS_HZ = (50.0, 60.0)
_PLATEAU = 3  # samples in a row at the extreme value make a plateau: one is a peak, two occur by quantisation
_TIMES = 5  # plateaus of a clipped channel
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


def doubt(rms_v: float) -> str:
    """A remark on an implausible amplitude, such as millivolts read as volts; "" for a plausible one."""
    if is_likely(rms_v) or not rms_v:
        return ""
    other = next((word for word, volts in (("millivolts", 1e-3), ("microvolts", 1e-6)) if is_likely(rms_v * volts)),
                 "of a unit of the device's own")
    what = f"are these volts {other}? " if rms_v > LARGEST else "was the unit taken for a smaller one? "
    return f"{volts(rms_v)} RMS in movements, where surface EMG has {volts(SMALLEST)} to {volts(LARGEST)}: {what}" \
           "unit in recordings.toml says which they are"


def volts(value: float) -> str:
    """An amplitude in V, mV or uV, whichever is readable: 2.3e-5 gives "23 uV"."""
    unit, size = next(((unit, size) for unit, size in (("V", 1.0), ("mV", 1e-3)) if abs(value) >= size), ("uV", 1e-6))
    return f"{value / size:.3g} {unit}"


def is_clipped(signal: np.ndarray) -> bool:
    """True if `signal` (T,) has several plateaus at its largest or at its least value."""
    for extreme in (signal.max(), signal.min()):
        at = np.flatnonzero(signal == extreme)  # n in a row: the first and the n-th are n - 1 apart
        if np.sum(at[_PLATEAU - 1 :] - at[: -_PLATEAU + 1] == _PLATEAU - 1) >= _TIMES:
            return True
    return False


def mains_share(emg: np.ndarray, rate_hz: float) -> tuple[float, ...]:
    """Share of the power within 1 Hz of each of MAINS_HZ; the mean is removed. 0 above Nyquist."""
    length = int(2 * rate_hz)  # 2 s, so 0.5 Hz a bin
    chosen = np.unique(np.linspace(0, max(0, len(emg) - length), 30).astype(int))  # 60 s of the recording suffice
    power = np.zeros((length // 2 + 1, emg.shape[1]))
    for start in chosen:
        part = emg[start : start + length].astype(np.float64)
        part = (part - part.mean(axis=0)) * np.hanning(len(part))[:, None]
        power += np.abs(np.fft.rfft(part, length, axis=0)) ** 2
    hertz = np.fft.rfftfreq(length, 1 / rate_hz)
    total = np.maximum(power[2:].sum(axis=0), np.finfo(float).tiny)
    return tuple(float(np.median(power[np.abs(hertz - tone) <= 1.01].sum(axis=0) / total)) for tone in MAINS_HZ)


def missing_pairs(recording: Recording) -> tuple[tuple[int, int], ...]:
    """(movement, repetition) pairs without a sample, among the movements and repetitions that occur."""
    active = (recording.labels > 0) & (recording.repetitions > 0)
    movements, repetitions = recording.labels[active].tolist(), recording.repetitions[active].tolist()
    there = set(zip(movements, repetitions, strict=True))
    return tuple(pair for pair in product(sorted({*movements}), sorted({*repetitions})) if pair not in there)
