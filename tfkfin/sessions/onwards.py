"""A session in order of time that goes on to learn, without labels, from what came before each block of windows."""

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tfkfin.sessions.hierarchical import HierarchicalGaussian

BLOCK = 84  # windows between two looks back


class Onwards:
    """Decides the windows of a session as they come: causal, and the same however they are parted into calls.

    Its mean and deviation are learnt on the way too, unless labels told them and the session is unlike earlier ones.

    Args:
        session: begun, calibrated or adapted; it is changed.
        lag: what a look back finds decides so many windows later, and is found meanwhile in a thread of its own; 0: at
            once. The same windows are decided the same, whatever the machine does.
    """

    def __init__(self, session: "HierarchicalGaussian", lag: int = 0):
        self.session, self._block, self._seen, self._kept, self._due = session, [], 0, 0, True
        self.lag, self._thread, self._ahead = lag, ThreadPoolExecutor(1) if lag else None, None

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
                    self._remember()
        return np.concatenate([np.empty((0, len(self.session.classes))), *found])

    def _look_back(self) -> None:
        """Before the next block: moves what decides, or begins to find out how, by all that came before it."""
        self._due, session, kept = False, self.session, self._kept

        def found() -> "HierarchicalGaussian":
            session.recentre(kept)
            session.look_back()
            return session

        if self._thread is None:
            found()
        else:
            session = copy.copy(session)
            self._ahead = self._thread.submit(found)

    def _follow(self) -> None:
        """What was looked back for decides from now on."""
        if self._ahead is not None:
            self.session, self._ahead = self._ahead.result(), None

    def _remember(self) -> None:
        """The block is whole, or nothing more comes."""
        self._follow()
        if self._block:
            block, self._block, self._due = np.concatenate(self._block), [], True
            self.session.remember(block)
            self._kept += len(block)

    def end(self) -> None:
        """Takes in what came since the last look back: nothing more comes."""
        self._remember()
        self.session.recentre(self._kept)
