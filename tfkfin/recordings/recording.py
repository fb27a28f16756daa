"""A recording on disk, its header, and in memory, which every reader returns; movements as times and as samples."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np

from tfkfin.base.console import format_numbers
from tfkfin.base.errors import InputError, Missing
from tfkfin.recordings import checks

VOLTS = {"V": 1.0, "mV": 1e-3, "uV": 1e-6}  # per unit
LARGEST_V = 0.1  # V: surface EMG stays below 0.01 V, so larger values are in another unit
UNKNOWN = -1  # the label of a sample whose true movement is unknown
_LONGEST_S = 1e9  # s: no recording is as long
OWN_UNIT_HZ = 200.0  # Hz: sensors with lower rates, such as the Myo, may have units of their own


@dataclass(frozen=True)
class RecordingFile:
    """One recording on disk: its files, subject, session and reader, from file names alone.

    Attributes:
        path: its signal file; the first one where trials or runs are separate files.
        more: the other signal files, in order.
        beside: other files that it is read from, such as those of labels.
        all_exercises: number movements consecutively through all exercises, because several are used together.
        rate_hz: samples a second that the user states; 0: none.
        notes: remarks from finding it, such as a person's name that became a number.
        siblings: signal files found with it, which may tell what this one lacks.
    """

    path: Path
    subject: int
    exercise: int = 1
    session: int = 1
    reader: str = "ninapro"
    more: tuple[Path, ...] = ()
    beside: tuple[Path, ...] = ()
    all_exercises: bool = False
    rate_hz: float = 0.0
    notes: tuple[str, ...] = ()
    siblings: tuple[Path, ...] = field(default=(), compare=False, repr=False)

    @property
    def signals(self) -> tuple[Path, ...]:
        return (self.path, *self.more)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that the recording is read from."""
        return (*self.signals, *self.beside)

    def __str__(self) -> str:
        return f"subject {self.subject}" + (f", session {self.session}" if self.session > 1 else "")


@dataclass(frozen=True)
class Recording:
    """One recording in memory, as in the file: not filtered, resampled or relabelled.

    Attributes:
        emg: (T, C) float32, volts. Column-major when it comes from MATLAB, so a channel is contiguous.
        labels: (T,) int16, movement 1.., 0 is rest.
        repetitions: (T,) int16. May be non-zero during rest: rest is `labels == 0`, never `repetitions == 0`.
        notes: remarks on how the file was read, for the log.
        synthetic: the file states that its signal is synthetic.
        seams: samples at which another file begins, where trials or runs were joined; no window contains one inside.
        names: of movements, as far as they are known.
        cued: False where nobody was asked for movements: labels are all 0, and it is not known what was done.
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
    cued: bool = True

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
        made = self.at(chosen)
        # A seam at 0 tells `owners` that the selection comes from trials in files of their own, if it is one trial.
        return replace(made, seams=made.seams or ((0,) if self.seams else ()))

    def at(self, chosen: np.ndarray) -> Self:
        """These samples, numbers from 0 in order of time, with a seam at each join."""
        joins = np.flatnonzero(np.diff(chosen) > 1) + 1
        seams = {*joins.tolist(), *np.searchsorted(chosen, self.seams).tolist()} - {0, len(chosen)}
        return replace(self, emg=self.emg[chosen], labels=self.labels[chosen], repetitions=self.repetitions[chosen],
                       seams=tuple(sorted(seams)))

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


class Recordings(list[Recording]):
    """A list of recordings; one that holds a single recording has that one's attributes and methods too."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.only(), name)

    def only(self) -> Recording:
        """The single recording."""
        if len(self) != 1:
            raise Missing(f"these are {len(self)} recordings: take one of them, such as recordings[0]")
        return self[0]


@dataclass(frozen=True)
class Header:
    """A recording without its signal; other values are those of the Recording."""

    file: RecordingFile
    labels: np.ndarray  # (T,) int16
    repetitions: np.ndarray  # (T,) int16
    rate_hz: float
    num_channels: int
    notes: tuple[str, ...]
    synthetic: bool
    seams: tuple[int, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)
    cued: bool = True


def owners(recording: Recording | Header) -> np.ndarray:
    """The repetition that each sample belongs to (T,), 0 for none; rest belongs to the repetition of a movement.

    Files number the repetitions of rest differently or not at all. Here rest belongs to the movement before it; but in
    a file that begins with rest and ends in a movement, rest opens the trials and belongs to the movement after it.
    Rest before a file's first movement belongs to none. Where trials or runs are separate files, all rest belongs to a
    movement of the same file, and rest of a file without a movement keeps the number in the file.
    """
    labels, repetitions = recording.labels, recording.repetitions
    moving, found = (labels > 0) & (repetitions > 0), np.zeros(len(labels), repetitions.dtype)
    edges = [0, *recording.seams, len(labels)]
    for begin, end in pairwise(edges):
        if begin == end:
            continue
        order = slice(begin, end)
        if labels[begin] == 0 and labels[end - 1] > 0:
            order = slice(end - 1, begin - 1 if begin else None, -1)  # rest opens trials: go through them backwards
        numbers, known = repetitions[order], np.flatnonzero(moving[order])
        last = np.searchsorted(known, np.arange(len(numbers)), "right") - 1  # of the movements' samples; -1: none yet
        if recording.seams:
            known = known if len(known) else np.flatnonzero(labels[order] == 0)[:1]
            last = np.maximum(last, 0)
        if len(known):
            found[order] = np.where(last >= 0, numbers[known[last]], 0)
    return np.where((labels > 0) & ~moving, 0, found)


