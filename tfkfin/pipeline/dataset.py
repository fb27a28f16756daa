"""A folder of recordings as a recipe sees it: who is there, at which rate, which repetitions train and which test.

Opening a dataset reads labels only, so that whatever is unfit is said before any work is done. A subject's samples
are read when asked for, and only the segments of the wanted repetitions are kept.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from tfkfin.console import InputError, log
from tfkfin.pipeline import splits, windows
from tfkfin.pipeline.memory import aligned, give_back
from tfkfin.pipeline.subject import Subject
from tfkfin.recipe import Recipe, Split, Window
from tfkfin.recordings import resampling
from tfkfin.recordings.readers import ninapro


@dataclass(frozen=True)
class Dataset:
    """The recordings of a folder under a recipe; build it with `open_dataset`.

    Attributes:
        files: subject -> file, for every subject that the recipe names.
        rate_hz: of the windows, after resampling if the recipe asks for it.
        movements: labels as in the files, ascending; 0 among them when rest is a class.
        split: the recipe's, with every default resolved.
        counts: subject -> repetition -> number of windows.
    """

    files: dict[int, ninapro.RecordingFile]
    window: Window
    split: Split
    rate_hz: float
    channels: int
    movements: tuple[int, ...]
    counts: dict[int, dict[int, int]]
    synthetic: bool

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

    def strides(self, segments: Iterable[windows.Segment]) -> list[int]:
        """The stride of each segment's windows, in samples: learnt from, or tested on."""
        return _strides(self.window, self.split, self.rate_hz, segments)

    def load(self, subject: int, repetitions: Iterable[int] | None = None, emg: np.ndarray | None = None,
             memory: int = 0) -> Subject:
        """Reads a subject and keeps the given repetitions (default: all that train or test). `emg`: as for `read`.

        `memory`: how many windows before a tested segment are kept with it, for decisions that look back.

        Raises:
            InputError: what `ninapro.read` raises.
        """
        split = self.split
        wanted = set(repetitions or (*split.train_repetitions, *split.pretrain_repetitions, *split.test_repetitions))
        recording = ninapro.read(self.files[subject], emg=emg)
        recording = resampling.resampled(recording, self.window.rate_hz, _cuts(recording, split.test_repetitions))
        _report(recording)
        every = _segments(recording.labels, recording.repetitions, self.window.rest)
        training = [s for s in every if s.movement and s.repetition in split.train_repetitions]
        mean, sd = splits.statistics(recording.emg, training)
        kept = splits.select_segments(every, wanted)
        lead = [memory * self.stride * (s.repetition in split.test_repetitions) for s in kept]
        prepared = _prepared(recording, kept, mean, sd, self.length, self.strides(kept), lead)
        del recording
        give_back()
        return prepared

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
        return {
            "subjects": list(split.subjects), "channels": self.channels, "rate_hz": self.rate_hz,
            "movements": list(self.movements), "train_repetitions": list(split.train_repetitions),
            "test_repetitions": list(split.test_repetitions),
            "windows": sum(sum(self.counts[s].values()) for s in split.subjects),
            "pretrain_subjects": list(split.pretrain_subjects), "synthetic": self.synthetic,
            "pretrain_repetitions": list(split.pretrain_repetitions),
            "finetune_repetitions": list(split.finetune_repetitions),
            "files": {str(s): [f.path.name, f.path.stat().st_size] for s, f in self.files.items()},
        }


def open_dataset(recipe: Recipe, folder: str | Path) -> Dataset:
    """Finds the recordings that a recipe asks for and checks, by their labels, that it can be carried out.

    Raises:
        InputError: no recordings, a subject that is not there, channel counts or rates that differ, repetitions that
            are missing, a movement without training windows, a window longer than every segment.
    """
    chosen = (*recipe.split.subjects, *recipe.split.pretrain_subjects) if recipe.split.subjects else None
    files = {file.subject: file for file in ninapro.find(folder, chosen, recipe.source.exercise)}
    with ThreadPoolExecutor() as pool:
        plans = dict(zip(files, pool.map(partial(_plan, window=recipe.window), files.values()), strict=True))
    rate, channels = _common(plans, "rate_hz", "Hz"), _common(plans, "channels", "channels")
    rate = recipe.window.rate_hz or rate
    length, stride = (windows.samples(ms, rate) for ms in (recipe.window.length_ms, recipe.window.stride_ms))
    every = {s: _located(files[s], windows.starts, plan.segments, length, stride, rate) for s, plan in plans.items()}
    split = _resolved(recipe.split, every)
    if recipe.window.train_stride_ms:
        every = {s: windows.starts(plan.segments, length, _strides(recipe.window, split, rate, plan.segments))
                 for s, plan in plans.items()}
    for train in {split.train_repetitions, split.finetune_repetitions}:
        splits.check({s: every[s] for s in split.subjects}, train, split.test_repetitions)
    for s in split.pretrain_subjects:
        if not len(splits.select(every[s], split.pretrain_repetitions)):
            raise InputError(f"subject {s} has no window in the pretrain_repetitions {split.pretrain_repetitions}")
    movements = np.unique(np.concatenate([every[s].movements for s in split.subjects]))
    counts = {s: dict(zip(*(a.tolist() for a in np.unique(w.repetitions, return_counts=True)), strict=True))
              for s, w in every.items()}
    synthetic = any(plan.synthetic for plan in plans.values())
    return Dataset(files, recipe.window, split, rate, channels, tuple(movements.tolist()), counts, synthetic)


