"""A synthetic person who repeats the decoder's movements: no device is needed, and nobody is recorded."""

import argparse
from pathlib import Path

import numpy as np

from tfkfin.live.sources.replay import Replay
from tfkfin.recordings import synthetic
from tfkfin.recordings.recording import Recording, RecordingFile


def person(subject: int, movements: int, channels: int, rate_hz: float, seed: int = 1) -> Recording:
    """A recording of a synthetic person in memory, as `tfkfin.recordings.synthetic` writes it to a file."""
    task = synthetic.Session(movements, 1, channels, rate_hz, hold_s=2.0, rest_s=1.0)
    made = synthetic.variables(subject, task, seed)
    return Recording(RecordingFile(Path("synthetic"), subject), made["emg"],
                     made["restimulus"][:, 0].astype(np.int16), made["rerepetition"][:, 0].astype(np.int16), rate_hz,
                     synthetic=True)


class SyntheticPerson(Replay):
    """A synthetic person, endless where the speed or the duration is limited."""

    table = ""

    @classmethod
    def open(cls, arguments: argparse.Namespace, card: dict) -> "SyntheticPerson":
        recording = person(arguments.subject or 1, max(1, *card["movements"]), card["channels"], card["rate_hz"])
        source = cls(recording, arguments.speed, endless=bool(arguments.seconds) or bool(arguments.speed))
        source.described = f"synthetic person {recording.subject}, {source.channels} channels at {source.rate_hz:g} Hz"
        return source


SOURCE = SyntheticPerson
