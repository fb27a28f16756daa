"""Decoders that are solved in closed form and carried to another session or person, for the ladder of protocols.

Each learns from sessions that came before (`fit`) and decides a stream of another one (`decide`): with nothing of it
but what came earlier in the stream, with its first repetition without labels, or with that repetition's labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tfkfin.features.describe import DESCRIPTIONS
from tfkfin.models.hierarchical import covariance
from tfkfin.pipeline.sessions import Session

CHUNK = 2048  # windows described at a time
PRIOR = 200  # windows that the statistics of earlier sessions count as, against those of the stream so far

Learnt = Sequence[tuple[Session, np.ndarray]]  # sessions, and which of their windows (N,) may be learnt from


@dataclass(frozen=True)
class Known:
    """What is known of a session before it is decided: which of its windows (N,), and whether with their labels."""

    windows: np.ndarray
    labelled: bool


def described(session: Session, names: Sequence[str]) -> np.ndarray:
    """Descriptions of all of a session's windows side by side (N, D) float64, computed once."""
    return np.concatenate([session.kept(name, lambda name=name: over(session, DESCRIPTIONS[name]))
                           for name in names], axis=1)


def over(session: Session, describe: Callable[[np.ndarray, float], np.ndarray]) -> np.ndarray:
    """A description of all of a session's windows (N, D), some at a time."""
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
        self._within = covariance(np.concatenate(within))
        self._trials = covariance(np.concatenate(trials)) if trials else self._within
        self._days = covariance(np.concatenate(days)) if days else self._trials
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
            within = (within + covariance(np.concatenate(own))) / 2
        return gaussian(x, means, within + self._trials + spread_of_means)


def gaussian(x: np.ndarray, means: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Probabilities (N, G) of equally likely classes with these means (G, D) and one covariance (D, D)."""
    weights = np.linalg.solve(covariance, means.T)  # (D, G)
    scores = x @ weights - 0.5 * np.sum(means.T * weights, axis=0)
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


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
