"""Earlier names of `prior`, `posterior` and `online`, until the ladder's rows are decoders."""

import numpy as np

from tfkfin.sessions import online
from tfkfin.sessions.posterior import MAX_MEAN_SHIFT as REACH  # noqa: F401
from tfkfin.sessions.posterior import SessionPosterior, softmax  # noqa: F401
from tfkfin.sessions.prior import VIRTUAL_GAINS as GAINS  # noqa: F401
from tfkfin.sessions.prior import SessionPrior


class _Session(SessionPosterior):
    def stream(self, x: np.ndarray, active: np.ndarray) -> np.ndarray:
        return online.stream(self, x, active)

    def carried(self, before: "HierarchicalGaussian") -> "HierarchicalGaussian":
        return self.next_prior()


class HierarchicalGaussian(SessionPrior):
    """A prior that begins its sessions."""

    def begin(self) -> _Session:
        return _Session(self)

    def calibrate(self, x: np.ndarray, labels: np.ndarray) -> _Session:
        return self.begin().update(x, labels)

    def adapt(self, x: np.ndarray) -> _Session:
        return self.begin().adapt(x)

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        return self.begin().probabilities(x)

    def stream(self, x: np.ndarray, active: np.ndarray) -> np.ndarray:
        return self.begin().stream(x, active)
