"""A folder of recordings as a recipe sees it: who is there, at which rate, which repetitions train and which test.

Opening a dataset reads labels only, so that whatever is unfit is said before any work is done. A subject's samples
are read when asked for, and only the segments of the wanted repetitions are kept.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from tfkfin.base.console import InputError, log
from tfkfin.pipeline import joining, splits, windows
from tfkfin.pipeline.memory import give_back
from tfkfin.pipeline.subject import Subject
from tfkfin.recipe import Filter, Recipe, Split, Window
from tfkfin.recordings import readers
from tfkfin.recordings.recording import Recording, RecordingFile, flat_channels
from tfkfin.signal import resampling
from tfkfin.signal.filtering import filtered, sections


@dataclass(frozen=True)
class Dataset:
    """The recordings of a folder under a recipe; build it with `open_dataset`.

    Attributes:
        files: subject -> files in order of session, for every subject that the recipe names.
        rate_hz: of the windows, after resampling if the recipe asks for it.
        movements: labels as in the files, ascending; 0 among them when rest is a class.
        split: the recipe's, with every default resolved.
        windows: subject -> how many windows there are of each session and repetition {(session, repetition): count}.
        names: of movements, as far as recordings tell.
        recorded_hz: rates of the recordings themselves.
    """

    files: dict[int, tuple[RecordingFile, ...]]
    window: Window
    split: Split
    rate_hz: float
    channels: int
    movements: tuple[int, ...]
    windows: dict[int, dict[tuple[int, int], int]]
    synthetic: bool
    names: Mapping[int, str]
    filter: Filter = Filter()
    recorded_hz: tuple[float, ...] = ()

    @property
    def length(self) -> int:
        return windows.samples(self.window.length_ms, self.rate_hz)

    @property
    def stride(self) -> int:
        return windows.samples(self.window.stride_ms, self.rate_hz)

    @property
    def train_stride(self) -> int:
        """Between windows that are learnt from."""
        return windows.samples(self.window.train_stride_ms or self.window.stride_ms, self.rate_hz)

    def part(self, name: str) -> splits.Part:
        """A side of the split: "train", "pretrain", "finetune" or "test"."""
        return splits.part(self.split, name)

    def count(self, subject: int, name: str) -> int:
        """How many windows of a subject are on a side of the split."""
        side = self.part(name)
        return sum(n for (session, repetition), n in self.windows[subject].items() if side.holds(repetition, session))

    def load(self, subject: int, wanted: splits.Part | None = None, emg: np.ndarray | None = None,
             memory: int = 0) -> Subject:
        """Reads a subject and keeps a part of it (default: all that trains or tests).

        Args:
            emg: the signal, where it has been read from the subject's only file already.
            memory: how many windows before a tested segment are kept with it, for decisions that look back.

        Raises:
            InputError: what `readers.read` raises.
        """
        parts = [wanted] if wanted else [self.part(name) for name in ("train", "pretrain", "finetune", "test")]
        train, test = self.part("train"), self.part("test")
        pieces, moments, rest = [], [], []
        for file in self.files[subject]:
            recording = readers.read(file, emg)
            cuts = splits.cuts(recording, self.split, self.window.rest)
            recording = resampling.resampled(recording, self.window.rate_hz, cuts)
            _report(recording)
            every = splits.segments(recording, self.split, self.window.rest)
            cuts = {*splits.cuts(recording, self.split, self.window.rest), *recording.seams}  # now at the windows' rate
            recording = replace(recording, emg=filtered(recording.emg, sections(self.filter, self.rate_hz), cuts))
            moments.append(splits.moments(recording.emg, [
                s for s in every if s.movement and train.holds(s.repetition, s.session)]))
            kept = [s for s in every if any(side.holds(s.repetition, s.session) for side in parts)]
            lead = [memory * self.stride * bool(test.holds(s.repetition, s.session)) for s in kept]
            pieces.append(joining.cut_out(recording, kept, lead))
            if not self.window.rest:
                rest.append(joining.resting(recording, self.split, train, self.length))
            del recording
            give_back()
        mean, sd = sum(moments[1:], moments[0]).statistics()
        strides = partial(_strides, self.window, self.split, self.rate_hz)
        return joining.joined(subject, pieces, mean, sd, self.length, strides, rest)

    def subjects(self, wanted: Iterable[int] | None = None, memory: int = 0) -> Iterator[Subject]:
        """Loads subject after subject, always reading the next while the caller works on this one."""
        wanted = list(self.split.subjects if wanted is None else wanted)
        with ThreadPoolExecutor(1) as pool:
            load = partial(self.load, memory=memory)
            ahead = pool.submit(load, wanted[0]) if wanted else None
            for i in range(len(wanted)):
                subject = ahead.result()
                ahead = pool.submit(load, wanted[i + 1]) if i + 1 < len(wanted) else None
                yield subject

    def labels(self, subject: Subject) -> np.ndarray:
        """Class indices (N,) int64 of a subject's windows: 0 for the first of `movements`."""
        return np.searchsorted(self.movements, subject.windows.movements).astype(np.int64)

    def describe(self) -> dict:
        """The `dataset` part of results.json."""
        split = self.split
        sides = {f"{name}_repetitions": list(getattr(split, f"{name}_repetitions"))
                 for name in ("train", "test", "pretrain", "finetune")}
        if split.between_sessions:
            sides |= {"train_sessions": list(split.train_sessions), "test_sessions": list(split.test_sessions)}
        if named := {str(m): name for m, name in self.names.items() if m in self.movements}:
            sides["names"] = named
        return {
            "subjects": list(split.subjects), "channels": self.channels, "rate_hz": self.rate_hz,
            "movements": list(self.movements), **sides,
            "windows": sum(sum(self.windows[s].values()) for s in split.subjects),
            "pretrain_subjects": list(split.pretrain_subjects), "synthetic": self.synthetic,
            "files": {str(s): [part for f in files for path in f.paths for part in (path.name, path.stat().st_size)]
                      for s, files in self.files.items()},
        }


