"""A synthetic person who goes through the decoder's movements again and again: nobody is recorded, no device needed."""

import argparse
from pathlib import Path

import numpy as np

from tfkfin.live.sources import Kind
from tfkfin.live.sources.replay import Replay
from tfkfin.recordings import synthetic
from tfkfin.recordings.recording import Recording, RecordingFile


def person(subject: int, movements: int, channels: int, rate_hz: float, seed: int = 1) -> Recording:
    """A recording of a synthetic person; as `tfkfin.recordings.synthetic` writes them, in memory."""
    task = synthetic.Session(movements, 1, channels, rate_hz, hold_s=2.0, rest_s=1.0)
    made = synthetic.variables(subject, task, seed)
    return Recording(RecordingFile(Path("synthetic"), subject), made["emg"],
                     made["restimulus"][:, 0].astype(np.int16), made["rerepetition"][:, 0].astype(np.int16), rate_hz,
                     synthetic=True)


def _open(arguments: argparse.Namespace, card: dict) -> Replay:
    movements = max(1, *card["movements"])
    recording = person(arguments.subject or 1, movements, card["channels"], card["rate_hz"])
    source = Replay(recording, arguments.speed, endless=bool(arguments.seconds) or bool(arguments.speed))
    source.described = f"synthetic person {recording.subject}, {source.channels} channels at {source.rate_hz:g} Hz"
    return source


SOURCE = Kind(_open)
