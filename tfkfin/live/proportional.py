"""How strongly a movement is done: the size of the imitated features, smoothed, in the person's own range."""

from collections.abc import Sequence

import numpy as np

AMPLITUDES = ("RMS", "MAV", "WL", "IAV", "SSI", "VAR", "LOG")  # features that grow with force, best first
LOW, HIGH = 0.1, 0.95  # quantiles of the person's levels that are speeds 0 and 1
_EDGES = np.arange(-25, 25, 0.05)  # of log levels: 5 % apart


class Proportional:
    """Features of one decision after another -> speeds 0..1.

    The range is that of all levels so far, older ones counting less, in constant memory.

    Args:
        names: of the features.
        stride_s: seconds from decision to decision.
        smooth_s: time constant of the speed, seconds.
        range_s: time constant of the range.
    """

    def __init__(self, names: Sequence[str], stride_s: float, smooth_s: float = 0.15, range_s: float = 300.0):
        self._which = next((names.index(name) for name in AMPLITUDES if name in names), None)
        self._gain, self._keep = 1 - np.exp(-stride_s / smooth_s), np.exp(-stride_s / range_s)
        self._level, self._counts = None, np.zeros(len(_EDGES) + 1)

    def __call__(self, features: np.ndarray) -> float:
        """Of a decision with features (C, F), whatever was decided. Without a feature that grows, 1."""
        if self._which is None:
            return 1.0
        level = float(np.log(np.maximum(np.mean(features[:, self._which]), 1e-10)))
        self._level = level if self._level is None else self._level + self._gain * (level - self._level)
        self._counts *= self._keep
        self._counts[np.searchsorted(_EDGES, self._level)] += 1
        seen = np.cumsum(self._counts)
        low, high = (_EDGES[min(np.searchsorted(seen, q * seen[-1]), len(_EDGES) - 1)] for q in (LOW, HIGH))
        return float(np.clip((self._level - low) / (high - low), 0, 1)) if high > low else 0.0
