"""Windows as covariance matrices, seen from a Riemannian mean, by pyriemann (the extra `[riemann]`).

`transfer.Discriminant` takes these in place of descriptions and their z-scores. References: Barachant et al., IEEE TBME
59:920, 2012 (tangent space); Zanini et al., IEEE TBME 65:1107, 2018 (recentring each session by its own mean).
"""

import importlib.util
from collections.abc import Callable

import numpy as np

from tfkfin.experiments.sessions import Session
from tfkfin.experiments.transfer import PRIOR, Known, Learnt, over
from tfkfin.features import describe

BLOCK = 20  # windows after which the mean of a stream so far is moved
TOLERANCE = 1e-6  # of a mean, in units of the logarithm


def installed() -> bool:
    return importlib.util.find_spec("pyriemann") is not None


def covariances(session: Session) -> np.ndarray:
    """Covariances of all of a session's windows (N, C, C), shrunk by `oas`, computed once."""
    def regular(windows: np.ndarray, rate_hz: float) -> np.ndarray:
        return oas(describe.covariances(windows.astype(np.float64)), windows.shape[1])

    return session.kept("covariances", lambda: over(session, regular))


def oas(matrices: np.ndarray, samples: int) -> np.ndarray:
    """Covariances (N, C, C) of so many samples each, shrunk towards a multiple of the identity, all at once.

    Reference: Chen et al., IEEE Trans. Signal Process. 58:5016, 2010, as pyriemann has it from scikit-learn, which goes
    window by window: minutes for a person of many days.
    """
    channels = matrices.shape[-1]
    mean, square = np.trace(matrices, axis1=1, axis2=2) / channels, np.mean(matrices**2, axis=(1, 2))
    apart = (samples + 1) * (square - mean**2 / channels)
    share = np.where(apart > 0, np.minimum(1, (square + mean**2) / np.where(apart > 0, apart, 1)), 1)[:, None, None]
    # a window of zeros has a logarithm too
    return (1 - share) * matrices + (share * mean[:, None, None] + 1e-30) * np.eye(channels)


def mean(matrices: np.ndarray) -> np.ndarray:
    """Riemannian mean (C, C) of (N, C, C)."""
    from pyriemann.geometry.mean import mean_riemann

    return mean_riemann(matrices, tol=TOLERANCE)


class Tangents:
    """Covariances in the tangent space at the mean of all that is learnt from: `transfer.Uncentred` for matrices."""

    def __init__(self, see: Callable[[Session], np.ndarray], learnt: Learnt):
        self.see = see
        self._mean = mean(np.concatenate([see(session)[chosen] for session, chosen in learnt]))

    def centred(self, session: Session, known: Known | None) -> np.ndarray:
        """Vectors (N, C (C + 1) / 2)."""
        return _seen_from(self._mean, self.see(session))


class Recentred:
    """The same at each session's own mean, which whitens it: `transfer.Centres` for matrices.

    Where nothing is known of a session, its mean is that of the stream so far, with earlier sessions' as prior.
    """

    def __init__(self, see: Callable[[Session], np.ndarray], learnt: Learnt):
        self.see = see
        self._own = {(s.person, s.number): mean(see(s)[chosen]) for s, chosen in learnt}
        self._prior = mean(np.stack([*self._own.values()]))

    def centred(self, session: Session, known: Known | None) -> np.ndarray:
        """Vectors (N, C (C + 1) / 2): at the mean of the known windows, of what was learnt here, or causally."""
        x = self.see(session)
        if known is not None:
            return _seen_from(mean(x[known.windows]), x)
        own = self._own.get((session.person, session.number))
        return _seen_from(own, x) if own is not None else running(x, self._prior)


def running(matrices: np.ndarray, prior_mean: np.ndarray, prior: int = PRIOR) -> np.ndarray:
    """Each matrix (N, C, C) seen from a mean that the blocks before have moved: (N, C (C + 1) / 2).

    The mean goes along the mean of a block's vectors, by the block's share of all windows so far; `prior_mean` counts
    as `prior` of them.
    """
    from pyriemann.geometry.tangentspace import untangent_space

    parts, centre, count = [], prior_mean, prior
    for i in range(0, len(matrices), BLOCK):
        parts.append(_seen_from(centre, matrices[i : i + BLOCK]))
        count += len(parts[-1])
        centre = untangent_space(parts[-1].mean(axis=0, keepdims=True) * len(parts[-1]) / count, centre)[0]
    return np.concatenate(parts)


def _seen_from(centre: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    from pyriemann.geometry.tangentspace import tangent_space

    return tangent_space(matrices, centre)
