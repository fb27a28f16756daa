"""Recordings at another rate than they were made with."""

from dataclasses import replace
from math import gcd

import numpy as np

from tfkfin.recordings.recording import Recording


def resampled(recording: Recording, rate_hz: float) -> Recording:
    """The recording at `rate_hz` (0 keeps its own): polyphase with an anti-aliasing filter, labels by nearest sample.

    Reference: scipy.signal.resample_poly, Kaiser window (beta 5).
    """
    if not rate_hz or recording.rate_hz == rate_hz:
        return recording
    from scipy.signal import resample_poly

    up, down = _ratio(recording.rate_hz, rate_hz)
    emg = resample_poly(recording.emg, up, down, axis=0).astype(np.float32, copy=False)
    labels, repetitions = at_rate(recording.rate_hz, rate_hz, recording.labels, recording.repetitions)
    length = min(len(emg), len(labels))
    note = f"resampled from {recording.rate_hz:g} to {rate_hz:g} Hz"
    return replace(recording, emg=emg[:length], labels=labels[:length], repetitions=repetitions[:length],
                   rate_hz=rate_hz, notes=(*recording.notes, note))


def _ratio(rate: float, wanted: float) -> tuple[int, int]:
    up, down = round(wanted * 1000), round(rate * 1000)  # rates are known to the millihertz
    return up // gcd(up, down), down // gcd(up, down)


def at_rate(rate: float, wanted: float, *columns: np.ndarray) -> list[np.ndarray]:
    """Columns (T,) of labels at another rate, each sample the nearest in time."""
    if rate == wanted:
        return list(columns)
    up, down = _ratio(rate, wanted)
    length = -(-len(columns[0]) * up // down)
    nearest = np.minimum((np.arange(length) * down + up // 2) // up, len(columns[0]) - 1)
    return [column[nearest] for column in columns]
