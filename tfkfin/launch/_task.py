"""What every launcher shares: tasks, the context that they run in, and how a worker performs one task."""

import importlib
import os
import re
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tfkfin.base.console import log, log_to_stderr
from tfkfin.base.errors import InputError
from tfkfin.recipe import Launch

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


# A launcher yields an event for every task that has ended or was lost, and None about once a second in between.
Launcher = Callable[[Sequence[Task], LaunchContext], Iterator[TaskEvent | None]]


def missing_extra(name: str, error: ImportError) -> InputError:
    return InputError(f"--launcher {name} needs the extra [{name}]: pip install 'tfkfin[{name}]' ({error})")


def perform(task: Task, path: Path) -> str:
    """Performs a task in this process and writes its output to the log at `path`.

    Returns:
        "", or one line that says why the task failed.
    """
    with logged(path):
        try:
            module, _, function = task.work.partition(":")
            getattr(importlib.import_module(module), function)(**task.arguments)
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
