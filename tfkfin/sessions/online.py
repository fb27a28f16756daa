"""Online adaptation: a session is decided window by window, and adapts to its windows without labels.

The posterior decides windows as it stands. After every `BLOCK` of them it is recentred and given one EM update by all
windows before (`posterior`). Each window is thus decided by those before it alone, and by the same ones however windows
are parted into calls.
"""

import copy
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from tfkfin.sessions.posterior import SessionPosterior
from tfkfin.sessions.prior import SessionPrior

BLOCK = 84  # windows between two updates: 4.2 s at 50 ms; fewer cost more time, 210 adapted too late to another force
LEFT_OUT = 3  # sessions that are left out in turn to see whether virtual forces help: each costs two fits
MAX_LOSS = 0.01  # accuracy that virtual forces may cost there, mean: they are meant for forces that no session shows


class OnlineAdaptation:
    """Decides the windows of a session as they come, and adapts it.

    Args:
        session: new, or already updated or adapted. Without `lag` it is changed.
        lag: 0, or after how many windows of a block an update takes effect. Until then a thread works it out, so that
            no decision waits for it; decisions do not depend on how fast it is.

    Attributes:
        session: that decides now.
    """

    def __init__(self, session: SessionPosterior, lag: int = 0):
        self.session, self.lag = session, lag
        self._block: list[np.ndarray] = []  # windows to adapt to since the last update
        self._count, self._kept = 0, 0  # windows that made up blocks; those of them that it adapts to
        self._due = True  # whether an update is to begin before the next window
        self._thread = ThreadPoolExecutor(1) if lag else None
        self._pending: Future[SessionPosterior] | None = None

    def __call__(self, x: np.ndarray, active: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
        """The next windows (N, D), any number -> probabilities (N, G).

        Args:
            active: which windows (N,) it may adapt to: those louder than rest.
            counted: which of them (N,) make up blocks; None: all. Others are decided only.
        """
        counted = np.ones(len(x), bool) if counted is None else counted
        place = (self._count + np.cumsum(counted)) % BLOCK
        ends = counted & ((place == 0) | (place == self.lag))  # the last window of a block, or of the lag
        made = [np.empty((0, len(self.session.prior.classes)))]
        for part in np.split(np.arange(len(x)), np.flatnonzero(ends) + 1):
            if not len(part):
                continue
            if self._due:
                self._begin_update()
            made.append(self.session.probabilities(x[part]))
            self._block.append(x[part][(counted & active)[part]])
            self._count += int(counted[part].sum())
            if ends[part[-1]]:
                self._finish_update()
                if not place[part[-1]]:
                    self._end_block()
        return np.concatenate(made)

    def end(self) -> None:
        """Nothing more comes: recentres by all windows, those since the last update too."""
        self._end_block()
        self.session.recentre(self._kept)

    def _begin_update(self) -> None:
        self._due = False
        if self._thread is None:
            self._updated(self.session, self._kept)
        else:
            self._pending = self._thread.submit(self._updated, copy.copy(self.session), self._kept)

    @staticmethod
    def _updated(session: SessionPosterior, latest: int) -> SessionPosterior:
        session.recentre(latest)
        session.em_update()
        return session

    def _finish_update(self) -> None:
        """From now on the update decides that was begun with this block."""
        if self._pending is not None:
            self.session, self._pending = self._pending.result(), None

    def _end_block(self) -> None:
        self._finish_update()
        if self._block:
            block, self._block, self._due = np.concatenate(self._block), [], True
            self.session.append(block)
            self._kept += len(block)


def stream(session: SessionPosterior, x: np.ndarray, active: np.ndarray) -> np.ndarray:
    """All windows (N, D) of a session in order of time -> (N, G), by `OnlineAdaptation`, which changes the session."""
    adaptation = OnlineAdaptation(session)
    probabilities = adaptation(x, active)
    adaptation.end()
    return probabilities


def fit_prior(x: np.ndarray, labels: np.ndarray, sessions: np.ndarray, repetitions: np.ndarray,
              virtual: Sequence[np.ndarray] = (), layout: np.ndarray | None = None) -> SessionPrior:
    """`SessionPrior.fit`, with virtual forces unless these make it worse.

    Of three sessions or more some are left out in turn and decided as streams, with virtual forces and without.
    """

    def fit(kept: np.ndarray, forces: Sequence[np.ndarray]) -> SessionPrior:
        return SessionPrior().fit(x[kept], labels[kept], sessions[kept], repetitions[kept],
                                  [rows[kept] for rows in forces], layout)

    def accuracy(left_out: int, forces: Sequence[np.ndarray]) -> float:
        own = sessions == left_out
        prior = fit(~own, forces)
        decided = stream(SessionPosterior(prior), x[own], np.ones(own.sum(), bool)).argmax(axis=1)
        return np.mean(prior.classes[decided] == labels[own])

    numbers = np.unique(sessions)
    if len(virtual) and len(numbers) > 2:
        tried = numbers[np.unique(np.linspace(0, len(numbers) - 1, LEFT_OUT).round().astype(int))]
        if np.mean([accuracy(number, ()) - accuracy(number, virtual) for number in tried]) >= MAX_LOSS:
            virtual = ()
    return fit(np.ones(len(x), bool), virtual)
