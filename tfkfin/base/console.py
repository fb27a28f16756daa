"""What every command line shares: one-line errors with exit code 2, quiet TensorFlow, logging."""

import argparse
import errno
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from tfkfin.base.errors import InputError

log = logging.getLogger("tfkfin")
PATIENCE = 1.0  # s that an interrupted command has to end by itself
unfinished: set[Path] = set()  # files and folders that are removed if it has to be ended in the middle


def parse_numbers(text: str) -> tuple[int, ...]:
    """Numbers and ranges as users write them: "1-3,6" -> (1, 2, 3, 6), sorted, each once.

    Raises:
        InputError: anything else, a range that runs backwards or is longer than 9999, or a number of ten digits.
    """
    numbers: set[int] = set()
    for part in str(text).split(","):
        match = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", part)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= low <= high < low + 9999:
            raise InputError(f"'{text}' is not a list of numbers ('{part.strip()}' is not one): "
                             "write numbers from 1 and ranges, as in 1-25,30")
        numbers.update(range(low, high + 1))
    return tuple(sorted(numbers))


def lasting(seconds: float) -> str:
    """How long something takes, in the unit that people would say."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else \
        f"{seconds / 3600:.1f} h"


def format_numbers(numbers: Iterable[int]) -> str:
    """The way back, for messages: (1, 2, 3, 6) -> "1-3, 6"."""
    # numbers that follow each other are as far from their places
    parted = groupby(enumerate(sorted(numbers)), lambda placed: placed[1] - placed[0])
    runs = [[number for _, number in run] for _, run in parted]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM, or the terminal is gone): everything is tidied up as after Ctrl-C."""


_SPACE = "make room on that disk, or choose another folder"
_RIGHTS = "choose a folder that you may write to, or change its permissions"
_REMEDIES = {
    errno.ENOSPC: _SPACE, errno.EDQUOT: _SPACE, errno.EROFS: _RIGHTS, errno.EACCES: _RIGHTS, errno.EPERM: _RIGHTS,
    errno.EFBIG: "let files grow larger (ulimit -f)", errno.EMFILE: "allow more open files (ulimit -n 4096)",
    errno.ENFILE: "close other programs: no more files can be opened on this machine",
    errno.ENOENT: "something removed it meanwhile: give the command once more",
    errno.EIO: "the disk or its connection fails: check it, and give the command once more",
    errno.ENAMETOOLONG: "choose a shorter name", errno.ENOTDIR: "choose a folder", errno.EISDIR: "choose a file",
}


def explained(error: BaseException) -> str | None:
    """A fault of the system, or of memory, in one line with the file and what would do; None where it is none.

    Knows an OSError, and the errors of HDF5 and TensorFlow that hold its number or its words.
    """
    text = " ".join(str(error).split())
    if isinstance(error, RecursionError):
        return "an input is nested too deep: repair it"
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError" and "OOM" in text:
        return "this needs more memory than there is: take smaller batches, windows or networks, or fewer at once"
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        told = re.search(r"errno = (\d+)", text)
        number = int(told[1]) if told else next((n for n in _REMEDIES if os.strerror(n) in text), None)
        if "random_device" in text:  # libstdc++ could not open the system's source of randomness, and does not say why
            number = errno.EMFILE
    if number is None and not isinstance(error, OSError):
        return None
    found = re.search(r"(?:name = |\[Errno \d+\] [^:']+: )'([^']*)'", text)
    name = getattr(error, "filename", None) or (found[1] if found else "")
    why = os.strerror(number) if number and (name or isinstance(error, OSError)) else text[:200] or type(error).__name__
    remedy = _REMEDIES.get(number, "look into that, and give the command once more")
    return f"{name}{': ' if name else ''}{why}: {remedy}"


def shown(text: Any) -> str:
    """Text from outside (names of files, answers of servers) as a terminal may get it: what would steer it is `?`."""
    return "".join("?" if unicodedata.category(c) in _STEERING and c not in "\n\t" or c in _TURNS else c
                   for c in str(text))


_STEERING = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of characters, other ends of lines and paragraphs
_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # the way text is read


def terminal(**options: Any) -> Any:
    """A rich console that takes text from outside (`shown`), in tables and lines alike, and reads no markup in it."""
    from rich.console import Console

    class Terminal(Console):
        def render_str(self, text: str, **how: Any):
            return super().render_str(shown(text), **how)

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # `run` knows what to do, and rich would end with exit code 1

    return Terminal(**{"markup": False, "emoji": False} | options)


