"""Any stream of the lab streaming layer (LSL) that carries samples at a rate, found by its name or type."""

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfkfin.base.console import InputError, parse_numbers
from tfkfin.live.outputs import needed
from tfkfin.live.sources import Chunk, Kind, Source, chosen, scale
from tfkfin.live.sources._gaps import Gaps

WAIT_S = 0.1  # for a sample, before it is said that none came
TYPES = ("EMG", "ExG", "EEG")


class Lsl(Source):
    """A stream of the lab streaming layer; where it breaks off it is looked for until it is there again.

    Args:
        name: of the stream, or its type; "" takes the first of the types EMG, ExG, EEG.
        channels: numbers from 1, in the order that the decoder takes; () takes all.
        unit: V, mV or uV; "" as the stream says of its channels.
        find_s: seconds that it may take to be found.

    Raises:
        InputError: no pylsl, no such stream, one without a rate or with text, or a unit that nobody tells.
    """

    drifts = True

    def __init__(self, name: str = "", channels: tuple[int, ...] = (), unit: str = "", find_s: float = 10.0):
        self._pylsl, self._name, self._ended = needed("pylsl"), name, False
        self._inlet, info = self._found(find_s)
        self.rate_hz = float(info.nominal_srate())
        if not self.rate_hz or info.channel_format() == self._pylsl.cf_string:
            raise InputError(f"the LSL stream {info.name()} ({info.type()}) has no samples at a rate")
        self._which = chosen(channels, info.channel_count(), f"the LSL stream {info.name()}")
        self._scale, self.channels = scale(unit or _unit(info), f"the LSL stream {info.name()}"), len(self._which)
        self._gaps = Gaps(self.rate_hz)
        self.described = f"LSL stream {info.name()} ({info.type()}), {self.channels} channels at {self.rate_hz:g} Hz"

    def __iter__(self) -> Iterator[Chunk | None]:
        note = ""
        self._inlet.flush()  # what came while nobody was ready
        while not self._ended:
            try:
                rows, stamps = self._pulled()
            except self._pylsl.util.LostError:
                yield None
                try:
                    self._inlet, _ = self._found(0.5)
                    note = "the stream was lost, and is found again"
                except InputError:
                    pass
                continue
            if not stamps:
                yield None
                continue
            now = time.perf_counter()
            late = self._pylsl.local_clock() - stamps[-1]
            samples = np.asarray(rows, np.float32)[:, self._which] * np.float32(self._scale)
            for part, lost in self._gaps(stamps):
                after = (len(stamps) - part.stop) / self.rate_hz
                yield Chunk(samples[part], now, late + after, lost, note=note)
                note = ""

    def close(self) -> None:
        self._ended = True

    def _pulled(self) -> tuple[list, list[float]]:
        """All samples that are there as soon as there is one, with stamps by this machine's clock."""
        first, stamp = self._inlet.pull_sample(timeout=WAIT_S)
        if first is None:
            return [], []
        rows, stamps = self._inlet.pull_chunk(timeout=0.0)
        apart = self._inlet.time_correction(timeout=1.0)
        return [first, *rows], [s + apart for s in (stamp, *stamps)]

    def _found(self, seconds: float) -> tuple[Any, Any]:
        lsl, end = self._pylsl, time.monotonic() + seconds
        while True:
            there = lsl.resolve_streams(wait_time=min(0.5, seconds))
            wanted = [self._name] if self._name else TYPES
            for name in wanted:
                for info in there:
                    if name in (info.name(), info.type()):
                        inlet = lsl.StreamInlet(info, max_buflen=10, recover=False)
                        try:
                            inlet.open_stream(timeout=5.0)
                            inlet.time_correction(timeout=5.0)
                            return inlet, inlet.info(timeout=5.0)
                        except (lsl.util.LostError, lsl.util.TimeoutError):  # what is left of one that has just gone
                            continue
            if time.monotonic() >= end:
                named = ", ".join(f"{info.name()} ({info.type()})" for info in there) or "none"
                raise InputError(f"no LSL stream {self._name or 'of the types ' + ', '.join(TYPES)}: there are {named}")


def _unit(info: Any) -> str:
    """The unit that the first channel of a stream's description names."""
    return info.desc().child("channels").child("channel").child_value("unit")


def _open(arguments: argparse.Namespace, card: dict) -> Lsl:
    return Lsl(arguments.stream or "", parse_numbers(arguments.channels) if arguments.channels else (), arguments.unit)


def _options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--stream", metavar="NAME", help="lsl: the stream's name or type (default: the first of the "
                       "types EMG, ExG, EEG)")
    group.add_argument("--channels", metavar="1-8", help="lsl, brainflow: which of its channels (default: all that "
                       "are for EMG)")
    group.add_argument("--unit", choices=("V", "mV", "uV"), default="", help="lsl: of its samples (default: as the "
                       "stream says)")


SOURCE = Kind(_open, _options)
