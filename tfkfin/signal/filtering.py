"""Causal filters that remove offsets and hum before windows are cut.

The same second-order sections filter recordings and live signals, whose state is kept between blocks.
Reference: SciPy's `butter`, `iirnotch` and `sosfilt`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfkfin.base.errors import InputError
from tfkfin.recipe import Filter

_ROWS = 1 << 16  # samples filtered at a time: the float64 in between stays small


def sections(options: Filter | Mapping[str, Any] | None, rate_hz: float) -> np.ndarray:
    """Second-order sections (S, 6) float64 of `[filter]` at a rate; (0, 6) without a filter.

    Raises:
        InputError: a frequency is at or above half the rate, or the band is empty.
    """
    options = options if isinstance(options, Filter) else Filter.model_validate(options or {})
    if not options.active:
        return np.empty((0, 6))
    from scipy import signal

    made, low, high = [np.empty((0, 6))], options.high_pass_hz, options.low_pass_hz
    for name in ("high_pass_hz", "low_pass_hz", "notch_hz"):
        if (hertz := getattr(options, name)) >= rate_hz / 2:
            raise InputError(f"filter.{name} must lie below half the rate, {rate_hz / 2:g} Hz. Received: {hertz:g}")
    if low or high:
        kind = "bandpass" if low and high else "highpass" if low else "lowpass"
        band = [low, high] if low and high else low or high
        made.append(signal.butter(options.order, band, kind, fs=rate_hz, output="sos"))
    tones = [k * options.notch_hz for k in range(1, options.notches + 1)] if options.notch_hz else []
    made += [signal.tf2sos(*signal.iirnotch(hertz, options.notch_q, fs=rate_hz)) for hertz in tones
             if hertz < rate_hz / 2]
    return np.concatenate(made)


class Causal:
    """Filters a signal block by block; the initial state is that of a constant at the first sample."""

    def __init__(self, sections: np.ndarray):
        self.sections, self._state = np.asarray(sections, np.float64).reshape(-1, 6), None

    def restart(self) -> None:
        """Resets the state: the next sample starts a new signal."""
        self._state = None

    def __call__(self, volts: np.ndarray) -> np.ndarray:
        """The next samples (n, C) -> filtered, float32."""
        volts = np.asarray(volts, np.float32)
        if not len(self.sections) or not len(volts):
            return volts
        from scipy.signal import sosfilt, sosfilt_zi

        if self._state is None:
            self._state = sosfilt_zi(self.sections)[:, :, None] * volts[0].astype(np.float64)
        out, self._state = sosfilt(self.sections, volts, axis=0, zi=self._state)
        return out.astype(np.float32)


def filtered(emg: np.ndarray, sections: np.ndarray, cuts: Sequence[int] = ()) -> np.ndarray:
    """A signal (T, C), filtered; the filter restarts at `cuts`."""
    if not len(sections):
        return emg
    out = np.empty(emg.shape, np.float32)
    edges = [0, *sorted(cuts), len(emg)]
    for start, stop in zip(edges, edges[1:], strict=False):
        causal = Causal(sections)
        for first in range(start, stop, _ROWS):
            part = slice(first, min(stop, first + _ROWS))
            out[part] = causal(emg[part])
    return out


class BlockFilter(NamedTuple):
    """Sections as matrix products over blocks of n samples, for graphs without loops; float32.

    For a block x with initial state s (S,): y = within x + carried s, and the next state is step s + fed x.

    Attributes:
        within, carried, fed: (n, n), (n, S), (S, n).
        steps: step, step², step⁴ … (S, S) each, until the powers vanish.
        gain: of a constant.
    """

    within: np.ndarray
    carried: np.ndarray
    fed: np.ndarray
    steps: tuple[np.ndarray, ...]
    gain: float


def blocks(sections: np.ndarray, samples: int = 64) -> BlockFilter:
    """The matrices of `BlockFilter`, from the responses of the sections to unit samples and unit states."""
    from scipy.signal import sosfilt

    states, zeros = 2 * len(sections), np.zeros(samples)
    within = np.column_stack([sosfilt(sections, unit) for unit in np.eye(samples)])
    silent, unit = np.zeros((len(sections), 2)), np.eye(states)
    began = [sosfilt(sections, zeros, zi=unit[i].reshape(-1, 2)) for i in range(states)]
    fed = np.column_stack([sosfilt(sections, one, zi=silent)[1].ravel() for one in np.eye(samples)])
    carried, step = (np.column_stack([np.ravel(one[part]) for one in began]) for part in (0, 1))
    steps = [step]
    while np.abs(steps[-1]).max() > 1e-9 and len(steps) < 30:
        steps.append(steps[-1] @ steps[-1])
    gain = np.prod(sections[:, :3].sum(axis=1) / sections[:, 3:].sum(axis=1))
    return BlockFilter(*(part.astype(np.float32) for part in (within, carried, fed)),
                  tuple(one.astype(np.float32) for one in steps), float(gain))
