"""Where live signals come from: one module a kind, whose `SOURCE` is a subclass of `LiveSource`.

Another package registers its own by an entry point of the group `tfkfin.sources` that names such a subclass.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from tfkfin.base.errors import InputError
from tfkfin.base.options import add_options
from tfkfin.recordings.formats import UNITS, VOLTS

SPAN_S = 30.0  # of samples that one estimate of the rate takes
AGREE = 2e-4  # largest difference of two estimates in a row, as a share of the rate
LEAST, MOST = 5e-4, 1e-2  # shares of the rate that are corrected; no clock is off by more


@dataclass(frozen=True)
class Chunk:
    """Samples that were received together.

    Attributes:
        samples: (n, C) volts; NaN where a device says that a value is missing.
        received: `time.perf_counter()` when they were received.
        late_s: time from the instant of the last sample until it was received; NaN where no clock tells.
        lost: number of samples that are missing before these.
        labels: (n,) the true movements, -1 where unknown; None: all are unknown.
        begins: whether another recording begins here, which does not continue the samples before.
        note: what happened to the source, for people.
    """

    samples: np.ndarray
    received: float
    late_s: float = float("nan")
    lost: int = 0
    labels: np.ndarray | None = None
    begins: bool = False
    note: str = ""


class LiveSource:
    """A live signal. Iterating over it gives chunks as they come, and None when none has come for a while.

    Attributes:
        rate_hz: nominal samples a second.
        channels: number of channels.
        speed: seconds of signal that pass in one second; 0: the source waits until its samples are taken.
        drifts: whether the source samples by its own clock, which may differ from the clock of this machine.
        described: what the source is, for people.
        channel_names: as the device calls its channels; (): it does not.
        table: of its options in tfkfin's own `options.toml`; "": none.
    """

    rate_hz: float
    channels: int
    speed: float = 1.0
    drifts: bool = False
    described: str = ""
    channel_names: Sequence[str] = ()
    table: str = ""

    @classmethod
    def options(cls, group: argparse._ArgumentGroup) -> None:
        """Adds the options of this kind of source to the command line."""
        if cls.table:
            add_options(group, cls.table)

    @classmethod
    def open(cls, arguments: argparse.Namespace, card: dict) -> Self:
        """The source that the command line asks for.

        Args:
            arguments: its own options, and those of the command, such as `subject`, `channels` and `speed`.
            card: of the decoder.
        """
        raise NotImplementedError

    def __iter__(self) -> Iterator[Chunk | None]:
        raise NotImplementedError

    def close(self) -> None:
        """Releases the device."""

    def chunks(self, samples: np.ndarray, lost: np.ndarray, late_s: float, note: str = "",
               begins: bool = False) -> Iterator[Chunk]:
        """Chunks without a gap, of samples that have just been received together.

        Args:
            samples: (n, C) volts.
            lost: (n,) how many samples are missing before each.
            late_s: as of `Chunk`.
            note, begins: of the first chunk.
        """
        now, edges = time.perf_counter(), [0, *np.flatnonzero(lost[1:]) + 1, len(samples)]
        for start, stop in zip(edges, edges[1:], strict=False):
            yield Chunk(samples[start:stop], now, late_s + (len(samples) - stop) / self.rate_hz, int(lost[start]),
                        begins=begins, note=note)
            note, begins = "", False


def channel_indices(channels: tuple[int, ...], count: int, where: str) -> list[int]:
    """Indices, from 0, of channels that are numbered from 1; () means all.

    Raises:
        InputError: there are fewer channels.
    """
    if beyond := [c for c in channels if c > count]:
        raise InputError(f"{where} has {count} channels, no channel {beyond[0]}")
    return [c - 1 for c in channels] or list(range(count))


def volts_per(unit: str, where: str) -> float:
    """Volts of one unit.

    Raises:
        InputError: the unit is unknown.
    """
    if unit.strip().lower() not in UNITS:
        raise InputError(f"the unit of {where} is unknown (it reports {unit!r}): give --unit")
    return VOLTS[UNITS[unit.strip().lower()]]


class Drift:
    """Arrival times of samples -> their true rate, once it is known and differs from the rate in use.

    The clocks of a device and of this machine differ, by up to half a percent.

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
        self._start, self._sums, self._last = None, np.zeros(5), None

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
        before, self._last, self._start, self._sums = self._last, found, None, np.zeros(5)
        if before is None or abs(found - before) > AGREE * self._nominal:
            return None
        rate = 0.5 * (found + before)
        if abs(rate / self._nominal - 1) > MOST or abs(rate / self.rate_hz - 1) < LEAST:
            return None
        self.rate_hz = rate
        return rate
