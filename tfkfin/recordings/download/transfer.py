"""Fetches one file by HTTP so that it can be cut off at any moment and goes on where it was.

`requests` carries the bytes (TensorFlow brings it, and it knows proxies and certificates). Of the kept libraries
none resumes (pooch starts again from zero), so ranges and patience are here.
"""

import os
import random
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tfkfin import __version__
from tfkfin.recordings.download.part import Part

_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_BLOCK = 1 << 16
_SPARE = 64 << 20  # bytes left free on the disk
_MOST_ATTEMPTS = 500  # for one file: a server that hands out a few bytes a time does not hold us forever
_BRIEF = 60  # s waited for a server's answer to "how large is it?"


class FetchError(Exception):
    """The file could not be fetched. `everyone`: neither can any other, so there is no use in trying."""

    def __init__(self, reason: str, everyone: bool = False):
        super().__init__(reason)
        self.everyone = everyone


class Stopped(Exception):
    """The user interrupted, or another file's failure made this one pointless."""


class _Again(Exception):
    def __init__(self, reason: str, wait_s: float | None = None, unreachable: bool = False):
        super().__init__(reason)
        self.wait_s, self.unreachable = wait_s, unreachable


@dataclass(frozen=True)
class Patience:
    """How long to bear with a server."""

    tries: int = 6  # in a row that bring no new byte
    stall_s: float = 30.0  # without a byte, or below `slowest`
    slowest: float = 1000.0  # bytes a second over `stall_s`
    backoff_s: float = 1.0  # before the second try; doubles, with jitter
    longest_wait_s: float = 600.0  # if a server asks for more, we leave


class Transfer:
    """Fetches files, each by one connection; all heed a server that asks one of them to wait.

    Args:
        patience: see Patience.
        tell: called with a line for the user when something has to be waited for.
    """

    def __init__(self, patience: Patience, tell: Callable[[str], None]):
        self.patience, self.tell, self.stop = patience, tell, threading.Event()
        self._not_before = 0.0  # time.monotonic(): what a server asked of us

    def size(self, url: str) -> int | None:
        """Length of a remote file if the server says so at once."""
        import requests

        try:
            answer = requests.head(url, timeout=min(_BRIEF, self.patience.stall_s), allow_redirects=True,
                                   headers={"Accept-Encoding": "identity", "User-Agent": f"tfkfin/{__version__}"})
            return int(answer.headers["Content-Length"]) if answer.status_code == 200 else None
        except (requests.RequestException, KeyError, ValueError):
            return None

    def fetch(self, url: str, target: Path, starts: bytes, progress: Callable) -> Part:
        """Fetches `url` into the part of `target`, whole, and gives it; `become` makes it the target.

        Args:
            starts: first bytes of every file of the kind wanted, so that a page of text is not kept for one.
            progress: called with bytes new, bytes there and bytes in all (or None), now and then.

        Raises:
            FetchError: not to be had. What has arrived stays.
            Stopped: `stop` was set.
        """
        part, fruitless = Part(target), 0
        if part.whole and part.told["url"] == url:
            return part
        for attempt in range(1, _MOST_ATTEMPTS + 1):
            before = part.size
            try:
                self._pause(self._not_before - time.monotonic())
                self._attempt(url, part, starts, progress)
                return part
            except _Again as failure:
                reason = failure
            fruitless = 0 if part.size > before else fruitless + 1
            if fruitless >= self.patience.tries:
                break
            self._wait(target.name, reason, fruitless)
        raise FetchError(f"{reason} (tried {attempt} times)", everyone=reason.unreachable)

    def _wait(self, name: str, reason: _Again, fruitless: int) -> None:
        seconds = self.patience.backoff_s * 2 ** max(0, fruitless - 1) * random.uniform(0.75, 1.25)  # noqa: S311
        if reason.wait_s is not None:
            seconds = max(seconds, reason.wait_s)
            self._not_before = max(self._not_before, time.monotonic() + reason.wait_s)
        if seconds > self.patience.longest_wait_s:
            raise FetchError(f"{reason}: the server asks to come back in {seconds / 60:.0f} minutes", everyone=True)
        self.tell(f"{name}: {reason}; next try in {seconds:.0f} s")
        self._pause(seconds)

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(seconds) if seconds > 0 else self.stop.is_set():
            raise Stopped

    def _attempt(self, url: str, part: Part, starts: bytes, progress) -> None:
        """One request. Returns when the part is whole."""
        import requests
        import urllib3

        headers = {"Accept-Encoding": "identity", "User-Agent": f"tfkfin/{__version__}"} | part.request(url)
        try:
            with requests.get(url, headers=headers, stream=True, timeout=self.patience.stall_s) as answer:
                if not _agree(answer, url, part):
                    self._receive(answer.raw, part, starts, progress)
        except (requests.Timeout, urllib3.exceptions.ReadTimeoutError) as error:
            raise _Again(f"no byte for {self.patience.stall_s:g} s",
                         unreachable=isinstance(error, requests.ConnectTimeout)) from error
        except requests.exceptions.SSLError as error:
            raise FetchError(f"no safe connection: {_short(error)}", everyone=True) from error
        except requests.ConnectionError as error:
            never = isinstance(getattr(error.args[0], "reason", None), urllib3.exceptions.NewConnectionError)
            raise _Again(f"no connection: {_short(error)}", unreachable=never) from error
        except urllib3.exceptions.HTTPError as error:
            raise _Again(f"cut off: {_short(error)}") from error
        except requests.RequestException as error:  # an address that is none, redirects without end
            raise FetchError(_short(error)) from error
        length = part.told["length"]
        if length is not None and part.size != length:
            part.discard()
            raise _Again("more bytes came than were announced")

    def _receive(self, raw, part: Part, starts: bytes, progress) -> None:
        """Appends what comes to the part. Each read gives what is there, so neither a stop nor a stall is missed."""
        length, size = part.told["length"], part.size
        mark_s, mark = time.monotonic(), size
        with open(part.path, "ab") as file:
            while block := raw.read1(_BLOCK):
                if size == 0 and not block.startswith(starts[: len(block)]):
                    raise FetchError(f"not a zip archive, but '{_readable(block)}'")
                file.write(block)
                size += len(block)
                progress(len(block), size, length)
                self._pause(0)
                passed = time.monotonic() - mark_s
                if passed > self.patience.stall_s:
                    if size - mark < self.patience.slowest * passed:
                        raise _Again(f"slower than {self.patience.slowest:g} bytes a second")
                    mark_s, mark = time.monotonic(), size
            file.flush()
            os.fsync(file.fileno())