class _Shown(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = shown(super().format(record))
        return text if record.exc_info or "\n" in str(record.msg) else " ".join(text.split("\n"))  # no forged lines


@cache
def warn_once(text: str) -> None:
    """Logs a warning where a process comes to it first: every stage reads a recording again."""
    log.warning("%s", text)


def numeric(kind: type[int] | type[float], low: float, high: float) -> Callable[[str], float]:
    """An argparse type: a finite number from `low` to `high`."""
    def parse(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not from {low:g} to {high:g}")
        return value

    parse.__name__ = f"{kind.__name__} value"  # argparse says "invalid ... "
    return parse


def log_to_stderr() -> None:
    """Lets the log say what it has to say on stderr as it is now."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Shown("%(message)s"))
    log.handlers, log.propagate = [handler], False  # absl gives the root logger a handler of its own
    log.setLevel(logging.INFO)


def run(main: Callable[[list[str]], None], argv: list[str] | None = None) -> None:
    """Runs a command line and exits, whatever happens in one line and without a traceback.

    0 for work done, 2 for an input error or a fault of the system (a full disk, a folder that vanished), 1 for an
    error that nobody foresaw (TFKFIN_TRACEBACK=1 shows where), 130 for an interrupt, 143 for SIGTERM.
    """
    from tfkfin.base import machine

    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed before we began
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))
    log_to_stderr()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that knows ASCII alone gets a table with ?
    try:
        machine.allow_files()
        code = _code(main, sys.argv[1:] if argv is None else argv)
    except OSError as error:  # no more files can be opened, not even to hear of signals
        code = _told(error)
    sys.exit(code)


def _code(main: Callable[[list[str]], None], argv: list[str]) -> int:
    """The exit code of a command line; whatever went wrong has been said."""
    with _ends_soon() as (heard, said):
        try:
            with _ends_tidily():
                main(argv)
                sys.stdout.flush()
            return 0
        except BrokenPipeError:  # the reader of our output (head, less) has gone
            _drop_output()
            return 0
        except (Exception, KeyboardInterrupt) as error:
            said.set()  # libraries that are being loaded make other errors of an interrupt
            code = _told(KeyboardInterrupt() if heard.is_set() else error)
            try:
                sys.stdout.flush()
            except OSError:
                _drop_output()
            return code


def _drop_output() -> None:
    """Sends what stdout still holds nowhere: at its end Python would try once more, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _ends_soon() -> Iterator[tuple[threading.Event, threading.Event]]:
    """Ends the process soon after Ctrl-C, in whatever library it is.

    Python hears of a signal when the C code that runs has returned: minutes, where XLA compiles.

    Yields:
        Whether Ctrl-C has come, and what to set once that is said.
    """
    come, said = threading.Event(), threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield come, said
        return
    heard, told = os.pipe()
    os.set_blocking(told, False)
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)  # written to at once, by C

    def watch() -> None:
        while word := os.read(heard, 1):
            if word[0] == signal.SIGINT and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                come.set()
                time.sleep(PATIENCE)
                if not said.is_set():
                    _told(KeyboardInterrupt())
                for path in unfinished:
                    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
                os._exit(130)
        os.close(heard)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield come, said
    finally:
        signal.set_wakeup_fd(before)
        os.close(told)  # who watches for a signal that has come does not notice


def _told(error: BaseException) -> int:
    """Says what ended a command, in one line; returns the exit code."""
    if os.environ.get("TFKFIN_TRACEBACK"):
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        by = "terminated" if isinstance(error, Terminated) else "interrupted"
        sys.stderr.write(f"{by}: the same command resumes where it stopped\n")
        return 143 if isinstance(error, Terminated) else 130
    known, code = str(error) if isinstance(error, InputError) else explained(error), 2
    if known is None:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if Path(__file__).parents[1] in Path(f.filename).parents and f.filename != __file__]
        ours = ours or frames
        known = (f"unforeseen {type(error).__name__}: {str(error)[:300]} ({Path(ours[-1].filename).name}, line "
                 f"{ours[-1].lineno}; TFKFIN_TRACEBACK=1 shows all of it)")
        code = 1
    sys.stderr.write(f"error: {' '.join(shown(known).split())}\n")
    return code


@contextmanager
def _ends_tidily() -> Iterator[None]:
    """Turns SIGTERM and a closed terminal into an exception, which tidies up what is half done; a second one kills.

    One that Python heard of where nothing is raised (in a weak reference's callback, as imports have) comes again.
    """
    def end(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Terminated(number)

    def lost(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            return report(unraisable)
        number = unraisable.exc_value.args[0] if isinstance(unraisable.exc_value, Terminated) else signal.SIGINT
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else end)
        threading.Timer(0.01, signal.pthread_kill, [threading.main_thread().ident, number]).start()

    names = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        names = []
    before = {number: signal.getsignal(number) for number in names}
    report, sys.unraisablehook = sys.unraisablehook, lost
    for number in names:
        if before[number] == signal.SIG_DFL:  # nohup has SIGHUP ignored, and means it
            signal.signal(number, end)
    try:
        yield
    finally:
        sys.unraisablehook = report
        for number, was in before.items():
            if was is not None:  # None: not set from Python
                signal.signal(number, was)


@contextmanager
def quiet_start() -> Iterator[None]:
    """Holds back what TensorFlow's libraries write to stderr as they load, past any log level; shown if that fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
