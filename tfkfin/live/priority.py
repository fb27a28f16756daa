"""Decisions before everything else on a busy machine: a priority above the usual for the threads that make them.

On Linux every thread has a priority of its own. What such a thread begins (a page, a calibration) has the usual one
again: SCHED_RESET_ON_FORK.
"""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

_TASKS = Path("/proc/self/task")


def _real_time(thread: int) -> None:
    """The least of these priorities: before all that have none, after what a system keeps for itself."""
    os.sched_setscheduler(thread, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))


def _nice(thread: int) -> None:
    os.setpriority(os.PRIO_PROCESS, thread, -20)
    os.sched_setscheduler(thread, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))


WAYS: tuple[tuple[str, Callable[[int], None]], ...] = (("real-time", _real_time), ("nice -20", _nice))


class Priority:
    """What a session's threads have.

    Attributes:
        how: "real-time", or "nice -20" where only that is permitted; None: nothing, or nothing any more.
    """

    def __init__(self):
        self.how, self._give, self._usual = None, None, {}

    def take(self) -> None:
        """For all threads of this process.

        Nothing happens where the system permits none, or for a process that was begun with `nice`: others go first.
        """
        known = hasattr(os, "SCHED_RESET_ON_FORK") and _TASKS.is_dir()
        if not known or os.getpriority(os.PRIO_PROCESS, 0) > 0:
            return
        self._usual = {}
        _for_each(self._note, [int(task.name) for task in _TASKS.iterdir()])
        for self.how, self._give in WAYS:
            try:
                _for_each(self._give, list(self._usual))
                return
            except OSError:  # not permitted, or not known
                self.give_back()

    def join(self) -> None:
        """For the thread that asks, if the others have it."""
        if self.how:
            thread = threading.get_native_id()
            self._note(thread)
            self._give(thread)

    def give_back(self) -> None:
        """All threads are as they were."""
        _for_each(self._give_back, list(self._usual))
        self.how = None

    def _note(self, thread: int) -> None:
        self._usual[thread] = os.getpriority(os.PRIO_PROCESS, thread)

    def _give_back(self, thread: int) -> None:
        if os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK != os.SCHED_OTHER:
            os.sched_setscheduler(thread, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
        if os.getpriority(os.PRIO_PROCESS, thread) != self._usual[thread]:
            os.setpriority(os.PRIO_PROCESS, thread, self._usual[thread])


def _for_each(does: Callable[[int], None], threads: Sequence[int]) -> None:
    for thread in threads:
        try:
            does(thread)
        except ProcessLookupError:  # it has ended meanwhile
            continue
