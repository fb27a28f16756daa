"""The hierarchical Gaussian: a closed-form classifier that carries what earlier sessions taught to a new one.

Descriptions are z-scored session by session. A session's class means are N(M, B) about those of all sessions, classes
that look alike moving alike (`kinship`), a repetition's are N(the session's, T), windows are N(the repetition's, W):
the two-covariance model of speaker recognition (probabilistic LDA; Brümmer, de Villiers 2010). A new session's class
means are a posterior between what earlier ones say and what is seen: labelled windows exactly, unlabelled ones by
expectation and maximisation, soft labels averaged over neighbours in time. Decisions are linear: one covariance, W + T
+ what is unknown of the means. Covariances are shrunk by Ledoit and Wolf's rule (2004). No recording is kept.

NumPy and SciPy alone. The constants were chosen on three sets of people at once and hold for all of them.
"""

import copy
from collections.abc import Sequence

import numpy as np
import scipy.linalg

from tfkfin.models import kinship
from tfkfin.models.taught import LEAST, Scatter, Taught

NOISE = 8.0  # windows that count as one independent look: neighbours overlap
SOFT = 0.3  # how much a window's log-odds count in soft labels
NEIGHBOURS = 7  # windows to either side whose log-odds are added up
TEMPER = 1.0  # of softly labelled windows' weight
CAP = 2.0  # executions that unlabelled windows may count as
OWN = 0.5  # share of a labelled session's own covariance within repetitions
MIX = 0.25  # share of virtual forces
PRIOR = 500.0  # windows that earlier sessions' mean and deviation count as
GATE = 0.9  # least share of class means found where the others say, for unlabelled windows to move them
FAR = 0.75  # mean squared distance of windows from the nearest class, a dimension, beyond which they move nothing
CARRY = 0.5  # how far an unlabelled session moves what the next one begins with
BLOCK, BUFFER = 210, 4000  # windows between two looks back, and windows looked back at
EVEN, EVENED = 100.0, 0.1  # looks that electrodes' being alike counts as for T, and its share of W
GAINS = (0.25, 0.4, 0.65, 1.5)  # of virtual forces
STATE = ("classes", "sessions", "means", "shift", "within", "looks", "repeated", "between", "centre", "spread",
         "execution", "trusted")


def softmax(scores: np.ndarray) -> np.ndarray:
    found = np.exp(scores - scores.max(axis=1, keepdims=True))
    return found / found.sum(axis=1, keepdims=True)


