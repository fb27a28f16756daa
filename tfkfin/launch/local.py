"""Processes on this machine, as many as pay; each does one task after another."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from tfkfin.base import machine
from tfkfin.launch import Desk, Event, Task


def workers(desk: Desk, tasks: int) -> int:
    """How many processes: as the recipe says, else one a core or, where there are some, a GPU, if memory allows."""
    options = desk.options
    room = min(len(_gpus()) or machine.cores() // options.threads, int(machine.memory() / 1e9 / options.memory_gb))
    return max(1, min(tasks, options.workers or room))


def _gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls each GPU."""
    if named := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return named.split(",")
    return sorted(path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))


class _Slot(threading.Thread):
    """One worker process at a time, and the tasks that it is given."""

    def __init__(self, number: int, todo: deque, tries: dict, events: queue.SimpleQueue, desk: Desk):
        super().__init__(daemon=True)
        self.number, self.todo, self.tries, self.events, self.desk = number, todo, tries, events, desk
        self.process, self.stopped = None, False

    def run(self) -> None:
        while not self.stopped:
            try:
                task = self.todo.popleft()
            except IndexError:
                break
            error = self._ask(task)
            if error is not None:
                self.events.put(Event(task.key, "failed" if error else "done", error))
            elif not self.stopped:
                self._lost(task)
        if self.process is not None:
            self.process.kill()
            self.process.communicate()

    def _lost(self, task: Task) -> None:
        how = f"its process was killed ({self.process.wait()})"
        self.tries[task.key] = self.tries.get(task.key, 0) + 1
        if self.tries[task.key] > self.desk.options.retries:
            self.events.put(Event(task.key, "failed", f"{how}, {self.tries[task.key]} times"))
        else:
            self.events.put(Event(task.key, "lost", how))
            self.todo.append(task)

    def _ask(self, task: Task) -> str | None:
        """What `perform` returns, or None if the process has gone."""
        if self.process is None or self.process.poll() is not None:
            gpus = _gpus()
            own = {"CUDA_VISIBLE_DEVICES": gpus[self.number % len(gpus)]} if gpus else {}
            self.process = subprocess.Popen([sys.executable, "-m", "tfkfin.launch._worker"], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, text=True,
                                            env=os.environ | self.desk.environment() | own)
        given = {"task": asdict(task), "log": str(self.desk.log_of(task))}
        try:
            self.process.stdin.write(json.dumps(given) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())["error"]
        except (OSError, ValueError):
            return None

    def stop(self) -> None:
        """Lets the thread end soon, whatever its process does."""
        self.stopped = True
        if self.process is not None:
            self.process.kill()


def local(tasks: Sequence[Task], desk: Desk) -> Iterator[Event | None]:
    todo, tries, events = deque(tasks), {}, queue.SimpleQueue()
    for task in tasks:
        desk.log_of(task).unlink(missing_ok=True)
    slots = [_Slot(number, todo, tries, events, desk) for number in range(workers(desk, len(tasks)))]
    for slot in slots:
        slot.start()
    try:
        while any(slot.is_alive() for slot in slots) or not events.empty():
            try:
                yield events.get(timeout=0.5)
            except queue.Empty:
                yield None
    finally:
        for slot in slots:
            slot.stop()
        for slot in slots:
            slot.join(10)


LAUNCHER = local