def open_dataset(recipe: Recipe, folder: str | Path) -> Dataset:
    """Finds the recordings that a recipe asks for and checks, by their labels, that it can be carried out.

    Raises:
        InputError: no recordings, a subject that is not there, channel counts or rates that differ, repetitions that
            are missing, a movement without training windows, a window longer than every segment.
    """
    chosen = (*recipe.split.subjects, *recipe.split.pretrain_subjects) if recipe.split.subjects else None
    files = readers.by_subject(readers.find(folder, chosen, recipe.source.exercise))
    with ThreadPoolExecutor() as pool:
        plans = list(pool.map(partial(_plan, recipe), [file for one in files.values() for file in one]))
    rate, channels = _common(plans, "rate_hz", "Hz"), _common(plans, "channels", "channels")
    recorded_hz, rate = (rate,), recipe.window.rate_hz or rate
    length, stride = (windows.samples(ms, rate) for ms in (recipe.window.length_ms, recipe.window.stride_ms))
    segments = {s: [segment for plan in plans if plan.file.subject == s for segment in plan.segments] for s in files}
    every = {s: _located(files[s][0], windows.starts, of, length, stride, rate) for s, of in segments.items()}
    split = splits.resolved(recipe.split, every)
    if recipe.window.train_stride_ms:
        every = {s: windows.starts(of, length, _strides(recipe.window, split, rate, of)) for s, of in segments.items()}
    tested = splits.part(split, "test")
    for train in {splits.part(split, "train"), splits.part(split, "finetune")}:
        splits.check({s: every[s] for s in split.subjects}, train, tested)
    pretrain = splits.part(split, "pretrain")
    for s in split.pretrain_subjects:
        if not len(splits.select(every[s], pretrain)):
            raise InputError(f"subject {s} has no window in the pretrain {pretrain}")
    movements = np.unique(np.concatenate([every[s].movements for s in split.subjects]))
    counts = {s: _counts(w) for s, w in every.items()}
    synthetic = any(plan.synthetic for plan in plans)
    sections(recipe.filter, rate)  # says what is unfit
    return Dataset(files, recipe.window, split, rate, channels, tuple(movements.tolist()), counts, synthetic,
                   _named(plans), recipe.filter, recorded_hz)


def whole(files: Sequence[RecordingFile], window: Window, memory: int = 0, filter=None) -> tuple[Subject, float]:
    """As `joined`, of a subject's files.

    For judging FINs, which need neither training nor labels; never for judging a classifier.
    """
    return joined((readers.read(file) for file in files), window, memory, filter)


