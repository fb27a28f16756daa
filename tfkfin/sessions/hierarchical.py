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

import numpy as np
import scipy.linalg

from tfkfin.sessions import kinship
from tfkfin.sessions.moments import Moments
from tfkfin.sessions.onwards import Onwards
from tfkfin.sessions.prior import GATE, Prior
from tfkfin.sessions.taught import LEAST

SOFT = 0.3  # how much a window's log-odds count in soft labels
NEIGHBOURS = 7  # windows to either side whose log-odds are added up
TEMPER = 0.7  # of softly labelled windows' weight
CAP = 2.0  # executions of a class that unlabelled windows may count as
OWN = 0.5  # share of a labelled session's own covariance within repetitions
FAR = 0.75  # mean squared distance of windows from the nearest class, a dimension, beyond which they move nothing
REACH = 2.0  # how far unlabelled windows may move a class mean, see `moves`
SHIFTED, WIDENED = 5.0, 20.0  # how far they may move the centre, in deviations, and how much these may change
FEW, EACH = 4.0, 50.0  # classes, and windows of each, that what a session begins with counts as, if one alone is seen
CARRY = 0.25  # how far an unlabelled session moves what the next one begins with
BUFFER = 4000  # windows looked back at
PRIOR = 50.0  # windows that what a session begins with counts as, where its own are centred on the way
GAINS = (0.25, 0.4, 0.65, 1.5)  # of virtual forces


def softmax(scores: np.ndarray) -> np.ndarray:
    found = np.exp(scores - scores.max(axis=1, keepdims=True))
    return found / found.sum(axis=1, keepdims=True)


def absent(weights: np.ndarray) -> float:
    """The share of classes that lack, by how unevenly windows are spread (G,): entropy's number of those there."""
    share = weights / weights.sum()
    return float(1 - np.exp(-(share * np.log(share + 1e-12)).sum()) / len(share))


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


