"""A recording on disk, its header, and the whole of it in memory: what every reader gives."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

VOLTS = {"V": 1.0, "mV": 1e-3, "uV": 1e-6}  # of a unit
LOUD = 0.1  # V: skin surface EMG stays below 0.01 V, so a larger value means another unit
COARSE = 200.0  # Hz: up to here sensors give amplitudes in units of their own, as the Myo does


@dataclass(frozen=True)
class RecordingFile:
    """One recording on disk, known by its name only: whose it is, of which session, and which reader reads it."""

    path: Path
    subject: int
    exercise: int = 1
    session: int = 1
    reader: str = "ninapro"

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
    """

    file: RecordingFile
    emg: np.ndarray
    labels: np.ndarray
    repetitions: np.ndarray
    rate_hz: float
    notes: tuple[str, ...] = ()
    synthetic: bool = False

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


def flat_channels(recording: Recording) -> tuple[int, ...]:
    """Channels (from 1) that never change: a missing sensor, as with some amputees of DB3."""
    emg = recording.emg
    # A look at the start settles nearly every channel without touching the rest.
    return tuple(c + 1 for c in range(emg.shape[1])
                 if (emg[:1000, c] == emg[0, c]).all() and (emg[:, c] == emg[0, c]).all())
