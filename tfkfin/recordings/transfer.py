"""Fetches one file by HTTP so that it can be cut off at any moment and goes on where it was.

`requests` carries the bytes: it knows proxies and certificates. urllib3's `Retry` ends where the body begins, so it
would not see the cuts and stalls of long files; pooch starts again from zero.
"""

import os
import random
import re
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urljoin

from tfkfin import __version__
from tfkfin.base import files
from tfkfin.base.bounded import within
from tfkfin.base.console import InputError

HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"tfkfin/{__version__}"}
STALL_S = 30.0  # without a byte, or below _SLOWEST, until the next try
_SLOWEST = 1000.0  # bytes a second
_TRIES = 6  # in a row that bring hardly anything
_LARGEST = 16 << 30  # bytes of a file: no archive of recordings is larger
_MOST_TRIES = 500  # for one file: a server that hands out a few bytes a time does not hold us forever
_BACKOFF_S = 1.0  # before the second try; doubles, with jitter
_LONGEST_WAIT_S = 600.0  # if a server asks for more, we leave
_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_BLOCK = 1 << 16
_ROOM = 16 << 20  # bytes between looks at the disk, where nobody said how many will come
_SPARE = 64 << 20  # bytes left free on the disk


class FetchError(InputError):
    """A file could not be fetched. `everyone`: nor can any other. `again_s`: after so many seconds it may be."""

    def __init__(self, reason: str, everyone: bool = False, again_s: float | None = None):
        super().__init__(reason)
        self.everyone, self.again_s = everyone, again_s


class Slow(FetchError):
    """Too little came in its time."""


class Stopped(Exception):
    """The user interrupted, or another file's failure made this one pointless."""


class Part:
    """What has arrived of `url` for `target`: `<name>.tfkfin.part`, with a sheet, `<name>.tfkfin.part.json`."""

    def __init__(self, url: str, target: Path):
        self.url, self.target, self.path = url, target, target.with_name(f"{target.name}.tfkfin.part")
        self._sheet, told = target.with_name(f"{target.name}.tfkfin.part.json"), {}
        with suppress(OSError, ValueError, TypeError):
            told = dict(files.read_json(self._sheet) or {})
        same = told.get("url") == url and self.path.exists() and not self.path.is_symlink()
        self.length, self.version = (told.get("length"), told.get("version")) if same else (None, None)
        self.size = self.path.stat().st_size if same else 0
        self.fetched = 0  # bytes, by this object

    def begin(self, length: int | None, version: str | None) -> None:
        """Empties it and notes what it is to be; `version` is an ETag or a date."""
        self.path.unlink(missing_ok=True)  # first: an old part is never found with a new sheet
        self.open("xb").close()
        files.write_json(self._sheet, {"url": self.url, "length": length, "version": version})
        self.length, self.version, self.size = length, version, 0

    def open(self, mode: str):
        """The file to append to; a link that somebody put in its place is not followed."""
        own = getattr(os, "O_NOFOLLOW", 0)
        return open(self.path, mode, opener=lambda path, flags: os.open(path, flags | own, 0o666))

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._sheet.unlink(missing_ok=True)
        self.length, self.version, self.size = None, None, 0

    def finish(self) -> None:
        """Makes it the target."""
        files.put(self.path, self.target)
        self.discard()


