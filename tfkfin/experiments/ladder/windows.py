"""Windows of recordings: those that models are trained on, and those of a stream, with what each of them lies in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfkfin.pipeline import windows
from tfkfin.pipeline.subject import resampled
from tfkfin.recipe import Filter, Window
from tfkfin.recordings.recording import Recording, owners
from tfkfin.signal.filtering import filtered, sections

MIXED = -1  # the label of a window that lies across a change of movement or repetition, or across a seam


@dataclass(frozen=True)
class Content:
    """What windows lie in, (N,) each.

    Attributes:
        labels: the movement, 0 for rest, MIXED for windows that lie in more than one.
        repetitions: the repetition; that of rest as `tfkfin.recordings.recording.owners` says.
        segments: the number of the movement, held once, or of the rest.
    """

    labels: np.ndarray
    repetitions: np.ndarray
    segments: np.ndarray


def content(recording: Recording, begins: np.ndarray, ends: np.ndarray) -> Content:
    """What the samples [begin, end) of a recording, (N,) each, lie in."""
    labels, owner = recording.labels.astype(np.int64), owners(recording).astype(np.int64)
    change = np.zeros(len(labels), bool)
    change[1:] = (np.diff(labels) != 0) | (np.diff(owner) != 0)
    change[list(recording.seams)] = True
    run = np.cumsum(change)
    pure = run[begins] == run[ends - 1]
    return Content(np.where(pure, labels[begins], MIXED), owner[begins], run[begins])


def places(samples: int, rate_hz: float, length: float, stride: float,
           decoder_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """First sample, and the one after the last, (N,) each, of a stream's windows in a recording at another rate.

    Args:
        samples, rate_hz: of the recording.
        length, stride: of the windows, in samples at `decoder_hz`, the decoder's rate.
    """
    each = rate_hz / decoder_hz
    starts = np.arange(int(samples / each / stride) + 1) * stride
    begins, ends = np.floor(starts * each + 1e-6).astype(int), np.ceil((starts + length) * each - 1e-6).astype(int)
    there = ends <= samples
    return begins[there], ends[there]


@dataclass(frozen=True, eq=False)
class WindowedSignal:
    """A signal (T, C) and its windows: where they begin (N,), in order of time, and what they lie in.

    Attributes:
        sizes: how many of the windows lie in each of the recordings that the signal is joined from.
    """

    emg: np.ndarray
    starts: np.ndarray
    content: Content
    length: int
    stride: int
    rate_hz: float
    sizes: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.starts)

    def volts(self, chosen: np.ndarray | slice = slice(None)) -> np.ndarray:
        """The chosen windows (n, length, C)."""
        return self.emg[self.starts[chosen][:, None] + np.arange(self.length)]


def cut(recordings: Sequence[Recording], window: Window, filter: Filter, stream: bool) -> WindowedSignal:
    """The windows of a session's recordings.

    Args:
        stream: every stride from the first sample of each recording on, whatever the windows lie in. Otherwise those
            inside one movement or rest, the first at its beginning, as `tfkfin.Decoder.fit` takes them.
    """
    signals, starts, contents, sizes, samples, segments = [], [], [], [], 0, 0
    for recording in (resampled(one, window.rate_hz) for one in recordings):
        rate = recording.rate_hz
        length, stride = (windows.samples(ms, rate) for ms in (window.length_ms, window.stride_ms))
        if stream:
            begins, ends = places(len(recording.emg), rate, length, stride, rate)
        else:
            begins = inside(recording, length, stride)
            ends = begins + length
        found = content(recording, begins, ends)
        contents.append((found.labels, found.repetitions, found.segments + segments))
        segments += int(found.segments.max(initial=-1)) + 1
        signals.append(filtered(recording.emg, sections(filter, rate), recording.seams))
        starts.append(begins + samples)
        sizes.append(len(begins))
        samples += len(recording.emg)
    whole = Content(*(np.concatenate(part) for part in zip(*contents, strict=True)))
    return WindowedSignal(np.concatenate(signals), np.concatenate(starts), whole, length, stride, rate, tuple(sizes))


def inside(recording: Recording, length: int, stride: int) -> np.ndarray:
    """First samples (N,) of the windows that lie in one movement or rest, the first of each at its beginning."""
    owner = owners(recording).astype(np.int64)
    segments = windows.segments(recording.labels, owner, True, recording.seams)
    long = [segment for segment in segments if segment.repetition and segment.stop - segment.start >= length]
    return windows.starts(long, length, stride).starts if long else np.empty(0, np.int64)