def whole(file: ninapro.RecordingFile, window: Window, memory: int = 0) -> tuple[Subject, float]:
    """All of a recording's movements, standardised by the recording's own statistics, and its rate in Hz.

    For judging FINs, which need neither training nor labels; never for judging a classifier.
    """
    recording = resampling.resampled(ninapro.read(file), window.rate_hz)
    _report(recording)
    every = _segments(recording.labels, recording.repetitions, window.rest)
    rate = recording.rate_hz
    length, stride = (windows.samples(ms, rate) for ms in (window.length_ms, window.stride_ms))
    lead = [memory * stride] * len(every)
    return _prepared(recording, every, *splits.statistics(recording.emg, every), length, stride, lead), rate


def _strides(window: Window, split: Split, rate: float, segments: Iterable[windows.Segment]) -> list[int]:
    learnt = {*split.train_repetitions, *split.pretrain_repetitions, *split.finetune_repetitions}
    closer = windows.samples(window.train_stride_ms or window.stride_ms, rate)
    return [closer if s.repetition in learnt else windows.samples(window.stride_ms, rate) for s in segments]


def _prepared(recording: ninapro.Recording, kept: list[windows.Segment], mean: np.ndarray, sd: np.ndarray,
              length: int, stride: int | list[int], lead: Iterable[int] = ()) -> Subject:
    """The kept segments alone, joined, each with `lead` samples before it: the recording, far larger, can go."""
    begins = [max(0, s.start - n) for s, n in zip(kept, lead or [0] * len(kept), strict=True)]
    emg = aligned(sum(s.stop - begin for s, begin in zip(kept, begins, strict=True)), recording.num_channels)
    moved, stretches, position = [], [], 0
    for s, begin in zip(kept, begins, strict=True):
        stop = position + s.stop - begin
        emg[position:stop] = recording.emg[begin : s.stop]
        moved.append(replace(s, start=position + s.start - begin, stop=stop))
        stretches.append((position, begin))
        position = stop
    cut = windows.starts(moved, length, stride, recording.rate_hz)
    return Subject(recording.subject, emg, cut, mean, sd, np.array(stretches, np.int64).reshape(-1, 2))


def _cuts(recording: ninapro.Recording, test: tuple[int, ...]) -> list[int]:
    """Samples between a segment that is tested on and one that is not, in the middle of what parts them."""
    every = windows.segments(recording.labels, recording.repetitions)
    return [(one.stop + other.start) // 2 for one, other in zip(every, every[1:], strict=False)
            if (one.repetition in test) != (other.repetition in test)]


def _segments(labels: np.ndarray, repetitions: np.ndarray, rest: bool) -> list[windows.Segment]:
    """Segments of movements, and with `rest` the rest after each, which belongs to that movement's repetition.

    Files number rest's repetitions differently or not at all; this way rest is split as movements are.
    """
    every, last = [], 0
    for s in windows.segments(labels, repetitions, rest):
        last = s.repetition if s.movement else last
        if last:
            every.append(replace(s, repetition=last))
    return every


def _located(file: ninapro.RecordingFile, action, *arguments):
    try:
        return action(*arguments)
    except InputError as error:
        raise InputError(f"{file.path}: {error}") from None


@dataclass(frozen=True)
class _Plan:
    """What a header tells, without the labels themselves: those of forty recordings are 260 MB."""

    rate_hz: float
    channels: int
    segments: list[windows.Segment]
    synthetic: bool


def _plan(file: ninapro.RecordingFile, window: Window) -> _Plan:
    header = ninapro.header(file)
    columns = resampling.at_rate(header.rate_hz, window.rate_hz or header.rate_hz, header.labels, header.repetitions)
    return _Plan(header.rate_hz, header.num_channels, _segments(*columns, window.rest), header.synthetic)


def _common(plans: dict[int, _Plan], attribute: str, unit: str):
    """The value that all recordings share."""
    values = {subject: getattr(plan, attribute) for subject, plan in plans.items()}
    first, value = next(iter(values.items()))
    for subject, other in values.items():
        if other != value:
            raise InputError(f"subject {first} has {value:g} {unit}, subject {subject} has {other:g}: "
                             "choose subjects recorded alike (--subjects)")
    return value


def _resolved(split: Split, every: dict[int, windows.Windows]) -> Split:
    """The split with its defaults filled in from what is there."""
    there = sorted(set().union(*(splits.repetitions_present(w) for w in every.values())))
    test = tuple(r for r in split.test_repetitions if r in there)
    if not test or (missing := sorted(set(split.train_repetitions) - set(there))):
        what = f"test_repetitions {split.test_repetitions}" if not test else f"train_repetitions {missing}"
        raise InputError(f"no recording has the {what}: there are repetitions {there}; choose with "
                         "--set split.train_repetitions=1,3 --set split.test_repetitions=2")
    train = split.train_repetitions or tuple(r for r in there if r not in test)
    subjects = split.subjects or tuple(sorted(every))
    return Split(subjects=subjects, train_repetitions=train, test_repetitions=test,
                 pretrain_subjects=split.pretrain_subjects or subjects,
                 pretrain_repetitions=split.pretrain_repetitions or train,
                 finetune_repetitions=split.finetune_repetitions or train)


def _report(recording: ninapro.Recording) -> None:
    for note in recording.notes:
        _tell(recording.path, note)
    if flat := ninapro.flat_channels(recording):
        _tell(recording.path, f"channel {', '.join(map(str, flat))} is flat")


@cache  # every stage reads a recording: what there is to say of it is said once
def _tell(path: Path, note: str) -> None:
    log.warning("warning: %s: %s", path.name, note)
