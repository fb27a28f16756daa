"""How many samples a second a device truly gives: its clock and this machine's differ, by up to half a percent."""

import numpy as np

SPAN_S = 30.0  # of samples that a rate is read from
AGREE = 2e-4  # two spans in a row have to, as a share of the rate
LEAST, MOST = 5e-4, 1e-2  # share that is corrected; beyond it is no clock's


class Drift:
    """When samples came -> their true rate, wherever it is known and is not what was taken for it.

    A line is fitted to how many came by when, span by span; two have to agree, because a machine that is busy late in
    one reads it late.

    Args:
        rate_hz: as the device says.
    """

    def __init__(self, rate_hz: float):
        self.rate_hz, self._nominal = rate_hz, rate_hz
        self.restart()

    def restart(self) -> None:
        """Samples were lost or stood still: what came before says nothing any more."""
        self._begin_span()
        self._last = None

    def _begin_span(self) -> None:
        self._began, self._sums = None, np.zeros(5)

    def __call__(self, count: int, received: float) -> float | None:
        """`count` samples more, `received` at a time in seconds -> the rate that is new, or None."""
        if self._began is None:
            self._began, self._count = received, 0
        else:
            self._count += count
        t, n = received - self._began, self._count - self._nominal * (received - self._began)
        self._sums += 1, t, n, t * t, t * n
        if t < SPAN_S:
            return None
        size, of_t, of_n, square, product = self._sums
        found = self._nominal + (size * product - of_t * of_n) / (size * square - of_t**2)
        before, self._last = self._last, found
        self._begin_span()
        if before is None or abs(found - before) > AGREE * self._nominal:
            return None
        rate = 0.5 * (found + before)
        if abs(rate / self._nominal - 1) > MOST or abs(rate / self.rate_hz - 1) < LEAST:
            return None
        self.rate_hz = rate
        return rate
