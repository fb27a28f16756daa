"""Who is trained on and who is tested on: by repetition, so that no raw sample is on both sides."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tfkfin.console import InputError
from tfkfin.data.windows import Segment, Windows


@dataclass(frozen=True)
class Split:
    """Repetitions (or subjects) to train on, to stop and choose by, and to test on. No number is in two of them."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]

    def __post_init__(self):
        for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
            _disjoint(one, getattr(self, one), other, getattr(self, other))


def format_numbers(numbers: Iterable[int]) -> str:
    """The way back, for messages: (1, 2, 3, 6) -> "1-3, 6"."""
    ordered = sorted(numbers)
    runs = np.split(ordered, np.flatnonzero(np.diff(ordered) > 1) + 1)
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def repetitions_present(windows: Windows | Sequence[Segment]) -> tuple[int, ...]:
    """Repetitions that have a movement, sorted."""
    if isinstance(windows, Windows):
        return tuple(np.unique(windows.repetitions[windows.movements > 0]).tolist())
    return tuple(sorted({segment.repetition for segment in windows if segment.movement > 0}))


def select(windows: Windows, repetitions: Iterable[int]) -> Windows:
    """The windows of the given repetitions, in the order they were."""
    kept = np.isin(windows.repetitions, list(repetitions))
    return Windows(windows.starts[kept], windows.movements[kept], windows.repetitions[kept])


def select_segments(segments: Sequence[Segment], repetitions: Iterable[int]) -> list[Segment]:
    """The segments of the given repetitions, in the order they were."""
    wanted = frozenset(repetitions)
    return [segment for segment in segments if segment.repetition in wanted]


def check(windows: Mapping[int, Windows], train: Iterable[int], test: Iterable[int]) -> None:
    """Makes sure that every subject can be trained on `train` and tested on `test` repetitions.

    Args:
        windows: subject -> all windows of that subject.

    Raises:
        InputError: a repetition is on both sides, a subject has no training or no test window, or a movement that is
            tested has nothing to learn from.
    """
    train, test = tuple(train), tuple(test)
    _disjoint("train", train, "test", test)
    for subject, every in windows.items():
        there = format_numbers(repetitions_present(every)) or "none"
        learnt, tested = select(every, train), select(every, test)
        for side, numbers, chosen in (("train", train, learnt), ("test", test, tested)):
            if not len(chosen):
                raise InputError(f"subject {subject} has no window in the {side} repetitions "
                                 f"{format_numbers(numbers) or '(none given)'}: it has repetitions {there}")
        missing = sorted(set(every.movements.tolist()) - set(learnt.movements.tolist()))
        if missing:
            raise InputError(f"subject {subject} has no window of movement {format_numbers(missing)} in the train "
                             f"repetitions {format_numbers(train)}: train on more of its repetitions {there}, "
                             "or leave the subject out")


def statistics(emg: np.ndarray, segments: Sequence[Segment]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (ddof 0) of each channel over the samples of `segments`.

    Two passes in float64, since squares of 1e-6 V summed in float32 lose every digit.

    Args:
        emg: (T, C) volts.
        segments: those of the training repetitions, and no other.

    Returns:
        mean (C,) and sd (C,), float64, volts. A flat channel gets sd 1, so that it standardises to 0.

    Raises:
        InputError: no segment.
    """
    count = sum(segment.stop - segment.start for segment in segments)
    if not count:
        raise InputError("there is no training sample to take mean and deviation from: choose other repetitions")
    mean = sum(emg[s.start : s.stop].sum(axis=0, dtype=np.float64) for s in segments) / count
    square = sum(((emg[s.start : s.stop] - mean) ** 2).sum(axis=0) for s in segments) / count
    sd = np.sqrt(square)
    flat = sd <= 1e-7 * np.abs(mean)  # what rounding leaves of a constant
    return mean, np.where(flat | (sd == 0), 1.0, sd)


def _disjoint(one: str, first: Iterable[int], other: str, second: Iterable[int]) -> None:
    both = sorted(set(first) & set(second))
    if both:
        raise InputError(f"{format_numbers(both)} is both in {one} and in {other}: keep each in one of them")
