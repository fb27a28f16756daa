"""Descriptions of whole windows, of all channels together, in NumPy: for baselines, and what layers are tested against.

The logarithm of a covariance matrix, its upper triangle with the off-diagonal scaled by sqrt 2, is the tangent-space
vector at the identity of Riemannian EMG decoders (Barachant et al., IEEE TBME 59:920, 2012; pyriemann's
`tangent_space` with the identity as reference).
"""

import numpy as np

from tfkfin.features import catalogue

# The field's usual features: Hudgins' four (1993), autoregression of order 4 (Englehart, Hudgins 2003), log variance.
TIME_DOMAIN = ("MAV", "WL", "ZC", "SSC", "AR1", "AR2", "AR3", "AR4", "VAR")
RIDGE = 1e-3  # of the mean variance, added to every channel's: a flat channel stays finite
LAGS, ORDER = 8, 4  # of `broad`: autocorrelations up to this lag, in samples, and the order of AR
FLOOR, RELATIVE_FLOOR = 1e-12, 1e-10  # added to powers: of the signal's unit squared, and of the squared mean


def time_domain(windows: np.ndarray, rate_hz: float) -> np.ndarray:
    """MAV, WL, ZC, SSC, AR(4) and log variance of each channel: windows (N, L, C) volts -> (N, 9 C)."""
    windows = windows - windows.mean(axis=1, keepdims=True)
    found = catalogue.direct(windows, TIME_DOMAIN, rate_hz).astype(np.float64)
    found[..., -1] = np.log(np.maximum(found[..., -1], 1e-30))
    return found.reshape(len(found), -1)


def tangent_space(windows: np.ndarray, rate_hz: float) -> np.ndarray:
    """The logarithm of the covariance between channels: windows (N, L, C) volts -> (N, C (C + 1) / 2)."""
    return log_euclidean(covariances(np.asarray(windows, np.float64)))


def broad(windows: np.ndarray) -> np.ndarray:
    """What `tfkfin.nets.descriptions.broad` computes, whose equations stand there: (N, L, C) -> (N, S), float64.

    Windows should be standardised: the least power is 1e-12.
    """
    x = np.asarray(windows, np.float64).transpose(0, 2, 1)  # (N, C, L)
    dx, about, length, half = np.diff(x), x - x.mean(axis=-1, keepdims=True), x.shape[-1], x.shape[-1] // 2
    floor = FLOOR + RELATIVE_FLOOR * x.mean(axis=-1) ** 2
    r = [(about[..., lag:] * about[..., : length - lag]).sum(axis=-1) for lag in range(LAGS + 1)]
    r[0] = r[0] * (1 + 1e-5) + length * floor
    power, second, first = (np.log((part**2).mean(axis=-1) + floor)
                            for part in (about, about[..., half:], about[..., :half]))
    each = [np.abs(x).mean(axis=-1), np.abs(dx).mean(axis=-1), np.diff(x < 0).mean(axis=-1),
            np.diff(dx < 0).mean(axis=-1), *levinson(r, ORDER), power,
            np.log(np.sqrt(np.abs(x)).mean(axis=-1) + FLOOR**0.5), second - first, *(part / r[0] for part in r[1:])]
    return np.concatenate([*each, *(log_euclidean(covariances(windows, order)) for order in (0, 1, 2))], axis=1)


def broad_layout(channels: int) -> tuple[list[int], list[tuple[int, ...]]]:
    """Of each number of `broad` which kind it is, a number, and of which electrodes."""
    single = 7 + ORDER + LAGS
    kinds = [kind for kind in range(single) for _ in range(channels)]
    electrodes: list[tuple[int, ...]] = [(c,) for _ in range(single) for c in range(channels)]
    for order in range(3):
        for i, j in zip(*np.triu_indices(channels), strict=True):
            kinds.append(single + 2 * order + int(i != j))
            electrodes.append((int(i), int(j)))
    return kinds, electrodes


def levinson(r, order: int) -> list:
    """AR coefficients a_1 .. a_order from autocorrelations r_0 .. r_order, by the recursion of Levinson and Durbin.

    x_t + sum over k of a_k x_(t-k) is white. Arrays or tensors of any one shape.
    """
    a, error = [], r[0]
    for m in range(1, order + 1):
        reflection = -(r[m] + sum(a[i] * r[m - 1 - i] for i in range(m - 1))) / error
        a = [own + reflection * other for own, other in zip(a, a[::-1], strict=True)] + [reflection]
        error = error * (1 - reflection**2)
    return a


def covariances(windows: np.ndarray, difference: int = 0) -> np.ndarray:
    """Covariances about the mean (N, C, C) of windows (N, L, C), or of their `difference`-th differences."""
    x = np.diff(windows, n=difference, axis=1) if difference else windows
    x = x - x.mean(axis=1, keepdims=True)
    return x.transpose(0, 2, 1) @ x / x.shape[1]


def log_euclidean(matrices: np.ndarray, ridge: float = RIDGE) -> np.ndarray:
    """Symmetric positive matrices (N, C, C) -> the upper triangle of their logarithms (N, C (C + 1) / 2)."""
    channels = matrices.shape[-1]
    mean = np.trace(matrices, axis1=1, axis2=2)[:, None, None] / channels
    values, vectors = np.linalg.eigh(matrices + (ridge * mean + 1e-30) * np.eye(channels))
    logs = (vectors * np.log(np.maximum(values, 1e-30))[:, None]) @ vectors.transpose(0, 2, 1)
    rows, columns = np.triu_indices(channels)
    return logs[:, rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2.0))
