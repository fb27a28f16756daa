"""A session in order of time that goes on to learn, without labels, from what came before each block of windows."""

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tfkfin.models.hierarchical import HierarchicalGaussian

PRIOR = 500.0  # windows that earlier sessions' mean and deviation count as
BLOCK = 210  # windows between two looks back


class Onwards:
    """Decides the windows of a session as they come: causal, and the same however they are parted into calls.

    Where nothing of the session was given beforehand, its mean and deviation are learnt on the way too.

    Args:
        session: begun, calibrated or adapted; it is changed.
        lag: what a look back finds decides so many windows later, and is found meanwhile in a thread of its own; 0: at
            once. The same windows are decided the same, whatever the machine does.
    """

    def __init__(self, session: "HierarchicalGaussian", lag: int = 0):
        self.session, self._block, self._seen, self._due, self._count = session, [], 0, True, PRIOR
        self.lag, self._thread, self._ahead = lag, ThreadPoolExecutor(1) if lag else None, None
        self._total, self._square = PRIOR * session.centre, PRIOR * (session.spread**2 + session.centre**2)

    def __call__(self, x: np.ndarray, active: np.ndarray, learnt: np.ndarray | None = None) -> np.ndarray:
        """The next windows (N, D), however many -> probabilities (N, G).

        Args:
            active: which windows (N,) may be learnt from: those that are louder than rest.
            learnt: which of them (N,) make up blocks; None: all. Others are decided only.
        """
        learnt, found = np.ones(len(x), bool) if learnt is None else learnt, []
        place = (self._seen + np.cumsum(learnt)) % BLOCK
        last = learnt & ((place == 0) | (place == self.lag))  # with these a block is whole, or what was found decides
        for part in np.split(np.arange(len(x)), np.flatnonzero(last) + 1):
            if not len(part):
                continue
            if self._due:
                self._look_back()
            found.append(self.session.probabilities(x[part]))
            self._block.append(x[part][(learnt & active)[part]])
            self._seen += int(learnt[part].sum())
            if last[part[-1]]:
                self._follow()
                if not place[part[-1]]:
                    self.end()
        return np.concatenate([np.empty((0, len(self.session.classes))), *found])

    def _look_back(self) -> None:
        self._due, new = False, copy.copy(self.session)
        if self._thread is None:
            self.session.look_back()
        else:
            self._ahead = self._thread.submit(lambda: new.look_back() or new)

    def _follow(self) -> None:
        """What was looked back for decides from now on."""
        if self._ahead is not None:
            self.session.follow(self._ahead.result())
            self._ahead = None

    def end(self) -> None:
        """Takes the block in as it is: it is whole, or nothing more comes."""
        self._follow()
        block, self._block, self._due = np.concatenate([np.empty((0, len(self._total))), *self._block]), [], True
        if not self.session.running:
            self.session.remember(block)
            return
        self._count += len(block)
        self._total, self._square = self._total + block.sum(axis=0), self._square + (block**2).sum(axis=0)
        centre = self._total / self._count
        self.session.remember(block, centre, np.sqrt(np.maximum(self._square / self._count - centre**2, 0)))
