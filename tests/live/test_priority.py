"""Who runs before whom: the threads of a session, what they begin, and what the system permits."""

import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from live_cases import Kept, Slow

from tfkfin.live.loop import Loop, Priority
from tfkfin.live.sources.replay import Replay
from tfkfin.live.stream import Stream

FLAG = os.SCHED_RESET_ON_FORK
HAS = "import os; print(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, os.getpriority(os.PRIO_PROCESS, 0))"
TRY = """
import os
for name, ask in (("real-time", lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))),
                  ("nice -20", lambda: os.setpriority(os.PRIO_PROCESS, 0, -20)), ("None", str)):
    try:
        ask()
    except OSError:
        continue
    print(name)
    break
"""


def has() -> tuple[int, int]:
    """Scheduler and niceness of the thread that asks."""
    return os.sched_getscheduler(0) & ~FLAG, os.getpriority(os.PRIO_PROCESS, 0)


def said(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def permitted():
    """What a process of its own is permitted; begun with `nice`, a session leaves others first."""
    return "None" if os.getpriority(os.PRIO_PROCESS, 0) > 0 else said(TRY)


@pytest.fixture
def usual():
    before = has()
    yield before
    assert has() == before


def expected(how: str, usual: tuple[int, int]) -> tuple[int, int]:
    return {"real-time": (os.SCHED_RR, usual[1]), "nice -20": (os.SCHED_OTHER, -20)}.get(how, usual)


def in_a_thread(does):
    found = []
    thread = threading.Thread(target=lambda: found.append(does()))
    thread.start()
    thread.join()
    return found[0]


def test_all_threads_have_it_but_nothing_that_they_begin(permitted, usual):
    go, asked = threading.Semaphore(0), []
    other = threading.Thread(target=lambda: [(go.acquire(), asked.append(has())) for _ in range(2)], daemon=True)
    other.start()
    priority = Priority()
    priority.take()
    try:
        assert str(priority.how) == permitted and has() == expected(permitted, usual)
        go.release()
        assert in_a_thread(has) == usual and said(HAS) == f"{usual[0]} {usual[1]}"
        assert in_a_thread(lambda: (priority.join(), has())[1]) == expected(permitted, usual)
    finally:
        priority.give_back()
    go.release()
    other.join()
    assert asked == [expected(permitted, usual), usual] and priority.how is None


@pytest.mark.parametrize("refused, how", [(("sched_setscheduler", "setpriority"), None), ((), "nice -20")])
def test_what_is_refused_is_done_without(monkeypatch, usual, refused, how):
    """`nice` is tried where real time is refused; here it only counts who is given it."""
    monkeypatch.setattr(os, "getpriority", lambda which, thread: 0)  # not begun with `nice`
    given, real = {}, os.sched_setscheduler

    def scheduler(thread, policy, param):
        if "sched_setscheduler" in refused or policy & ~FLAG == os.SCHED_RR:
            raise PermissionError
        real(thread, policy, param)

    def nice(which, thread, value):
        if "setpriority" in refused:
            raise PermissionError
        given[thread] = value

    monkeypatch.setattr(os, "sched_setscheduler", scheduler)
    monkeypatch.setattr(os, "setpriority", nice)
    priority = Priority()
    priority.take()
    assert priority.how == how and has()[0] == usual[0]
    assert (given.get(threading.get_native_id()) == -20) == (how is not None)
    priority.join()
    priority.give_back()
    monkeypatch.undo()


def test_a_system_without_is_left_alone(monkeypatch, usual):
    monkeypatch.delattr(os, "SCHED_RESET_ON_FORK")
    priority = Priority()
    priority.take()
    priority.join()
    assert priority.how is None and has() == usual
    priority.give_back()


class Watched(Replay):
    """A recording that says what the thread that reads it has."""

    def __iter__(self):
        for chunk in super().__iter__():
            self.has = has()
            yield chunk


class Seen(Kept):
    def __call__(self, made):
        super().__call__(made)
        self.has = has(), in_a_thread(has)


@pytest.mark.parametrize("first", [True, False])
def test_a_session_decides_before_others(streaming, recording, permitted, usual, first):
    kept, part = Seen(), replace(recording, emg=recording.emg[:2000], labels=recording.labels[:2000])
    loop = Loop(Stream(streaming, 40), source := Watched(part, 1.0), [kept], first=first)
    loop.run()
    ours = expected(permitted, usual) if first else usual
    assert kept.has == (ours, usual) and source.has == ours
    assert str(loop.summary()["priority"]) == (permitted if first else "None")
    Loop(Stream(streaming, 40), source := Watched(part, 0), [kept], first=first).run()  # nobody waits for it
    assert source.has == usual


def test_who_cannot_keep_the_stride_gives_it_back(streaming, recording, permitted, usual):
    slow, kept = Stream(streaming, 20), Seen()
    slow.network = Slow(slow.network, 0.05)
    part = replace(recording, emg=recording.emg[:3000], labels=recording.labels[:3000])
    loop = Loop(slow, Replay(part), [kept], first=True)
    loop.run()
    assert loop.timing.dropped > 20 and kept.has == (usual, usual)
    assert any("usual priority" in note for note in kept.notes) == (permitted != "None")
