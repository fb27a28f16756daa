"""Proportional control: the size of an imitated amplitude feature, smoothed, within the person's own range."""

from collections.abc import Sequence

import numpy as np

from tfkfin.live.timing import Histogram

AMPLITUDES = ("RMS", "MAV", "WL", "IAV", "SSI", "VAR", "LOG")  # features that grow with force, the best first
LOW, HIGH = 0.1, 0.95  # quantiles of the person's levels that get the speeds 0 and 1
EDGES = np.arange(-25, 25, 0.05)  # of log levels, 5 % apart


class Proportional:
    """Features of one decision after another -> speeds from 0 to 1.

    The range follows from all levels so far; older ones count less.

    Args:
        names: of the features.
        stride_s: seconds from decision to decision.
        smooth_s: time constant of the speed, seconds.
        range_s: time constant of the range, seconds.
    """

    def __init__(self, names: Sequence[str], stride_s: float, smooth_s: float = 0.15, range_s: float = 300.0):
        self._feature = next((names.index(name) for name in AMPLITUDES if name in names), None)
        self._gain, self._keep = 1 - np.exp(-stride_s / smooth_s), np.exp(-stride_s / range_s)
        self._level, self._levels = None, Histogram(EDGES)

    def __call__(self, features: np.ndarray) -> float:
        """The speed for features (C, F), whatever movement was decided; 1 where no feature grows with force."""
        if self._feature is None:
            return 1.0
        level = float(np.log(np.maximum(np.mean(features[:, self._feature]), 1e-10)))
        self._level = level if self._level is None else self._level + self._gain * (level - self._level)
        self._levels.counts *= self._keep
        self._levels.count(self._level)
        low, high = self._levels.quantile(LOW), self._levels.quantile(HIGH)
        return float(np.clip((self._level - low) / (high - low), 0, 1)) if high > low else 0.0
