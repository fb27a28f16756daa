"""The worker's side of a task: its function is called, what it says goes to its log."""

import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfkfin.base.console import InputError, log, log_to_stderr
from tfkfin.launch import Task


def perform(task: Task, path: Path) -> str:
    """Does a task, in this process; returns "", or in one line why it failed. What it writes goes to a log at `path`.
    """
    with logged(path):
        try:
            module, _, function = task.work.partition(":")
            getattr(importlib.import_module(module), function)(**task.arguments)
        except InputError as error:
            said = " ".join(str(error).split())
            log.error("error: %s", said)
            return said
        except Exception as error:
            traceback.print_exc()
            return " ".join(f"{type(error).__name__}: {error}".split())
    return ""


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Appends what this process writes to stdout and stderr, its libraries too, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handlers = log.handlers
    sys.stdout.flush(), sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    streams = sys.stdout, sys.stderr
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


def last_line(path: Path) -> str:
    """The last line of a log that says something; "" of none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")
