"""Many independent tasks at once: on this machine, on a Ray cluster, or by Slurm. Each launcher is one module.

A task is a function, by name, and its arguments as JSON. It writes its result to a disk that all machines share, and
called again it continues where it stopped. So a worker, its machine or the launching command may be killed at any time:
the same command, started again, comes to the same result.

A launcher is called with tasks and a LaunchContext. It yields a TaskEvent for every task that has ended or was lost,
and None about once a second in between.
"""

import os
import pkgutil
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tfkfin.base import registry
from tfkfin.base.answers import margin, paper
from tfkfin.base.console import log, log_to_stderr
from tfkfin.base.errors import InputError
from tfkfin.recipe import Launch

LOG_S = 15  # seconds between lines of progress where there is no terminal
# Sums depend on how they are divided among threads, so every worker has the same number of threads.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS",
           "TF_NUM_INTEROP_THREADS")


@dataclass(frozen=True)
class Task:
    """One unit of work.

    Attributes:
        key: identifies the task and its log, as in "fold1of5/seed7/S3".
        work: "module:function"; the function is called with `arguments` as keyword arguments.
        arguments: values that JSON can hold.
    """

    key: str
    work: str
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The key in a form that file names can have."""
        return re.sub(r"[^\w.+-]", "-", self.key)


class TaskEvent(NamedTuple):
    """What happened to a task. The launcher starts a lost task again: its process was killed."""

    key: str
    state: Literal["done", "failed", "lost"]
    reason: str = ""


@dataclass(frozen=True)
class LaunchContext:
    """What a launcher gets besides the tasks.

    Attributes:
        options: the recipe's [launch].
        folder: of the run, on a disk that all workers can read and write. It holds logs/, and in launch/ the files of
            the launcher itself.
        losses: how many times each task, by key, has been lost.
    """

    options: Launch
    folder: Path
    losses: Counter = field(default_factory=Counter)

    def log_of(self, task: Task) -> Path:
        return self.folder / "logs" / f"{task.name}.log"

    def outcome_of(self, task: Task) -> Path:
        """A file for the outcome of a task, where a launcher has no other way to get it from the worker."""
        return self.log_of(task).with_suffix(".json")

    def clear(self, tasks: Sequence[Task]) -> None:
        """Removes logs and outcomes that an earlier launch has left."""
        for task in tasks:
            self.log_of(task).unlink(missing_ok=True)
            self.outcome_of(task).unlink(missing_ok=True)

    def started(self) -> set[str]:
        """Names of the tasks that have a log."""
        return {path.stem for path in (self.folder / "logs").glob("*.log")}

    def environment(self) -> dict[str, str]:
        """Environment variables of a worker."""
        return dict.fromkeys(THREADS, str(self.options.threads))

    def ended(self, task: Task, error: str) -> TaskEvent:
        """The event of a task that `perform` has returned `error` for."""
        return TaskEvent(task.key, "failed" if error else "done", error)

    def lost(self, task: Task, reason: str) -> TaskEvent:
        """The event of a task whose process has gone: lost, or failed if that happened more than `retries` times."""
        self.losses[task.key] += 1
        if self.losses[task.key] > self.options.retries:
            return TaskEvent(task.key, "failed", f"{reason}, {self.losses[task.key]} times")
        return TaskEvent(task.key, "lost", reason)


def names() -> tuple[str, ...]:
    return registry.names("launch")


def launch(tasks: Sequence[Task], done: Callable[[Task], bool], launcher: str, options: Launch, folder: Path,
           title: str) -> dict[str, str]:
    """Performs the tasks that are not done yet, and shows the progress.

    Args:
        done: whether the result of a task is there. Nothing else decides whether a task has been done.

    Returns:
        The tasks that failed: key -> reason.
    """
    context = LaunchContext(options, folder.absolute())
    left, start = [task for task in tasks if not done(task)], time.monotonic()
    run, failed = registry.load("launch", launcher, "LAUNCHER"), {}
    if left:
        progress = LaunchProgress(title, launcher, len(tasks), left, context)
        with progress.shown():
            for event in run(left, context):
                progress.add(event)
                if event is not None and event.state == "failed":
                    failed[event.key] = event.reason
        failed |= {task.key: "it ended without a result" for task in left if task.key not in failed and not done(task)}
    log.info("%s: %d of %d done, %d of them now, by %s in %.0f s", title, len(tasks) - len(failed), len(tasks),
             len(left) - len(failed), launcher, time.monotonic() - start)
    return failed


class LaunchProgress:
    """Counts events and shows them: one table on a terminal, elsewhere a line every 15 s.

    Args:
        every: number of tasks, those included that were done before.
        left: the tasks of this launch.
    """

    def __init__(self, title: str, launcher: str, every: int, left: Sequence[Task], context: LaunchContext):
        self.title, self.launcher, self.context, self.every, self.left = title, launcher, context, every, len(left)
        self.names, self.counts = {task.name for task in left}, Counter()
        self.start = self.logged = time.monotonic()

    def shown(self) -> AbstractContextManager:
        """Shows the table while the context lasts."""
        from rich.live import Live

        log.info("%s: %d of %d to do, by %s", self.title, self.left, self.every, self.launcher)
        console = margin()
        if not console.is_terminal or console.quiet:
            return nullcontext()
        self.logged = float("inf")
        return Live(console=console, get_renderable=self.table, refresh_per_second=1, transient=True)

    def add(self, event: TaskEvent | None) -> None:
        """Takes the next event; None: nothing has happened."""
        if event is not None:
            self.counts[event.state] += 1
            if event.state != "done":
                log.warning("warning: %s %s: %s", event.key, event.state, event.reason)
        if time.monotonic() - self.logged > LOG_S:
            self.logged = time.monotonic()
            log.info("%s: %s", self.title, ", ".join(f"{value} {name}" for name, value in self.columns().items()))

    def columns(self) -> dict[str, str]:
        """Title -> value. Tasks that have a log and have not ended are running."""
        ended = self.counts["done"] + self.counts["failed"]
        left = self.left - ended
        running = max(0, min(len(self.context.started() & self.names) - ended, left))
        return {"done": f"{self.every - self.left + self.counts['done']} of {self.every}", "running": str(running),
                "waiting": str(left - running), "failed": str(self.counts["failed"]),
                "lost and started again": str(self.counts["lost"]),
                "left": f"about {(time.monotonic() - self.start) / ended * left:.0f} s" if ended else "?"}

    def table(self):
        from rich.table import Table

        columns = self.columns()
        table = Table(*columns, title=f"{self.title}, by {self.launcher}")
        table.add_row(*columns.values())
        return table


def report_failures(failed: dict[str, str], tasks: Iterable[Task], folder: Path) -> None:
    """Prints a table of the tasks that failed, with the last line of each one's log."""
    from rich.table import Column, Table

    table = Table("failed", Column("reason", overflow="fold"), Column("last line of its log", overflow="fold"),
                  title=f"logs: {folder / 'logs'}")
    by_key, context = {task.key: task for task in tasks}, LaunchContext(Launch(), folder)
    for key in sorted(failed):
        table.add_row(key, failed[key], last_line(context.log_of(by_key[key])))
    paper().print(table)