class Transfer:
    """Fetches files, each by one connection; all heed `stop`, and a server that asks one of them to wait.

    Args:
        tell: called with a line for the user when something has to be waited for.
        progress: called with a part now and then.
    """

    def __init__(self, stall_s: float, tell: Callable[[str], None], progress: Callable[[Part], None]):
        self._stall_s, self._tell, self._progress, self.stop = stall_s, tell, progress, threading.Event()
        self._not_before = 0.0  # time.monotonic(): what a server asked of us

    def fetch(self, part: Part, starts: bytes = b"") -> None:
        """Fetches the whole of a part; its `finish` makes it the target.

        Args:
            starts: first bytes of every file of the kind wanted, so that a page of text is not kept for one.

        Raises:
            FetchError: not to be had. What has arrived stays.
            Stopped: `stop` was set.
        """
        fruitless = 0
        for tries in range(1, _MOST_TRIES + 1):
            if part.size and part.size == part.length:
                return
            before = part.size
            try:
                self.pause(self._not_before - time.monotonic())
                return self._try(part, starts)
            except FetchError as error:
                if error.again_s is None:
                    raise
                reason = error
            least = _SLOWEST * self._stall_s if isinstance(reason, Slow) else 1  # bytes that renew our patience
            fruitless = 0 if part.size - before >= least else fruitless + 1
            if fruitless >= _TRIES:
                break
            self._not_before = max(self._not_before, time.monotonic() + reason.again_s)
            if reason.again_s > _LONGEST_WAIT_S:
                raise FetchError(f"{reason}: the server asks to come back in {reason.again_s / 60:.0f} minutes", True)
            backoff_s = _BACKOFF_S * 2 ** max(0, fruitless - 1) * random.uniform(0.75, 1.25)  # noqa: S311
            self._tell(f"{Path(part.url).name}: {reason}; next try in {max(reason.again_s, backoff_s):.0f} s")
            self.pause(max(reason.again_s, backoff_s))
        raise FetchError(f"{reason} (tried {tries} times)", reason.everyone)

    def pause(self, seconds: float = 0.0) -> None:
        if self.stop.wait(max(0.0, seconds)):
            raise Stopped

    def _try(self, part: Part, starts: bytes) -> None:
        """One request. Returns when the part is whole."""
        import requests
        from urllib3.exceptions import ConnectTimeoutError, HTTPError, ReadTimeoutError

        headers = dict(HEADERS)
        if part.size:
            headers["Range"] = f"bytes={part.size}-"
            if part.version and not part.version.startswith("W/"):  # a weak one may not stand for bytes
                headers["If-Range"] = part.version
        try:
            with session() as own:
                asked = partial(own.get, part.url, headers=headers, stream=True, timeout=self._stall_s)
                with within(2 * self._stall_s, asked) as answer:  # a head that trickles comes to no end
                    if not _is_whole(part, answer):
                        self._receive(part, answer.raw, starts)
        except TimeoutError as error:
            raise Slow(f"no answer within {2 * self._stall_s:g} s", again_s=0.0) from error
        except requests.exceptions.SSLError as error:
            raise FetchError(f"no safe connection: {short(error)}", everyone=True) from error
        except (requests.ConnectionError, requests.Timeout, HTTPError) as error:
            reason = f"{'cut off' if isinstance(error, HTTPError) else 'no connection'}: {short(error)}"
            if isinstance(error, requests.Timeout | ReadTimeoutError):
                reason = f"no byte for {self._stall_s:g} s"
            cause = getattr(error.args[0], "reason", None)  # a refused connection is a ConnectTimeoutError too
            kind = Slow if reason.startswith("no byte") else FetchError
            raise kind(reason, isinstance(cause, ConnectTimeoutError), again_s=0.0) from error
        except (requests.RequestException, ValueError, HTTPException) as error:  # no address, redirects, odd heads
            if isinstance(error, FetchError):
                raise
            raise FetchError(short(error)) from error
        if part.length not in (part.size, None):
            part.discard()
            raise FetchError("more bytes came than were announced", again_s=0.0)

    def _receive(self, part: Part, raw, starts: bytes) -> None:
        """Appends what comes to the part. Each read gives what is there, so neither a stop nor a stall is missed."""
        since, before = time.monotonic(), part.size
        with part.open("ab") as file:
            while block := raw.read1(_BLOCK):
                if part.size == 0 and not block.startswith(starts[: len(block)]):
                    text = re.sub(r"[^!-~]+", " ", block[:60].decode("latin-1")).strip()
                    raise FetchError(f"not a zip archive, but '{text}'")
                if part.size + len(block) > (part.length or _LARGEST):
                    raise FetchError(f"more bytes came than {'were announced' if part.length else 'an archive has'}")
                if not part.length and part.size % _ROOM + len(block) > _ROOM:
                    room(part.path.parent, 0)
                part.size += file.write(block)
                part.fetched += len(block)
                self._progress(part)
                self.pause()
                passed = time.monotonic() - since
                if passed > self._stall_s:
                    if part.size - before < _SLOWEST * passed:
                        raise Slow(f"slower than {_SLOWEST:g} bytes a second", again_s=0.0)
                    since, before = time.monotonic(), part.size


