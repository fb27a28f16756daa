"""Episodes: of a person two repetitions, the one to solve a head on, the other to see how well it decides.

Only what may be learnt from is drawn. Of each session with three repetitions or more the last is held out; where there
is no such session, the last of two or more people is. What is held out is looked at, and trains nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tfkfin.base.console import InputError
from tfkfin.pipeline.subject import Subject
from tfkfin.recipe.options import Augment, Pooled

SHORT = 0.1  # share of movements held too shortly to be drawn: the others need not be as short
Look = tuple[int, int]  # session, repetition


@dataclass(frozen=True)
class Episode:
    """Standardised stretches of K movements, the same movements in both repetitions.

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
        people: with the windows that may be learnt from, of movements.
        length, stride: of windows, samples.
        most: samples of a stretch, at most; windows fill it.

    Raises:
        InputError: nobody has two repetitions of two movements.
    """

    def __init__(self, people: Iterable[Subject], length: int, stride: int, most: int, options: Pooled):
        self._signals, every = zip(*((person.standardised(), _segments(person, length)) for person in people),
                                   strict=True)
        held = [stop - start for looks in every for look in looks.values() for of in look.values()
                for start, stop in of]
        room = min(most, int(np.quantile(held, SHORT))) if held else length
        self.samples = length + max(0, (room - length) // stride) * stride
        self.windows = (self.samples - length) // stride + 1
        self._options = options
        self._looks = [{look: kept for look, movements in looks.items() if len(kept := self._long(movements)) > 1}
                       for looks in every]
        self._held = [_last(looks) for looks in self._looks]
        there = [i for i, looks in enumerate(self._looks) if len(looks) > 1]
        self._whole = there[-1:] if not any(self._held) and len(there) > 1 else []
        self._pairs = {side: {i: pairs for i in there if (pairs := self._possible(i, side))} for side in (False, True)}
        if not self._pairs[False]:
            raise InputError("the stage pooled needs two training repetitions of two movements or more of somebody: "
                             "choose with --set split.pretrain_repetitions=1,3")

    @property
    def holds_out(self) -> bool:
        """Whether anything is held out."""
        return bool(self._pairs[True])

    def draw(self, rng: np.random.Generator, held: bool = False) -> Episode:
        """An episode that trains, or one that decides what is `held` out."""
        person = int(rng.choice(list(self._pairs[held])))
        same, other = self._pairs[held][person]
        among = other if not same or other and rng.random() < self._options.between else same
        one, two = among[rng.integers(len(among))]
        looks = self._looks[person]
        both = sorted(set(looks[one]) & set(looks[two]))
        chosen = rng.choice(both, min(len(both), self._options.movements), replace=False)
        solved, decided = (np.stack([self._stretch(rng, person, looks[look][m]) for m in chosen])
                           for look in (one, two))
        return Episode(solved, decided, one[0] == two[0])

    def _long(self, movements: dict[int, list]) -> dict[int, list]:
        kept = {m: [one for one in of if one[1] - one[0] >= self.samples] for m, of in movements.items()}
        return {m: of for m, of in kept.items() if of}

    def _possible(self, person: int, held: bool) -> tuple[list, list] | None:
        """Ordered pairs of looks that share two movements: of one session, of two; None if there are none."""
        looks, out = self._looks[person], self._held[person]
        if self._whole and (person in self._whole) != held or held and not self._whole and not out:
            return None
        decided = out if held and not self._whole else [look for look in looks if look not in out]
        pairs = [(one, two) for one in looks if one not in out for two in decided
                 if one != two and len(set(looks[one]) & set(looks[two])) > 1]
        found = [p for p in pairs if p[0][0] == p[1][0]], [p for p in pairs if p[0][0] != p[1][0]]
        return found if pairs else None

    def _stretch(self, rng: np.random.Generator, person: int, of: list) -> np.ndarray:
        start, stop = of[rng.integers(len(of))]
        at = rng.integers(start, stop - self.samples, endpoint=True)
        return self._signals[person][at : at + self.samples]


def augmented(episode: Episode, options: Augment, rng: np.random.Generator) -> Episode:
    """The episode as other skin, electrodes and pace might have given it; see `tfkfin.nets.layers.SignalAugment`.

    Gains and electrodes' shifts belong to a session, so that both repetitions of one have the same; an electrode is
    lost for both; noise and pace are drawn for each movement.
    """
    channels = episode.solved.shape[2]
    lost = rng.integers(channels) if rng.random() < options.dropout and channels > 1 else None
    first, other = (_placed(options, channels, rng) for _ in range(2))
    sides = [_changed(x, options, *place, lost, rng) for x, place in
             ((episode.solved, first), (episode.decided, first if episode.same else other))]
    return Episode(*sides, episode.same)


def _placed(options: Augment, channels: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
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
    """(T, C) at times stretched about the middle; what lies outside repeats the edge sample."""
    middle = (len(x) - 1) / 2
    times = np.clip((np.arange(len(x)) - middle) * speed + middle, 0, len(x) - 1)
    low = np.minimum(times.astype(int), len(x) - 2)
    part = (times - low)[:, None]
    return (1 - part) * x[low] + part * x[low + 1]


def _segments(person: Subject, length: int) -> dict[Look, dict[int, list[tuple[int, int]]]]:
    """Where each movement is held: {(session, repetition): {movement: [(start, stop) in `emg`]}}."""
    found: dict[Look, dict[int, list[tuple[int, int]]]] = {}
    windows = person.windows
    for segment in np.unique(windows.segments):
        of = windows[windows.segments == segment]
        look = int(of.sessions[0]), int(of.repetitions[0])
        extent = int(of.starts.min()), int(of.starts.max()) + length
        found.setdefault(look, {}).setdefault(int(of.movements[0]), []).append(extent)
    return found


def _last(looks: dict[Look, dict]) -> set[Look]:
    """The last repetition of each session that has three or more."""
    by_session: dict[int, list[Look]] = {}
    for look in sorted(looks):
        by_session.setdefault(look[0], []).append(look)
    return {of[-1] for of in by_session.values() if len(of) > 2}
