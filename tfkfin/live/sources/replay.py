"""A recording as a live signal: in real time, faster, or as fast as it is taken."""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from tfkfin.base.console import format_numbers, parse_numbers
from tfkfin.base.errors import InputError
from tfkfin.live.measures import UNKNOWN
from tfkfin.live.sources import Chunk, LiveSource
from tfkfin.pipeline.splits import Part, segments
from tfkfin.recipe import Split
from tfkfin.recordings import readers
from tfkfin.recordings.recording import Recording

PACKET_S, WAITING_PACKET_S = 0.005, 0.1  # seconds of signal in a chunk: at a speed, and where the source waits


class Replay(LiveSource):
    """A recording, sample by sample, with its labels as the true movements.

    Args:
        speed: seconds of the recording that pass in one second; 0: as fast as it is taken.
        endless: starts over at the end.
    """

    table = "replay"

    def __init__(self, recording: Recording, speed: float = 1.0, endless: bool = False):
        self.recording, self.speed, self.endless = recording, speed, endless
        self.rate_hz, self.channels = recording.rate_hz, recording.num_channels
        self._packet = max(1, round((PACKET_S if speed else WAITING_PACKET_S) * self.rate_hz))
        self.described = f"{recording.path.name}, {recording.seconds:.1f} s at {self.rate_hz:g} Hz"

    @classmethod
    def open(cls, arguments: argparse.Namespace, card: dict) -> "Replay":
        if not arguments.data:
            raise InputError("--source replay needs a recording: name its folder with --data DIR")
        recording = find_recording(arguments.data, arguments.subject, arguments.session,
                                   parse_numbers(arguments.exercise))
        if arguments.repetitions:
            recording = masked(recording, Split(), Part(parse_numbers(arguments.repetitions)))
        return cls(recording, arguments.speed)

    def __iter__(self) -> Iterator[Chunk | None]:
        began, sent, edges = time.perf_counter(), 0, [0, *self.recording.seams, len(self.recording.emg)]
        packets = [(slice(first, min(first + self._packet, end)), first == start > 0) for start, end in pairwise(edges)
                   for first in range(start, end, self._packet)]
        while True:
            for part, begins in packets:
                samples, late_s = self.recording.emg[part], float("nan")
                labels = self.recording.labels[part] if self.recording.cued else None
                sent += len(samples)
                if self.speed:
                    due = began + sent / (self.rate_hz * self.speed)
                    time.sleep(max(0.0, due - time.perf_counter()))
                    late_s = time.perf_counter() - due
                yield Chunk(samples, time.perf_counter(), late_s, labels=labels, begins=begins)
            if not self.endless:
                return


def masked(recording: Recording, split: Split, part: Part) -> Recording:
    """The recording with UNKNOWN labels outside a part of a split; rest belongs to a repetition too."""
    labels = np.full(len(recording.labels), UNKNOWN, np.int16)
    for s in segments(recording, split, rest=True):
        if part.holds(s.repetition, s.session):
            labels[s.start : s.stop] = s.movement
    return replace(recording, labels=labels)


def find_recording(path: str | Path, subject: int | None = None, session: int | None = None,
                   exercise: int | Sequence[int] = 1) -> Recording:
    """The one recording in a folder, or of a file, that the arguments select.

    Raises:
        InputError: there is none, or there are several.
    """
    file = Path(path) if Path(path).is_file() else None
    files = [one for one in readers.find(file.parent if file else path, exercise=exercise)
             if file is None or one.path.samefile(file)]
    if not files:
        raise InputError(f"{path} is no recording that is known by its name: give the folder it lies in")
    for name, wanted in (("subject", subject), ("session", session)):
        numbers = sorted({getattr(one, name) for one in files})
        if wanted is None and len(numbers) > 1:
            raise InputError(f"{path} has {name}s {format_numbers(numbers)}: choose one with --{name}")
        files = [one for one in files if wanted in (None, getattr(one, name))]
        if not files:
            raise InputError(f"{path} has no recording of {name} {wanted}: it has {format_numbers(numbers)}")
    return readers.read(files[0])


SOURCE = Replay
