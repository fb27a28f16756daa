"""What comes over a network, within bounds of time and size, whoever sends it and however slowly."""

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

Value = TypeVar("Value")
_BLOCK = 1 << 16


class TooMuch(ValueError):
    """An answer that is longer than it may be, or packed though nobody asked for that."""


def within(seconds: float, action: Callable[[], Value]) -> Value:
    """What `action()` gives. A library's own limits begin anew with every byte that comes; this one does not.

    Raises:
        TimeoutError: it takes longer; it goes on in a thread of its own, whose result nobody sees.
    """
    done: list[tuple[bool, Any]] = []

    def work() -> None:
        try:
            done.append((True, action()))
        except BaseException as error:
            done.append((False, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(max(0.0, seconds))
    if not done:
        raise TimeoutError
    well, value = done[0]
    if not well:
        raise value
    return value


def body(answer: Any, most: int, end: float) -> bytes:
    """The body of a streamed `requests` answer, not longer than `most` bytes and not later than `end` (monotonic).

    Raises:
        TooMuch, TimeoutError.
    """
    if answer.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
        raise TooMuch("it came packed, which was not asked for")
    parts, size = [], 0
    while block := answer.raw.read1(_BLOCK):
        parts.append(block)
        size += len(block)
        if size > most:
            raise TooMuch(f"it is longer than {most} bytes")
        if time.monotonic() > end:
            raise TimeoutError
    return b"".join(parts)
