"""The ladder's rungs: what is trained on, what of a stream is known for calibration, and which repetitions are tested.

    random         windows at random out of each session: neighbours overlap, so that it leaks; marked wherever shown
    repetition-k   the first k repetitions of a session, tested on its others
    session-0      the training sessions, tested on the others without calibration
    session-0u     the same, calibrated on the first repetition of each without labels, which is not tested then
    session-1      the same with its labels
    person-...     as session-..., trained on the training side of all other people

Where a dataset has no sessions of its own to test, repetitions are those of the split: `repetition-k` trains on the
first k training repetitions and tests the test repetitions. Of many sessions, `random` and `repetition-k` take `FEW`,
evenly spread, since each of them is trained anew there.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from tfkfin.pipeline import splits, windows
from tfkfin.pipeline.subject import resampled
from tfkfin.pipeline.windows import Windows
from tfkfin.recipe import Filter, Split, Window
from tfkfin.recordings.recording import Recording, owners
from tfkfin.signal.filtering import filtered, sections

RUNGS = ("random", "repetition-1", "repetition-2", "repetition-4", "session-0", "session-0u", "session-1", "person-0",
         "person-0u", "person-1")
LEAKS = ("random",)
FEW = 5
DRAWN = 0.7  # share of windows that the rung `random` trains on
MIXED = -1  # the label of a window that lies across a change of movement or repetition, or across a seam

# === Windows of recordings: those that models are trained on, and those of a stream ===


def content(recording: Recording, begins: np.ndarray, ends: np.ndarray) -> Windows:
    """What the samples [begin, end) of a recording, (N,) each, lie in.

    Returns:
        Windows whose movements are MIXED where they lie in more than one, whose repetitions for rest are as
        `tfkfin.recordings.recording.owners` says, and whose segments number the movement, held once, or the rest.
    """
    labels, owner = recording.labels.astype(np.int64), owners(recording).astype(np.int64)
    change = np.zeros(len(labels), bool)
    change[1:] = (np.diff(labels) != 0) | (np.diff(owner) != 0)
    change[list(recording.seams)] = True
    run = np.cumsum(change)
    pure = run[begins] == run[ends - 1]
    return Windows(begins, np.where(pure, labels[begins], MIXED), owner[begins], segments=run[begins])


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
    """A signal (T, C), where its windows begin (N,), in order of time, and the movement and repetition of each.

    Attributes:
        sizes: how many of the windows lie in each of the recordings that the signal is joined from.
    """

    emg: np.ndarray
    starts: np.ndarray
    labels: np.ndarray
    repetitions: np.ndarray
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
    signals, found, samples = [], [], 0
    for recording in (resampled(one, window.rate_hz) for one in recordings):
        rate = recording.rate_hz
        length, stride = (windows.samples(ms, rate) for ms in (window.length_ms, window.stride_ms))
        begins = places(len(recording.emg), rate, length, stride, rate)[0] if stream else \
            _inside(recording, length, stride)
        own = content(recording, begins, begins + length)
        found.append((begins + samples, own.movements, own.repetitions))
        signals.append(filtered(recording.emg, sections(filter, rate), recording.seams))
        samples += len(recording.emg)
    columns = (np.concatenate(part) for part in zip(*found, strict=True))
    return WindowedSignal(np.concatenate(signals), *columns, length, stride, rate, tuple(len(one[0]) for one in found))


def _inside(recording: Recording, length: int, stride: int) -> np.ndarray:
    """First samples (N,) of the windows that lie in one movement or rest, the first of each at its beginning."""
    owner = owners(recording).astype(np.int64)
    segments = windows.segments(recording.labels, owner, True, recording.seams)
    long = [segment for segment in segments if segment.repetition and segment.stop - segment.start >= length]
    return windows.starts(long, length, stride).starts


# === Sessions, trials and groups ===


@dataclass(frozen=True, eq=False)
class SessionPart:
    """Some repetitions of one person's session: its recordings, in order.

    Several of them where exercises lie in files of their own. What is computed from a part can be kept with it.
    """

    person: int
    session: int
    recordings: tuple[Recording, ...]
    _kept: dict[object, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def repetitions(self) -> tuple[int, ...]:
        """Repetitions of movements, as they come in time."""
        there = np.concatenate([one.repetitions[(one.labels > 0) & (one.repetitions > 0)] for one in self.recordings])
        return tuple(there[np.sort(np.unique(there, return_index=True)[1])].tolist())

    def select(self, repetitions: Iterable[int]) -> "SessionPart":
        """These repetitions alone; the same object each time."""
        asked = set(repetitions)
        wanted = tuple(r for r in self.repetitions if r in asked)
        if wanted == self.repetitions:
            return self
        return self.kept(wanted, lambda: replace(self, _kept={}, recordings=tuple(
            one.select(wanted) for one in self.recordings if np.isin(one.repetitions[one.labels > 0], wanted).any())))

    def kept(self, key: object, make: Callable[[], Any]) -> Any:
        """What `make()` returns; it is called once for each `key`."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def forget_streams(self) -> None:
        """Drops what was kept of streams, under keys (what, True), here and of the repetitions that were selected."""
        for key, value in list(self._kept.items()):
            if isinstance(value, SessionPart):
                value.forget_streams()
            elif key[1] is True:
                del self._kept[key]


