"""A recording played as if it were live: in real time, faster, or as fast as it is taken."""

import argparse
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from tfkfin.base.console import InputError, format_numbers, numeric, parse_numbers
from tfkfin.live.scoring import masked
from tfkfin.live.sources import Chunk, Kind, Source
from tfkfin.pipeline.splits import Part
from tfkfin.recipe import Split
from tfkfin.recordings.recording import Recording

PACKET_S, WAITING_PACKET_S = 0.005, 0.1  # of signal in a chunk: paced, and where nobody waits for it


class Replay(Source):
    """A recording, sample by sample as it was, with its labels as truth.

    Args:
        speed: seconds of the recording in a second; 0: as fast as it is taken.
        endless: goes on with its beginning at its end.
        packet_s: seconds of signal that are received together.
    """

    def __init__(self, recording: Recording, speed: float = 1.0, endless: bool = False, packet_s: float = 0.0):
        self.recording, self.speed, self.endless = recording, speed, endless
        self.rate_hz, self.channels = recording.rate_hz, recording.num_channels
        self._packet = max(1, round((packet_s or (PACKET_S if speed else WAITING_PACKET_S)) * self.rate_hz))
        self.described = f"{recording.path.name}, {recording.seconds:.1f} s at {self.rate_hz:g} Hz"

    def __iter__(self) -> Iterator[Chunk | None]:
        began, sent, edges = time.perf_counter(), 0, [0, *self.recording.seams, len(self.recording.emg)]
        packets = [(slice(first, min(first + self._packet, end)), first == start > 0) for start, end in pairwise(edges)
                   for first in range(start, end, self._packet)]
        while True:
            for part, begins in packets:
                samples, labels = self.recording.emg[part], self.recording.labels[part]
                sent += len(samples)
                late = float("nan")
                if self.speed:
                    due = began + sent / (self.rate_hz * self.speed)
                    time.sleep(max(0.0, due - time.perf_counter()))
                    late = time.perf_counter() - due
                yield Chunk(samples, time.perf_counter(), late, labels=labels, begins=begins)
            if not self.endless:
                return


def found(folder: str | Path, subject: int | None, session: int | None,
          exercise: int | Sequence[int] = 1) -> Recording:
    """The one recording of a folder, or file, that is meant.

    Raises:
        InputError: there is none, or several.
    """
    from tfkfin.recordings import readers

    path = Path(folder)
    files = readers.find(path.parent if path.is_file() else folder, exercise=exercise)
    files = [file for file in files if not path.is_file() or file.path.samefile(path)]
    for name, wanted in (("subject", subject), ("session", session)):
        there = sorted({getattr(file, name) for file in files})
        if wanted is not None:
            files = [file for file in files if getattr(file, name) == wanted]
        elif len(there) > 1:
            raise InputError(f"{folder} has {name}s {format_numbers(there)}: choose one with --{name}")
        if not files:
            raise InputError(f"{folder} has no recording of {name} {wanted}: it has {format_numbers(there) or 'none'}")
    return readers.read(files[0])


def _open(arguments: argparse.Namespace, card: dict) -> Replay:
    if not arguments.data:
        raise InputError("--source replay plays a recording: name its folder with --data DIR")
    recording = found(arguments.data, arguments.subject, arguments.session,
                      parse_numbers(arguments.exercise))
    if arguments.repetitions:
        recording = masked(recording, Split(), Part(parse_numbers(arguments.repetitions)))
    return Replay(recording, arguments.speed)


def _options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--data", metavar="DIR", help="replay: a folder of recordings, or one of them")
    group.add_argument("--subject", type=int, metavar="N", help="replay: whose, where there are several")
    group.add_argument("--session", type=int, metavar="N", help="replay: which of their sessions")
    group.add_argument("--repetitions", metavar="2,5", help="replay: score these only (default: all, so also those "
                       "that the model was trained on)")
    group.add_argument("--exercise", metavar="K", default="1", help="replay: the k of S{n}_E{k}_A1.mat, or several "
                       "(default: 1)")
    group.add_argument("--speed", type=numeric(float, 0, 1e4), default=1.0, metavar="N", help="replay, synthetic: "
                       "seconds of signal in a second; 0: as fast as it goes, every window decided (default: 1)")


SOURCE = Kind(_open, _options)
