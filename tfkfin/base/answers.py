"""How every command answers: results for people or as JSON, progress, and options that are alike everywhere.

Results go to stdout, all else to stderr. Colour and bars are for terminals; NO_COLOR, as https://no-color.org has it,
turns colour off.
"""

import argparse
import json
import logging
import math
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfkfin.base import reading
from tfkfin.base.console import log, terminal
from tfkfin.base.errors import InputError
from tfkfin.base.files import write_text
from tfkfin.base.quoted import line


@dataclass
class Output:
    """How this process answers, as its command line asks.

    Attributes:
        json: where the result goes as JSON: a file, "-" for stdout, "" for nowhere.
        quiet: nothing on stderr but warnings and errors.
        title: of what loops that may be long show themselves as, "" where they do not.
    """

    json: str = ""
    quiet: bool = False
    title: str = ""


output = Output()
_STORE = re.compile(r"(s3[an]?|gs|gcs|az|abfss?|wasbs?|hdfs|https?):/", re.IGNORECASE)  # pathlib makes // one slash


def command_line(name: str, use: str, text: str, examples: str = "") -> argparse.ArgumentParser:
    """The parser of `python -m tfkfin.<name>`, whose help begins with its commonest `use`.

    `text`: a command's docstring, which may end with the `examples`.
    """
    text, heading, own = text.partition("examples:\n")
    examples = examples or heading + own
    return argparse.ArgumentParser(prog=f"python -m tfkfin.{name}", usage=f"%(prog)s {use}", description=text,
                                   epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter)


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command line, with --json and --quiet, which every command has.

    Raises:
        InputError: a folder to keep things in is a URL, or the file for JSON is there already.
    """
    for one in _leaves(parser):
        group = one.add_argument_group("output")
        group.add_argument("--json", default="", metavar="[FILE.json]", help="the result as JSON to a file, or to "
                           "stdout in place of tables")
        group.add_argument("--quiet", action="store_true", help="no progress, nothing but results and warnings")
    words = [f"{word}=-" if word == "--json" and not following.endswith(".json") else word
             for word, following in zip(argv, [*argv[1:], ""], strict=False)]
    arguments = parser.parse_args(words)
    output.json, output.quiet = arguments.json, arguments.quiet
    log.setLevel(logging.WARNING if output.quiet else logging.INFO)
    if output.json not in ("", "-"):
        _check_own(Path(output.json))
    for kept in (getattr(arguments, name, None) for name in ("run", "to")):
        if _STORE.match(str(kept)):
            raise InputError(f"{kept} is on no disk: runs and models need a folder with locks and rename in one step, "
                             "which object stores have not. Keep them on a disk that all see, and copy them afterwards")
    return arguments


def _leaves(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The parsers of its subcommands, or the parser where it has none."""
    subs = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    below = [one for action in subs for one in action.choices.values()]
    return [leaf for one in below for leaf in _leaves(one)] or [parser]


def paper(**options: Any) -> Any:
    """Where results for people are printed: stdout, or nowhere when it takes JSON."""
    return terminal(quiet=output.json == "-", **options)


def margin(**options: Any) -> Any:
    """Where bars are drawn: stderr, or nowhere with --quiet."""
    return terminal(stderr=True, quiet=output.quiet, **options)


def answer(result: Any) -> None:
    """Writes a command's result where --json says, if it says."""
    text = json.dumps(_plain(result), indent=2, allow_nan=False) + "\n" if output.json else ""
    if output.json == "-":
        sys.stdout.write(text)
    elif output.json:
        _check_own(Path(output.json), _plain(result))
        write_text(Path(output.json), text)


def _check_own(path: Path, result: Any = None) -> None:
    """Raises InputError if a file is there, unless a command like this one wrote it: JSON with the keys of `result`."""
    if not path.exists():
        return
    try:
        there = json.loads(reading.content(path))
    except InputError:
        raise
    except (ValueError, RecursionError):
        there = None
    keys = [sorted(one) if isinstance(one, dict) else [] for one in (
        value[0] if isinstance(value, list) and value else value for value in (result, there))]
    if not keys[1] and there != [] or result is not None and keys[0] != keys[1]:
        raise InputError(f"{path} is there already, holds something else and is never overwritten: give --json another "
                         "file")


def answer_path(where: Any) -> None:
    """Prints a result that is a path, as a line or as JSON."""
    log.info("%s", where)
    answer({"made": where})


def _plain(value: Any) -> Any:
    """NaN as null, for which JSON has no other word; arrays as lists, paths as text."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def track(items: Iterable, title: str, total: int | None = None) -> Iterator:
    """The items one by one, under a bar on a terminal; elsewhere a line every 15 s tells how far it is."""
    from rich.markup import escape
    from rich.progress import track as bars

    console, began = margin(), time.monotonic()
    total = len(items) if total is None and hasattr(items, "__len__") else total
    if console.is_terminal and not output.quiet:
        yield from bars(items, escape(line(title)), total, console=console, transient=True)
        return
    for i, item in enumerate(items):
        if time.monotonic() - began > 15:
            began = time.monotonic()
            log.info("%s: %d%s", title, i, f" of {total}" if total else "")
        yield item


@contextmanager
def showing(title: str) -> Iterator[None]:
    """Lets loops inside that may be long show how far they are (see `steps`)."""
    output.title = title
    try:
        yield
    finally:
        output.title = ""


def steps(items: Iterable, total: int | None = None) -> Iterable:
    """The items; under a bar where a command line is `showing` what it does."""
    return track(items, output.title, total) if output.title else items


@contextmanager
def working(title: str) -> Iterator[None]:
    """Says what is being done, for as long as it takes on a terminal, once elsewhere."""
    from rich.markup import escape

    console = margin()
    if console.is_terminal and not output.quiet:
        with console.status(escape(line(title))):
            yield
    else:
        log.info("%s", title)
        yield
