"""Samples and rates, wherever they come from: files, live sources, Python, clients. What is no signal is refused."""

from typing import Any

import numpy as np

from tfkfin.base.errors import InputError

SLOWEST_HZ, FASTEST_HZ = 10.0, 1e6  # sampling rates at which EMG may have been recorded
LARGEST = 1e10  # in any unit, which no amplifier gives; sums of squares of larger values overflow float32


def fit(emg: np.ndarray) -> np.ndarray:
    """Which samples (...) are finite and no larger than any amplifier gives, in any unit."""
    return np.abs(emg) <= LARGEST  # False for NaN


def checked(emg: np.ndarray, name: str = "emg") -> np.ndarray:
    """`emg` (...), if all samples are `fit`.

    Raises:
        InputError: one is not.
    """
    if emg.size and not (emg.max() <= LARGEST and emg.min() >= -LARGEST):
        if not np.isfinite(emg).all():
            raise InputError(f"`{name}` must be finite: it holds NaN or Inf, where volts are expected")
        raise InputError(f"`{name}` reaches {np.abs(emg).max():.3g}, which no amplifier gives in any unit: repair "
                         "it or leave it out")
    return emg


def rate(where: Any, hertz: Any) -> float:
    """A sampling rate in Hz; `where` begins the message.

    Raises:
        InputError: no EMG is recorded at that rate.
    """
    if not SLOWEST_HZ <= hertz <= FASTEST_HZ:  # refuses NaN too
        raise InputError(f"{where}: frequency is {hertz:g}, but samples a second are needed, {SLOWEST_HZ:g} to "
                         f"{FASTEST_HZ:g}")
    return float(hertz)
