"""Correlations between channels, which a FIN of two channels imitates."""

import numpy as np

OF_TWO = ("COR",)  # features of two channels that a FIN can imitate: Fisher's z of their correlation
LIMIT = 0.999  # |r| beyond which Fisher's z would run away


def correlations(windows: np.ndarray) -> np.ndarray:
    """Fisher's z of the correlation about zero of every two channels: windows (N, L, C) -> (N, C (C - 1) / 2).

    In the order of `np.triu_indices(C, 1)`. A flat channel correlates with nothing (0).
    """
    x = np.asarray(windows, np.float64)
    products = x.transpose(0, 2, 1) @ x
    sd = np.sqrt(np.diagonal(products, axis1=1, axis2=2) + 1e-12)
    first, second = np.triu_indices(x.shape[2], 1)
    return np.arctanh(np.clip(products[:, first, second] / (sd[:, first] * sd[:, second]), -LIMIT, LIMIT))
