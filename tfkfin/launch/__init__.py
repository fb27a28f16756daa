"""Many independent tasks at once: on this machine, on a Ray cluster, or by Slurm. Each launcher is one module.

A task is a function, by name, and its arguments as JSON. It writes its result to a disk that all machines share, and
called again it continues where it stopped. So a worker, its machine or the launching command may be killed at any time:
the same command, started again, comes to the same result.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from tfkfin.base import registry
from tfkfin.base.answers import margin, paper
from tfkfin.base.console import log
from tfkfin.launch._task import LaunchContext, Task, TaskEvent
from tfkfin.recipe import Launch

__all__ = ["LaunchContext", "LaunchProgress", "Task", "TaskEvent", "launch", "names", "report_failures"]
LOG_S = 15  # seconds between lines of progress where there is no terminal


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
