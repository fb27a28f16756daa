"""What is kept of a subject's recordings, cut out of each and joined: the recordings, far larger, can go."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from tfkfin.pipeline import splits, windows
from tfkfin.pipeline.memory import aligned
from tfkfin.pipeline.subject import Subject
from tfkfin.recipe import Split
from tfkfin.recordings.recording import Recording

MOST_RESTS = 64  # of a recording: enough to know how loud rest is


def cut_out(recording: Recording, kept: list[windows.Segment], lead: Sequence[int]):
    """The kept segments alone, joined, each with `lead` samples before it: the recording, far larger, can go.

    Returns:
        emg (T, C), the segments where they lie in it, and for each where it begins there and where in the recording.
    """
    emg, edges = recording.emg, np.array([0, *recording.seams])
    begins = [max(int(edges[edges <= s.start].max()), s.start - n) for s, n in zip(kept, lead, strict=True)]
    joined = aligned(sum(s.stop - begin for s, begin in zip(kept, begins, strict=True)), emg.shape[1])
    moved, stretches, position = [], [], 0
    for s, begin in zip(kept, begins, strict=True):
        stop = position + s.stop - begin
        joined[position:stop] = emg[begin : s.stop]
        moved.append(replace(s, start=position + s.start - begin, stop=stop))
        stretches.append((position, begin))
        position = stop
    return joined, moved, stretches


def resting(recording: Recording, split: Split, wanted: splits.Part, length: int) -> np.ndarray:
    """The middle of some rests that belong to a part of the split, evenly spread: (R, length, C)."""
    there = [s for s in splits.segments(recording, split, True)
             if not s.movement and wanted.holds(s.repetition, s.session) and s.stop - s.start >= length]
    chosen = [there[i] for i in windows.evenly(len(there), MOST_RESTS)]
    begins = np.array([(s.start + s.stop - length) // 2 for s in chosen], np.int64)
    return np.asarray(recording.emg[begins[:, None] + np.arange(length)], np.float32)


def joined(subject: int, pieces: list[tuple], mean: np.ndarray, sd: np.ndarray, length: int, strides: Callable,
           rest: Sequence[np.ndarray] = ()) -> Subject:
    """What was cut out of a subject's files as one; `strides` gives segments' window strides."""
    moved, stretches, position = [], [], 0
    for number, (emg, segments, begins) in enumerate(pieces):
        moved += [replace(s, start=s.start + position, stop=s.stop + position) for s in segments]
        stretches += [(position + begin, place, number) for begin, place in begins]
        position += len(emg)
    emg = pieces[0][0]
    if len(pieces) > 1:
        emg = np.concatenate([one for one, _, _ in pieces], out=aligned(position, emg.shape[1]))
    cut = windows.starts(moved, length, strides(moved))
    return Subject(subject, emg, cut, mean, sd, np.array(stretches, np.int64).reshape(-1, 3),
                   np.concatenate(rest) if rest else None)
