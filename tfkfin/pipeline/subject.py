"""One subject's recordings, ready to be decided or trained on: resampled and filtered, the segments that are wanted as
one array of volts, the windows cut from them, and their standardisation.
"""

import ctypes
import mmap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import prod
from typing import Self, TypeVar

import numpy as np

from tfkfin.base.console import warn_once
from tfkfin.base.errors import InputError
from tfkfin.features import catalogue as features
from tfkfin.pipeline import splits, windows
from tfkfin.pipeline.splits import Part
from tfkfin.pipeline.windows import Segment
from tfkfin.recipe import Filter, Split, Window
from tfkfin.recordings import checks
from tfkfin.recordings.recording import Header, Recording, digests, flat_channels
from tfkfin.signal import resampling
from tfkfin.signal.filtering import filtered, sections

MOST_RESTS = 64  # windows of rest of a recording: enough for the amplitude of rest
_ROWS = 1 << 16  # samples standardised at a time: the float64 in between stays small
Labelled = TypeVar("Labelled", Header, Recording)


def aligned(*shape: int) -> np.ndarray:
    """Zeros, float32, at an address that TensorFlow can use without a copy.

    Their memory returns to the system as soon as nothing refers to them.
    """
    return np.frombuffer(mmap.mmap(-1, max(1, 4 * prod(shape))), np.float32, prod(shape)).reshape(shape)