def joined(recordings: Iterable[Recording], window: Window, memory: int = 0, filter=None) -> tuple[Subject, float]:
    """All movements of one subject's recordings, standardised by their own statistics, and the windows' rate in Hz.

    `memory`: windows kept before the first of each movement, for decisions that look back; `filter`: as cards have it.
    """
    pieces, moments, rest, recorded = [], [], [], []
    for recording in recordings:
        recorded.append(recording.rate_hz)
        recording = resampling.resampled(recording, window.rate_hz)
        _report(recording)
        every, rate = splits.segments(recording, Split(), window.rest), recording.rate_hz
        length = windows.samples(window.length_ms, rate)
        stride = windows.samples(window.train_stride_ms or window.stride_ms, rate)
        emg = filtered(recording.emg, sections(filter, rate), recording.seams)
        moments.append(splits.moments(emg, [s for s in every if s.movement] or every))
        recording = replace(recording, emg=emg)
        pieces.append(joining.cut_out(recording, every, [memory * stride] * len(every)))
        if not window.rest:
            rest.append(joining.resting(recording, Split(), splits.Part(), length))
    mean, sd = sum(moments[1:], moments[0]).statistics()
    subject = joining.joined(recording.subject, pieces, mean, sd, length, lambda segments: stride, rest)
    return replace(subject, recorded_hz=tuple(recorded)), rate


def _strides(window: Window, split: Split, rate: float, segments: Iterable[windows.Segment]) -> list[int]:
    """The stride of each segment's windows, in samples: learnt from, or tested on."""
    closer = windows.samples(window.train_stride_ms or window.stride_ms, rate)
    return [closer if splits.learnt(split, s) else windows.samples(window.stride_ms, rate) for s in segments]


def _counts(every: windows.Windows) -> dict[tuple[int, int], int]:
    found, counts = np.unique(np.stack([every.sessions, every.repetitions]), axis=1, return_counts=True)
    return {(int(session), int(repetition)): int(n) for (session, repetition), n in zip(found.T, counts, strict=True)}


def _located(file: RecordingFile, action, *arguments):
    try:
        return action(*arguments)
    except InputError as error:
        raise InputError(f"{file.path}: {error}") from None


@dataclass(frozen=True)
class _Plan:
    """What a header tells, without the labels themselves: those of forty recordings are 260 MB."""

    file: RecordingFile
    rate_hz: float
    channels: int
    segments: list[windows.Segment]
    synthetic: bool
    names: Mapping[int, str]


def _plan(recipe: Recipe, file: RecordingFile) -> _Plan:
    header = readers.header(file)
    wanted = recipe.window.rate_hz or header.rate_hz
    labels, repetitions = resampling.at_rate(header.rate_hz, wanted, header.labels, header.repetitions)
    seams = resampling.seams_at_rate(header.rate_hz, wanted, header.seams)
    at_rate = replace(header, labels=labels, repetitions=repetitions, seams=seams)
    segments = splits.segments(at_rate, recipe.split, recipe.window.rest)
    return _Plan(file, header.rate_hz, header.num_channels, segments, header.synthetic, header.names)


def _named(plans: list[_Plan]) -> dict[int, str]:
    """Names of movements, which recordings may not disagree on."""
    names: dict[int, str] = {}
    for plan in plans:
        for movement, name in plan.names.items():
            if names.setdefault(movement, name) != name:
                raise InputError(f"movement {movement} is {names[movement]!r} in one recording and {name!r} in "
                                 f"{plan.file.path}: number movements alike")
    return names


def _common(plans: list[_Plan], attribute: str, unit: str):
    """The value that all recordings share."""
    first, value = plans[0].file.subject, getattr(plans[0], attribute)
    for plan in plans:
        if (other := getattr(plan, attribute)) != value:
            raise InputError(f"subject {first} has {value:g} {unit}, subject {plan.file.subject} has {other:g}: "
                             "choose subjects recorded alike (--subjects)")
    return value


def _report(recording: Recording) -> None:
    for note in recording.notes:
        _tell(recording.path, note)
    if flat := flat_channels(recording):
        _tell(recording.path, f"channel {', '.join(map(str, flat))} is flat")


@cache  # every stage reads a recording: what there is to say of it is said once
def _tell(path: Path, note: str) -> None:
    log.warning("warning: %s: %s", path.name, note)
