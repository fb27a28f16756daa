"""Any stream of the lab streaming layer (LSL) that has a sampling rate, found by its name or type."""

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from tfkfin.base.console import parse_numbers
from tfkfin.base.errors import InputError
from tfkfin.base.extras import required
from tfkfin.live.sources import Chunk, LiveSource, channel_indices, volts_per

WAIT_S = 0.1  # without a sample for this long, None is yielded
TYPES = ("EMG", "ExG", "EEG")
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


class Lsl(LiveSource):
    """A stream of the lab streaming layer. When it breaks off, it is searched for until it is there again.

    Args:
        name: name or type of the stream; "" takes the first of the types EMG, ExG, EEG.
        channels: numbers from 1, in the order that the decoder expects; () takes all.
        unit: V, mV or uV, of all channels; "" takes each channel's own in the stream's description.
        find_s: time limit of the search, in seconds.

    Raises:
        InputError: no pylsl, no such stream, a stream without a rate or of text, or an unknown unit.
    """

    drifts, table = True, "lsl"

    def __init__(self, name: str = "", channels: tuple[int, ...] = (), unit: str = "", find_s: float = 10.0):
        self._pylsl, self._name, self._closed = required("pylsl"), name, False
        self._inlet, info = self._find(find_s)
        self.rate_hz, stream = float(info.nominal_srate()), f"LSL stream {info.name()}"
        if not self.rate_hz or info.channel_format() == self._pylsl.cf_string:
            raise InputError(f"the {stream} ({info.type()}) has no samples at a rate")
        self._indices = channel_indices(channels, info.channel_count(), f"the {stream}")
        units = [unit] * info.channel_count() if unit else self._units(info)
        self._scale, self.channels = np.float32([volts_per(units[i], f"channel {i + 1} of the {stream}")
                                                 for i in self._indices]), len(self._indices)
        self._gaps = StampGaps(self.rate_hz)
        self.described = f"{stream} ({info.type()}), {self.channels} channels at {self.rate_hz:g} Hz"

    @classmethod
    def open(cls, arguments: argparse.Namespace, card: dict) -> "Lsl":
        return cls(arguments.stream, parse_numbers(arguments.channels) if arguments.channels else (), arguments.unit)

    def __iter__(self) -> Iterator[Chunk | None]:
        note = ""
        self._inlet.flush()  # samples from before the session
        while not self._closed:
            try:
                rows, stamps = self._received()
            except self._pylsl.util.LostError:
                stamps = []
                with suppress(InputError):
                    self._inlet, note = self._find(0.5)[0], "the stream was lost, and is found again"
            if not stamps:
                yield None
                continue
            late_s = self._pylsl.local_clock() - stamps[-1]
            samples = np.asarray(rows, np.float32)[:, self._indices] * self._scale
            yield from self.chunks(samples, self._gaps(stamps), late_s, note)
            note = ""

    def close(self) -> None:
        self._closed = True

    def _units(self, info: Any) -> list[str]:
        """What the stream says of each channel's unit; "" where it says nothing."""
        units, channel = [""] * info.channel_count(), info.desc().child("channels").child("channel")
        for i in range(len(units)):
            units[i], channel = channel.child_value("unit"), channel.next_sibling("channel")
        return units

    def _received(self) -> tuple[list, list[float]]:
        """All samples that are available, as soon as there is one, and their stamps by this machine's clock."""
        first, stamp = self._inlet.pull_sample(timeout=WAIT_S)
        if first is None:
            return [], []
        rows, stamps = self._inlet.pull_chunk(timeout=0.0)
        correction = self._inlet.time_correction(timeout=1.0)
        return [first, *rows], [s + correction for s in (stamp, *stamps)]

    def _find(self, seconds: float) -> tuple[Any, Any]:
        lsl, end = self._pylsl, time.monotonic() + seconds
        while True:
            streams = lsl.resolve_streams(wait_time=min(0.5, seconds))
            names = [self._name] if self._name else TYPES
            for info in (info for name in names for info in streams if name in (info.name(), info.type())):
                inlet = lsl.StreamInlet(info, max_buflen=10, recover=False)
                with suppress(lsl.util.LostError, lsl.util.TimeoutError):  # of a stream that has ended and is listed
                    inlet.open_stream(timeout=5.0)
                    inlet.time_correction(timeout=5.0)
                    return inlet, inlet.info(timeout=5.0)
            if time.monotonic() >= end:
                listed = ", ".join(f"{info.name()} ({info.type()})" for info in streams) or "none"
                wanted = self._name or f"of the types {', '.join(TYPES)}"
                raise InputError(f"no LSL stream {wanted}: there are {listed}")


SOURCE = Lsl
