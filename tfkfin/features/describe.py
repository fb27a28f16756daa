"""Descriptions of whole windows in NumPy, for baselines; those of decoders are layers, in `tfkfin.nets.descriptions`.

The logarithm of a covariance matrix, its upper triangle with the off-diagonal scaled by sqrt 2, is the tangent-space
vector at the identity of Riemannian EMG decoders (Barachant et al., IEEE TBME 59:920, 2012; pyriemann's
`tangent_space` with the identity as reference).
"""

import numpy as np

from tfkfin.features import catalogue

# The field's usual features: Hudgins' four (1993), autoregression of order 4 (Englehart, Hudgins 2003), log variance.
TIME_DOMAIN = ("MAV", "WL", "ZC", "SSC", "AR1", "AR2", "AR3", "AR4", "VAR")
RIDGE = 1e-3  # of the mean variance, added to every channel's variance, so that a flat channel stays finite


def time_domain(windows: np.ndarray, rate_hz: float) -> np.ndarray:
    """MAV, WL, ZC, SSC, AR(4) and log variance of each channel: windows (N, L, C) volts -> (N, 9 C)."""
    windows = windows - windows.mean(axis=1, keepdims=True)
    found = catalogue.direct(windows, TIME_DOMAIN, rate_hz).astype(np.float64)
    found[..., -1] = np.log(np.maximum(found[..., -1], 1e-30))
    return found.reshape(len(found), -1)


def tangent_space(windows: np.ndarray, rate_hz: float) -> np.ndarray:
    """The logarithm of the covariance between channels: windows (N, L, C) volts -> (N, C (C + 1) / 2)."""
    return log_euclidean(covariances(np.asarray(windows, np.float64)))


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
