"""Processes on this machine, as many as its cores and memory allow; each performs one task after another.

`python -m tfkfin.launch.local` is such a process: it performs tasks that it reads, one line of JSON each, and answers
each with one line. It ends as soon as the process that started it has ended, even in the middle of a task; another
worker then continues that task.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from tfkfin.base import machine
from tfkfin.launch import LaunchContext, Task, TaskEvent, perform


def workers(context: LaunchContext, tasks: int) -> int:
    """Number of processes: that of the recipe, or else one a GPU, or one a core without GPUs, if memory allows."""
    options = context.options
    room = min(len(_gpus()) or machine.cores() // options.threads, int(machine.memory() / 1e9 / options.memory_gb))
    return max(1, min(tasks, options.workers or room))


def _gpus() -> list[str]:
    """Each GPU's name in CUDA_VISIBLE_DEVICES."""
    if named := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return named.split(",")
    return sorted(path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))


class _Slot(threading.Thread):
    """Keeps one worker process and hands it tasks one by one; a process that was killed is replaced."""

    def __init__(self, number: int, todo: deque, events: queue.SimpleQueue, context: LaunchContext):
        super().__init__(daemon=True)
        self.number, self.todo, self.events, self.context = number, todo, events, context
        self.process, self.stopped = None, False

    def run(self) -> None:
        while not self.stopped:
            try:
                task = self.todo.popleft()
            except IndexError:
                break
            error = self._request(task)
            if error is not None:
                self.events.put(self.context.ended(task, error))
            elif not self.stopped:
                event = self.context.lost(task, f"its process was killed ({self.process.wait()})")
                self.events.put(event)
                if event.state == "lost":
                    self.todo.append(task)
        if self.process is not None:
            self.process.kill()
            self.process.communicate()

    def _request(self, task: Task) -> str | None:
        """What `perform` returns, or None if the process has gone."""
        if self.process is None or self.process.poll() is not None:
            gpus = _gpus()
            own = {"CUDA_VISIBLE_DEVICES": gpus[self.number % len(gpus)]} if gpus else {}
            self.process = subprocess.Popen([sys.executable, "-m", "tfkfin.launch.local"], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, text=True,
                                            env=os.environ | self.context.environment() | own)
        try:
            self.process.stdin.write(json.dumps({"task": asdict(task), "log": str(self.context.log_of(task))}) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())["error"]
        except (OSError, ValueError):
            return None

    def stop(self) -> None:
        """Ends the process, and so the thread, in the middle of a task too."""
        self.stopped = True
        if self.process is not None:
            self.process.kill()


def local(tasks: Sequence[Task], context: LaunchContext) -> Iterator[TaskEvent | None]:
    todo, events = deque(tasks), queue.SimpleQueue()
    context.clear(tasks)
    slots = [_Slot(number, todo, events, context) for number in range(workers(context, len(tasks)))]
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


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the launching process too, which ends this one
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the pipe is for answers alone
    lines: queue.SimpleQueue = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)  # the launching process has ended

    threading.Thread(target=listen, daemon=True).start()
    while True:
        request = json.loads(lines.get())
        error = perform(Task(**request["task"]), Path(request["log"]))
        answers.write(json.dumps({"error": error}) + "\n")
        answers.flush()


LAUNCHER = local
if __name__ == "__main__":
    main()
