"""Episodes for the stage `pooled`: two repetitions of one person, one to solve a head on, the other to score it on.

Only training repetitions are drawn. The last repetition of each session with three or more is held out for validation;
where there is no such session, the last of two or more people is.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tfkfin.base.errors import InputError
from tfkfin.pipeline.subject import Subject
from tfkfin.recipe.options import Augment, Pooled

SHORT = 0.1  # share of segments that are too short to be drawn, so that the others need not be cut as short
Key = tuple[int, int]  # session, repetition
Spans = dict[int, list[tuple[int, int]]]  # movement -> where it is made: (start, stop) in the signal


@dataclass(frozen=True)
class Episode:
    """Standardised segments of K movements, the same movements in both repetitions.

    Attributes:
        solved, decided: (K, T, C) float32, of the repetition that the head is solved on, and of the other.
        same: whether both are of one session.
    """

    solved: np.ndarray
    decided: np.ndarray
    same: bool


class Episodes:
    """Draws episodes from people's training repetitions.

    Args:
        people: with their training windows of movements.
        length, stride: of windows, samples.
        most: samples of a segment, at most; its windows fill it.

    Raises:
        InputError: nobody has two repetitions of two movements.
    """

    def __init__(self, people: Iterable[Subject], length: int, stride: int, most: int, options: Pooled):
        self._signals, every = zip(*((person.standardised(), _spans(person, length)) for person in people), strict=True)
        sizes = [stop - start for keys in every for spans in keys.values() for of in spans.values()
                 for start, stop in of]
        room = min(most, int(np.quantile(sizes, SHORT))) if sizes else length
        self.samples = length + max(0, (room - length) // stride) * stride
        self.windows = (self.samples - length) // stride + 1
        self._options = options
        self._people = [{key: kept for key, spans in keys.items() if len(kept := self._long(spans)) > 1}
                        for keys in every]
        self._held_out = [_last(keys) for keys in self._people]
        drawn = [i for i, keys in enumerate(self._people) if len(keys) > 1]
        self._whole = drawn[-1:] if not any(self._held_out) and len(drawn) > 1 else []  # the person held out
        self._pairs = {held_out: {i: pairs for i in drawn if any(pairs := self._possible(i, held_out))}
                       for held_out in (False, True)}
        if not self._pairs[False]:
            raise InputError("the stage pooled needs two training repetitions of two movements or more of somebody: "
                             "choose with --set split.pretrain_repetitions=1,3")

    @property
    def holds_out(self) -> bool:
        """Whether anything is held out."""
        return bool(self._pairs[True])

    def draw(self, rng: np.random.Generator, held_out: bool = False) -> Episode:
        """An episode to train on, or one whose second repetition is held out."""
        person = int(rng.choice(list(self._pairs[held_out])))
        same, other = self._pairs[held_out][person]
        among = other if not same or other and rng.random() < self._options.between else same
        pair = among[rng.integers(len(among))]
        spans = [self._people[person][key] for key in pair]
        both = sorted(set(spans[0]) & set(spans[1]))
        chosen = rng.choice(both, min(len(both), self._options.movements), replace=False)
        solved, decided = (np.stack([self._segment(rng, person, one[m]) for m in chosen]) for one in spans)
        return Episode(solved, decided, pair[0][0] == pair[1][0])

    def _long(self, spans: Spans) -> Spans:
        kept = {m: [one for one in of if one[1] - one[0] >= self.samples] for m, of in spans.items()}
        return {m: of for m, of in kept.items() if of}

    def _possible(self, person: int, held_out: bool) -> tuple[list, list]:
        """Ordered pairs of repetitions that share two movements: those of one session, those of two."""
        keys, out = self._people[person], self._held_out[person]
        if self._whole and (person in self._whole) != held_out:
            return [], []
        decided = out if held_out and not self._whole else [key for key in keys if key not in out]
        pairs = [(one, two) for one in keys if one not in out for two in decided
                 if one != two and len(set(keys[one]) & set(keys[two])) > 1]
        return [p for p in pairs if p[0][0] == p[1][0]], [p for p in pairs if p[0][0] != p[1][0]]

    def _segment(self, rng: np.random.Generator, person: int, spans: list[tuple[int, int]]) -> np.ndarray:
        start, stop = spans[rng.integers(len(spans))]
        at = rng.integers(start, stop - self.samples, endpoint=True)
        return self._signals[person][at : at + self.samples]


def augmented(episode: Episode, options: Augment, rng: np.random.Generator) -> Episode:
    """The episode with random changes, as of `tfkfin.nets.layers.SignalAugment`.

    Gains and electrode shifts are drawn for each session, a lost electrode for both repetitions, noise and pace for
    each movement.
    """
    channels = episode.solved.shape[2]
    lost = rng.integers(channels) if rng.random() < options.dropout and channels > 1 else None
    first, other = (_gain_and_shift(options, channels, rng) for _ in range(2))
    sides = [_changed(x, options, *place, lost, rng) for x, place in
             ((episode.solved, first), (episode.decided, first if episode.same else other))]
    return Episode(*sides, episode.same)


def _gain_and_shift(options: Augment, channels: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    return np.exp(options.gain * rng.standard_normal(channels)), options.shift * rng.uniform(-1, 1)


def _changed(x: np.ndarray, options: Augment, gain: np.ndarray, shift: float, lost: int | None,
             rng: np.random.Generator) -> np.ndarray:
    if options.warp:
        x = np.stack([_warped(row, 1 + options.warp * rng.uniform(-1, 1)) for row in x])
    x = ((1 - abs(shift)) * x + abs(shift) * np.roll(x, 1 if shift > 0 else -1, axis=2)) * gain
    if options.noise:
        sd = options.noise * rng.random((len(x), 1, 1))
        x = x + sd * rng.standard_normal(x.shape, dtype=np.float32)
    if lost is not None:
        x[:, :, lost] = 0
    return x.astype(np.float32)


def _warped(x: np.ndarray, speed: float) -> np.ndarray:
    """(T, C) with its time axis scaled by `speed` about the middle; beyond the edges the edge sample is repeated."""
    middle = (len(x) - 1) / 2
    times = np.clip((np.arange(len(x)) - middle) * speed + middle, 0, len(x) - 1)
    low = np.minimum(times.astype(int), len(x) - 2)
    part = (times - low)[:, None]
    return (1 - part) * x[low] + part * x[low + 1]


def _spans(person: Subject, length: int) -> dict[Key, Spans]:
    """Where each movement is made in each repetition."""
    found: dict[Key, Spans] = {}
    windows = person.windows
    for segment in np.unique(windows.segments):
        of = windows[windows.segments == segment]
        extent = int(of.starts.min()), int(of.starts.max()) + length
        spans = found.setdefault((int(of.sessions[0]), int(of.repetitions[0])), {})
        spans.setdefault(int(of.movements[0]), []).append(extent)
    return found


def _last(keys: Iterable[Key]) -> set[Key]:
    """The last repetition of each session that has three or more."""
    by_session: dict[int, list[Key]] = {}
    for key in sorted(keys):
        by_session.setdefault(key[0], []).append(key)
    return {of[-1] for of in by_session.values() if len(of) > 2}
