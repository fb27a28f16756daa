"""The true sampling rate of a device: its clock and the clock of this machine differ, by up to half a percent."""

import numpy as np

SPAN_S = 30.0  # of samples that one estimate of the rate takes
AGREE = 2e-4  # largest difference of two estimates in a row, as a share of the rate
LEAST, MOST = 5e-4, 1e-2  # shares of the rate that are corrected; no clock is off by more


class Drift:
    """Arrival times of samples -> their true rate, once it is known and differs from the rate in use.

    The rate is the slope of a line that is fitted to (time, samples so far), span by span:
    slope = (m sum(t n) - sum(t) sum(n)) / (m sum(t^2) - sum(t)^2). Two spans have to agree, because samples that arrive
    late at the end of a span, on a busy machine, change its slope.

    Args:
        rate_hz: nominal rate of the device.
    """

    def __init__(self, rate_hz: float):
        self.rate_hz, self._nominal = rate_hz, rate_hz
        self.restart()

    def restart(self) -> None:
        """Starts over, after samples were lost or the device paused."""
        self._start_span()
        self._last = None

    def _start_span(self) -> None:
        self._start, self._sums = None, np.zeros(5)

    def __call__(self, count: int, received: float) -> float | None:
        """`count` more samples, received at a time in seconds -> the rate if it is new, or None."""
        if self._start is None:
            self._start, self._count = received, 0
        else:
            self._count += count
        t, n = received - self._start, self._count - self._nominal * (received - self._start)
        self._sums += 1, t, n, t * t, t * n
        if t < SPAN_S:
            return None
        m, of_t, of_n, square, product = self._sums
        found = self._nominal + (m * product - of_t * of_n) / (m * square - of_t**2)
        before, self._last = self._last, found
        self._start_span()
        if before is None or abs(found - before) > AGREE * self._nominal:
            return None
        rate = 0.5 * (found + before)
        if abs(rate / self._nominal - 1) > MOST or abs(rate / self.rate_hz - 1) < LEAST:
            return None
        self.rate_hz = rate
        return rate