class HierarchicalGaussian(Prior):
    """A decoder of descriptions (N, D); `fit` it, then take a new session with `begin`, `calibrate` or `adapt`.

    Its attributes are those of `Prior`; `start` is the mean and deviation (D,) that a session began with, and how many
    of its windows they count as.
    """

    # === A new session ===

    def begin(self) -> "HierarchicalGaussian":
        """A copy of which a session begins that nothing is known of."""
        return copy.copy(self)._begun()

    def calibrate(self, x: np.ndarray, labels: np.ndarray) -> "HierarchicalGaussian":
        """A copy for the session of these windows (N, D), a repetition with its labels (N,).

        Where one session alone came before, how far sessions differ is read from how far this one's class means are.
        """
        return self.begin().update(x, labels)

    def update(self, x: np.ndarray, labels: np.ndarray) -> "HierarchicalGaussian":
        """Takes in more labelled windows (N, D) of this session: it then is as if calibrated on all of them at once.

        Exact, since all that a calibration asks of windows are their `Moments`; no window is kept.
        """
        told, mean, sd = self._told, self._mean, self._sd
        told.add(x, np.searchsorted(self.classes, labels))
        counts = (told.counts > 0).astype(float)
        self._mean, self._sd = self._placed(*told.whole(), told.counts, 1 - counts.mean())
        self._past = (self._past * sd + mean - self._mean) / self._sd
        seen, own = told.about(self._mean, self._sd)
        self.start = self._mean, self._sd, told.counts.sum()
        if self.sessions == 1:
            _, vectors, back = self._basis
            apart = (seen - self.means)[counts > 0] @ vectors
            self._basis = np.full(len(mean), max(float(np.mean(apart**2)) - 1, 0.0)), vectors, back
            self.between = self._basis[0][0] * self._noise()
        self._labelled = np.where(counts[:, None] > 0, seen, self.means), counts
        self._known_within = (1 - OWN) * self.within + OWN * own
        return self._posterior(*self._labelled)

    def adapt(self, x: np.ndarray, iterations: int = 4) -> "HierarchicalGaussian":
        """A copy for the session of these windows (N, D), in order of time, of which no label is known.

        Bounded: a feature's centre moves at most SHIFTED deviations and its deviation changes at most WIDENED-fold, a
        class mean `moves` at most REACH; none moves where earlier sessions do not predict each other's (GATE), or where
        these windows are far from them (FAR). Which movements lack is read from the soft labels.
        """
        new, mean, variance = self.begin(), x.mean(axis=0), x.var(axis=0)
        weight = np.full(len(self.classes), len(x) / len(self.classes))
        for i in range(iterations + 1):
            soft = new._soft() if i else None
            weight = weight if soft is None else soft.sum(axis=0)
            new._mean, new._sd = self._bounded(*self._placed(mean, variance, weight, absent(weight)))
            new._past = (x - new._mean) / new._sd
            if soft is not None and self.trusted:
                new._expect(soft)
        if new.moved and new._distance(new._past) > FAR:
            new._now, new._unknown, new._left = self.means, self.between, None
        new.start = new._mean, new._sd, len(x)
        return new._solved()

    def _begun(self) -> "HierarchicalGaussian":
        if self._basis is None:
            values, vectors, _ = self._basis = _basis(self.between, self._noise())
            self._kin = kinship.kernel(self.means @ vectors / np.sqrt(values + 1))
        self._mean, self._sd, self._labelled = self.centre.copy(), self.spread.copy(), None
        self.start = self._mean, self._sd, PRIOR
        self._now, self._unknown, self._known_within = self.means, self.between, self.within
        self._left = None
        self._past, self._told = np.empty((0, len(self.centre))), Moments(*self.means.shape)
        return self._solved()

    def _distance(self, z: np.ndarray) -> float:
        """Mean squared Mahalanobis distance of windows (N, D) from the nearest class of earlier sessions, over D.

        About 0.6 on a new day; 0.8 and more where forces were much lower than learnt, or between unlike people.
        """
        root = np.linalg.cholesky(self.within + self.repeated + self.between)
        z, means = (scipy.linalg.solve_triangular(root, part.T, lower=True).T
                    for part in (z, self.means + self.shift))
        squares = (z**2).sum(axis=1)[:, None] - 2 * z @ means.T + (means**2).sum(axis=1)
        return float(squares.min(axis=1).mean() / z.shape[1])

    def _placed(self, mean: np.ndarray, variance: np.ndarray, counts: np.ndarray,
                lacking: float) -> tuple[np.ndarray, np.ndarray]:
        """Centre and deviation (D,) of a session from windows that show a part of its movements.

        A session of all movements is z-scored by its windows. Those of some lie elsewhere and are less wide: by as much
        of what earlier sessions' class means say as movements are lacking; and the fewer there are, the more what a
        session begins with counts. Where none is lacking, this is the windows' mean and deviation.

        Args:
            mean, variance: of the windows (D,).
            counts: windows of each class (G,).
            lacking: share of movements, 0 to 1.
        """
        total, few = counts.sum(), FEW * lacking**3
        apart = (self.repeated + (self.between if self.sessions > 1 else 0)).diagonal()
        where, wide = [], []
        for share in (counts / total, np.full(len(counts), 1 / len(counts))):
            where.append(share @ self.means)
            wide.append(self.looks.diagonal() + share @ (self.means - where[-1]) ** 2 + (1 - share @ share) * apart)
        ratio = (wide[0] / wide[1]) ** lacking
        sd = np.sqrt((total * variance / ratio + EACH * few * self.spread**2) / (total + EACH * few)) + LEAST
        there = len(counts) * (1 - lacking)
        centre = mean - lacking * sd * (where[0] - where[1])
        return (there * centre + few * self.centre) / (there + few), sd

    def _bounded(self, centre: np.ndarray, sd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """No farther than SHIFTED deviations from what a session begins with, no narrower or wider than WIDENED.

        That is what earlier sessions say, or what labels told of this one.
        """
        about, spread = (self.centre, self.spread) if self._labelled is None else self.start[:2]
        return (np.clip(centre, about - SHIFTED * spread, about + SHIFTED * spread),
                np.clip(sd, spread / WIDENED, spread * WIDENED))

    def _posterior(self, seen: np.ndarray, counts: np.ndarray, reach: float = np.inf) -> "HierarchicalGaussian":
        """Class means from means seen (G, D) that count as so many executions (G,); none `moves` beyond `reach`."""
        values, vectors, back = self._basis
        moved, left = kinship.posterior((seen - self.means) @ vectors, counts, values, self._kin)
        moved = moved * np.minimum(reach / (self._reached(moved) + LEAST), 1)[:, None]
        self._now = self.means + moved @ back.T
        if self._left is None or not np.array_equal(left, self._left):  # as a rule it is what it was an update before
            self._unknown, self._left = (back * left) @ back.T, left
        return self._solved()

    def _reached(self, moved: np.ndarray) -> np.ndarray:
        """As `moves`, of moves (G, D) in the directions of `_basis`."""
        values = self._basis[0]
        there = values > 0
        return np.sqrt((moved[:, there] ** 2 / values[there]).mean(axis=1)) if there.any() else np.zeros(len(moved))

    def _solved(self) -> "HierarchicalGaussian":
        means = self._now + self.shift
        self.weights = np.linalg.solve(self._known_within + self.repeated + self._unknown, means.T)  # (D, G)
        self.bias = -0.5 * (means.T * self.weights).sum(axis=0)
        return self

    def _soft(self) -> np.ndarray:
        """Soft labels (N, G) of the session's past windows, added up over neighbours in time."""
        past, at = self._past, np.arange(len(self._past))
        low, high = np.maximum(at - NEIGHBOURS, 0), np.minimum(at + NEIGHBOURS + 1, len(past))
        scores = past @ self.weights + self.bias
        scores = np.maximum(scores - scores.max(axis=1, keepdims=True), -30)
        added = np.concatenate([np.zeros((1, scores.shape[1])), np.cumsum(scores, axis=0)])
        return softmax(SOFT * (added[high] - added[low]))

    def _expect(self, soft: np.ndarray) -> None:
        """Class means by soft labels (N, G) of the past windows and by labelled ones, if there are any."""
        weight = soft.sum(axis=0) + LEAST
        apart = soft.T @ self._past / weight[:, None] - self.means
        counts = TEMPER * np.minimum(weight / self.execution, CAP)
        seen, reach = self.means + apart, REACH
        if self._labelled is not None:
            known, each = self._labelled
            total = counts + each
            seen, counts = (counts[:, None] * seen + each[:, None] * known) / total[:, None], total
            reach = np.inf  # as far as labels say
        self._posterior(seen, counts, reach)

    # === Decisions ===

    @property
    def moved(self) -> bool:
        """Whether the session has moved class means, not only where windows are centred."""
        return bool((self._now != self.means).any())

    @property
    def moves(self) -> np.ndarray:
        """How far each class mean (G,) has moved, in deviations of how sessions differ: root mean square of directions.

        Without labels at most REACH.
        """
        return self._reached((self._now - self.means) @ self._basis[1])

    def linear(self) -> tuple[np.ndarray, ...]:
        """What decides now: z-score by (D,) and (D,), then weights (D, G) and bias (G,)."""
        return self._mean, self._sd, self.weights, self.bias

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Windows (N, D) of the session, each for itself -> (N, G)."""
        return softmax((x - self._mean) / self._sd @ self.weights + self.bias)

    def stream(self, x: np.ndarray, active: np.ndarray) -> np.ndarray:
        """Windows (N, D) of the session in order of time -> (N, G), by `Onwards`, which changes it."""
        onwards = Onwards(self)
        found = onwards(x, active)
        onwards.end()
        return found

    def look_back(self) -> None:
        """Moves class means by what the session's past windows are like, if these are to be trusted."""
        if self.trusted and len(self._past) and self._distance(self._past) <= FAR:
            self._expect(self._soft())

    def recentre(self, latest: int) -> None:
        """Centres a session by the latest of its past windows, and by what it began with.

        Each class counts as at most CAP executions, as far as soft labels tell: one that is held for long does not draw
        the centre to itself. Where labels told the centre it stays, unless they bear earlier sessions out (GATE).
        """
        if not latest or not self._borne_out():
            return
        past, soft = self._past[-latest:], self._soft()[-latest:]
        weight = soft @ np.minimum(1, CAP * self.execution / (soft.sum(axis=0) + LEAST))
        x, (mean, sd, count) = past * self._sd + self._mean, self.start
        total = count + weight.sum()
        centre = (count * mean + weight @ x) / total
        square = (count * (sd**2 + mean**2) + weight @ x**2) / total
        mean, sd = self._bounded(centre, np.sqrt(np.maximum(square - centre**2, 0)))
        self._past = (self._past * self._sd + self._mean - mean) / sd
        self._mean, self._sd = mean, sd

    def _borne_out(self) -> bool:
        if self._labelled is None:
            return True
        seen, counts = self._labelled
        called = self._called(np.where(counts[:, None] > 0, seen, np.nan), self.means)
        return self.trusted and called.mean() >= GATE

    def remember(self, x: np.ndarray) -> None:
        """Adds windows (N, D) to the session's past."""
        self._past = np.concatenate([self._past, (x - self._mean) / self._sd])[-BUFFER:]

    def carried(self, before: "HierarchicalGaussian") -> "HierarchicalGaussian":
        """What `before` becomes after this session, which it began, and of which nothing was told: CARRY of the way."""
        after = copy.copy(before)
        for name, now in (("means", self._now), ("centre", self._mean), ("spread", self._sd)):
            setattr(after, name, getattr(before, name) + CARRY * (now - getattr(before, name)))
        return after._begun()
