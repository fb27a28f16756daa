"""Features of all channels together, in NumPy: log-covariances of a window's signal and of its differences.

The logarithm of a covariance matrix, its upper triangle with the off-diagonal scaled by sqrt 2, is the tangent-space
vector at the identity of Riemannian EMG decoders (Barachant et al., IEEE TBME 59:920, 2012; pyriemann's
`tangent_space` with the identity as reference).
"""

import numpy as np

LIMIT = 0.999  # |r| beyond which Fisher's z would run away
RIDGE = 1e-3  # of the mean variance, added to every channel's: a flat channel stays finite


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
