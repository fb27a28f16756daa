"""From the probabilities of one window after another to decisions: voting and rejection, causal, in NumPy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Answers = dict[str, np.ndarray]  # by name: "probabilities" (W, G), "label" (W,), "features" (W, C, F)
REJECTED = -1  # the label of a decision that was rejected; it is never right


@dataclass(frozen=True)
class Decision:
    """How windows in order of time are decided, from the windows so far.

    Attributes:
        vote: the probabilities of so many last windows are averaged, of fewer at the beginning.
        reject: a decision less probable than this has the label -1.
    """

    vote: int = 1
    reject: float = 0.0

    def __post_init__(self):
        if self.vote < 1 or not 0 <= self.reject < 1:
            raise ValueError(f"`vote` must be at least 1 and `reject` in [0, 1). Received: vote={self.vote}, "
                             f"reject={self.reject}")

    @property
    def memory(self) -> int:
        """Windows before a window whose probabilities count in its decision."""
        return self.vote - 1

    def start(self, labels: Sequence[int] | np.ndarray) -> "Decided":
        """Decides a signal's windows from the first on; `labels` (G,) are those of the classes."""
        return Decided(self, labels)

    def __call__(self, probabilities: np.ndarray, labels: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All windows of a signal: probabilities (N, G) -> labels (N,) int64 and averaged probabilities."""
        return self.start(labels)(probabilities)


class Decided:
    """The decisions of a signal in progress: call it with the next windows, one or many."""

    def __init__(self, decision: Decision, labels: Sequence[int] | np.ndarray):
        self.decision, self.labels = decision, np.asarray(labels, np.int64)
        self._past = np.empty((0, len(self.labels)), np.float32)

    def __call__(self, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (N, G) of the next windows -> their labels (N,) int64 and averaged probabilities (N, G)."""
        now = np.asarray(probabilities, np.float32)
        known = np.concatenate([self._past, now])
        self._past = known[max(0, len(known) - self.decision.memory):]
        voted = averaged(known, self.decision.vote)[len(known) - len(now):]
        chosen = self.labels[voted.argmax(axis=1)] if len(voted) else np.empty(0, np.int64)
        return np.where(voted.max(axis=1, initial=0.0) >= self.decision.reject, chosen, REJECTED), voted


class Smoothed:
    """A hidden Markov model's forward step: call it with probabilities (N, G) of the next windows in order of time.

    p_t(g) ~ (sum_h A_hg p_{t-1}(h)) q_t(g)^weight, with A_gg = stay and A_hg = (1 - stay) / (G - 1): a class goes on,
    or gives way to any other with the same probability. q_t are the probabilities of a window by itself. Windows
    overlap, so that each adds less than an independent one: its log-odds count `weight`.

    Args:
        classes: G.
        every: how many times closer windows lie than the decoder's own, which `stay` and `weight` are chosen for.
    """

    def __init__(self, classes: int, every: int = 1, stay: float = 0.95, weight: float = 0.5):
        self.stay, self.weight = stay ** (1 / every), weight / every
        self._leave = (1 - self.stay) / max(1, classes - 1)
        self._now = np.full(classes, 1 / classes)

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        found, now = np.empty_like(probabilities), self._now
        for i, own in enumerate(probabilities):
            now = (self._leave + (self.stay - self._leave) * now) * np.maximum(own, 1e-12) ** self.weight
            found[i] = now = now / now.sum()
        self._now = now
        return found


def averaged(probabilities: np.ndarray, vote: int) -> np.ndarray:
    """Each row (N, G) averaged with up to `vote` - 1 rows before it, added newest first, as an exported graph does."""
    total = probabilities.copy()
    for back in range(1, min(vote, len(probabilities))):
        total[back:] += probabilities[:-back]
    return total / np.minimum(np.arange(len(total)) + 1, vote).astype(np.float32)[:, None]