def give_back() -> None:
    """Returns freed memory to the system. glibc would keep it, so that use would grow with every recording."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


@dataclass(frozen=True)
class ChannelStatistics:
    """Count n, mean m (C,) and sum of squares about it, S = Σ (x − m)² (C,), of samples; float64. They add up.

    Reference of the sum: Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance",
    doi:10.1080/00031305.1983.10483115
    """

    count: int
    mean: np.ndarray
    square: np.ndarray

    @classmethod
    def of(cls, emg: np.ndarray, segments: Sequence[Segment]) -> Self:
        """Of the samples of `segments` in emg (T, C), volts.

        Two passes in float64, since squares of 1e-6 V that are summed in float32 lose every digit.
        """
        nothing = np.zeros(emg.shape[1])
        count = sum(segment.stop - segment.start for segment in segments)
        if not count:
            return cls(0, nothing, nothing)
        mean = sum(emg[s.start : s.stop].sum(axis=0, dtype=np.float64) for s in segments) / count
        return cls(count, mean, sum(((emg[s.start : s.stop] - mean) ** 2).sum(axis=0) for s in segments))

    def __add__(self, other: Self) -> Self:
        """Of the samples of both: n = n₁ + n₂, d = m₂ − m₁, m = m₁ + d n₂/n, S = S₁ + S₂ + d² n₁ n₂/n."""
        count = self.count + other.count
        if not self.count or not other.count:
            return self if self.count else other
        apart = other.mean - self.mean
        return type(self)(count, self.mean + apart * (other.count / count),
                          self.square + other.square + apart**2 * (self.count * other.count / count))

    def mean_and_sd(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (C,) and standard deviation √(S/n) (C,). A flat channel gets sd 1, so that it standardises to 0.

        Raises:
            InputError: there is no sample.
        """
        if not self.count:
            raise InputError("there is no training sample to take mean and deviation from: choose other repetitions")
        sd = np.sqrt(self.square / self.count)
        flat = sd <= 1e-7 * np.abs(self.mean)  # what rounding leaves of a constant
        return self.mean, np.where(flat | (sd == 0), 1.0, sd)


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
        cued: False where it is not known what was done in a recording, or when.
        digests: of each file's repetitions, as of `recording.digests`.
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
    cued: bool = True
    digests: tuple[dict[int, str], ...] = ()

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
            InputError: no training sample, windows that are longer than every segment, or a recording without cues.
        """
        sides = {name: Part() if split is None else splits.part(split, name) for name in splits.SIDES}
        train, test, wanted = sides["train"], sides["test"], wanted or tuple(sides.values())
        statistics, pieces, kept, origins, rest, recorded, known, position = [], [], [], [], [], [], [], 0
        for number, recording in enumerate(recordings):
            checks.cued(recording.path, recording.cued)
            recorded.append(recording.rate_hz)
            known.append(digests(recording))
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
        cut = windows.starts(kept, length, [windows.samples(splits.stride_ms(split, window, s), rate) for s in kept])
        whole = sum(statistics[1:], statistics[0])
        mean, sd = whole.mean_and_sd()
        return cls(person, emg, cut, mean, sd, np.array(origins, np.int64).reshape(-1, 3),
                   np.concatenate(rest) if rest else None, rate, tuple(recorded), whole, digests=tuple(known))

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
    def repetition_digests(self) -> np.ndarray:
        """Digest (N,) of the repetition that each window lies in; "" where it is not known."""
        known = {(i, r): digest for i, own in enumerate(self.digests) for r, digest in own.items()}
        pairs = zip(self.files.tolist(), self.windows.repetitions.tolist(), strict=True)
        return np.array([known.get(pair, "") for pair in pairs], "U16")

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
        emg, none = volts.reshape(-1, channels).astype(np.float32, copy=False), np.zeros(count, np.int16)
        cut = windows.Windows(np.arange(count) * length, none, none)
        return replace(self, emg=emg, windows=cut, origins=np.zeros((1, 3), np.int64), rest=None)

    def some_windows(self, length: int, most: int) -> list[np.ndarray]:
        """At most so many windows, evenly spread, and those of rest: (N, length, C) volts each."""
        chosen = windows.evenly(len(self.windows), max(1, most))
        return [part for part in (self.volts(length, chosen), self.rest) if part is not None and len(part)]

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


def _joined(recording: Recording, chosen: list[Segment], before: Sequence[int]):
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


def _middles(emg: np.ndarray, rests: list[Segment], length: int) -> np.ndarray:
    """The middle of some segments of rest, evenly spaced: (R, length, C)."""
    long = [s for s in rests if s.stop - s.start >= length]
    begins = np.array([(long[i].start + long[i].stop - length) // 2 for i in windows.evenly(len(long), MOST_RESTS)],
                      np.int64)
    return np.asarray(emg[begins[:, None] + np.arange(length)], np.float32)


def preprocessed(recording: Recording, window: Window, filter: Filter | Mapping | None,
                 split: Split | None) -> tuple[Recording, list[Segment]]:
    """A recording at the windows' rate, filtered, and its segments, those of rest too. Without a split all train.

    Neither resampling nor filtering reaches from a tested segment into others, nor across seams.
    """
    found = splits.segments(recording, split, True)
    if window.rate_hz and window.rate_hz != recording.rate_hz:
        recording = resampled(recording, window.rate_hz, splits.cuts(found, split, window.rest))
        found = splits.segments(recording, split, True)
    for note in recording.notes:
        warn_once(f"warning: {recording.path.name}: {note}")
    if flat := flat_channels(recording):
        warn_once(f"warning: {recording.path.name}: channel {', '.join(map(str, flat))} is flat")
    edges = {*splits.cuts(found, split, window.rest), *recording.seams}
    emg = filtered(recording.emg, sections(filter, recording.rate_hz), edges)
    return replace(recording, emg=emg), found


def resampled(recording: Recording, rate_hz: float, cuts: Sequence[int] = ()) -> Recording:
    """The recording at `rate_hz` (0 keeps its own): polyphase with an anti-aliasing filter, labels by nearest sample.

    The filter does not reach across seams, nor `cuts`, samples at which another side of the split begins.
    """
    if not rate_hz or recording.rate_hz == rate_hz:
        return recording
    emg = resampling.signal_at_rate(recording.emg, recording.rate_hz, rate_hz, {*cuts, *recording.seams})
    made = labels_at_rate(recording, rate_hz)
    length = min(len(emg), len(made.labels))
    note = f"resampled from {recording.rate_hz:g} to {rate_hz:g} Hz"
    return replace(made, emg=emg[:length], labels=made.labels[:length], repetitions=made.repetitions[:length],
                   notes=(*recording.notes, note))


def labels_at_rate(recording: Labelled, rate_hz: float) -> Labelled:
    """The same with labels, repetitions and seams at another rate (0 keeps its own)."""
    rate = recording.rate_hz
    if not rate_hz or rate == rate_hz:
        return recording
    labels, repetitions = resampling.at_rate(rate, rate_hz, recording.labels, recording.repetitions)
    return replace(recording, labels=labels, repetitions=repetitions, rate_hz=rate_hz,
                   seams=resampling.seams_at_rate(rate, rate_hz, recording.seams))
