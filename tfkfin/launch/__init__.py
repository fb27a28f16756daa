"""Many independent tasks at once: on this machine, on a Ray cluster, by Slurm. One module a launcher (`LAUNCHER`).

A task is a function by name and JSON for it. It keeps what it makes on a disk that all see, and called again it goes on
where it stopped: so whatever is killed, a worker, its machine or the one that launches, the same command ends the same.
"""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tfkfin.base import registry
from tfkfin.base.answers import paper
from tfkfin.base.console import InputError, log
from tfkfin.recipe import Launch


@dataclass(frozen=True)
class Task:
    """One thing to do.

    Attributes:
        key: names it and its log, as in "fold1of5/seed7/S3".
        work: "module:function"; it is called with the arguments by name.
        arguments: JSON.
    """

    key: str
    work: str
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of its files."""
        return re.sub(r"[^\w.+-]", "-", self.key)


class Event(NamedTuple):
    """What became of a task. Lost ones, whose process was killed, are begun again by their launcher."""

    key: str
    state: Literal["done", "failed", "lost"]
    said: str = ""


@dataclass(frozen=True)
class Desk:
    """What a launcher is given besides the tasks.

    Attributes:
        options: the recipe's [launch].
        folder: of the run, on a disk that all workers see; logs go to logs/ in it, a launcher's own files to launch/.
    """

    options: Launch
    folder: Path

    def log_of(self, task: Task) -> Path:
        return self.folder / "logs" / f"{task.name}.log"

    def begun(self) -> set[str]:
        """Names of the tasks that have a log."""
        logs = self.folder / "logs"
        names = os.listdir(logs) if logs.is_dir() else ()
        return {name.removesuffix(".log") for name in names if name.endswith(".log")}

    def environment(self) -> dict[str, str]:
        """Of a worker: as many threads everywhere, since sums depend on how they are parted among threads."""
        count = str(self.options.threads)
        return {name: count for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
                                         "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")}


Launcher = Callable[[Sequence[Task], Desk], Iterator[Event | None]]  # None: nothing new, a second or less has passed


def names() -> tuple[str, ...]:
    return registry.names("launch")


def launch(tasks: Sequence[Task], done: Callable[[Task], bool], launcher: str, options: Launch, folder: Path,
           title: str) -> dict[str, str]:
    """Does the tasks that are not done, and shows how far they are; returns those that failed: key -> what was said.

    `done` looks at what a task keeps: it alone decides whether a task has been done.
    """
    from tfkfin.launch._progress import Progress

    desk = Desk(options, folder.absolute())
    left, began = [task for task in tasks if not done(task)], time.monotonic()
    begin, failed = registry.load("launch", launcher, "LAUNCHER"), {}
    if left:
        by_key = {task.key: task for task in left}
        with Progress(title, launcher, len(tasks), left, desk) as shown:
            for event in begin(left, desk):
                shown.tell(event)
                if event is not None and event.state == "failed":
                    failed[event.key] = event.said
        failed |= {key: "it ended and left nothing" for key, task in by_key.items()
                   if key not in failed and not done(task)}
    log.info("%s: %d of %d done, %d of them now, by %s in %.0f s", title, len(tasks) - len(failed), len(tasks),
             len(left) - len(failed), launcher, time.monotonic() - began)
    return failed


def tell_failures(failed: dict[str, str], tasks: Iterable[Task], folder: Path) -> None:
    """Prints a table of the tasks that failed, with the last line of each one's log."""
    from rich.table import Column, Table

    from tfkfin.launch._task import last_line

    table = Table("failed", Column("why", overflow="fold"), Column("its log's last line", overflow="fold"),
                  title=f"logs: {folder / 'logs'}")
    by_key = {task.key: task for task in tasks}
    for key in sorted(failed):
        path = Desk(Launch(), folder).log_of(by_key[key])
        table.add_row(key, failed[key], last_line(path))
    paper().print(table)


def missing_extra(name: str, error: ImportError) -> InputError:
    return InputError(f"--launcher {name} needs the extra [{name}]: pip install 'tfkfin[{name}]' ({error})")
