"""How many samples are missing before each one that was received, by time stamps or by package numbers."""

from collections.abc import Sequence

import numpy as np

STEADY_S = 1.0  # a single missing sample counts only after even time stamps for this long
HURRY_S = 0.5  # a sender that stamps samples when it sends them may pause for this long without having lost one


class StampGaps:
    """Finds missing samples by time stamps.

    A device that stamps its samples itself has even steps between stamps, and every lost sample shows. Stamps that a
    sender gives when it sends are uneven; there only a long step counts as a gap.
    """

    def __init__(self, rate_hz: float):
        self._period, self._last, self._even = 1 / rate_hz, None, 0

    def __call__(self, stamps: Sequence[float]) -> np.ndarray:
        """Stamps (n,) of the next samples, in seconds -> how many samples are missing before each (n,)."""
        stamps = np.asarray(stamps, np.float64)
        last = stamps[0] - self._period if self._last is None else self._last
        lost = np.zeros(len(stamps), np.int64)
        for i, beyond in enumerate((np.diff(stamps, prepend=last) - self._period).tolist()):
            steady = self._even * self._period > STEADY_S
            if beyond > (0.75 * self._period if steady else HURRY_S):
                lost[i] = round(beyond / self._period)
            else:
                self._even = self._even + 1 if abs(beyond) < 0.25 * self._period else 0
        self._last = stamps[-1]
        return lost


def number_gaps(numbers: np.ndarray, last: int | None, modulus: int = 256) -> np.ndarray:
    """How many packages are missing before each of `numbers` (n,), which count up modulo `modulus` from `last`."""
    before = numbers[0] if last is None else last
    steps = np.diff(numbers.astype(np.int64), prepend=int(before)) % modulus
    return np.maximum(steps - 1, 0)
