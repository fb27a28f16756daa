"""How far a launch is: one table, whatever the launcher; a line every 15 s where there is no terminal."""

import time
from collections.abc import Sequence

from tfkfin.base.answers import margin
from tfkfin.base.console import log
from tfkfin.launch import Desk, Event, Task


class Progress:
    """Counts events and shows them. `tell(None)` says that nothing is new."""

    def __init__(self, title: str, launcher: str, every: int, left: Sequence[Task], desk: Desk):
        from rich.live import Live

        self.title, self.launcher, self.desk, self.every, self.left = title, launcher, desk, every, len(left)
        self.names = {task.name for task in left}
        self.counts, self.began, self.said = {"done": 0, "failed": 0, "lost": 0}, time.monotonic(), time.monotonic()
        console = margin()
        shown = console.is_terminal and not console.quiet
        self.live = Live(console=console, auto_refresh=False, transient=True) if shown else None

    def __enter__(self) -> "Progress":
        log.info("%s: %d of %d to do, by %s", self.title, self.left, self.every, self.launcher)
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_) -> None:
        if self.live:
            self.live.stop()

    def tell(self, event: Event | None) -> None:
        now = time.monotonic()
        if event is not None:
            self.counts[event.state] += 1
            if event.state != "done":
                log.warning("warning: %s %s: %s", event.key, event.state, event.said)
        if self.live and now - self.said > 1:
            self.said = now
            self.live.update(self._table(), refresh=True)
        elif not self.live and now - self.said > 15:
            self.said = now
            log.info("%s: %s", self.title, ", ".join(f"{value} {name}" for name, value in self._columns().items()))

    def _columns(self) -> dict[str, str]:
        """Title -> value. Running are those that have a log and no end."""
        ended = self.counts["done"] + self.counts["failed"]
        running = min(len(self.desk.begun() & self.names) - ended, self.left - ended) if ended < self.left else 0
        spent = time.monotonic() - self.began
        done, running = self.every - self.left + self.counts["done"], max(0, running)
        return {"done": f"{done} of {self.every}", "running": str(running),
                "waiting": str(self.left - ended - running), "failed": str(self.counts["failed"]),
                "lost and begun again": str(self.counts["lost"]),
                "left": f"about {spent / ended * (self.left - ended):.0f} s" if ended else "?"}

    def _table(self):
        from rich.table import Table

        columns = self._columns()
        table = Table(*columns, title=f"{self.title}, by {self.launcher}")
        table.add_row(*columns.values())
        return table
