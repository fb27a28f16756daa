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


DESCRIPTIONS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "time_domain": time_domain, "log_covariance": log_covariance}
