"""What earlier sessions say of a new one, of which nothing is known: the prior of `tfkfin.sessions.hierarchical`."""

import copy
from collections.abc import Sequence
from typing import Self

import numpy as np

from tfkfin.sessions import kinship
from tfkfin.sessions.taught import Scatter, Taught

NOISE = 8.0  # windows that count as one independent look: neighbours overlap
MIX = 0.25  # share of virtual forces
GATE = 0.9  # least share of class means found where the others say, for unlabelled windows to move them
FEW_LOOKS, EVENED = 60.0, 0.1  # looks that are few: then electrodes are taken to be alike in T, and at most so far in W
STATE = ("classes", "sessions", "means", "shift", "within", "looks", "repeated", "between", "centre", "spread",
         "execution", "trusted")


class Prior:
    """Class means, and how they differ from session to session, repetition to repetition, window to window.

    Attributes:
        classes: labels, ascending.
        sessions: how many taught it.
        means: M (G, D), z-scored; shift: what virtual forces add to it when it decides.
        within, repeated, between: W, T, B (D, D); looks: W without virtual forces.
        centre, spread: mean and deviation (D,) that a new session begins with; execution: windows of one.
        taught: what each session taught, for `learn`.
        trusted: whether unlabelled windows may move class means: whether earlier sessions predict each other's.
    """

    def fit(self, x: np.ndarray, labels: np.ndarray, sessions: np.ndarray, repetitions: np.ndarray,
            virtual: Sequence[np.ndarray] = (), alike: np.ndarray | None = None) -> Self:
        """Learns from windows (N, D), their labels, sessions and repetitions (N,).

        Args:
            virtual: descriptions (N, D) of the same windows as if done with other forces.
            alike: which entries of covariances (D, D) electrodes turn into each other if they change places, as of
                `kinship.alike`; None: it is not known.
        """
        self._alike = alike
        self.classes, index = np.unique(labels, return_inverse=True)
        taught, moved, forced = Taught.nothing(len(self.classes), x.shape[1]), [], []
        for own in (sessions == session for session in np.unique(sessions)):
            taught = taught.session(x[own], index[own], repetitions[own])
            if len(virtual):
                every = (np.concatenate([x[own], *(rows[own] for rows in virtual)]) - taught.centres[-1])
                every, which = every / taught.spreads[-1], np.tile(index[own], 1 + len(virtual))
                at = np.full(taught.means.shape[1:], np.nan)
                for k in np.unique(which):
                    at[k] = every[which == k].mean(axis=0)
                moved.append(at)
                forced.append(every - at[which])
        self._forced = None
        if len(virtual):
            self._forced = (MIX * (np.nanmean(moved, axis=0) - np.nanmean(taught.means, axis=0)),
                            Scatter.of(np.concatenate(forced)).covariance())
        return self._knowing(taught)

    def learn(self, x: np.ndarray, labels: np.ndarray, repetitions: np.ndarray) -> Self:
        """A copy that was taught one session more: what `fit` makes of all; other forces stay what they were.

        Args:
            x, labels, repetitions: of the session's windows, as of `fit`.

        Raises:
            ValueError: this is of a state that says nothing of single sessions.
        """
        if self.taught is None:
            raise ValueError("`state` must have been made with what each session taught: fit anew")
        return copy.copy(self)._knowing(self.taught.session(x, np.searchsorted(self.classes, labels), repetitions))

    def _knowing(self, taught: Taught) -> Self:
        self.taught, self._basis, self.sessions = taught, None, len(taught.means)
        self.execution = max(float(taught.within.count / taught.executions), 1.0)  # windows
        self.centre, self.spread = taught.centres.mean(axis=0), taught.spreads.mean(axis=0)
        self.means = np.nanmean(taught.means, axis=0)
        self.within, self.repeated = taught.within.covariance(), taught.repeated.covariance()
        self.between = np.zeros_like(self.within)
        if self.sessions > 1:
            rows = (taught.means - self.means) * np.sqrt(self.sessions / (self.sessions - 1))
            self.between = Scatter.of(rows[np.isfinite(rows).all(axis=2)]).covariance()
        self.trusted = self.sessions > 1 and self._predicted(taught.means) >= GATE
        self.shift, self.looks = np.zeros_like(self.means), self.within
        if self._forced is not None:
            self.shift, forced = self._forced
            self.within = (1 - MIX) * self.within + MIX * forced
        if self._alike is not None:
            looks = float(taught.executions - np.isfinite(taught.means).all(axis=2).sum())
            few = 1 / (1 + (looks / FEW_LOOKS) ** 2)
            self.repeated = kinship.evened(self.repeated, few, self._alike)
            self.within, self.looks = (kinship.evened(w, EVENED * few, self._alike) for w in (self.within, self.looks))
        return self._begun()

    def state(self) -> dict[str, np.ndarray]:
        """All that decides, in float64: of classes that it knows (G, ...); `from_state` is the same again."""
        return {name: np.asarray(getattr(self, name), np.float64) for name in STATE}

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray], taught: Taught | None = None) -> Self:
        """What `state` gave. `taught`: without it, it cannot `learn`; other forces are not in it."""
        new = cls()
        new._basis, new._forced, new._alike, new.taught = None, None, None, taught
        for name in STATE:
            setattr(new, name, np.asarray(state[name], np.float64))
        new.classes, new.sessions = new.classes.astype(np.int64), int(new.sessions)
        new.trusted, new.execution = bool(new.trusted), float(new.execution)
        return new._begun()

    def _predicted(self, means: np.ndarray) -> float:
        """Share of class means (S, G, D) of a session that the other sessions' would call right."""
        right = [self._called(means[i], np.nanmean(np.delete(means, i, axis=0), axis=0)) for i in range(len(means))]
        return float(np.mean(np.concatenate(right)))

    def _called(self, means: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Which of a session's class means (G, D), nan where it lacks one, those of others (G, D) call right."""
        weights = np.linalg.solve(self.within + self.repeated + self.between, others.T)
        there = np.isfinite(means).all(axis=1)
        scores = means[there] @ weights - 0.5 * (others.T * weights).sum(axis=0)
        return scores.argmax(axis=1) == np.flatnonzero(there)

    def _noise(self) -> np.ndarray:
        """Covariance (D, D) of one repetition's class mean about its session's."""
        return self.repeated + self.looks / NOISE

    def _begun(self) -> Self:
        """Made ready for a session."""
        return self