def digests(recording: Recording) -> dict[int, str]:
    """What tells a repetition again, wherever it lies: {repetition: 16 hex digits of its movements' samples}."""
    moving = np.where(recording.labels > 0, recording.repetitions, 0)
    return {repetition: hashlib.sha256(recording.emg[moving == repetition].tobytes()).hexdigest()[:16]
            for repetition in np.unique(moving[moving > 0]).tolist()}


def header_of(file: RecordingFile, whole: Recording) -> Header:
    """The header of a recording, for formats whose files have to be read completely for it."""
    return Header(file, whole.labels, whole.repetitions, whole.rate_hz, whole.num_channels, whole.notes,
                  whole.synthetic, whole.seams, whole.names, whole.cued)


def joined(file: RecordingFile, parts: Sequence[Recording], emg: np.ndarray | None, notes: list[str], count: bool,
           names: Mapping[int, str], synthetic: bool = False) -> Recording:
    """One recording from those of its signal files, in order.

    Args:
        emg: the joined signal, if it has been read already.
        notes: remarks, which may repeat.
        count: number the executions of each movement, because the files do not number repetitions.

    Raises:
        InputError: the files differ in rate or channels, or have no movement.
    """
    rates, widths = {part.rate_hz for part in parts}, {part.num_channels for part in parts}
    if len(rates) > 1 or len(widths) > 1:
        raise InputError(f"{file}: files have {sorted(rates)} Hz and {sorted(widths)} channels, which must be the same")
    ends = np.cumsum([0, *(len(part.labels) for part in parts)]).tolist()
    inside = [end + seam for end, part in zip(ends, parts, strict=False) for seam in part.seams]
    seams = tuple(sorted([*inside, *ends[1:-1]]))
    labels = np.concatenate([part.labels for part in parts])
    repetitions = np.concatenate([part.repetitions for part in parts])
    if count:
        repetitions = count_repetitions(labels, seams)
        notes.append("the files do not number repetitions: the executions of each movement are counted")
    if cued := any(part.cued for part in parts):
        checks.has_movement(file.path, labels, repetitions)
    else:
        notes.append("nobody was asked for movements: it can be decided, adapted to, and calibrated on without labels")
    if emg is None:
        emg = parts[0].emg if len(parts) == 1 else np.concatenate([part.emg for part in parts])
    return Recording(file, emg, labels, repetitions, rates.pop(), tuple(dict.fromkeys(notes)), synthetic, seams, names,
                     cued)


def flat_channels(recording: Recording) -> tuple[int, ...]:
    """Channels (from 1) that never change, as missing sensors of some amputees of DB3."""
    emg = recording.emg
    # The first 1000 samples decide nearly every channel.
    return tuple(c + 1 for c in range(emg.shape[1])
                 if (emg[:1000, c] == emg[0, c]).all() and (emg[:, c] == emg[0, c]).all())


def to_samples(path: Path, movements: Iterable[tuple[float, float, int, int]], length: int, rate_hz: float,
               hold: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Labels and repetitions (T,) int16 from (start s, stop s, movement, repetition); 0 elsewhere.

    With `hold`, what lasts no time is held until the next begins, and the last to the end.

    Raises:
        InputError: two overlap, or one has no duration or lies outside the recording.
    """
    labels, repetitions = np.zeros((2, length), np.int16)
    last, ordered = 0, sorted(movements)
    following = [*(start_s for start_s, *_ in ordered[1:]), length / rate_hz]
    for (start_s, stop_s, movement, repetition), next_s in zip(ordered, following, strict=False):
        stop_s = next_s if hold and stop_s == start_s else stop_s
        inside = abs(start_s) <= _LONGEST_S and abs(stop_s) <= _LONGEST_S  # not where one is NaN, or Inf
        if not inside or not (0 <= movement <= 32767 and 0 <= repetition <= 32767):
            raise InputError(f"{path}: movement {movement}, repetition {repetition}, from {start_s:g} to {stop_s:g} s "
                             "is none: numbers from 0 to 32767 and times are needed")
        start, stop = round(start_s * rate_hz), round(stop_s * rate_hz)
        if not 0 <= start < stop <= length + 1:
            raise InputError(f"{path}: movement {movement} from {start_s:g} to {stop_s:g} s has no duration, or is not "
                             f"inside the recording of {length / rate_hz:g} s")
        if start < last:
            raise InputError(f"{path}: movement {movement} at {start_s:g} s begins before the one before has ended")
        labels[start:stop], repetitions[start:stop], last = movement, repetition, stop
    return labels, repetitions


def from_samples(labels: np.ndarray, repetitions: np.ndarray, seams: Sequence[int] = ()
                 ) -> list[tuple[int, int, int, int]]:
    """The inverse: (first sample, one beyond the last, movement, repetition) wherever the two stay the same."""
    changes = np.flatnonzero((np.diff(labels) != 0) | (np.diff(repetitions) != 0)) + 1
    edges = np.unique([0, *changes, *seams, len(labels)])
    return [(int(a), int(b), int(labels[a]), int(repetitions[a])) for a, b in pairwise(edges)]


def count_repetitions(labels: np.ndarray, seams: Sequence[int] = ()) -> np.ndarray:
    """Repetitions (T,) int16: k during the k-th execution of a movement, 0 during rest. A seam ends an execution."""
    counts, last = np.zeros(len(labels), np.int16), Counter[int]()
    for start, stop, movement, _ in from_samples(labels, labels, seams):
        if movement:
            last[movement] += 1
            counts[start:stop] = last[movement]
    return counts