@dataclass(frozen=True, eq=False)
class Trial:
    """A stream to decide.

    Attributes:
        stream: decided from its first sample to its last.
        tested: the repetitions whose windows are scored.
        known: what the model is calibrated on before, `labelled` or not.
        drawn: for each recording, which of its windows were trained on, so that they are not scored.
    """

    rung: str
    stream: SessionPart
    tested: tuple[int, ...]
    known: SessionPart | None = None
    labelled: bool = False
    drawn: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True, eq=False)
class Group:
    """Trials of one person by models that are trained on the same parts, in order of time.

    Of the trials of one session the one without calibration comes last.
    """

    person: int
    parts: tuple[SessionPart, ...]
    trials: tuple[Trial, ...]


def sessions(person: int, recordings: Iterable[Recording], each: int) -> list[SessionPart]:
    """A person's sessions in order of their numbers; `each` is `split.repetitions_per_session`."""
    found: dict[int, list[Recording]] = {}
    for recording in recordings:
        for number, one in recording.by_session(each).items():
            found.setdefault(number, []).append(one)
    return [part for number in sorted(found) if (part := SessionPart(person, number, tuple(found[number]))).repetitions]


def groups(people: Mapping[int, Sequence[SessionPart]], split: Split, window: Window, seed: int,
           tested_people: Sequence[int] = ()) -> Iterator[Group]:
    """Every group that the data allow, of all people or of some."""
    train, test = splits.part(split, "train"), splits.part(split, "test")
    for person in tested_people or split.subjects:
        own, between = people[person], split.between_sessions
        tested = [s for s in own if of_side(s, test)] if between else list(own)
        for i in spread(len(tested)):
            yield _random(tested[i], window, seed)
            yield from _repetitions(tested[i], train, test, between)
        if between and tested:
            yield Group(person, parts_of(own, train), tuple(
                trial for s in tested for trial in _calibrations("session", s, of_side(s, test))))
        others = tuple(part for other in split.subjects if other != person for part in parts_of(people[other], train))
        if others and tested:
            yield Group(person, others, tuple(
                trial for s in tested
                for trial in _calibrations("person", s, of_side(s, test) if between else s.repetitions)))


def spread(count: int) -> list[int]:
    """At most `FEW` of so many sessions, evenly spread."""
    return np.unique(np.linspace(0, count - 1, FEW).round().astype(int)).tolist() if count else []


def of_side(session: SessionPart, side: splits.Part) -> tuple[int, ...]:
    """A session's repetitions on a side of the split."""
    return tuple(r for r in session.repetitions if side.holds(r, session.session))


def parts_of(own: Sequence[SessionPart], side: splits.Part) -> tuple[SessionPart, ...]:
    return tuple(session.select(wanted) for session in own if (wanted := of_side(session, side)))


def _repetitions(session: SessionPart, train: splits.Part, test: splits.Part, between: bool) -> Iterator[Group]:
    order = session.repetitions if between else of_side(session, train)
    for k in (1, 2, 4):
        known = order[:k]
        tested = tuple(r for r in (session.repetitions if between else of_side(session, test)) if r not in known)
        if len(order) >= k and tested:
            trial = Trial(f"repetition-{k}", session.select(tested), tested)
            yield Group(session.person, (session.select(known),), (trial,))


def _calibrations(kind: str, session: SessionPart, wanted: tuple[int, ...]) -> Iterator[Trial]:
    """The three trials of a session of which the repetitions `wanted` may be tested."""
    first, tested = wanted[:1], wanted[1:]
    if tested:
        rest = session.select(r for r in session.repetitions if r not in first)
        yield Trial(f"{kind}-0u", rest, tested, session.select(first), False)
        yield Trial(f"{kind}-1", rest, tested, session.select(first), True)
    yield Trial(f"{kind}-0", session, wanted)


def _random(session: SessionPart, window: Window, seed: int) -> Group:
    """Trains on a share of the session's windows, drawn at random, and tests the others."""
    rng, chosen, drawn = np.random.default_rng([seed, session.person, session.session]), [], []
    for recording in session.recordings:
        length, stride = window.length_ms / 1000, window.stride_ms / 1000
        begins, ends = places(len(recording.emg), recording.rate_hz, length, stride, 1.0)
        drawn.append(rng.random(len(begins)) < DRAWN)
        chosen.append(_alone(recording, begins[drawn[-1]], ends[drawn[-1]]))
    part = SessionPart(session.person, session.session, tuple(chosen))
    return Group(session.person, (part,), (Trial("random", session, session.repetitions, drawn=tuple(drawn)),))


def _alone(recording: Recording, begins: np.ndarray, ends: np.ndarray) -> Recording:
    """A recording of these windows alone, end to end with a seam between, of those that lie in one movement or rest."""
    found = content(recording, begins, ends)
    kept = (found.movements != MIXED) & (found.repetitions > 0)
    size = int((ends - begins).max(initial=1))
    at = np.minimum(begins[kept], len(recording.emg) - size)[:, None] + np.arange(size)
    return replace(recording, emg=recording.emg[at.ravel()],
                   labels=np.repeat(found.movements[kept], size).astype(np.int16),
                   repetitions=np.repeat(found.repetitions[kept], size).astype(np.int16),
                   seams=tuple(range(size, size * len(at), size)))
