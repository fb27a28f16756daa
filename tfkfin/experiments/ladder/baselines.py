"""Baselines: scikit-learn estimators on closed-form descriptions that know which session a window is of.

`fit(x, y, sessions=)` trains on windows of several sessions, `calibrate(x, y)` returns a new estimator for the session
of these windows, labelled or not (`y=None`), and `predict_proba(x)` decides a session's windows in order of time. As in
`sklearn.semi_supervised`, the label -1 says that a window has none: it counts where a session is centred, no more.

Partial recentring: before anything is known of a session, window n is z-scored by mean and sd of windows 1 ... n and of
the prior, which counts as `prior` windows,

    mean_n = (p m + sum x) / (p + n)    sd_n^2 = (p (s^2 + m^2) + sum x^2) / (p + n) - mean_n^2

where m and s are the mean over training sessions of each one's own mean and sd.

References: Barachant et al., IEEE TBME 59:920, 2012 (tangent space); Zanini et al., IEEE TBME 65:1107, 2018 (recentring
each session at its own mean); both by pyriemann (the extra `[riemann]`).
"""

import copy
import importlib.util
from collections.abc import Callable
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from tfkfin.features import describe
from tfkfin.nets.lda import lda
from tfkfin.sessions.online import stream
from tfkfin.sessions.posterior import SessionPosterior, softmax
from tfkfin.sessions.prior import SessionPrior

UNLABELLED = -1
BLOCK = 20  # windows after which the running Riemannian mean is moved
TOLERANCE = 1e-6  # of a Riemannian mean, in units of the logarithm


def riemann_installed() -> bool:
    return importlib.util.find_spec("pyriemann") is not None


# === Descriptions: windows (N, L, C) and their rate in Hz -> (N, D), or matrices (N, C, C) ===


def tdar_cov(windows: np.ndarray, rate_hz: float) -> np.ndarray:
    return np.concatenate([describe.time_domain(windows, rate_hz), describe.tangent_space(windows, rate_hz)], axis=1)


def covariances(windows: np.ndarray, rate_hz: float) -> np.ndarray:
    """Covariance matrices (N, C, C), shrunk by `oas`."""
    return oas(describe.covariances(windows.astype(np.float64)), windows.shape[1])


def oas(matrices: np.ndarray, samples: int) -> np.ndarray:
    """Covariances (N, C, C) of so many samples each, shrunk towards a multiple of the identity.

    Reference: Chen et al., IEEE Trans. Signal Process. 58:5016, 2010, as in `sklearn.covariance.oas`, which takes one
    matrix at a time and so minutes for a person of many days.
    """
    channels = matrices.shape[-1]
    mean, square = np.trace(matrices, axis1=1, axis2=2) / channels, np.mean(matrices**2, axis=(1, 2))
    apart = (samples + 1) * (square - mean**2 / channels)
    share = np.where(apart > 0, np.minimum(1, (square + mean**2) / np.where(apart > 0, apart, 1)), 1)[:, None, None]
    # 1e-30: a window of zeros has a logarithm too
    return (1 - share) * matrices + (share * mean[:, None, None] + 1e-30) * np.eye(channels)


# === Centrings: how the windows of a session are centred ===


class Uncentred:
    """Leaves windows as they are. The base of the other centrings."""

    def fit(self, x: np.ndarray, sessions: np.ndarray) -> Self:
        """Takes the mean of each session."""
        self._own = {session: self._mean(x[sessions == session]) for session in np.unique(sessions).tolist()}
        return self

    def at(self, x: np.ndarray) -> Self:
        """A copy for the session of these windows, which know its mean."""
        new = copy.copy(self)
        new._known = self._mean(x)
        return new

    def __call__(self, x: np.ndarray, session: object = None) -> np.ndarray:
        """Centred windows: by what is known of the session, or as trained on where it is one of those, or causally."""
        known = self._own.get(session, self._known)
        return self._running(x) if known is None else self._centred(x, known)

    _known = None

    def _mean(self, x: np.ndarray) -> object:
        """What windows are centred by."""
        return ()

    def _centred(self, x: np.ndarray, mean: object) -> np.ndarray:
        return x

    def _running(self, x: np.ndarray) -> np.ndarray:
        return x


class ZScored(Uncentred):
    """Z-scores the windows of each session by their own mean and sd; `prior` as of partial recentring."""

    def __init__(self, prior: int):
        self.prior = prior

    def _mean(self, x):
        return x.mean(axis=0), x.std(axis=0) + 1e-9

    def _centred(self, x, mean):
        return (x - mean[0]) / mean[1]

    def _running(self, x):
        mean, sd = (np.mean(part, axis=0) for part in zip(*self._own.values(), strict=True))
        count = self.prior + np.arange(1, len(x) + 1)[:, None]
        means = (self.prior * mean + np.cumsum(x, axis=0)) / count
        squares = (self.prior * (sd**2 + mean**2) + np.cumsum(x**2, axis=0)) / count
        return (x - means) / np.sqrt(np.maximum(squares - means**2, 1e-12))


class TangentSpace(Uncentred):
    """Covariance matrices (N, C, C) in the tangent space at the mean of all training windows: (N, C (C + 1) / 2)."""

    def fit(self, x, sessions):
        self._own, self._known = {}, _riemannian_mean(x)
        return self

    def at(self, x):
        return self

    def _centred(self, x, mean):
        return _tangent(x, mean)


