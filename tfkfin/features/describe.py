"""Descriptions of whole windows, of all channels together, by name: what closed-form decoders see."""

from collections.abc import Callable

import numpy as np

from tfkfin.features import catalogue, spatial

# The field's usual features: Hudgins' four (1993), autoregression of order 4 (Englehart, Hudgins 2003), log variance.
TIME_DOMAIN = ("MAV", "WL", "ZC", "SSC", "AR1", "AR2", "AR3", "AR4", "VAR")


def time_domain(windows: np.ndarray, rate_hz: float) -> np.ndarray:
    """MAV, WL, ZC, SSC, AR(4) and log variance of each channel: windows (N, L, C) volts -> (N, 9 C)."""
    windows = windows - windows.mean(axis=1, keepdims=True)
    found = catalogue.direct(windows, TIME_DOMAIN, rate_hz).astype(np.float64)
    found[..., -1] = np.log(np.maximum(found[..., -1], 1e-30))
    return found.reshape(len(found), -1)


def log_covariance(windows: np.ndarray, rate_hz: float) -> np.ndarray:
    """Windows (N, L, C) volts -> (N, C (C + 1) / 2)."""
    return spatial.log_euclidean(spatial.covariances(np.asarray(windows, np.float64)))


def broad(windows: np.ndarray, rate_hz: float) -> np.ndarray:
    """Loudness, spectrum and space, much of it twice over: windows (N, L, C) -> (N, 19 C + 3 C (C + 1) / 2).

    Of each channel: mean |x|, mean |dx|, rates of zero crossings and of slope changes, AR(4) by Levinson and Durbin,
    log variance, log of mean sqrt |x|, log of the second half's power over the first's, autocorrelations at 1 to 8
    samples.
    Of all: log-covariances of the signal and of its first and second differences. The signal should be of the order of
    1 (see `unit`): what is added to keep logarithms finite is 1e-12.
    """
    w = np.asarray(windows, np.float64).transpose(0, 2, 1)  # (N, C, L)
    x, dx = w - w.mean(axis=-1, keepdims=True), np.diff(w, axis=-1)
    length, half = x.shape[-1], x.shape[-1] // 2
    r = np.stack([(x[..., lag:] * x[..., : length - lag]).sum(axis=-1) for lag in range(9)], axis=-1)  # (N, C, 9)
    r[..., 0] = r[..., 0] * (1 + 1e-5) + 1e-12
    power = (x**2).mean(axis=-1)
    halves = [np.log((part**2).mean(axis=-1) + 1e-12) for part in (x[..., half:], x[..., :half])]
    each = [np.abs(x).mean(axis=-1), np.abs(dx).mean(axis=-1), np.diff(np.signbit(x), axis=-1).mean(axis=-1),
            np.diff(np.signbit(dx), axis=-1).mean(axis=-1), *np.moveaxis(levinson(r, 4), -1, 0), np.log(power + 1e-12),
            np.log(np.sqrt(np.abs(x)).mean(axis=-1) + 1e-9), halves[0] - halves[1],
            *np.moveaxis(r[..., 1:] / r[..., :1], -1, 0)]
    between = [spatial.log_euclidean(spatial.covariances(windows, order)) for order in (0, 1, 2)]
    return np.concatenate([*each, *between], axis=1)


def layout(channels: int) -> tuple[list[int], list[tuple[int, ...]]]:
    """What each of `broad`'s features is, by number, and which channels it is of."""
    kinds = [kind for kind in range(19) for _ in range(channels)]
    of: list[tuple[int, ...]] = [(c,) for _ in range(19) for c in range(channels)]
    for order in range(3):
        for i, j in zip(*np.triu_indices(channels), strict=True):
            kinds.append(19 + 2 * order + int(i != j))
            of.append((int(i), int(j)))
    return kinds, of


def levinson(r: np.ndarray, order: int) -> np.ndarray:
    """AR coefficients (..., order) from autocorrelations (..., order + 1 or more): Levinson's and Durbin's recursion.

    x_t + sum a_k x_(t-k) is white. The same as `scipy.linalg.solve_toeplitz` finds, many at once.
    """
    a = np.zeros((*r.shape[:-1], order + 1))
    a[..., 0], error = 1, r[..., 0].copy()
    for m in range(1, order + 1):
        k = -(a[..., :m] * r[..., m:0:-1]).sum(axis=-1) / error
        a[..., 1 : m + 1] += k[..., None] * a[..., :m][..., ::-1].copy()
        error = error * (1 - k**2)
    return a[..., 1:]


def unit(sd: float) -> float:
    """The power of ten next to a deviation: divided by it a signal is of the order of 1, whatever its unit."""
    return float(10.0 ** np.round(np.log10(max(sd, 1e-30))))


DESCRIPTIONS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "time_domain": time_domain, "log_covariance": log_covariance, "broad": broad}
