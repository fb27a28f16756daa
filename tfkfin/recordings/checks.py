"""Checks that every reader makes of a recording's arrays before anything is computed from them."""

from pathlib import Path

import numpy as np

from tfkfin.base import machine, samples
from tfkfin.base.errors import InputError

SLOWEST_HZ, FASTEST_HZ, rate = samples.SLOWEST_HZ, samples.FASTEST_HZ, samples.rate


def shape(path: Path, there: tuple[int, ...]) -> None:
    """Raises InputError unless this is the shape of a signal, (samples, channels)."""
    if len(there) == 3:
        raise InputError(f"{path}: emg has shape {there}: these are windows, and a recording (samples, channels) is "
                         "needed. tfkfin.FINClassifier().fit(X, y) takes windows X (windows, channels, samples)")
    if len(there) != 2 or there[0] <= there[1] or not there[1]:
        raise InputError(f"{path}: emg has shape {there}, but (samples, channels) is needed with more samples "
                         "than channels")


def signal(path: Path, emg: np.ndarray) -> np.ndarray:
    """`emg` as (T, C) float32, copied only if it has another type; raises InputError unless it is finite and varies."""
    if not isinstance(emg, np.ndarray) or emg.dtype.kind not in "iuf":
        raise InputError(f"{path}: emg is not numeric ({getattr(emg, 'dtype', type(emg).__name__)}), "
                         "but real numbers in volts are needed")
    shape(path, emg.shape)
    with np.errstate(all="ignore"):
        emg = emg.astype(np.float32, copy=False)
        largest = max(emg.max(), -emg.min())  # NaN where there is one
    bad = [(int(np.argmin(ok)), c + 1) for c in (range(emg.shape[1]) if not np.isfinite(largest) else ())
           if not (ok := np.isfinite(emg[:, c])).all()]
    if bad:
        channels = ", ".join(str(channel) for _, channel in bad)
        raise InputError(f"{path}: emg has NaN or Inf in channel {channels}, first at sample {min(bad)[0]} "
                         "(counted from 0): repair or leave out the recording")
    if largest > samples.LARGEST:
        raise InputError(f"{path}: emg reaches {largest:g}, which no amplifier gives in any unit: "
                         "repair or leave out the recording")
    if (emg[:1000] == emg[0]).all() and (emg == emg[0]).all():
        raise InputError(f"{path}: emg never changes in any channel: leave out the recording")
    return emg


def numbers(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    """`values`; raises InputError unless they are numbers, or text that says numbers."""
    if values.dtype.kind in "biuf":
        return values
    for row, cell in enumerate(values.reshape(-1).tolist()):
        try:
            float(cell)
        except (TypeError, ValueError):
            raise InputError(f"{path}: {name} cannot be read as numbers: row {row + 1} has {str(cell)[:40]!r}"
                             ) from None
    return values.astype(np.float64)


def fits(path: Path, size: float) -> None:
    """Raises InputError unless `size` bytes read from a file fit into memory."""
    machine.afford(size, f"{path}", "close other programs, or read fewer recordings at once")


def column(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    """A column of labels or repetitions of any numeric type as (T,) int16; raises InputError if that changes values."""
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        raise InputError(f"{path}: {name} is not numeric, but whole numbers are needed")
    if values.size == 0 or values.size != max(values.shape):
        raise InputError(f"{path}: {name} has shape {values.shape}, but one column (samples, 1) is needed")
    flat = values.reshape(-1)
    with np.errstate(invalid="ignore"):  # values that do not fit differ afterwards and are refused
        whole = flat.astype(np.int16)
    if (whole != flat).any() or whole.min() < 0:
        raise InputError(f"{path}: {name} must hold whole numbers from 0 to 32767, and it does not")
    return whole


def cued(path: Path, known: bool) -> None:
    """Raises InputError for a recording in which nobody was asked for movements, where labels are needed."""
    if not known:
        raise InputError(f"{path}: nobody was asked for movements, so it cannot be trained on or scored: replay it "
                         "(tfkfin live, --adapt too), or calibrate without labels (--unlabelled)")


def has_movement(path: Path, labels: np.ndarray, repetitions: np.ndarray) -> None:
    """Raises InputError unless some sample has both a movement and a repetition."""
    if not ((labels > 0) & (repetitions > 0)).any():
        raise InputError(f"{path} has no movement: its labels and repetitions are nowhere both above 0")