def last_line(path: Path) -> str:
    """The last line of a log that is not empty; "" where there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")


def end_if_failed(failed: dict[str, str], tasks: Sequence[Task], folder: Path, what: str) -> None:
    """Ends the command with exit code 1 where some of its tasks (`what` they are) have failed, and says which."""
    if failed:
        report_failures(failed, tasks, folder)
        log.error("error: %d of %d %s failed; the same command tries them again", len(failed), len(tasks), what)
        sys.exit(1)


def perform(task: Task, path: Path) -> str:
    """Performs a task in this process and writes its output to the log at `path`.

    Returns:
        "", or one line that says why the task failed.
    """
    with logged(path):
        try:
            pkgutil.resolve_name(task.work)(**task.arguments)
        except InputError as error:
            reason = " ".join(str(error).split())
            log.error("error: %s", reason)
            return reason
        except Exception as error:
            traceback.print_exc()
            return " ".join(f"{type(error).__name__}: {error}".split())
    return ""


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Appends to a file what this process, its libraries included, writes to stdout and stderr."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handlers, streams = log.handlers, (sys.stdout, sys.stderr)
    for stream in streams:
        stream.flush()
    kept = [os.dup(1), os.dup(2)]
    with path.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = (open(n, "w", buffering=1, encoding="utf-8", closefd=False) for n in (1, 2))
    log_to_stderr()
    try:
        yield
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        sys.stdout, sys.stderr = streams
        log.handlers = handlers
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)
