"""A folder of recordings under a recipe: its subjects, its rate, which repetitions train and which test.

Opening a dataset reads labels only, so that unfit recordings are refused before any work is done. A subject's samples
are read when they are needed, and only the segments of the wanted repetitions are kept.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from tfkfin.base.errors import InputError
from tfkfin.pipeline import splits, windows
from tfkfin.pipeline.subject import Subject, labels_at_rate
from tfkfin.recipe import Filter, Recipe, Split, Window
from tfkfin.recordings import checks, readers
from tfkfin.recordings.recording import Header, RecordingFile
from tfkfin.signal.filtering import sections


@dataclass(frozen=True)
class Dataset:
    """The recordings of a folder under a recipe; build it with `open_dataset`.

    Attributes:
        files: subject -> files in order of session, for every subject that the recipe names.
        rate_hz: of the windows, after resampling if the recipe asks for it.
        movements: labels as in the files, ascending; 0 among them when rest is a class.
        split: the recipe's, with every default resolved.
        windows: subject -> how many windows there are of each session and repetition {(session, repetition): count}.
        names: of movements, where recordings have them.
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
        """Between windows that train."""
        return windows.samples(self.window.train_stride_ms or self.window.stride_ms, self.rate_hz)

    def part(self, name: str) -> splits.Part:
        """A side of the split: "train", "pretrain", "finetune" or "test"."""
        return splits.part(self.split, name)

    def count(self, subject: int, name: str) -> int:
        """How many windows of a subject are on a side of the split."""
        side = self.part(name)
        return sum(n for (session, repetition), n in self.windows[subject].items() if side.holds(repetition, session))

    def load(self, subject: int, wanted: splits.Part | None = None, emg: np.ndarray | None = None,
             context: int = 0) -> Subject:
        """Reads a subject and keeps a part of it (default: all that trains or tests).

        Args:
            emg: the signal, where it has been read from the subject's only file already.
            context: as of `Subject.of`.

        Raises:
            InputError: what `readers.read` raises.
        """
        recordings = (readers.read(file, emg) for file in self.files[subject])
        return Subject.of(recordings, self.window, self.filter, self.split, [wanted] if wanted else (), context)

    def subjects(self, wanted: Iterable[int], context: int = 0) -> Iterator[Subject]:
        """Loads subject after subject, always reading the next while the caller works on this one."""
        with ThreadPoolExecutor(1) as pool:
            ahead = None
            for number in wanted:
                before, ahead = ahead, pool.submit(self.load, number, context=context)
                if before:
                    yield before.result()
            if ahead:
                yield ahead.result()

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
                      for s, files in self.files.items()}}


def open_dataset(recipe: Recipe, folder: str | Path) -> Dataset:
    """Finds the recordings that a recipe asks for and checks, by their labels, that it can be carried out.

    Raises:
        InputError: no recordings, a subject that is not there, channel counts or rates that differ, repetitions that
            are missing, a movement without training windows, a window longer than every segment.
    """
    chosen = (*recipe.split.subjects, *recipe.split.pretrain_subjects) if recipe.split.subjects else None
    files = readers.by_subject(readers.find(folder, chosen, recipe.source.exercise, recipe.source.rate_hz))
    with ThreadPoolExecutor() as pool:
        headers = list(pool.map(partial(_header, recipe), [file for one in files.values() for file in one]))
    rate, channels = _common(headers, "rate_hz", "Hz"), _common(headers, "num_channels", "channels")
    recorded_hz, rate = (rate,), recipe.window.rate_hz or rate
    length, stride = (windows.samples(ms, rate) for ms in (recipe.window.length_ms, recipe.window.stride_ms))
    segments = {s: [one for header, found in headers if header.file.subject == s for one in found] for s in files}
    every = {s: _windows(files[s][0], of, length, stride, rate) for s, of in segments.items()}
    split = splits.resolved(recipe.split, every)
    if recipe.window.train_stride_ms:
        every = {s: windows.starts(of, length, [windows.samples(splits.stride_ms(split, recipe.window, one), rate)
                                                for one in of]) for s, of in segments.items()}
    tested = splits.part(split, "test")
    for train in {splits.part(split, "train"), splits.part(split, "finetune")}:
        splits.check({s: every[s] for s in split.subjects}, train, tested)
    pretrain = splits.part(split, "pretrain")
    for s in split.pretrain_subjects:
        if not len(splits.select(every[s], pretrain)):
            raise InputError(f"subject {s} has no window in the pretrain {pretrain}")
    movements = np.unique(np.concatenate([every[s].movements for s in split.subjects]))
    counts = {s: dict(Counter(zip(w.sessions.tolist(), w.repetitions.tolist(), strict=True))) for s, w in every.items()}
    synthetic = any(header.synthetic for header, _ in headers)
    sections(recipe.filter, rate)  # raises where the filter is unfit
    return Dataset(files, recipe.window, split, rate, channels, tuple(movements.tolist()), counts, synthetic,
                   _names(headers), recipe.filter, recorded_hz)


def _windows(file: RecordingFile, *arguments) -> windows.Windows:
    try:
        return windows.starts(*arguments)
    except InputError as error:
        raise InputError(f"{file.path}: {error}") from None


def _header(recipe: Recipe, file: RecordingFile) -> tuple[Header, list[windows.Segment]]:
    """A recording's header, without its labels: those of forty recordings are 260 MB; and its segments."""
    header, nothing = readers.header(file), np.empty(0, np.int16)
    checks.cued(file.path, header.cued)
    found = splits.segments(labels_at_rate(header, recipe.window.rate_hz), recipe.split, recipe.window.rest)
    return replace(header, labels=nothing, repetitions=nothing), found


def _names(headers: list[tuple[Header, list]]) -> dict[int, str]:
    """Names of movements, which must be the same in all recordings."""
    names: dict[int, str] = {}
    for header, _ in headers:
        for movement, name in header.names.items():
            if names.setdefault(movement, name) != name:
                raise InputError(f"movement {movement} is {names[movement]!r} in one recording and {name!r} in "
                                 f"{header.file.path}: number movements alike")
    return names


def _common(headers: list[tuple[Header, list]], attribute: str, unit: str):
    """The value that all recordings share."""
    first, value = headers[0][0].file.subject, getattr(headers[0][0], attribute)
    for header, _ in headers:
        if (other := getattr(header, attribute)) != value:
            raise InputError(f"subject {first} has {value:g} {unit}, subject {header.file.subject} has {other:g}: "
                             "choose subjects recorded alike (--subjects)")
    return value
