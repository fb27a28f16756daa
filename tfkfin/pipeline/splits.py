"""Who is trained on and who is tested on: by repetition, so that no raw sample is on both sides."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tfkfin.console import InputError, format_numbers
from tfkfin.pipeline.windows import Segment, Windows


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
