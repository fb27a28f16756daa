"""Decoders that are solved in closed form and carried to another session or person, for the ladder of protocols.

Each learns from sessions that came before (`fit`) and decides a stream of another one (`decide`): with nothing of it
but what came earlier in the stream, with its first repetition without labels, or with that repetition's labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tfkfin.features.describe import DESCRIPTIONS, broad, unit
from tfkfin.models.decision import filtered
from tfkfin.models.hierarchical import GAINS, HierarchicalGaussian
from tfkfin.pipeline.sessions import Session

CHUNK = 2048  # windows described at a time
LEFT_OUT = 3  # sessions, each left out once to see whether other forces pay
PRIOR = 200  # windows that the statistics of earlier sessions count as, against those of the stream so far

Learnt = Sequence[tuple[Session, np.ndarray]]  # sessions, and which of their windows (N,) may be learnt from


@dataclass(frozen=True)
class Known:
    """What is known of a session before it is decided: which of its windows (N,), and whether with their labels."""

    windows: np.ndarray
    labelled: bool


def described(session: Session, names: Sequence[str]) -> np.ndarray:
    """Descriptions of all of a session's windows side by side (N, D) float64, computed once."""
    return np.concatenate([session.kept(name, lambda name=name: _described(session, DESCRIPTIONS[name]))
                           for name in names], axis=1)


def _described(session: Session, describe: Callable) -> np.ndarray:
    count = len(session)
    return np.concatenate([describe(session.subject.volts(session.length, slice(i, i + CHUNK)), session.rate_hz)
                           for i in range(0, count, CHUNK)])


class Centres:
    """Mean and deviation of each session's descriptions, and what stands for them while they are unknown."""

    def __init__(self, see: Callable[[Session], np.ndarray], learnt: Learnt):
        self.see = see
        self._own = {(s.person, s.number): moments(see(s)[chosen]) for s, chosen in learnt}
        self._prior = tuple(np.mean(part, axis=0) for part in zip(*self._own.values(), strict=True))

    def centred(self, session: Session, known: Known | None) -> np.ndarray:
        """Descriptions (N, D) z-scored: by the known windows, by what was learnt of this very session, or causally."""
        x = self.see(session)
        if known is not None:
            return scaled(x, *moments(x[known.windows]))
        own = self._own.get((session.person, session.number))
        return scaled(x, *own) if own else running(x, *self._prior)


