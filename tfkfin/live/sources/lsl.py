"""Any stream of the lab streaming layer (LSL) that has a sampling rate, found by its name or type."""

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfkfin.base.console import parse_numbers
from tfkfin.base.errors import InputError
from tfkfin.live.extras import required
from tfkfin.live.sources import Chunk, LiveSource, channel_indices, volts_per
from tfkfin.live.sources._gaps import StampGaps

WAIT_S = 0.1  # without a sample for this long, None is yielded
TYPES = ("EMG", "ExG", "EEG")


class Lsl(LiveSource):
    """A stream of the lab streaming layer. When it breaks off, it is searched for until it is there again.

    Args:
        name: name or type of the stream; "" takes the first of the types EMG, ExG, EEG.
        channels: numbers from 1, in the order that the decoder expects; () takes all.
        unit: V, mV or uV; "" takes the one in the stream's description.
        find_s: time limit of the search, in seconds.

    Raises:
        InputError: no pylsl, no such stream, a stream without a rate or of text, or an unknown unit.
    """

    drifts = True

    def __init__(self, name: str = "", channels: tuple[int, ...] = (), unit: str = "", find_s: float = 10.0):
        self._pylsl, self._name, self._closed = required("pylsl"), name, False
        self._inlet, info = self._find(find_s)
        self.rate_hz, stream = float(info.nominal_srate()), f"LSL stream {info.name()}"
        if not self.rate_hz or info.channel_format() == self._pylsl.cf_string:
            raise InputError(f"the {stream} ({info.type()}) has no samples at a rate")
        self._indices = channel_indices(channels, info.channel_count(), f"the {stream}")
        unit = unit or info.desc().child("channels").child("channel").child_value("unit")
        self._scale, self.channels = np.float32(volts_per(unit, f"the {stream}")), len(self._indices)
        self._gaps = StampGaps(self.rate_hz)
        self.described = f"{stream} ({info.type()}), {self.channels} channels at {self.rate_hz:g} Hz"

    @classmethod
    def options(cls, group: argparse._ArgumentGroup) -> None:
        group.add_argument("--stream", metavar="NAME", default="", help="lsl: name or type of the stream (default: the "
                           "first of the types EMG, ExG, EEG)")
        group.add_argument("--unit", choices=("V", "mV", "uV"), default="", help="lsl: unit of the samples (default: "
                           "the one in the stream's description)")

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
                yield None
                try:
                    self._inlet, _ = self._find(0.5)
                    note = "the stream was lost, and is found again"
                except InputError:
                    pass
                continue
            if not stamps:
                yield None
                continue
            late_s = self._pylsl.local_clock() - stamps[-1]
            samples = np.asarray(rows, np.float32)[:, self._indices] * self._scale
            yield from self.chunks(samples, self._gaps(stamps), late_s, note)
            note = ""

    def close(self) -> None:
        self._closed = True

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
                try:
                    inlet.open_stream(timeout=5.0)
                    inlet.time_correction(timeout=5.0)
                    return inlet, inlet.info(timeout=5.0)
                except (lsl.util.LostError, lsl.util.TimeoutError):  # a stream that has just ended may still be listed
                    continue
            if time.monotonic() >= end:
                listed = ", ".join(f"{info.name()} ({info.type()})" for info in streams) or "none"
                wanted = self._name or f"of the types {', '.join(TYPES)}"
                raise InputError(f"no LSL stream {wanted}: there are {listed}")


SOURCE = Lsl
