"""The prior: what earlier sessions say of a new one before any of its windows is known.

The two-covariance model of speaker recognition (probabilistic LDA: Brümmer, de Villiers 2010), with one more level for
repetitions. A window's description x (D,) of session s, z-scored by the session's mean c and sd d:

    z = (x - c) / d       z | v ~ N(v, W)           windows of one repetition about its mean v
                          v | u ~ N(u, T)           repetition means of a class g about the session's class mean u_g
                          cov(u_g, u_h) = K_gh B    class means about those of all sessions: E u_g = M_g

    M `means`    W `within`    T `repetition`    B `between`    K `kernel`    mean of all c, d: `centre`, `sd`

M is the mean of sessions' class means; W, T and B are the shrunk covariances of rows z - v, v - u and u - M
(`statistics.Scatter`), the last two times sqrt(n / (n - 1)) since n means were subtracted from their own mean.

Basis. With N = T + W / n0, the covariance of one repetition's mean about u, the generalised eigenvectors U of (B, N)
make both diagonal: U' N U = I, U' B U = diag(l). There each direction is independent of the others.

Class kernel. When an armband sits elsewhere, movements that look alike change alike. With m_g = U' M_g / sqrt(l + 1):

    K_gh = (1 - a) [g = h] + a exp(-|m_g - m_h|^2 / (b median over pairs of |m_g - m_h|^2))

This is the intrinsic model of coregionalisation of Gaussian processes (Bonilla, Chai, Williams 2008).

Exchangeable electrodes. How features vary between repetitions hardly depends on the electrode. Of few repetitions T
(and a little W) is shrunk towards its mean over all permutations of the electrodes: entries (i, j) of a covariance that
some permutation exchanges (equal kinds of features, equal number of common electrodes) are averaged. With r the degrees
of freedom of T, the share is f = 1 / (1 + (r / r0)^2): T <- (1 - f) T + f mean(T).

Virtual forces. Training windows at other gains widen W and move the means that decide. With F the covariance of windows
at all forces about their class means, and a share q:  W <- (1 - q) W + q F,  shift = q (class means at all forces - u).

Trust. Unlabelled windows may move class means only where sessions predict each other: where M and W + T + B of the
other sessions decide at least a share of each session's class means right.

Constants marked [dev] were chosen by the accuracy on the development people of three data sets, one value for all.
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import scipy.linalg

from tfkfin.sessions.statistics import Scatter, SessionStatistics, mean_of_sessions

EFFECTIVE_WINDOWS = 8.0  # n0, independent windows that a repetition's overlapping ones count as [dev]
KERNEL_CORRELATION = 0.8  # a, correlation of classes at distance 0 [dev]
KERNEL_WIDTH = 0.5  # b, in median squared distances between classes [dev]
FEW_REPETITIONS = 60.0  # r0, degrees of freedom of T at which half of it is made exchangeable [dev]
EXCHANGEABLE_WITHIN = 0.1  # share of f by which W is made exchangeable: many windows tell W well [dev]
VIRTUAL_SHARE = 0.25  # q, share of virtual forces [dev]
VIRTUAL_GAINS = (0.25, 0.4, 0.65, 1.5)  # factors of the signal's amplitude that stand for other forces [dev]
TRUST_SHARE = 0.9  # least share of class means that other sessions must decide right, for `trusted`

# Names in files -> attributes.
STATE = {"classes": "classes", "sessions": "sessions", "means": "means", "shift": "shift", "within": "within",
         "looks": "within_recorded", "repeated": "repetition", "between": "between", "centre": "centre",
         "spread": "sd", "execution": "repetition_windows", "trusted": "trusted"}


class Basis(NamedTuple):
    """Directions in which B and N are diagonal.

    Attributes:
        variances: l (D,), between sessions; those of a repetition's mean are 1.
        vectors: U (D, D), in columns.
        inverse: N U (D, D), which is U'^-1.
    """

    variances: np.ndarray
    vectors: np.ndarray
    inverse: np.ndarray


def basis(between: np.ndarray, noise: np.ndarray) -> Basis:
    """Of B and N (D, D). Where B is a multiple of N, or zero, no eigenvectors are needed."""
    ratio = float(np.trace(between) / np.trace(noise))
    if np.allclose(between, ratio * noise, rtol=1e-12, atol=0):
        vectors = scipy.linalg.solve_triangular(np.linalg.cholesky(noise).T, np.eye(len(noise)))
        return Basis(np.full(len(noise), ratio), vectors, noise @ vectors)
    variances, vectors = scipy.linalg.eigh(between, noise)
    return Basis(np.maximum(variances, 0), vectors, noise @ vectors)


def class_kernel(means: np.ndarray) -> np.ndarray:
    """K (G, G) of class means (G, D) in the basis. The identity where all classes lie at one place, or there is one."""
    squares = ((means[:, None] - means) ** 2).sum(axis=-1)
    pairs = squares[np.triu_indices(len(means), 1)]
    if not len(pairs) or not (median := float(np.median(pairs))) > 0:
        return np.eye(len(means))
    return (1 - KERNEL_CORRELATION) * np.eye(len(means)) + KERNEL_CORRELATION * np.exp(
        -squares / (KERNEL_WIDTH * median))


def exchangeable(covariance: np.ndarray, layout: np.ndarray) -> np.ndarray:
    """A covariance (D, D) averaged over all permutations of the electrodes.

    Args:
        layout: of each feature (D, 3) its kind, a number that is the same for all electrodes or pairs of them, and the
            numbers of the two electrodes that it is of, or of one twice.
    """
    kinds, electrodes = np.asarray(layout, int)[:, 0], np.asarray(layout, int)[:, 1:]
    member = (np.arange(electrodes.max() + 1) == electrodes[..., None]).any(axis=1).astype(int)
    common = member @ member.T  # 0, 1 or 2 electrodes
    entries = 3 * (kinds[:, None] * (1 + kinds.max()) + kinds) + common
    _, index = np.unique(entries, return_inverse=True)
    index = index.reshape(entries.shape)
    return (np.bincount(index.ravel(), covariance.ravel()) / np.bincount(index.ravel()))[index]


class SessionPrior:
    """Class means, and how they vary between sessions, repetitions and windows.

    Attributes:
        classes: labels, ascending (G,).
        sessions: how many sessions it was fitted to.
        means: M (G, D); shift: what virtual forces add to it when it decides (G, D).
        within: W (D, D); within_recorded: W without virtual forces; repetition: T; between: B.
        centre, sd: z-score that a new session begins with (D,).
        repetition_windows: windows of a repetition, mean.
        trusted: whether unlabelled windows may move class means.
        statistics: of each session, for `add_session`; None where a file of an early version lacks them.
        basis, kernel: U and l; K (G, G).
    """

    statistics: SessionStatistics | None
    _whitening: tuple[np.ndarray, np.ndarray] | None = None  # Cholesky factor of W + T + B, and class means by it

    def fit(self, x: np.ndarray, labels: np.ndarray, sessions: np.ndarray, repetitions: np.ndarray,
            virtual: Sequence[np.ndarray] = (), layout: np.ndarray | None = None) -> Self:
        """Estimates the prior from windows (N, D), their labels, sessions and repetitions (N,).

        Args:
            virtual: virtual forces: descriptions (N, D) of the same windows at other gains, one array a gain.
            layout: kinds and electrodes of the features (D, 3), as of `exchangeable`; None: electrodes are not taken to
                be exchangeable.
        """
        self.classes, index = np.unique(labels, return_inverse=True)
        statistics = SessionStatistics.empty(len(self.classes), x.shape[1], layout)
        for own in (sessions == session for session in np.unique(sessions)):
            statistics = statistics.add_session(x[own], index[own], repetitions[own], [rows[own] for rows in virtual])
        return self._estimate(statistics)

    def add_session(self, x: np.ndarray, labels: np.ndarray, repetitions: np.ndarray,
                    virtual: Sequence[np.ndarray] = ()) -> Self:
        """A copy with one more session: what `fit` makes of all of them. Without `virtual` the virtual forces of the
        sessions before go on to count.

        Raises:
            ValueError: the statistics of single sessions are not there.
        """
        if self.statistics is None:
            raise ValueError("`statistics` of single sessions are needed to add another: fit anew. Received: None")
        index = np.searchsorted(self.classes, labels)
        return copy.copy(self)._estimate(self.statistics.add_session(x, index, repetitions, virtual))

    def state(self) -> dict[str, np.ndarray]:
        """All that decides, float64, by names in files."""
        return {name: np.asarray(getattr(self, attribute), np.float64) for name, attribute in STATE.items()}

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray], statistics: SessionStatistics | None = None) -> Self:
        """What `state` gave. Without `statistics` no session can be added."""
        new = cls()
        for name, attribute in STATE.items():
            setattr(new, attribute, np.asarray(state[name], np.float64))
        new.statistics, new.classes, new.sessions = statistics, new.classes.astype(np.int64), int(new.sessions)
        new.trusted, new.repetition_windows = bool(new.trusted), float(new.repetition_windows)
        return new._decompose()

    def interpolated(self, share: float, **others: np.ndarray) -> Self:
        """A copy of which the attributes named are moved a share of the way to these values."""
        new = copy.copy(self)
        for name, value in others.items():
            setattr(new, name, getattr(self, name) + share * (value - getattr(self, name)))
        return new._decompose()

    def decided_right(self, means: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Which class means (G, D) of a session are decided right by those of others (G, D): (how many both have,).

        A class that one of them lacks is nan there: it is neither decided nor among the answers.
        """
        known = np.flatnonzero(np.isfinite(others).all(axis=1))
        shown = known[np.isfinite(means[known]).all(axis=1)]
        weights = np.linalg.solve(self.within + self.repetition + self.between, others[known].T)
        scores = means[shown] @ weights - 0.5 * (others[known].T * weights).sum(axis=0)
        return known[scores.argmax(axis=1)] == shown

    def distance(self, z: np.ndarray) -> float:
        """Mean squared Mahalanobis distance of windows (N, D) from the nearest class, over D.

        About 0.6 on a new day; 0.8 and more at much lower forces than in training, or between unlike people.
        """
        if self._whitening is None:
            root = np.linalg.cholesky(self.within + self.repetition + self.between)
            self._whitening = root, scipy.linalg.solve_triangular(root, (self.means + self.shift).T, lower=True).T
        root, means = self._whitening
        z = scipy.linalg.solve_triangular(root, z.T, lower=True).T
        squares = (z**2).sum(axis=1)[:, None] - 2 * z @ means.T + (means**2).sum(axis=1)
        return float(squares.min(axis=1).mean() / z.shape[1])

    def _estimate(self, statistics: SessionStatistics) -> Self:
        self.statistics, self.sessions = statistics, len(statistics.means)
        self.repetition_windows = max(float(statistics.within.count / statistics.repetitions), 1.0)
        self.centre, self.sd = statistics.centres.mean(axis=0), statistics.sds.mean(axis=0)
        self.means, self.shift = mean_of_sessions(statistics.means), np.zeros(statistics.means.shape[1:])
        self.within = self.within_recorded = statistics.within.covariance()
        self.repetition, self.between = statistics.repetition.covariance(), np.zeros_like(self.within)
        if self.sessions > 1:
            rows = (statistics.means - self.means) * np.sqrt(self.sessions / (self.sessions - 1))
            self.between = Scatter.of(rows[np.isfinite(rows).all(axis=2)]).covariance()
        self.trusted = self._predicts_sessions()
        if len(statistics.virtual_shifts):
            self.shift = VIRTUAL_SHARE * np.nan_to_num(mean_of_sessions(statistics.virtual_shifts))
            self.within = (1 - VIRTUAL_SHARE) * self.within + VIRTUAL_SHARE * statistics.virtual.covariance()
        if len(statistics.layout):
            freedom = float(statistics.repetitions - np.isfinite(statistics.means).all(axis=2).sum())
            share = 1 / (1 + (freedom / FEW_REPETITIONS) ** 2)
            for name, part in (("repetition", share), ("within", EXCHANGEABLE_WITHIN * share),
                               ("within_recorded", EXCHANGEABLE_WITHIN * share)):
                own = getattr(self, name)
                setattr(self, name, (1 - part) * own + part * exchangeable(own, statistics.layout))
        return self._decompose()

    def _predicts_sessions(self) -> bool:
        """Whether each session's class means are decided right by the mean of the others', often enough."""
        means = self.statistics.means
        if self.sessions < 2:
            return False
        right = np.concatenate([self.decided_right(own, mean_of_sessions(np.delete(means, i, axis=0)))
                                for i, own in enumerate(means)])
        return bool(len(right) and right.mean() >= TRUST_SHARE)

    def _decompose(self) -> Self:
        self._whitening = None
        noise = self.repetition + self.within_recorded / EFFECTIVE_WINDOWS
        self.basis = basis(self.between, noise)
        self.kernel = class_kernel(self.means @ self.basis.vectors / np.sqrt(self.basis.variances + 1))
        return self
