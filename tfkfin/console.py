"""What every command line shares: one-line errors with exit code 2, quiet TensorFlow, logging."""

import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

log = logging.getLogger("tfkfin")


class InputError(ValueError):
    """Something the user gave is unfit. The message is one line: what is wrong, where, what would do."""


def parse_numbers(text: str) -> tuple[int, ...]:
    """Numbers and ranges as users write them: "1-3,6" -> (1, 2, 3, 6), sorted, each once.

    Raises:
        InputError: anything else, a range that runs backwards, or a number outside 1..9999.
    """
    numbers: set[int] = set()
    for part in str(text).split(","):
        match = re.fullmatch(r"\s*(\d{1,4})\s*(?:-\s*(\d{1,4})\s*)?", part)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= low <= high:
            raise InputError(f"'{text}' is not a list of numbers ('{part.strip()}' is not one): "
                             "write numbers from 1 and ranges, as in 1-25,30")
        numbers.update(range(low, high + 1))
    return tuple(sorted(numbers))


def format_numbers(numbers: Iterable[int]) -> str:
    """The way back, for messages: (1, 2, 3, 6) -> "1-3, 6"."""
    ordered = sorted(numbers)
    runs: list[list[int]] = []
    for number in ordered:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def log_to_stderr() -> None:
    """Lets the log say what it has to say on stderr as it is now."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers, log.propagate = [handler], False  # absl gives the root logger a handler of its own
    log.setLevel(logging.INFO)


def run(main: Callable[[list[str]], None], argv: list[str] | None = None) -> None:
    """Runs a command line and exits: 0 for work done, 2 for an input error, 130 for an interrupt."""
    log_to_stderr()
    try:
        main(sys.argv[1:] if argv is None else argv)
    except InputError as error:
        message = " ".join(str(error).split())
        sys.stderr.write(f"error: {message}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the same command resumes where it stopped\n")
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


@contextmanager
def quiet_start() -> Iterator[None]:
    """Holds back what TensorFlow's libraries write to stderr as they load, which no log level stops.

    It is shown after all if the block fails.
    """
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
