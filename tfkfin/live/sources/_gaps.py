"""Samples that are missing, seen by the stamps of those that are there."""

from collections.abc import Iterator, Sequence

import numpy as np

STEADY_S = 1.0  # of stamps that step by one sample, before a single missing one is believed
HURRY_S = 0.5  # senders that stamp samples as they send them may stand still so long without having lost one


class Gaps:
    """Stamps of one sample after another -> where some are missing between them.

    A device that stamps its samples steps evenly, and every lost one shows. The stamps of a sender are those of its
    hurry: of these only a long step is a gap.
    """

    def __init__(self, rate_hz: float):
        self._period, self._last, self._even = 1 / rate_hz, None, 0

    def __call__(self, stamps: Sequence[float]) -> Iterator[tuple[slice, int]]:
        """Stamps (n,) in seconds of the next samples -> parts of them without a gap, and samples lost before each."""
        stamps = np.asarray(stamps, np.float64)
        last = stamps[0] - self._period if self._last is None else self._last
        begin, lost = 0, 0
        for i, beyond in enumerate((np.diff(stamps, prepend=last) - self._period).tolist()):
            steady = self._even * self._period > STEADY_S
            if beyond > (0.75 * self._period if steady else HURRY_S):
                if i > begin:
                    yield slice(begin, i), lost
                begin, lost = i, round(beyond / self._period)
            else:
                self._even = self._even + 1 if abs(beyond) < 0.25 * self._period else 0
        self._last = stamps[-1]
        yield slice(begin, len(stamps)), lost


def counted(numbers: np.ndarray, last: int | None, modulus: int = 256) -> np.ndarray:
    """Packages that are missing before each of `numbers` (n,), which count up modulo something; `last` came before."""
    before = numbers[0] if last is None else last
    steps = np.diff(numbers.astype(np.int64), prepend=int(before)) % modulus
    return np.maximum(steps - 1, 0)
