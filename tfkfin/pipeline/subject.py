"""One subject's recordings, ready to be decided or trained on: the segments that are wanted as one array of volts, the
windows cut from them, and their standardisation.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from tfkfin.features import catalogue as features
from tfkfin.pipeline import splits, windows
from tfkfin.pipeline.memory import aligned, give_back
from tfkfin.pipeline.preprocessing import preprocessed
from tfkfin.pipeline.splits import Part
from tfkfin.pipeline.standardisation import ChannelStatistics
from tfkfin.recipe import Filter, Split, Window
from tfkfin.recordings.recording import Recording

MOST_RESTS = 64  # windows of rest of a recording: enough for the amplitude of rest
_ROWS = 1 << 16  # samples standardised at a time: the float64 in between stays small


@dataclass(frozen=True)
class Subject:
    """One subject's wanted segments, with windows.

    Attributes:
        number: as in the file's name.
        emg: (T, C) float32 volts; the wanted segments, joined. No window straddles a join.
        windows: starts into `emg`, with movement and repetition of each.
        mean, sd: (C,) float64 volts, of the training repetitions' movements.
        origins: (S, 3) where each joined segment begins: in `emg`, in its file (at the windows' rate), and the number
            of that file among the subject's.
        rest: (R, length, C) float32 volts, some windows of rest where it is none of the movements; or None.
        rate_hz: of `emg`.
        recorded_hz: rates of the recordings themselves, before they were resampled.
        statistics: what `mean` and `sd` come from, to be added to those of others.
    """

    number: int
    emg: np.ndarray
    windows: windows.Windows
    mean: np.ndarray
    sd: np.ndarray
    origins: np.ndarray
    rest: np.ndarray | None = None
    rate_hz: float = 0.0
    recorded_hz: tuple[float, ...] = ()
    statistics: ChannelStatistics | None = None

    @classmethod
    def of(cls, recordings: Iterable[Recording], window: Window, filter: Filter | Mapping | None = None,
           split: Split | None = None, wanted: Sequence[Part] = (), context: int = 0) -> Self:
        """One subject's recordings: resampled, filtered, parted into segments, standardised, cut into windows.

        Args:
            recordings: in order of session, read one after another.
            filter: as recipes or cards have it.
            split: with every default resolved; None: every segment trains.
            wanted: parts of the split to keep; (): all that trains or tests.
            context: windows that are kept before each tested segment (without a split: each), for votes.

        Raises:
            InputError: no training sample, or windows that are longer than every segment.
        """
        sides = {name: Part() if split is None else splits.part(split, name) for name in splits.SIDES}
        train, test, wanted = sides["train"], sides["test"], wanted or tuple(sides.values())
        statistics, pieces, kept, origins, rest, recorded, position = [], [], [], [], [], [], 0
        for number, recording in enumerate(recordings):
            recorded.append(recording.rate_hz)
            recording, found = preprocessed(recording, window, filter, split)
            rate, person = recording.rate_hz, recording.subject
            length, stride = (windows.samples(ms, rate) for ms in (window.length_ms, window.stride_ms))
            trains = [s for s in found if s.movement and s in train]
            chosen = [s for s in found if (s.movement or window.rest) and any(s in part for part in wanted)]
            statistics.append(ChannelStatistics.of(recording.emg, trains if trains or split else chosen))
            pieces.append(_joined(recording, chosen, [context * stride * (s in test) for s in chosen]))
            kept += [replace(s, start=s.start + position, stop=s.stop + position) for s in pieces[-1][1]]
            origins += [(position + begin, place, number) for begin, place in pieces[-1][2]]
            position += len(pieces[-1][0])
            if not window.rest:
                rest.append(_middles(recording.emg, [s for s in found if not s.movement and s in train], length))
            del recording
            give_back()
        emg = pieces[0][0]
        if len(pieces) > 1:
            emg = np.concatenate([piece for piece, _, _ in pieces], out=aligned(position, emg.shape[1]))
        cut = windows.starts(kept, length, [windows.samples(splits.stride_ms(split, window, s), rate)
                                           for s in kept])
        whole = sum(statistics[1:], statistics[0])
        mean, sd = whole.mean_and_sd()
        return cls(person, emg, cut, mean, sd, np.array(origins, np.int64).reshape(-1, 3),
                   np.concatenate(rest) if rest else None, rate, tuple(recorded), whole)

    @property
    def places(self) -> np.ndarray:
        """Where each window begins in its file (N,), samples at the windows' rate."""
        own = self._segments()
        return self.windows.starts + self.origins[own, 1] - self.origins[own, 0]

    @property
    def files(self) -> np.ndarray:
        """Which of the subject's files each window lies in (N,), from 0."""
        return self.origins[self._segments(), 2]

    @property
    def groups(self) -> tuple[np.ndarray, np.ndarray]:
        """Session and repetition of each window, (N,) each."""
        return self.windows.sessions, self.windows.repetitions

    def _segments(self) -> np.ndarray:
        """Which joined segment each window lies in (N,)."""
        return np.searchsorted(self.origins[:, 0], self.windows.starts, "right") - 1

    def standardised(self) -> np.ndarray:
        """(emg − mean) / sd, (T, C) float32: what features are of."""
        out = aligned(*self.emg.shape)
        for i in range(0, len(out), _ROWS):
            out[i : i + _ROWS] = (self.emg[i : i + _ROWS] - self.mean) / self.sd
        return out

    def with_context(self, count: int, stride: int) -> tuple[Self, list[np.ndarray], np.ndarray]:
        """With up to `count` windows before the first of each segment, which a vote averages over in a stream.

        Returns:
            The subject with these windows too; for each segment the indices (M,) of its windows in order of time; and
            which windows (N,) are this subject's own.
        """
        own = self._segments()
        firsts = np.flatnonzero(np.diff(own, prepend=-1))
        before = [min(count, int(self.windows.starts[i] - self.origins[own[i], 0]) // stride) for i in firsts]
        rows = np.repeat(np.arange(len(own)), 1 + np.bincount(firsts, before, len(own)).astype(int))
        back = np.zeros(len(rows), np.int64)  # windows that each is before its segment's first
        begins = np.searchsorted(rows, firsts)
        for begin, number in zip(begins, before, strict=True):
            back[begin : begin + number] = np.arange(number, 0, -1)
        every = self.windows[rows]
        every = replace(every, starts=every.starts - back * stride)
        return replace(self, windows=every), np.split(np.arange(len(rows)), begins[1:]), back == 0

    def of_windows(self, volts: np.ndarray) -> Self:
        """The same with other windows (N, length, C) in place of its own, laid end to end."""
        count, length, channels = volts.shape
        none = np.zeros(count, np.int16)
        return replace(self, emg=volts.reshape(-1, channels).astype(np.float32, copy=False), rest=None,
                       origins=np.zeros((1, 3), np.int64),
                       windows=windows.Windows(np.arange(count) * length, none, none))

    def resting(self) -> Self | None:
        """The same with its windows of rest in place of its own; None without any."""
        return None if self.rest is None or not len(self.rest) else self.of_windows(self.rest)

    def select(self, wanted: Part | Iterable[int]) -> Self:
        """The same with the windows of a part of the split, or of the given repetitions."""
        return replace(self, windows=splits.select(self.windows, wanted))

    def cut(self, length: int, chosen: np.ndarray | slice = slice(None)) -> np.ndarray:
        """The chosen windows (N, length, C), standardised: what FINs take."""
        return ((self.volts(length, chosen) - self.mean) / self.sd).astype(np.float32)

    def volts(self, length: int, chosen: np.ndarray | slice = slice(None)) -> np.ndarray:
        """The chosen windows (N, length, C) as recorded: what decoders take."""
        return self.emg[self.windows.starts[chosen][:, None] + np.arange(length)]

    def features(self, names: tuple[str, ...], length: int, rate_hz: float) -> np.ndarray:
        """Closed-form features of every window (N, C, F), streamed."""
        if not names:
            return np.empty((len(self.windows), self.emg.shape[1], 0), np.float32)
        return features.extract(self.standardised(), self.windows.starts, length, names, rate_hz)


def _joined(recording: Recording, chosen: list[windows.Segment], before: Sequence[int]):
    """The chosen segments alone, joined, each with `before` samples in front of it: the recording, far larger, can go.

    Returns:
        emg (T, C), the segments where they lie in it, and for each where it begins there and where in the recording.
    """
    emg, edges = recording.emg, np.array([0, *recording.seams])
    begins = [max(int(edges[edges <= s.start].max()), s.start - n) for s, n in zip(chosen, before, strict=True)]
    joined = aligned(sum(s.stop - begin for s, begin in zip(chosen, begins, strict=True)), emg.shape[1])
    moved, origins, position = [], [], 0
    for s, begin in zip(chosen, begins, strict=True):
        stop = position + s.stop - begin
        joined[position:stop] = emg[begin : s.stop]
        moved.append(replace(s, start=position + s.start - begin, stop=stop))
        origins.append((position, begin))
        position = stop
    return joined, moved, origins


def _middles(emg: np.ndarray, rests: list[windows.Segment], length: int) -> np.ndarray:
    """The middle of some segments of rest, evenly spaced: (R, length, C)."""
    long = [s for s in rests if s.stop - s.start >= length]
    begins = np.array([(long[i].start + long[i].stop - length) // 2 for i in windows.evenly(len(long), MOST_RESTS)],
                      np.int64)
    return np.asarray(emg[begins[:, None] + np.arange(length)], np.float32)
