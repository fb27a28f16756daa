"""A recording on disk, its header, and the whole of it in memory: what every reader gives."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np

from tfkfin.base.console import InputError, format_numbers

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

    def select(self, repetitions: int | Iterable[int] | None = None) -> Self:
        """The samples of some repetitions, joined in order of time, with a seam at each join.

        Rest goes with the repetition of a movement, as `owners` says. A decoder that is fitted on the selection is
        trained on the very windows that `split.train_repetitions` gives.

        Args:
            repetitions: numbers as in `repetitions`; None: all, and the recording is returned as it is.

        Raises:
            InputError: there is none of them.
        """
        if repetitions is None:
            return self
        wanted = [repetitions] if isinstance(repetitions, int | np.integer) else list(repetitions)
        owner = owners(self)
        chosen = np.flatnonzero(np.isin(owner, wanted) & (owner > 0))
        if not len(chosen):
            there = format_numbers(np.unique(owner[owner > 0]).tolist()) or "none"
            raise InputError(f"{self.path}: there is none of the repetitions {format_numbers(wanted)}: it has {there}")
        joins = np.flatnonzero(np.diff(chosen) > 1) + 1
        seams = {*joins.tolist(), *np.searchsorted(chosen, self.seams).tolist()} - {0, len(chosen)}
        # A seam at 0 tells `owners` that the selection comes from trials in files of their own, if it is one trial.
        return replace(self, emg=self.emg[chosen], labels=self.labels[chosen], repetitions=self.repetitions[chosen],
                       seams=tuple(sorted(seams)) or ((0,) if self.seams else ()))

    def by_session(self, repetitions_per_session: int = 0) -> dict[int, Self]:
        """The recording of each session, {session: recording}, in order of session.

        Args:
            repetitions_per_session: where repetitions number on through sessions, session s has the repetitions
                (s - 1) n + 1 to s n, and keeps these numbers; 0: the recording is of one session, its file's.
        """
        if not repetitions_per_session:
            return {self.file.session: self}
        owner = owners(self)
        numbers = np.unique(owner[owner > 0])
        sessions = (numbers - 1) // repetitions_per_session + 1
        return {session: replace(self.select(numbers[sessions == session].tolist()),
                                 file=replace(self.file, session=session)) for session in np.unique(sessions).tolist()}


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


def owners(recording: Recording | Header) -> np.ndarray:
    """The repetition that each sample belongs to (T,), 0 for none; rest belongs to the repetition of a movement.

    Files number the repetitions of rest differently or not at all. Here rest belongs to the movement before it, but to
    the one after it where rest opens each trial; a file that begins with rest and ends in a movement shows that. Rest
    before a file's first movement belongs to none. Where trials or runs are files of their own, all rest belongs to a
    movement of the same file; of a file without a movement it keeps the number that the file gives it.
    """
    labels, repetitions = recording.labels, recording.repetitions
    moving, found = (labels > 0) & (repetitions > 0), np.zeros(len(labels), repetitions.dtype)
    edges = [0, *recording.seams, len(labels)]
    for begin, end in zip(edges, edges[1:], strict=False):
        if begin == end:
            continue
        order = slice(begin, end)
        if labels[begin] == 0 and labels[end - 1] > 0:
            order = slice(end - 1, begin - 1 if begin else None, -1)  # rest opens trials: the movement after it counts
        numbers, known = repetitions[order], np.flatnonzero(moving[order])
        last = np.searchsorted(known, np.arange(len(numbers)), "right") - 1  # of the movements' samples; -1: none yet
        if recording.seams:
            known = known if len(known) else np.flatnonzero(labels[order] == 0)[:1]
            last = np.maximum(last, 0)
        if len(known):
            found[order] = np.where(last >= 0, numbers[known[last]], 0)
    return np.where((labels > 0) & ~moving, 0, found)


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
