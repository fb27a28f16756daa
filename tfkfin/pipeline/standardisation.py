"""Standardisation (z-score) of signals: mean and standard deviation a channel, fitted on training samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from tfkfin.base.errors import InputError
from tfkfin.pipeline.windows import Segment


@dataclass(frozen=True)
class ChannelStatistics:
    """Count n, mean m (C,) and sum of squares about it, S = Σ (x − m)² (C,), of samples; float64. They add up.

    Reference of the sum: Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance",
    doi:10.1080/00031305.1983.10483115
    """

    count: int
    mean: np.ndarray
    square: np.ndarray

    @classmethod
    def of(cls, emg: np.ndarray, segments: Sequence[Segment]) -> Self:
        """Of the samples of `segments` in emg (T, C), volts.

        Two passes in float64, since squares of 1e-6 V that are summed in float32 lose every digit.
        """
        nothing = np.zeros(emg.shape[1])
        count = sum(segment.stop - segment.start for segment in segments)
        if not count:
            return cls(0, nothing, nothing)
        mean = sum(emg[s.start : s.stop].sum(axis=0, dtype=np.float64) for s in segments) / count
        return cls(count, mean, sum(((emg[s.start : s.stop] - mean) ** 2).sum(axis=0) for s in segments))

    def __add__(self, other: Self) -> Self:
        """Of the samples of both: n = n₁ + n₂, d = m₂ − m₁, m = m₁ + d n₂/n, S = S₁ + S₂ + d² n₁ n₂/n."""
        count = self.count + other.count
        if not self.count or not other.count:
            return self if self.count else other
        apart = other.mean - self.mean
        return type(self)(count, self.mean + apart * (other.count / count),
                          self.square + other.square + apart**2 * (self.count * other.count / count))

    def mean_and_sd(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (C,) and standard deviation √(S/n) (C,). A flat channel gets sd 1, so that it standardises to 0.

        Raises:
            InputError: there is no sample.
        """
        if not self.count:
            raise InputError("there is no training sample to take mean and deviation from: choose other repetitions")
        sd = np.sqrt(self.square / self.count)
        flat = sd <= 1e-7 * np.abs(self.mean)  # what rounding leaves of a constant
        return self.mean, np.where(flat | (sd == 0), 1.0, sd)