@dataclass
class Discriminant:
    """Shrinkage LDA on descriptions, covariance by Ledoit and Wolf (2004).

    With labels of the new session, these weigh as much as everything before. `recentred` z-scores every session by its
    own windows: those learnt from, the repetition that is known of a new one, or what came earlier in the stream.

    Attributes:
        see: session -> descriptions (N, D).
        classes: labels that can be decided, ascending.
    """

    see: Callable[[Session], np.ndarray]
    recentred: bool = False
    classes: tuple[int, ...] = ()

    def fit(self, learnt: Learnt, classes: tuple[int, ...]) -> "Discriminant":
        self.classes, self._centres, rows, labels = classes, Centres(self.see, learnt), [], []
        for session, chosen in learnt:
            x = self._centres.centred(session, None) if self.recentred else self.see(session)
            kept = chosen & np.isin(session.labels, classes)
            rows.append(x[kept]), labels.append(session.labels[kept])
        self._x, self._y = np.concatenate(rows), np.concatenate(labels)
        self._solved = solved(self._x, self._y)
        return self

    def decide(self, session: Session, known: Known | None) -> np.ndarray:
        """Probabilities (N, G) of a session's windows."""
        x, model = self._centres.centred(session, known) if self.recentred else self.see(session), self._solved
        if known is not None and known.labelled:
            own = known.windows & np.isin(session.labels, self.classes)
            times = max(1, len(self._x) // max(1, own.sum()))
            model = solved(np.concatenate([self._x, *[x[own]] * times]),
                           np.concatenate([self._y, *[session.labels[own]] * times]))
        return spread(model.predict_proba(x), model.classes_, self.classes)


@dataclass
class Hierarchical:
    """Class means of a session as a posterior between those of earlier sessions and its labelled repetition.

    Two-covariance model of speaker recognition (probabilistic LDA: Brümmer, de Villiers 2010), sessions z-scored one by
    one: a session's class means are N(mean over sessions, between sessions), a repetition's are N(the session's,
    between repetitions), windows are N(the repetition's, within). Decisions take one covariance, the sum of the three
    as far as they are unknown. Covariances by Ledoit and Wolf (2004). With one earlier session the covariance between
    repetitions stands for that between sessions.

    Attributes: as of `Discriminant`.
    """

    see: Callable[[Session], np.ndarray]
    classes: tuple[int, ...] = ()

    def fit(self, learnt: Learnt, classes: tuple[int, ...]) -> "Hierarchical":
        self.classes, self._centres, rows = classes, Centres(self.see, learnt), []
        for session, chosen in learnt:
            kept = chosen & np.isin(session.labels, classes)
            x = self._centres.centred(session, None)[kept]
            rows.append((x, session.labels[kept], session.repetitions[kept]))
        within, trials, days, each = [], [], [], []
        for x, y, r in rows:
            pairs = sorted(set(zip(y.tolist(), r.tolist(), strict=True)))
            repeated = {(c, k): x[(y == c) & (r == k)] for c, k in pairs}
            within += [one - one.mean(axis=0) for one in repeated.values()]
            means = {c: np.array([one.mean(axis=0) for (d, _), one in repeated.items() if d == c]) for c in classes}
            trials += [(m - m.mean(axis=0)) * np.sqrt(len(m) / (len(m) - 1)) for m in means.values() if len(m) > 1]
            each.append({c: m.mean(axis=0) for c, m in means.items() if len(m)})
        self._means = np.array([np.mean([one[c] for one in each if c in one], axis=0) for c in classes])
        for i, c in enumerate(classes):
            own = np.array([one[c] for one in each if c in one])
            days += [(own - self._means[i]) * np.sqrt(len(own) / (len(own) - 1))] if len(own) > 1 else []
        self._within = covariance(within)
        self._trials = covariance(trials) if trials else self._within
        self._days = covariance(days) if days else self._trials
        return self

    def decide(self, session: Session, known: Known | None) -> np.ndarray:
        """Probabilities (N, G) of a session's windows."""
        x = self._centres.centred(session, known)
        means, spread_of_means, within = self._means, self._days, self._within
        if known is not None and known.labelled:
            gain = np.linalg.solve(self._days + self._trials, self._days).T
            spread_of_means, means, own = self._days - gain @ self._days, means.copy(), []
            for i, c in enumerate(self.classes):
                seen = x[known.windows & (session.labels == c)]
                if len(seen):
                    means[i] += gain @ (seen.mean(axis=0) - means[i])
                    own.append(seen - seen.mean(axis=0))
            within = (within + covariance(own)) / 2
        return gaussian(x, means, within + self._trials + spread_of_means)


@dataclass
class Lasting:
    """The one we recommend: `tfkfin.models.hierarchical` on broad descriptions.

    What is learnt from is learnt also at other forces, unless sessions that are left out lose by it: each window times
    a gain, with a window of rest added, since rest's noise does not shrink with the force. Streams are adapted to as
    they come, and what a session taught without labels moves what the next one begins with.

    Attributes:
        classes: as of `Discriminant`.
        forces, adapts: whether it does the one and the other; without, for comparison.
    """

    classes: tuple[int, ...] = ()
    forces: bool = True
    adapts: bool = True

    def fit(self, learnt: Learnt, classes: tuple[int, ...]) -> "Lasting":
        self.classes = classes
        rows = [(s, np.flatnonzero(chosen & np.isin(s.labels, classes))) for s, chosen in learnt]
        self._unit = unit(float(np.median([s.subject.volts(s.length, at).std() for s, at in rows])))
        x, labels = (np.concatenate(part) for part in zip(*((self._see(s)[at], s.labels[at]) for s, at in rows),
                                                          strict=True))
        sessions = np.repeat(np.arange(len(rows)), [len(at) for _, at in rows])
        repetitions = np.concatenate([s.repetitions[at] for s, at in rows])
        taught = x, labels, sessions, repetitions
        virtual = self._virtual(learnt, rows) if self.forces else ()
        if virtual and not self._forces_pay(taught, virtual):
            virtual = ()
        self._model = HierarchicalGaussian().fit(*taught, virtual)
        self._learnt, self._next = {(s.person, s.number) for s, _ in learnt}, None
        self._rest = self._quiet(learnt, rows)
        return self

    def decide(self, session: Session, known: Known | None) -> np.ndarray:
        """Probabilities (N, G) of a session's windows, each given those before it."""
        x, key = self._see(session), (session.person, session.number)
        if self._next is not None and self._next[0] != key:
            self._model, self._next = self._next[1], None
        active = loudness(self._power(session)) > self._rest
        found = np.zeros((len(x), len(self._model.classes)))
        later = np.ones(len(x), bool) if known is None else ~known.windows
        if known is None:
            new = self._model.begin()
        elif known.labelled:
            own = known.windows & np.isin(session.labels, self.classes)
            new = self._model.calibrate(x[own], session.labels[own])
        else:
            new = self._model.adapt(x[known.windows & active])
        found[~later] = new.probabilities(x[~later])
        if self.adapts and key not in self._learnt:
            found[later] = new.stream(x[later], active[later])
            if known is None:
                self._next = key, new.carried(self._model)
        else:
            found[later] = new.probabilities(x[later])
        return spread(filtered(found), self._model.classes, self.classes)

    def _see(self, session: Session) -> np.ndarray:
        def make() -> np.ndarray:
            return _described(session, lambda windows, rate: broad(windows / self._unit, rate))

        return session.kept(("broad", self._unit), make)

    def _forces_pay(self, taught: tuple, virtual: list[np.ndarray]) -> bool:
        """Whether other forces cost less than a point on sessions left out, of three or more: they are meant for what
        the sessions that are there may not show.
        """
        x, labels, sessions, _ = taught
        count = sessions[-1] + 1
        if count < 3:
            return True
        right = np.zeros(2)
        for session in np.unique(np.linspace(0, count - 1, LEFT_OUT).round()):
            kept = sessions != session
            for i, forced in enumerate((virtual, ())):
                model = HierarchicalGaussian().fit(*(part[kept] for part in taught), [rows[kept] for rows in forced])
                found = model.stream(x[~kept], np.ones(int(np.sum(~kept)), bool))
                right[i] += np.mean(model.classes[found.argmax(axis=1)] == labels[~kept])
        return right[1] - right[0] < 0.01 * LEFT_OUT

    def _power(self, session: Session) -> np.ndarray:
        """Power of each channel (N, C)."""
        return session.kept("power", lambda: _described(session, lambda windows, rate: windows.var(axis=1)))

    def _quiet(self, learnt: Learnt, rows: Sequence[tuple[Session, np.ndarray]]) -> float:
        """The loudness that parts rest from movements at the least of the forces that are learnt from."""
        rest = np.concatenate([self._power(s)[chosen & (s.labels == 0)] for s, chosen in learnt])
        moving = np.concatenate([self._power(s)[at] for s, at in rows])
        if not len(rest):
            return -np.inf
        return midway(loudness(rest), loudness(min(GAINS) ** 2 * moving + rest.mean(axis=0)))

    def _virtual(self, learnt: Learnt, rows: Sequence[tuple[Session, np.ndarray]]) -> list[np.ndarray]:
        """Descriptions (N, D) of the windows learnt from, at each of `GAINS`."""
        rng = np.random.default_rng(0)
        resting = [s.subject.volts(s.length, np.flatnonzero(chosen & (s.labels == 0))) for s, chosen in learnt]
        rest, found = np.concatenate(resting), []
        for gain in GAINS:
            parts = []
            for s, at in rows:
                for i in range(0, len(at), CHUNK):
                    w = gain * s.subject.volts(s.length, at[i : i + CHUNK])
                    w = w + rest[rng.integers(len(rest), size=len(w))] if len(rest) else w
                    parts.append(broad(w / self._unit, s.rate_hz))
            found.append(np.concatenate(parts))
        return found


def covariance(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Of rows (N, D) about 0, shrunk by Ledoit and Wolf's rule."""
    from sklearn.covariance import ledoit_wolf

    return ledoit_wolf(np.concatenate(rows), assume_centered=True)[0]


def gaussian(x: np.ndarray, means: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Probabilities (N, G) of equally likely classes with these means (G, D) and one covariance (D, D)."""
    weights = np.linalg.solve(covariance, means.T)  # (D, G)
    scores = x @ weights - 0.5 * np.sum(means.T * weights, axis=0)
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def loudness(power: np.ndarray) -> np.ndarray:
    """Mean log power over channels: (N, C) -> (N,)."""
    return np.log(power + 1e-30).mean(axis=1)


def midway(rest: np.ndarray, movement: np.ndarray) -> float:
    """The loudness that parts rest (N,) from movement (M,) with the fewest errors, each side counting alike."""
    edges = np.quantile(np.concatenate([rest, movement]), np.linspace(0, 1, 201))
    wrong = [np.mean(rest > edge) + np.mean(movement <= edge) for edge in edges]
    return float(edges[int(np.argmin(wrong))])


def solved(x: np.ndarray, y: np.ndarray):
    """scikit-learn's z-score and shrinkage LDA, fitted to (N, D) and labels (N,)."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")).fit(x, y)


def spread(probabilities: np.ndarray, there: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Probabilities (N, K) of the labels `there`, among all `classes` (N, G)."""
    out = np.zeros((len(probabilities), len(classes)))
    out[:, np.searchsorted(classes, there)] = probabilities
    return out


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x.mean(axis=0), x.std(axis=0) + 1e-9


def scaled(x: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    return (x - mean) / sd


def running(x: np.ndarray, mean: np.ndarray, sd: np.ndarray, prior: int = PRIOR) -> np.ndarray:
    """Each row (N, D) z-scored by the rows up to it and a prior mean and sd that count as `prior` rows."""
    count = prior + np.arange(1, len(x) + 1)[:, None]
    means = (prior * mean + np.cumsum(x, axis=0)) / count
    squares = (prior * (sd**2 + mean**2) + np.cumsum(x**2, axis=0)) / count
    return (x - means) / np.sqrt(np.maximum(squares - means**2, 1e-12))
