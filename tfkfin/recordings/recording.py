"""A recording on disk, its header, and the whole of it in memory: what every reader gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

VOLTS = {"V": 1.0, "mV": 1e-3, "uV": 1e-6}  # of a unit
LOUD = 0.1  # V: skin surface EMG stays below 0.01 V, so a larger value means another unit
COARSE = 200.0  # Hz: up to here sensors give amplitudes in units of their own, as the Myo does


@dataclass(frozen=True)
class RecordingFile:
    """One recording on disk, known by its name only: whose it is, of which session, and which reader reads it.

    Attributes:
        path: its file, or the first where trials or runs lie in files of their own.
        more: the others, in order.
        beside: files that reading it takes too, such as those of its labels.
        all_exercises: movements are numbered through all exercises, for it is used together with others.
    """

    path: Path
    subject: int
    exercise: int = 1
    session: int = 1
    reader: str = "ninapro"
    more: tuple[Path, ...] = ()
    beside: tuple[Path, ...] = ()
    all_exercises: bool = False

    @property
    def signals(self) -> tuple[Path, ...]:
        return (self.path, *self.more)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that decides what is read."""
        return (*self.signals, *self.beside)

    def __str__(self) -> str:
        return f"subject {self.subject}" + (f", session {self.session}" if self.session > 1 else "")


@dataclass(frozen=True)
class Recording:
    """One recording in memory. Arrays are as in the file: nothing filtered, resampled or relabelled.

    Attributes:
        emg: (T, C) float32, volts. Column-major when it comes from MATLAB, so a channel is contiguous.
        labels: (T,) int16, movement 1.., 0 is rest.
        repetitions: (T,) int16. May be non-zero during rest: rest is `labels == 0`, never `repetitions == 0`.
        notes: decisions taken while reading, for the log.
        synthetic: the file says that no person was recorded.
        seams: samples at which another file begins, where trials or runs were joined: no window lies across one.
        names: of movements, as far as they are known.
    """

    file: RecordingFile
    emg: np.ndarray
    labels: np.ndarray
    repetitions: np.ndarray
    rate_hz: float
    notes: tuple[str, ...] = ()
    synthetic: bool = False
    seams: tuple[int, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def subject(self) -> int:
        return self.file.subject

    @property
    def num_channels(self) -> int:
        return self.emg.shape[1]

    @property
    def seconds(self) -> float:
        return len(self.emg) / self.rate_hz


@dataclass(frozen=True)
class Header:
    """A recording without its signal: what is needed to plan and check work. Same values as the Recording has."""

    file: RecordingFile
    labels: np.ndarray  # (T,) int16
    repetitions: np.ndarray  # (T,) int16
    rate_hz: float
    num_channels: int
    notes: tuple[str, ...]
    synthetic: bool
    seams: tuple[int, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)


def header_of(file: RecordingFile, whole: Recording) -> Header:
    """What stays of a recording without its signal, where a format has to be read whole for it."""
    return Header(file, whole.labels, whole.repetitions, whole.rate_hz, whole.num_channels, whole.notes,
                  whole.synthetic, whole.seams, whole.names)


def flat_channels(recording: Recording) -> tuple[int, ...]:
    """Channels (from 1) that never change: a missing sensor, as with some amputees of DB3."""
    emg = recording.emg
    # A look at the start settles nearly every channel without touching the rest.
    return tuple(c + 1 for c in range(emg.shape[1])
                 if (emg[:1000, c] == emg[0, c]).all() and (emg[:, c] == emg[0, c]).all())
