"""Resamples signals, windows and labels to another rate."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np

from tfkfin.base.errors import InputError


def _ratio(rate: float, wanted: float) -> tuple[int, int]:
    """(up, down): exact for rates of whole hertz up to 10 kHz; for others, rounded to mHz, the error is below 5e-5."""
    ratio = Fraction(round(wanted * 1000), max(1, round(rate * 1000))).limit_denominator(10_000)
    if not ratio:
        raise InputError(f"{rate:g} Hz cannot be resampled to {wanted:g} Hz: check the recording's rate")
    return ratio.numerator, ratio.denominator


def _segment(emg: np.ndarray, start: int, stop: int, up: int, down: int) -> np.ndarray:
    """The resampled samples of [start, stop), computed from these samples alone; edge values are repeated."""
    from scipy.signal import resample_poly

    if (start, stop) == (0, len(emg)):
        return resample_poly(emg, up, down, axis=0).astype(np.float32, copy=False)
    reach = 10 * max(up, down) // up + 1  # samples that the filter uses on either side
    first = (start - reach) // down * down  # a time at which both rates have a sample
    held = emg[np.clip(np.arange(first, stop + reach), start, stop - 1)]
    made = resample_poly(held, up, down, axis=0).astype(np.float32, copy=False)
    low, high = -(-start * up // down), -(-stop * up // down)
    return made[low - first // down * up : high - first // down * up]


def seams_at_rate(rate: float, wanted: float, seams: Sequence[int]) -> tuple[int, ...]:
    """Seams at another rate: the first sample at or after each."""
    up, down = _ratio(rate, wanted)
    return tuple(-(-seam * up // down) for seam in seams)


def at_rate(rate: float, wanted: float, *columns: np.ndarray) -> list[np.ndarray]:
    """Columns (T,) of labels at another rate, by the nearest sample in time."""
    if rate == wanted:
        return list(columns)
    up, down = _ratio(rate, wanted)
    length = -(-len(columns[0]) * up // down)
    nearest = np.minimum((np.arange(length) * down + up // 2) // up, len(columns[0]) - 1)
    return [column[nearest] for column in columns]


def signal_at_rate(emg: np.ndarray, rate: float, wanted: float, cuts: Iterable[int] = ()) -> np.ndarray:
    """A signal (T, C) at another rate, (T', C): polyphase, with an anti-aliasing filter that does not cross `cuts`.

    Reference: scipy.signal.resample_poly, Kaiser window (beta 5).
    """
    if rate == wanted or not len(emg):
        return emg
    edges, ratio = [0, *sorted(set(cuts)), len(emg)], _ratio(rate, wanted)
    segments = [_segment(emg, start, stop, *ratio) for start, stop in pairwise(edges) if start < stop]
    return segments[0] if len(segments) == 1 else np.concatenate(segments)


def windows_at_rate(windows: np.ndarray, rate: float, wanted: float, length: int) -> np.ndarray:
    """Windows (B, L', C) at another rate, (B, length, C) float32, each from its own samples; edge values are repeated.

    Reference: as `signal_at_rate`.
    """
    from scipy.signal import resample_poly

    made = resample_poly(windows, *_ratio(rate, wanted), axis=1, padtype="edge")
    missing = max(0, length - made.shape[1])  # L' is rounded, so there may be a sample more or less
    made = np.pad(made, ((0, 0), (0, missing), (0, 0)), mode="edge")
    return made[:, :length].astype(np.float32, copy=False)


class Resampler:
    """Resamples a signal block by block, causally.

    It uses the filter of `signal_at_rate`, so its output is the same, delayed by half the filter's length: `delay_s`.

    Args:
        rate, wanted: Hz.
    """

    def __init__(self, rate: float, wanted: float):
        from scipy.signal import firwin

        self.up, self.down = _ratio(rate, wanted)
        half = 10 * max(self.up, self.down)
        taps = firwin(2 * half + 1, 1 / max(self.up, self.down), window=("kaiser", 5.0)) * self.up
        self.delay_s = half / (self.up * rate)
        self._reach = -(-len(taps) // self.up)  # input samples per output sample
        padded = np.pad(taps, (0, self._reach * self.up - len(taps)))
        self._phases = padded.reshape(self._reach, self.up).T[:, ::-1]  # (up, reach), oldest sample first
        self.restart()

    def restart(self) -> None:
        """Resets the state: the next sample starts a new signal."""
        self._past, self._taken, self._made = None, 0, 0

    def newest(self, made: int) -> int:
        """The index of the newest input sample that output sample `made` depends on; both from 0."""
        return made * self.down // self.up

    def __call__(self, volts: np.ndarray) -> np.ndarray:
        """The next samples (n, C) -> the output samples that they complete, float32."""
        volts = np.asarray(volts, np.float32)
        if not len(volts):
            return volts
        if self._past is None:  # as if the signal had been constant before
            self._past = np.repeat(volts[:1], self._reach - 1, axis=0)
        known = np.concatenate([self._past, volts])  # row r is sample taken - (reach - 1) + r
        until = ((self._taken + len(volts)) * self.up - 1) // self.down + 1
        places = np.arange(self._made, until) * self.down
        rows = (places // self.up - self._taken)[:, None] + np.arange(self._reach)
        answers = np.einsum("kr,krc->kc", self._phases[places % self.up], known[rows], dtype=np.float64)
        self._past, self._made = known[len(known) - (self._reach - 1) :], until
        self._taken += len(volts)
        return answers.astype(np.float32)