class RecentredTangentSpace(Uncentred):
    """The same at the mean of each session, which whitens it; `prior` as of partial recentring.

    The running mean is moved after each block, along the mean of its tangent vectors, by its share of all windows.
    """

    def __init__(self, prior: int):
        self.prior = prior

    def _mean(self, x):
        return _riemannian_mean(x)

    def _centred(self, x, mean):
        return _tangent(x, mean)

    def _running(self, x):
        from pyriemann.geometry.tangentspace import untangent_space

        parts, mean, count = [], _riemannian_mean(np.stack([*self._own.values()])), self.prior
        for i in range(0, len(x), BLOCK):
            parts.append(_tangent(x[i : i + BLOCK], mean))
            count += len(parts[-1])
            mean = untangent_space(parts[-1].mean(axis=0, keepdims=True) * len(parts[-1]) / count, mean)[0]
        return np.concatenate(parts)


def _riemannian_mean(matrices: np.ndarray) -> np.ndarray:
    from pyriemann.geometry.mean import mean_riemann

    return mean_riemann(matrices, tol=TOLERANCE)


def _tangent(matrices: np.ndarray, mean: np.ndarray) -> np.ndarray:
    from pyriemann.geometry.tangentspace import tangent_space

    return tangent_space(matrices, mean)


# === Classifiers ===


class SessionLDA(ClassifierMixin, BaseEstimator):
    """LDA with a covariance shrunk by Ledoit and Wolf (2004), on the centred windows of all sessions.

    Calibrated with labels, these windows weigh as much as all sessions before.

    Args:
        centring: makes the centring, such as `Uncentred`.
    """

    def __init__(self, centring: Callable[[], Uncentred] = Uncentred):
        self.centring = centring

    def fit(self, x: np.ndarray, y: np.ndarray, sessions: np.ndarray | None = None,
            repetitions: np.ndarray | None = None) -> Self:
        """Trains on windows (N, ...), their labels (N,) and sessions (N,); None: they are of one."""
        sessions = np.zeros(len(x), int) if sessions is None else np.asarray(sessions)
        self.centring_, rows = self.centring().fit(x, sessions), []
        for session in np.unique(sessions).tolist():
            own = sessions == session
            labelled = own & (y != UNLABELLED)
            rows.append((self.centring_(x[own], session)[labelled[own]], y[labelled]))
        self._x, self._y = (np.concatenate(part) for part in zip(*rows, strict=True))
        return self._solve(self._x, self._y)

    def calibrate(self, x: np.ndarray, y: np.ndarray | None = None) -> Self:
        """A new estimator for the session of these windows (N, ...), with their labels (N,) or without."""
        new = copy.copy(self)
        new.centring_ = self.centring_.at(x)
        if y is None:
            return new
        own = new.centring_(x)[y != UNLABELLED], y[y != UNLABELLED]
        times = max(1, len(self._x) // max(1, len(own[0])))
        return new._solve(np.concatenate([self._x, *[own[0]] * times]), np.concatenate([self._y, *[own[1]] * times]))

    def predict_proba(self, x: np.ndarray, session: object = None) -> np.ndarray:
        """Probabilities (N, G) of windows of one session in order of time.

        Args:
            session: its name, if `fit` had windows of this very session.
        """
        return self.model_.predict_proba(self.centring_(x, session))

    def predict(self, x: np.ndarray, session: object = None) -> np.ndarray:
        return self.classes_[self.predict_proba(x, session).argmax(axis=1)]

    def _solve(self, x: np.ndarray, y: np.ndarray) -> Self:
        self.model_ = lda().fit(x, y)
        self.classes_ = self.model_.classes_
        return self


class Hierarchical(ClassifierMixin, BaseEstimator):
    """The hierarchical Gaussian of `tfkfin.sessions`, solved in closed form: labels alone move class means.

    Without labels it only recentres a session.
    """

    def fit(self, x: np.ndarray, y: np.ndarray, sessions: np.ndarray | None = None,
            repetitions: np.ndarray | None = None) -> Self:
        """As of `SessionLDA`; `repetitions` (N,) of the windows; None: each session has one."""
        sessions, repetitions = (np.zeros(len(x), int) if part is None else np.asarray(part)
                                 for part in (sessions, repetitions))
        kept = y != UNLABELLED
        self.model_ = SessionPrior().fit(x[kept], y[kept], sessions[kept], repetitions[kept])
        self.model_.trusted = False
        self.classes_, self._sessions, self._decide = self.model_.classes, set(sessions.tolist()), None
        return self

    def calibrate(self, x: np.ndarray, y: np.ndarray | None = None) -> Self:
        """As of `SessionLDA`."""
        new = copy.copy(self)
        if y is not None:
            new._decide = SessionPosterior(self.model_).update(x[y != UNLABELLED], y[y != UNLABELLED]).probabilities
            return new
        *_, weights, bias = SessionPosterior(self.model_).linear()
        mean, sd = x.mean(axis=0), x.std(axis=0) + 1e-9
        new._decide = lambda later: softmax((later - mean) / sd @ weights + bias)
        return new

    def predict_proba(self, x: np.ndarray, session: object = None) -> np.ndarray:
        """As of `SessionLDA`."""
        if self._decide is not None:
            return self._decide(x)
        if session in self._sessions:
            return SessionPosterior(self.model_).probabilities(x)
        return stream(SessionPosterior(self.model_), x, np.ones(len(x), bool))

    def predict(self, x: np.ndarray, session: object = None) -> np.ndarray:
        return self.classes_[self.predict_proba(x, session).argmax(axis=1)]