def _is_whole(part: Part, answer) -> bool:
    """Makes the part fit what the answer brings, which is to be appended, unless it says that the part is whole."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    code, headers, again_s = answer.status_code, answer.headers, None
    if code in _RETRIED:
        with suppress(InvalidHeader, ValueError, OverflowError):
            again_s = Retry().get_retry_after(answer.raw)
        raise FetchError(f"{code} {answer.reason}", again_s=again_s or 0.0)
    if code == 200 and headers.get("Content-Encoding", "identity") == "identity":  # new, changed, or knows no ranges
        part.begin(length_of(headers), headers.get("ETag") or headers.get("Last-Modified"))
    elif code in (206, 416) and part.size:
        if code == 416 and part.length is None and headers.get("Content-Range") == f"bytes */{part.size}":
            return True
        rest = rf"bytes {part.size}-\d+/{part.length or '[0-9]+'}"
        if headers.get("ETag") not in (part.version, None) or not re.fullmatch(rest, headers.get("Content-Range", "")):
            part.discard()
            raise FetchError("it is another file there than the one begun", again_s=0.0)
    else:
        raise FetchError(f"{code} {answer.reason if code >= 400 else 'is an answer of no use'} at {part.url}")
    room(part.path.parent, (part.length or 0) - part.size)
    return False


def length_of(headers) -> int | None:
    """Content-Length, where it is a number that can be."""
    said = headers.get("Content-Length", "")
    return int(said) if re.fullmatch(r"[0-9]{1,15}", said) else None


def session():
    """A `requests.Session` that is never led from a safe connection to one that anybody on the way can change."""
    import requests

    class Safe(requests.Session):
        def resolve_redirects(self, resp, *more, **others):
            try:
                yield from super().resolve_redirects(resp, *more, **others)
            except Exception:  # a direction that cannot be followed
                resp.close()
                raise

        def get_redirect_target(self, resp):
            target = super().get_redirect_target(resp)
            if not target:
                return target
            kinds = ("https:",) if resp.url.startswith("https:") else ("https:", "http:")
            try:
                there = urljoin(resp.url, target)
            except ValueError:
                there = ""
            if not there.startswith(kinds):
                raise requests.exceptions.InvalidURL(f"{resp.url} leads to {target[:200]!r}, which is not safe: it "
                                                     f"is not {' or '.join(kinds)}//")
            return target

    return Safe()


def room(folder: Path, needed: float, advice: str = "") -> None:
    """Makes sure that `needed` bytes fit on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if needed + _SPARE > free:
        wanted = f"{needed / 1e6:.0f} MB wanted, {free / 1e6:.0f} MB free in {folder}"
        raise FetchError(f"the disk is full: {wanted}{advice}", everyone=True)


def short(error: Exception) -> str:
    """The innermost reason, without the objects and addresses that these libraries print around it."""
    inner = error.args[0] if error.args and isinstance(error.args[0], Exception | str) else error
    text = " ".join(str(getattr(inner, "reason", None) or inner).split())
    return re.sub(r"<[^<>]*>(?:: )?|HTTPS?Connection(?:Pool)?\([^()]*\): ", "", text)[:160] or type(error).__name__