def _basis(between: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions in which both covariances (D, D) are diagonal, the one `values` (D,), the other 1: values, U, noise U.

    The first is often a multiple of the second, or nothing: then no eigenvalues are needed.
    """
    amount = float(np.trace(between) / np.trace(noise))
    if np.allclose(between, amount * noise, rtol=1e-12, atol=0):
        vectors = scipy.linalg.solve_triangular(np.linalg.cholesky(noise).T, np.eye(len(noise)))
        return np.full(len(noise), amount), vectors, noise @ vectors
    values, vectors = scipy.linalg.eigh(between, noise)
    return np.maximum(values, 0), vectors, noise @ vectors


class HierarchicalGaussian:
    """A decoder of descriptions (N, D); `fit` it, then take a new session with `begin`, `calibrate` or `adapt`.

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
            virtual: Sequence[np.ndarray] = (), alike: np.ndarray | None = None) -> "HierarchicalGaussian":
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

    def learn(self, x: np.ndarray, labels: np.ndarray, repetitions: np.ndarray) -> "HierarchicalGaussian":
        """A copy that was taught one session more: what `fit` makes of all; other forces stay what they were.

        Args:
            x, labels, repetitions: of the session's windows, as of `fit`.

        Raises:
            ValueError: this is of a state that says nothing of single sessions.
        """
        if self.taught is None:
            raise ValueError("`state` must have been made with what each session taught: fit anew")
        return copy.copy(self)._knowing(self.taught.session(x, np.searchsorted(self.classes, labels), repetitions))

    def _knowing(self, taught: Taught) -> "HierarchicalGaussian":
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
            self.repeated = kinship.evened(self.repeated, EVEN / (EVEN + looks), self._alike)
            self.within, self.looks = (kinship.evened(part, EVENED, self._alike) for part in (self.within, self.looks))
        return self._begun()

    def state(self) -> dict[str, np.ndarray]:
        """All that decides, in float64: of classes that it knows (G, ...); `from_state` is the same again."""
        return {name: np.asarray(getattr(self, name), np.float64) for name in STATE}

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray], taught: Taught | None = None) -> "HierarchicalGaussian":
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
        right = []
        for i in range(len(means)):
            others = np.nanmean(np.delete(means, i, axis=0), axis=0)
            weights = np.linalg.solve(self.within + self.repeated + self.between, others.T)
            there = np.isfinite(means[i]).all(axis=1)
            scores = means[i][there] @ weights - 0.5 * (others.T * weights).sum(axis=0)
            right += (scores.argmax(axis=1) == np.flatnonzero(there)).tolist()
        return float(np.mean(right))

    # === A new session ===

    def begin(self) -> "HierarchicalGaussian":
        """A copy of which a session begins that nothing is known of."""
        return copy.copy(self)._begun()

    def calibrate(self, x: np.ndarray, labels: np.ndarray) -> "HierarchicalGaussian":
        """A copy for the session of these windows (N, D), a repetition with its labels (N,).

        Where one session alone came before, how far sessions differ is read from how far this one's class means are.
        """
        new, c = self.begin(), np.searchsorted(self.classes, labels)
        z = new._centred_by(x)
        seen, counts = self.means.copy(), np.zeros(len(self.classes))
        for k in np.unique(c):
            seen[k], counts[k] = z[c == k].mean(axis=0), 1
        if self.sessions == 1:
            noise, apart = self._noise(), (seen - self.means)[counts > 0].T
            apart = scipy.linalg.solve_triangular(np.linalg.cholesky(noise), apart, lower=True)
            new.between, new._basis = max(float(np.mean(apart**2)) - 1, 0.0) * noise, None
            new._begun()._centred_by(x)
        new._labelled = seen, counts
        new._known_within = (1 - OWN) * self.within + OWN * Scatter.of(z - seen[c]).covariance()
        return new._posterior(seen, counts)

    def adapt(self, x: np.ndarray, iterations: int = 4) -> "HierarchicalGaussian":
        """A copy for the session of these windows (N, D), in order of time, of which no label is known."""
        new = self.begin()
        new._past = new._centred_by(x)
        return new._look_back(iterations) if self.trusted else new

    def _begun(self) -> "HierarchicalGaussian":
        if self._basis is None:
            values, vectors, _ = self._basis = _basis(self.between, self._noise())
            self._kin = kinship.kernel(self.means @ vectors / np.sqrt(values + 1))
        self._mean, self._sd, self._labelled, self._running = self.centre.copy(), self.spread.copy(), None, True
        self._now, self._unknown, self._known_within = self.means, self.between, self.within
        self._past = np.empty((0, len(self.centre)))
        return self._solved()

    def _noise(self) -> np.ndarray:
        """Covariance (D, D) of one repetition's class mean about its session's."""
        return self.repeated + self.looks / NOISE

    def _distance(self, z: np.ndarray) -> float:
        """Mean squared Mahalanobis distance of windows (N, D) from the nearest class of earlier sessions, over D.

        About 0.6 on a new day; 0.8 and more where forces were much lower than learnt, or between unlike people.
        """
        root = np.linalg.cholesky(self.within + self.repeated + self.between)
        z, means = (scipy.linalg.solve_triangular(root, part.T, lower=True).T
                    for part in (z, self.means + self.shift))
        squares = (z**2).sum(axis=1)[:, None] - 2 * z @ means.T + (means**2).sum(axis=1)
        return float(squares.min(axis=1).mean() / z.shape[1])

    def _centred_by(self, x: np.ndarray) -> np.ndarray:
        self._mean, self._sd, self._running = x.mean(axis=0), x.std(axis=0) + LEAST, False
        return (x - self._mean) / self._sd

    def _posterior(self, seen: np.ndarray, counts: np.ndarray) -> "HierarchicalGaussian":
        """Class means from means seen (G, D) that count as so many executions (G,) each."""
        values, vectors, back = self._basis
        apart = (seen - self.means) @ vectors
        moved, left = kinship.posterior(apart, counts, values, self._kin)
        self._now = self.means + moved @ back.T
        self._unknown = (back * left) @ back.T
        return self._solved()

    def _solved(self) -> "HierarchicalGaussian":
        means = self._now + self.shift
        self.weights = np.linalg.solve(self._known_within + self.repeated + self._unknown, means.T)  # (D, G)
        self.bias = -0.5 * (means.T * self.weights).sum(axis=0)
        return self

    def _look_back(self, iterations: int) -> "HierarchicalGaussian":
        """Expectation and maximisation over the session's past windows, if they are like those of earlier sessions."""
        if not len(self._past) or self._distance(self._past) > FAR:
            return self
        past, at = self._past, np.arange(len(self._past))
        low, high = np.maximum(at - NEIGHBOURS, 0), np.minimum(at + NEIGHBOURS + 1, len(past))
        for _ in range(iterations):
            scores = past @ self.weights + self.bias
            scores = np.maximum(scores - scores.max(axis=1, keepdims=True), -30)
            added = np.concatenate([np.zeros((1, scores.shape[1])), np.cumsum(scores, axis=0)])
            soft = softmax(SOFT * (added[high] - added[low]))
            weight = soft.sum(axis=0) + LEAST
            seen, counts = soft.T @ past / weight[:, None], TEMPER * np.minimum(weight / self.execution, CAP)
            if self._labelled is not None:
                known, each = self._labelled
                total = counts + each
                seen, counts = (counts[:, None] * seen + each[:, None] * known) / total[:, None], total
            self._posterior(seen, counts)
        return self

    # === Decisions ===

    @property
    def moved(self) -> bool:
        """Whether the session has moved class means, not only where windows are centred."""
        return bool((self._now != self.means).any())

    def linear(self) -> tuple[np.ndarray, ...]:
        """What decides now: z-score by (D,) and (D,), then weights (D, G) and bias (G,)."""
        return self._mean, self._sd, self.weights, self.bias

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Windows (N, D) of the session, each for itself -> (N, G)."""
        return softmax((x - self._mean) / self._sd @ self.weights + self.bias)

    def stream(self, x: np.ndarray, active: np.ndarray) -> np.ndarray:
        """Windows (N, D) of the session in order of time -> (N, G), going on to learn from what came before each block.

        Causal. Where nothing of the session was given beforehand, its mean and deviation are learnt on the way too.

        Args:
            active: which windows (N,) may be learnt from: those that are louder than rest.
        """
        count, found = PRIOR, []
        total, square = count * self.centre, count * (self.spread**2 + self.centre**2)
        for i in range(0, len(x), BLOCK):
            if self.trusted:
                self._look_back(1)
            block = x[i : i + BLOCK]
            found.append(self.probabilities(block))
            mean, sd = self._mean, self._sd
            block = block[active[i : i + BLOCK]]
            if self._running:
                count, total, square = count + len(block), total + block.sum(axis=0), square + (block**2).sum(axis=0)
                self._mean = total / count
                self._sd = np.sqrt(np.maximum(square / count - self._mean**2, 0)) + LEAST
                self._past = (self._past * sd + mean - self._mean) / self._sd
            self._past = np.concatenate([self._past, (block - self._mean) / self._sd])[-BUFFER:]
        return np.concatenate(found)

    def carried(self, before: "HierarchicalGaussian") -> "HierarchicalGaussian":
        """What `before` becomes after this session, which it began, and of which nothing was told: CARRY of the way."""
        after = copy.copy(before)
        for name, now in (("means", self._now), ("centre", self._mean), ("spread", self._sd)):
            setattr(after, name, getattr(before, name) + CARRY * (now - getattr(before, name)))
        return after._begun()
