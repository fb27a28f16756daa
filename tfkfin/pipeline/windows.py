"""Windows, and the segments that they are cut from. A window is a start and a length; no sample is copied here."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from tfkfin.base.errors import InputError
from tfkfin.recordings.recording import from_samples


@dataclass(frozen=True)
class Segment:
    """Samples [start, stop) of one movement (0 is rest) in one repetition of one session."""

    start: int
    stop: int
    movement: int
    repetition: int
    session: int = 1


@dataclass(frozen=True)
class Windows:
    """N windows.

    Attributes:
        starts: first samples (N,) int64.
        movements, repetitions, sessions: (N,) int16, of the segment that a window lies in.
        segments: (N,) int64, the number of that segment, one execution of a movement.
    """

    starts: np.ndarray
    movements: np.ndarray
    repetitions: np.ndarray
    sessions: np.ndarray | None = None
    segments: np.ndarray | None = None

    def __post_init__(self):
        for name, default in (("sessions", np.ones(len(self.starts), np.int16)),
                              ("segments", np.zeros(len(self.starts), np.int64))):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, chosen: np.ndarray | slice) -> "Windows":
        """The chosen windows, by indices or a mask (N,)."""
        return Windows(*(getattr(self, field.name)[chosen] for field in fields(self)))


def evenly(count: int, most: int) -> np.ndarray:
    """Indices of at most `most` of `count` things, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def samples(ms: float, rate_hz: float) -> int:
    """Whole samples nearest to `ms` milliseconds at `rate_hz`: 300 ms at 2000 Hz are 600.

    Raises:
        InputError: that is less than one sample.
    """
    count = int(np.floor(ms * rate_hz / 1000 + 0.5))
    if count < 1:
        raise InputError(f"{ms:g} ms at {rate_hz:g} Hz is less than one sample: give at least {1000 / rate_hz:g} ms")
    return count


def segments(labels: np.ndarray, repetitions: np.ndarray, rest: bool = False,
             seams: Sequence[int] = ()) -> list[Segment]:
    """Segments: where both movement and repetition stay the same, each as long as it can be.

    Args:
        labels: (T,) movements, 0 is rest.
        repetitions: (T,). A movement with repetition 0 belongs to no split, so it gives no segment.
        rest: also those of label 0, with the repetition that the file gives them (0 included).
        seams: samples at which another file begins, where a segment ends too.

    Returns:
        Segments in order of time. A movement that is repeated within a repetition gives another segment.
    """
    return [Segment(start, stop, movement, repetition)
            for start, stop, movement, repetition in from_samples(labels, repetitions, seams)
            if movement > 0 and repetition > 0 or rest and movement == 0]


def starts(segments: Sequence[Segment], length: int, stride: int | Sequence[int],
           rate_hz: float | None = None) -> Windows:
    """Every window of `length` samples at a `stride` that lies wholly inside one segment.

    A segment of n samples gives (n - length) // stride + 1 windows, or none when it is shorter than a window.

    Args:
        segments: as `segments()` gives them.
        length: samples: 600 is 300 ms at 2 kHz.
        stride: samples: 20 is 10 ms at 2 kHz; one for all segments or one a segment.
        rate_hz: gives the error in milliseconds too.

    Raises:
        InputError: the window is longer than every segment.
    """
    if length < 1 or np.min(stride, initial=1) < 1:
        raise ValueError(f"`length` and `stride` must be at least 1 sample. Received: {length=}, {stride=}")
    strides = np.broadcast_to(np.asarray(stride, np.int64), len(segments))
    rows = [(s.start, s.stop, s.movement, s.repetition, s.session) for s in segments]
    table = np.array(rows, np.int64).reshape(-1, 5)
    room = table[:, 1] - table[:, 0] - length
    counts = np.where(room >= 0, room // strides + 1, 0)
    if len(table) and not counts.any():
        longest = int(room.max()) + length

        def text(n: int) -> str:
            return f"{n} samples" + (f" ({1000 * n / rate_hz:g} ms)" if rate_hz else "")

        raise InputError(f"a window of {text(length)} is longer than every segment, the longest has {text(longest)}: "
                         "choose a shorter window")
    owner = np.repeat(np.arange(len(table)), counts)  # (N,) the segment of each window
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)  # (N,) its place in the segment
    first = table[owner, 0] + rank * strides[owner]
    return Windows(first, *(table[owner, column].astype(np.int16) for column in (2, 3, 4)), owner)
