"""Decoders that are solved in closed form and carried to another session or person, for the ladder of protocols.

Each learns from sessions that came before (`fit`) and decides a stream of another one (`decide`): with nothing of it
but what came earlier in the stream, with its first repetition without labels, or with that repetition's labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tfkfin.experiments.sessions import Session
from tfkfin.features import describe
from tfkfin.sessions.hierarchical import HierarchicalGaussian, softmax

CHUNK = 2048  # windows described at a time
PRIOR = 200  # windows that the statistics of earlier sessions count as, against those of the stream so far

Learnt = Sequence[tuple[Session, np.ndarray]]  # sessions, and which of their windows (N,) may be learnt from


@dataclass(frozen=True)
class Known:
    """What is known of a session before it is decided: which of its windows (N,), and whether with their labels."""

    windows: np.ndarray
    labelled: bool


DESCRIPTIONS = {"time_domain": describe.time_domain, "log_covariance": describe.tangent_space}


def described(session: Session, names: Sequence[str]) -> np.ndarray:
    """Descriptions of all of a session's windows side by side (N, D) float64, computed once."""
    return np.concatenate([session.kept(name, lambda name=name: over(session, DESCRIPTIONS[name]))
                           for name in names], axis=1)


def over(session: Session, function: Callable[[np.ndarray, float], np.ndarray]) -> np.ndarray:
    """A description of all of a session's windows (N, D), some at a time."""
    count = len(session)
    return np.concatenate([function(session.subject.volts(session.length, slice(i, i + CHUNK)), session.rate_hz)
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


class Uncentred:
    """In place of `Centres`: descriptions as they are."""

    def __init__(self, see: Callable[[Session], np.ndarray], learnt: Learnt):
        self.see = see

    def centred(self, session: Session, known: Known | None) -> np.ndarray:
        return self.see(session)


@dataclass
class Discriminant:
    """Shrinkage LDA on descriptions, covariance by Ledoit and Wolf (2004).

    With labels of the new session, these weigh as much as everything before.

    Attributes:
        see: session -> descriptions (N, D).
        centres: (see, what is learnt from) -> what says where descriptions lie. `Centres` z-scores every session by its
            own windows: those learnt from, the repetition that is known of a new one, or what came earlier in the
            stream.
        classes: labels that can be decided, ascending.
    """

    see: Callable[[Session], np.ndarray]
    centres: Callable = Uncentred
    classes: tuple[int, ...] = ()

    def fit(self, learnt: Learnt, classes: tuple[int, ...]) -> "Discriminant":
        self.classes, self._centres, rows, labels = classes, self.centres(self.see, learnt), [], []
        for session, chosen in learnt:
            x = self._centres.centred(session, None)
            kept = chosen & np.isin(session.labels, classes)
            rows.append(x[kept]), labels.append(session.labels[kept])
        self._x, self._y = np.concatenate(rows), np.concatenate(labels)
        self._solved = solved(self._x, self._y)
        return self

    def decide(self, session: Session, known: Known | None) -> np.ndarray:
        """Probabilities (N, G) of a session's windows."""
        x, model = self._centres.centred(session, known), self._solved
        if known is not None and known.labelled:
            own = known.windows & np.isin(session.labels, self.classes)
            times = max(1, len(self._x) // max(1, own.sum()))
            model = solved(np.concatenate([self._x, *[x[own]] * times]),
                           np.concatenate([self._y, *[session.labels[own]] * times]))
        return spread(model.predict_proba(x), model.classes_, self.classes)


@dataclass
class Hierarchical:
    """`tfkfin.sessions.hierarchical` in closed form: without labels it adapts to nothing but where z-scores lie.

    Attributes: as of `Discriminant`.
    """

    see: Callable[[Session], np.ndarray]
    classes: tuple[int, ...] = ()

    def fit(self, learnt: Learnt, classes: tuple[int, ...]) -> "Hierarchical":
        self.classes = classes
        kept = [(s, chosen & np.isin(s.labels, classes)) for s, chosen in learnt]
        sessions = np.repeat(np.arange(len(kept)), [chosen.sum() for _, chosen in kept])
        self._model = HierarchicalGaussian().fit(
            np.concatenate([self.see(s)[chosen] for s, chosen in kept]),
            np.concatenate([s.labels[chosen] for s, chosen in kept]), sessions,
            np.concatenate([s.repetitions[chosen] for s, chosen in kept]))
        self._model.trusted = False  # labels alone move class means
        self._learnt = {(s.person, s.number) for s, _ in learnt}
        return self

    def decide(self, session: Session, known: Known | None) -> np.ndarray:
        """Probabilities (N, G) of a session's windows."""
        x = self.see(session)
        if known is None and (session.person, session.number) in self._learnt:
            found = self._model.probabilities(x)
        elif known is None:
            found = self._model.begin().stream(x, np.ones(len(x), bool))
        elif known.labelled:
            own = known.windows & np.isin(session.labels, self.classes)
            found = self._model.calibrate(x[own], session.labels[own]).probabilities(x)
        else:
            *_, weights, bias = self._model.begin().linear()
            found = softmax(scaled(x, *moments(x[known.windows])) @ weights + bias)
        return spread(found, self._model.classes, self.classes)


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
