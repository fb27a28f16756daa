"""Signals and labels at another rate than they were recorded at."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np

from tfkfin.base.console import InputError


def _ratio(rate: float, wanted: float) -> tuple[int, int]:
    """Exact for rates of whole hertz up to 10 kHz; of others, known to the millihertz, off by 50 millionths at most."""
    ratio = Fraction(round(wanted * 1000), max(1, round(rate * 1000))).limit_denominator(10_000)
    if not ratio:
        raise InputError(f"{rate:g} Hz cannot be resampled to {wanted:g} Hz: check the recording's rate")
    return ratio.numerator, ratio.denominator


def _piece(emg: np.ndarray, start: int, stop: int, up: int, down: int) -> np.ndarray:
    """The samples of the new rate that lie in [start, stop) of the old one, from nothing but these; edges are held."""
    from scipy.signal import resample_poly

    if (start, stop) == (0, len(emg)):
        return resample_poly(emg, up, down, axis=0).astype(np.float32, copy=False)
    reach = 10 * max(up, down) // up + 1  # samples that the filter looks to either side
    first = (start - reach) // down * down  # where a sample of both rates lies
    held = emg[np.clip(np.arange(first, stop + reach), start, stop - 1)]
    made = resample_poly(held, up, down, axis=0).astype(np.float32, copy=False)
    low, high = -(-start * up // down), -(-stop * up // down)
    return made[low - first // down * up : high - first // down * up]


def seams_at_rate(rate: float, wanted: float, seams: Sequence[int]) -> tuple[int, ...]:
    """The first sample at another rate at or after each of `seams`."""
    up, down = _ratio(rate, wanted)
    return tuple(-(-seam * up // down) for seam in seams)


def at_rate(rate: float, wanted: float, *columns: np.ndarray) -> list[np.ndarray]:
    """Columns (T,) of labels at another rate, each sample the nearest in time."""
    if rate == wanted:
        return list(columns)
    up, down = _ratio(rate, wanted)
    length = -(-len(columns[0]) * up // down)
    nearest = np.minimum((np.arange(length) * down + up // 2) // up, len(columns[0]) - 1)
    return [column[nearest] for column in columns]


def signal_at_rate(emg: np.ndarray, rate: float, wanted: float, cuts: Iterable[int] = ()) -> np.ndarray:
    """A signal (T, C) at another rate, (T', C): polyphase with an anti-aliasing filter, which stops at `cuts`.

    Reference: scipy.signal.resample_poly, Kaiser window (beta 5).
    """
    if rate == wanted or not len(emg):
        return emg
    edges, ratio = [0, *sorted(set(cuts)), len(emg)], _ratio(rate, wanted)
    pieces = [_piece(emg, start, stop, *ratio) for start, stop in pairwise(edges) if start < stop]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def windows_at_rate(windows: np.ndarray, rate: float, wanted: float, length: int) -> np.ndarray:
    """Windows (B, L', C) at another rate, (B, length, C) float32, each from its own samples alone; edges are held.

    Reference: as of `signal_at_rate`.
    """
    from scipy.signal import resample_poly

    made = resample_poly(windows, *_ratio(rate, wanted), axis=1, padtype="edge")
    missing = max(0, length - made.shape[1])  # L' is rounded, so a sample may be missing, or one too many there
    made = np.pad(made, ((0, 0), (0, missing), (0, 0)), mode="edge")
    return made[:, :length].astype(np.float32, copy=False)


class Resampler:
    """Causal: a signal that goes on, at another rate, from nothing that comes later.

    The same filter as `signal_at_rate` uses, so what comes out is that, later by the filter's half length: `delay_s`.

    Args:
        rate, wanted: Hz.
    """

    def __init__(self, rate: float, wanted: float):
        from scipy.signal import firwin

        self.up, self.down = _ratio(rate, wanted)
        half = 10 * max(self.up, self.down)
        taps = firwin(2 * half + 1, 1 / max(self.up, self.down), window=("kaiser", 5.0)) * self.up
        self.delay_s = half / (self.up * rate)
        self._reach = -(-len(taps) // self.up)  # samples that an answer is made from
        padded = np.pad(taps, (0, self._reach * self.up - len(taps)))
        self._phases = padded.reshape(self._reach, self.up).T[:, ::-1]  # (up, reach), oldest sample first
        self.restart()

    def restart(self) -> None:
        """Forgets the signal."""
        self._past, self._taken, self._made = None, 0, 0

    def newest(self, made: int) -> int:
        """The newest sample of the signal, from 0, that the answer `made`, from 0, is made from."""
        return made * self.down // self.up

    def __call__(self, volts: np.ndarray) -> np.ndarray:
        """Samples (n, C) that follow those before -> those of the other rate that they complete, float32."""
        volts = np.asarray(volts, np.float32)
        if not len(volts):
            return volts
        if self._past is None:  # as if the first sample had always been there
            self._past = np.repeat(volts[:1], self._reach - 1, axis=0)
        known = np.concatenate([self._past, volts])  # its row r is sample taken - (reach - 1) + r
        until = ((self._taken + len(volts)) * self.up - 1) // self.down + 1
        places = np.arange(self._made, until) * self.down
        rows = (places // self.up - self._taken)[:, None] + np.arange(self._reach)
        answers = np.einsum("kr,krc->kc", self._phases[places % self.up], known[rows], dtype=np.float64)
        self._past, self._made = known[len(known) - (self._reach - 1) :], until
        self._taken += len(volts)
        return answers.astype(np.float32)
