"""Decisions before everything else on a busy machine: the threads that make them get a higher priority.

On Linux every thread has its own priority. What such a thread starts (a page, a calibration) has the usual one again,
because of SCHED_RESET_ON_FORK.
"""

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

_TASKS = Path("/proc/self/task")


def _real_time(thread: int) -> None:
    """The lowest real-time priority: above all usual threads, below those that the system itself needs."""
    os.sched_setscheduler(thread, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))


def _nice(thread: int) -> None:
    os.setpriority(os.PRIO_PROCESS, thread, -20)
    _usual_scheduler(thread)


def _usual_scheduler(thread: int) -> None:
    os.sched_setscheduler(thread, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))


WAYS: tuple[tuple[str, Callable[[int], None]], ...] = (("real-time", _real_time), ("nice -20", _nice))


class Priority:
    """The priority of a session's threads.

    Attributes:
        how: "real-time", or "nice -20" where only that is permitted; None: the usual priority.
    """

    def __init__(self):
        self.how, self._raise, self._usual = None, None, {}

    def take(self) -> None:
        """Raises the priority of all threads of this process.

        Nothing changes where the system does not permit it, or in a process that was started with `nice`.
        """
        possible = hasattr(os, "SCHED_RESET_ON_FORK") and _TASKS.is_dir()
        if not possible or os.getpriority(os.PRIO_PROCESS, 0) > 0:
            return
        self._usual = {}
        _for_each(self._note, [int(task.name) for task in _TASKS.iterdir()])
        for self.how, self._raise in WAYS:
            try:
                _for_each(self._raise, list(self._usual))
                return
            except OSError:  # not permitted, or not known to the system
                self.give_back()

    def join(self) -> None:
        """Raises the priority of the calling thread, if the others have it raised."""
        if self.how:
            thread = threading.get_native_id()
            self._note(thread)
            self._raise(thread)

    def give_back(self) -> None:
        """Gives all threads the priority that they had before."""
        _for_each(self._restore, list(self._usual))
        self.how = None

    def _note(self, thread: int) -> None:
        self._usual[thread] = os.getpriority(os.PRIO_PROCESS, thread)

    def _restore(self, thread: int) -> None:
        if os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK != os.SCHED_OTHER:
            _usual_scheduler(thread)
        if os.getpriority(os.PRIO_PROCESS, thread) != self._usual[thread]:
            os.setpriority(os.PRIO_PROCESS, thread, self._usual[thread])


def _for_each(change: Callable[[int], None], threads: Iterable[int]) -> None:
    for thread in threads:
        with suppress(ProcessLookupError):  # the thread has ended meanwhile
            change(thread)