def _agree(answer, url: str, part: Part) -> bool:
    """Makes the part fit what the answer brings; True if it is whole already."""
    code, headers = answer.status_code, answer.headers
    if code in _RETRIED:
        raise _Again(f"{code} {answer.reason}", _retry_after(headers.get("Retry-After")))
    if code == 200 and headers.get("Content-Encoding", "identity") == "identity":
        announced = headers.get("Content-Length", "")
        part.begin(url, int(announced) if announced.isdigit() else None, headers)  # new, changed, or knows no ranges
    elif code in (206, 416) and part.size:
        found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", headers.get("Content-Range", ""))
        start, length = (int(found[1] or -1), int(found[2])) if found else (None, None)
        if code == 416 and length == part.size and part.told["length"] in (length, None):
            return True
        same = part.told["length"] in (length, None) and headers.get("ETag") in (part.told["etag"], None)
        if code == 416 or start != part.size or not same:
            part.discard()
            raise _Again("it is another file there than the one begun")
    else:
        raise FetchError(f"{code} {answer.reason if code >= 400 else 'is an answer of no use'} at {url}")
    room(part.path.parent, (part.told["length"] or 0) - part.size)
    return False


def room(folder: Path, needed: int) -> None:
    """Makes sure that `needed` bytes fit on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if needed + _SPARE > free:
        raise FetchError(f"the disk is full: {needed / 1e6:.0f} MB wanted, {free / 1e6:.0f} MB free in {folder}",
                         everyone=True)


def _retry_after(value: str | None) -> float | None:
    """Seconds asked for, as a number or a date; None for anything else."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    try:
        return None if value is None else Retry().parse_retry_after(value)
    except (InvalidHeader, ValueError, OverflowError):
        return None


def _short(error: Exception) -> str:
    """The innermost reason, without the objects and addresses that these libraries print around it."""
    inner = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    text = " ".join(str(getattr(inner, "reason", None) or inner).split())
    return re.sub(r"<[^<>]*>(?:: )?|HTTPS?Connection(?:Pool)?\([^()]*\): ", "", text)[:160] or type(error).__name__


def _readable(block: bytes) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in block[:60].decode("ascii", "replace")).split())
