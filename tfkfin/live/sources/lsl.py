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
from tfkfin.base.quoted import line
from tfkfin.base.samples import rate
from tfkfin.live.sources import Chunk, LiveSource, channel_indices, volts_per

WAIT_S = 0.1  # without a sample for this long, None is yielded
TYPES = ("EMG", "ExG", "EEG")
STEADY_S = 1.0  # a single missing sample counts only after even time stamps for this long
LONGEST_S = 3600.0  # of samples that may have been lost at once; a longer step is another clock
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
        with np.errstate(invalid="ignore"):  # of infinite stamps
            beyond_period = (np.diff(stamps, prepend=last) - self._period).tolist()
        for i, beyond in enumerate(beyond_period):
            steady = self._even * self._period > STEADY_S
            if LONGEST_S > beyond > (0.75 * self._period if steady else HURRY_S):
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
        stream, kind, self._about = f"LSL stream {line(info.name(), 80)}", line(info.type(), 80), _about(info)
        if not info.nominal_srate() or info.channel_format() == self._pylsl.cf_string:
            raise InputError(f"the {stream} ({kind}) has no samples at a rate")
        self.rate_hz = rate(f"the {stream} ({kind})", info.nominal_srate())
        self._indices = channel_indices(channels, info.channel_count(), f"the {stream}")
        units = [unit] * info.channel_count() if unit else self._about["units"]
        self._scale, self.channels = np.float32([volts_per(units[i], f"channel {i + 1} of the {stream}")
                                                 for i in self._indices]), len(self._indices)
        labels = _of_channels(info, "label")
        self.channel_names = [labels[i] or str(i + 1) for i in self._indices]
        self._name = info.name() or name  # the one that is searched for where it is lost
        self._gaps = StampGaps(self.rate_hz)
        self.described = f"{stream} ({kind}), {self.channels} channels at {self.rate_hz:g} Hz"

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
                stamps, found = [], None
                with suppress(InputError):
                    found = self._find(0.5)
                if found:
                    self._inlet, note = found[0], "the stream was lost, and is found again"
                    self._check_same(_about(found[1]))
            if not stamps:
                yield None
                continue
            late_s = self._pylsl.local_clock() - stamps[-1]
            with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is held, as all that is absurd
                samples = np.asarray(rows, np.float32)[:, self._indices] * self._scale
            yield from self.chunks(samples, self._gaps(stamps), late_s, note)
            note = ""

    def close(self) -> None:
        self._closed = True

    def _check_same(self, now: dict[str, Any]) -> None:
        """Raises InputError if the stream came back as another one, whose samples would be decided on wrongly."""
        if changed := [f"{name} {was!r}, now {now[name]!r}" for name, was in self._about.items() if now[name] != was]:
            raise InputError(f"{self.described}: it came back as another stream ({'; '.join(changed)}): start the "
                             "session again")

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
                listed = ", ".join(f"{line(info.name(), 80)} ({line(info.type(), 80)})" for info in streams) or "none"
                wanted = self._name or f"of the types {', '.join(TYPES)}"
                raise InputError(f"no LSL stream {wanted}: there are {listed}")


def _about(info: Any) -> dict[str, Any]:
    """What must stay as it is while a stream is decided; "" of the unit of a channel of which it says nothing."""
    return {"channels": info.channel_count(), "rate": info.nominal_srate(), "units": _of_channels(info, "unit"),
            "format": info.channel_format()}


def _of_channels(info: Any, what: str) -> list[str]:
    """What the description of a stream says of each channel; "" where nothing."""
    found, channel = [], info.desc().child("channels").child("channel")
    for _ in range(info.channel_count()):
        found.append(channel.child_value(what))
        channel = channel.next_sibling("channel")
    return found


SOURCE = Lsl
