"""Converts between movements with start and stop times and labels of samples, and counts repetitions."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from tfkfin.base.errors import InputError


def to_samples(path: Path, movements: Iterable[tuple[float, float, int, int]], length: int,
               rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels and repetitions (T,) int16 from (start s, stop s, movement, repetition); 0 elsewhere.

    Raises:
        InputError: two overlap, or one has no duration or lies outside the recording.
    """
    labels, repetitions = np.zeros((2, length), np.int16)
    last = 0
    for start_s, stop_s, movement, repetition in sorted(movements):
        if not np.isfinite([start_s, stop_s]).all() or not (0 <= movement <= 32767 and 0 <= repetition <= 32767):
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
    """The inverse: (first sample, one beyond the last, movement, repetition) wherever one of the two is not 0."""
    edges = np.unique([0, *(np.flatnonzero(np.diff(labels) | np.diff(repetitions)) + 1), *seams, len(labels)])
    return [(int(a), int(b), int(labels[a]), int(repetitions[a])) for a, b in zip(edges, edges[1:], strict=False)
            if labels[a] or repetitions[a]]


def count_repetitions(labels: np.ndarray, seams: Sequence[int] = ()) -> np.ndarray:
    """Repetitions (T,) int16: k during the k-th execution of a movement, 0 during rest. A seam ends an execution."""
    starts = np.unique([0, *(np.flatnonzero(np.diff(labels)) + 1), *seams])
    counts, last = np.zeros(len(starts), np.int16), {}
    for i, movement in enumerate(labels[starts].tolist()):
        if movement:
            counts[i] = last[movement] = last.get(movement, 0) + 1
    return np.repeat(counts, np.diff(np.append(starts, len(labels))))
