"""The decoder that lasts from session to session, as the ladder of protocols tries it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tfkfin.decoder.decision import Smoothed
from tfkfin.experiments.sessions import Session
from tfkfin.experiments.transfer import CHUNK, Known, Learnt, over, spread
from tfkfin.features.describe import broad, broad_layout
from tfkfin.sessions.hierarchical import GAINS, HierarchicalGaussian
from tfkfin.sessions.kinship import alike

LEFT_OUT = 3  # sessions, each left out once to see whether other forces pay


@dataclass
class Lasting:
    """`tfkfin.sessions.hierarchical` on broad descriptions.

    What is learnt from is learnt also at other forces, unless sessions that are left out lose by it: each window times
    a gain, with a window of rest added, since rest's noise does not shrink with the force. Streams are adapted to as
    they come, and what a session taught without labels moves what the next one begins with.

    Attributes:
        classes: as of `Discriminant`.
        forces, adapts: whether it does the one and the other, decisions smoothed in time; without, for comparison.
        see: session -> descriptions (N, D), in place of the broad ones; learnt at no other forces.
    """

    classes: tuple[int, ...] = ()
    forces: bool = True
    adapts: bool = True
    see: Callable[[Session], np.ndarray] | None = None

    def fit(self, learnt: Learnt, classes: tuple[int, ...]) -> "Lasting":
        self.classes = classes
        learnt = [(s, chosen) for s, chosen in learnt if (chosen & np.isin(s.labels, classes)).any()]
        rows = [(s, np.flatnonzero(chosen & np.isin(s.labels, classes))) for s, chosen in learnt]
        moments = [[f(s.subject.volts(s.length, at), (0, 1)) for f in (np.mean, np.var)] for s, at in rows]
        self._mean, variance = np.mean(moments, axis=0)
        self._sd = np.sqrt(variance) + 1e-30
        x, labels = (np.concatenate(part) for part in zip(*((self._see(s)[at], s.labels[at]) for s, at in rows),
                                                          strict=True))
        sessions = np.repeat(np.arange(len(rows)), [len(at) for _, at in rows])
        repetitions = np.concatenate([s.repetitions[at] for s, at in rows])
        taught = x, labels, sessions, repetitions
        self._alike = alike(*broad_layout(rows[0][0].subject.emg.shape[-1])) if self.see is None else None
        virtual = self._virtual(learnt, rows) if self.forces and self.see is None else ()
        if virtual and not self._forces_pay(taught, virtual):
            virtual = ()
        self._model = HierarchicalGaussian().fit(*taught, virtual, self._alike)
        self._learnt, self._next = {(s.person, s.number) for s, _ in learnt}, None
        self._rest = self._quiet(learnt, rows)
        return self

    def decide(self, session: Session, known: Known | None) -> np.ndarray:
        """Probabilities (N, G) of a session's windows, each given those before it."""
        x, key = self._see(session), (session.person, session.number)
        if self._next is not None and self._next[0] != key:
            self._model, self._next = self._next[1], None
        active = (self._loudness(session) > self._rest) | (0 in self.classes)
        found = np.zeros((len(x), len(self._model.classes)))
        later = np.ones(len(x), bool) if known is None else ~known.windows
        if known is None:
            new = self._model.begin()
        elif known.labelled:
            own = known.windows & np.isin(session.labels, self.classes)
            new = self._model.calibrate(x[own], session.labels[own])
        else:
            own = known.windows & active
            new = self._model.adapt(x[own if own.any() else known.windows])
        found[~later] = new.probabilities(x[~later])
        if self.adapts and key not in self._learnt:
            found[later] = new.stream(x[later], active[later])
            if known is None:
                self._next = key, new.carried(self._model)
        else:
            found[later] = new.probabilities(x[later])
        found = Smoothed(found.shape[1])(found) if self.adapts else found
        return spread(found, self._model.classes, self.classes)

    def _see(self, session: Session) -> np.ndarray:
        if self.see is not None:
            return self.see(session)

        def make() -> np.ndarray:
            return over(session, lambda windows, rate: broad((windows - self._mean) / self._sd))

        return session.kept(("broad", self._mean.tobytes(), self._sd.tobytes()), make)

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
                model = HierarchicalGaussian().fit(*(part[kept] for part in taught), [rows[kept] for rows in forced],
                                                   self._alike)
                found = model.stream(x[~kept], np.ones(int(np.sum(~kept)), bool))
                right[i] += np.mean(model.classes[found.argmax(axis=1)] == labels[~kept])
        return right[1] - right[0] < 0.01 * LEFT_OUT

    def _loudness(self, session: Session) -> np.ndarray:
        """How loud each window is (N,), for `_quiet`."""
        return loudness(self._power(session))

    def _power(self, session: Session) -> np.ndarray:
        """Power of each channel (N, C)."""
        return session.kept("power", lambda: over(session, lambda windows, rate: windows.var(axis=1)))

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
                    w = self._mean + gain * (s.subject.volts(s.length, at[i : i + CHUNK]) - self._mean)
                    w = w + rest[rng.integers(len(rest), size=len(w))] - self._mean if len(rest) else w
                    parts.append(broad((w - self._mean) / self._sd))
            found.append(np.concatenate(parts))
        return found


def loudness(power: np.ndarray) -> np.ndarray:
    """Mean log power over channels: (N, C) -> (N,)."""
    return np.log(power + 1e-30).mean(axis=1)


def midway(rest: np.ndarray, movement: np.ndarray) -> float:
    """The loudness that parts rest (N,) from movement (M,) with the fewest errors, each side counting alike."""
    edges = np.quantile(np.concatenate([rest, movement]), np.linspace(0, 1, 201))
    wrong = [np.mean(rest > edge) + np.mean(movement <= edge) for edge in edges]
    return float(edges[int(np.argmin(wrong))])
