"""Downloads files by HTTP, and lists what a server has; an interrupted download continues where it stopped.

`requests` handles proxies and certificates. urllib3's `Retry` does not cover the body of an answer, where long
downloads break off or stall, and pooch starts again from zero; so this module repeats requests itself.
"""

import os
import random
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from html.parser import HTMLParser
from http.client import HTTPException
from itertools import islice
from pathlib import Path
from urllib.parse import quote, unquote, urljoin, urlsplit

from tfkfin import __version__
from tfkfin.base import files
from tfkfin.base.bounded import body, within
from tfkfin.base.console import log
from tfkfin.base.errors import InputError

HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"tfkfin/{__version__}"}
STALL_S = 30.0  # without a byte, or slower than _SLOWEST, before the next try
_SLOWEST = 1000.0  # bytes a second
_TRIES = 6  # in a row that bring hardly any bytes
_LARGEST = 16 << 30  # bytes of a file: archives of recordings are smaller
_MOST_TRIES = 500  # for one file, against servers that send a few bytes at a time forever
_BACKOFF_S = 1.0  # before the second try; then doubles, with jitter
_LONGEST_WAIT_S = 600.0  # if a server asks to wait longer, the download fails
_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_BLOCK = 1 << 16
_ROOM = 16 << 20  # bytes between checks of the disk, where the length is unknown
_SPARE = 64 << 20  # bytes that stay free on the disk
_DEEPEST, _PAGES = 4, 1000  # folders below the root of a listing, and in all
_LONGEST = 16 << 20  # bytes of a list of files


class FetchError(InputError):
    """A download failed. `everyone`: so will those of other files. `again_s`: seconds until a retry makes sense."""

    def __init__(self, reason: str, everyone: bool = False, again_s: float | None = None):
        super().__init__(reason)
        self.everyone, self.again_s = everyone, again_s


class Slow(FetchError):
    """A server sends nothing, or too slowly."""


class Stopped(Exception):
    """The user interrupted, or another file failed in a way that concerns all."""


class PartialFile:
    """The bytes of `url` received so far, in `<target>.tfkfin.part`, with notes in `<target>.tfkfin.part.json`."""

    def __init__(self, url: str, target: Path):
        self.url, self.target, self.path = url, target, target.with_name(f"{target.name}.tfkfin.part")
        self._notes, noted = target.with_name(f"{target.name}.tfkfin.part.json"), {}
        with suppress(OSError, ValueError, TypeError):
            noted = dict(files.read_json(self._notes) or {})
        same = noted.get("url") == url and self.path.exists() and not self.path.is_symlink()
        self.length, self.version = (noted.get("length"), noted.get("version")) if same else (None, None)
        self.size = self.path.stat().st_size if same else 0
        self.fetched = 0  # bytes, by this object

    def begin(self, length: int | None, version: str | None) -> None:
        """Starts from zero; `version` is an ETag or a date."""
        self.path.unlink(missing_ok=True)  # first, so that old bytes never get new notes
        self.open("xb").close()
        files.write_json(self._notes, {"url": self.url, "length": length, "version": version})
        self.length, self.version, self.size = length, version, 0

    def open(self, mode: str):
        """Opens the file for writing, without following a symbolic link."""
        own = getattr(os, "O_NOFOLLOW", 0)
        return open(self.path, mode, opener=lambda path, flags: os.open(path, flags | own, 0o666))

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)
        self.length, self.version, self.size = None, None, 0

    def finish(self) -> None:
        """Renames the complete file to the target."""
        files.put(self.path, self.target)
        self.discard()


class Transfer:
    """Downloads files, each by one connection. All stop when `stop` is set, and wait when a server asks one to wait.

    Args:
        tell: called with a line for the user before each wait.
        progress: called with a partial file after each block.
    """

    def __init__(self, stall_s: float, tell: Callable[[str], None], progress: Callable[[PartialFile], None]):
        self._stall_s, self._tell, self._progress, self.stop = stall_s, tell, progress, threading.Event()
        self._not_before = 0.0  # time.monotonic() before which a server asked us not to come back

    def fetch(self, part: PartialFile, starts: bytes = b"") -> None:
        """Downloads a file completely; `finish` then renames it to the target.

        Args:
            starts: bytes that the file must start with, so that an error page is not taken for it.

        Raises:
            FetchError: the download failed. The bytes received so far are kept.
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
            least = _SLOWEST * self._stall_s if isinstance(reason, Slow) else 1  # bytes that reset the count
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

    def _try(self, part: PartialFile, starts: bytes) -> None:
        """One request; returns when the file is complete."""
        import requests
        from urllib3.exceptions import ConnectTimeoutError, HTTPError, ReadTimeoutError

        headers = dict(HEADERS)
        if part.size:
            headers["Range"] = f"bytes={part.size}-"
            if part.version and not part.version.startswith("W/"):  # a weak ETag does not identify bytes
                headers["If-Range"] = part.version
        try:
            with session() as own:
                asked = partial(own.get, part.url, headers=headers, stream=True, timeout=self._stall_s)
                with within(2 * self._stall_s, asked) as answer:  # limits headers that trickle in, too
                    if not _is_whole(part, answer):
                        self._receive(part, answer.raw, starts)
        except TimeoutError as error:
            raise Slow(f"no answer within {2 * self._stall_s:g} s", again_s=0.0) from error
        except requests.exceptions.SSLError as error:
            raise FetchError(f"no safe connection: {short(error)}", everyone=True) from error
        except (requests.ConnectionError, requests.Timeout, HTTPError) as error:
            # A refused connection is a ConnectTimeoutError too.
            everyone = isinstance(getattr(error.args[0], "reason", None), ConnectTimeoutError)
            if isinstance(error, requests.Timeout | ReadTimeoutError):
                raise Slow(f"no byte for {self._stall_s:g} s", everyone, again_s=0.0) from error
            what = "cut off" if isinstance(error, HTTPError) else "no connection"
            raise FetchError(f"{what}: {short(error)}", everyone, again_s=0.0) from error
        except (requests.RequestException, ValueError, HTTPException) as error:  # addresses, redirects, headers
            if isinstance(error, FetchError):
                raise
            raise FetchError(short(error)) from error
        if part.length not in (part.size, None):
            part.discard()
            raise FetchError("more bytes came than were announced", again_s=0.0)

    def _receive(self, part: PartialFile, raw, starts: bytes) -> None:
        """Appends the body to the file. `read1` returns what has arrived, so stops and stalls are noticed at once."""
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


def _is_whole(part: PartialFile, answer) -> bool:
    """Prepares the file for appending the answer's body; True if the answer shows that the file is complete."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    code, headers, again_s = answer.status_code, answer.headers, None
    if code in _RETRIED:
        with suppress(InvalidHeader, ValueError, OverflowError):
            again_s = Retry().get_retry_after(answer.raw)
        raise FetchError(f"{code} {answer.reason}", again_s=again_s or 0.0)
    if code == 200 and headers.get("Content-Encoding", "identity") == "identity":  # the whole file
        part.begin(length_of(headers), headers.get("ETag") or headers.get("Last-Modified"))
    elif code in (206, 416) and part.size:
        if code == 416 and part.length is None and headers.get("Content-Range") == f"bytes */{part.size}":
            return True
        rest = rf"bytes {part.size}-\d+/{part.length or '[0-9]+'}"
        if headers.get("ETag") not in (part.version, None) or not re.fullmatch(rest, headers.get("Content-Range", "")):
            part.discard()
            raise FetchError("the file on the server has changed since the download began", again_s=0.0)
    else:
        raise FetchError(f"{code} {answer.reason if code >= 400 else 'cannot be used'} at {part.url}")
    room(part.path.parent, (part.length or 0) - part.size)
    return False


def length_of(headers) -> int | None:
    """Content-Length, if it is a plausible number."""
    length = headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"[0-9]{1,15}", length) else None


def session():
    """A `requests.Session` that follows no redirect from https to http."""
    import requests

    class Safe(requests.Session):
        def resolve_redirects(self, resp, *more, **others):
            try:
                yield from super().resolve_redirects(resp, *more, **others)
            except Exception:  # a redirect that cannot be followed
                resp.close()
                raise

        def get_redirect_target(self, resp):
            target = super().get_redirect_target(resp)
            kinds, there = ("https:",) if resp.url.startswith("https:") else ("https:", "http:"), ""
            with suppress(ValueError):
                there = urljoin(resp.url, target or "")
            if target and not there.startswith(kinds):
                raise requests.exceptions.InvalidURL(f"{resp.url} leads to {target[:200]!r}, which is not safe: it "
                                                     f"is not {' or '.join(kinds)}//")
            return target

    return Safe()


def room(folder: Path, needed: float, advice: str = "") -> None:
    """Raises FetchError unless `needed` bytes fit on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if needed + _SPARE > free:
        wanted = f"{needed / 1e6:.0f} MB wanted, {free / 1e6:.0f} MB free in {folder}"
        raise FetchError(f"the disk is full: {wanted}{advice}", everyone=True)


def short(error: Exception) -> str:
    """The innermost reason of an error, without the object names and addresses that HTTP libraries print around it."""
    inner = error.args[0] if error.args and isinstance(error.args[0], Exception | str) else error
    text = " ".join(str(getattr(inner, "reason", None) or inner).split())
    return re.sub(r"<[^<>]*>(?:: )?|HTTPS?Connection(?:Pool)?\([^()]*\): ", "", text)[:160] or type(error).__name__


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def listing(url: str) -> dict[str, tuple[int, str]]:
    """Relative name -> size and stamp of every file below `url`.

    Raises:
        InputError: the server cannot be reached, or shows neither an index.txt nor a page of links.
    """
    index = _ask("GET", f"{url}/index.txt", missing=True)
    if index is not None and "html" not in index.headers.get("Content-Type", ""):
        lines = (line.strip() for line in index.text.splitlines())
        names = [line for line in lines if line and not line.startswith("#")]
    else:
        names = _linked(url)
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(names, pool.map(lambda name: stamp(f"{url}/{quote(name)}"), names), strict=True))


def fetch(url: str, targets: dict[str, Path]) -> Iterator[str]:
    """Downloads files, one after another, and yields each name when its file is complete."""
    transfer = Transfer(STALL_S, log.info, lambda part: None)
    for name, target in targets.items():
        part = PartialFile(f"{url}/{quote(name)}", target)
        try:
            transfer.fetch(part)
            part.finish()
        finally:
            part.discard()
        yield name


def stamp(address: str) -> tuple[int, str]:
    """Length of a file in bytes, and its ETag or date."""
    headers = _ask("HEAD", address).headers
    if (length := length_of(headers)) is None:
        raise InputError(f"{address}: the server does not tell its length")
    return length, headers.get("ETag") or headers.get("Last-Modified") or ""


def _linked(url: str) -> list[str]:
    """Names of all files below `url` that its pages of links lead to."""
    root, names, pages = urlsplit(url + "/").path, [], [(url + "/", 0)]
    for address, depth in islice(pages, _PAGES):  # which grows
        page = _ask("GET", address)
        if "html" not in page.headers.get("Content-Type", ""):
            raise InputError(f"{address} shows no list of files: put an index.txt there, with one name a line")
        links = _Links()
        links.feed(page.text)
        for link in dict.fromkeys(urljoin(address, link) for link in links.found):
            parts = urlsplit(link)
            if parts.query or parts.netloc != urlsplit(url).netloc or not parts.path.startswith(root):
                continue
            if not parts.path.endswith("/"):
                names.append(unquote(parts.path[len(root):]))
            elif depth < _DEEPEST and (folder := link.partition("#")[0]) not in (found for found, _ in pages):
                pages.append((folder, depth + 1))
    return list(dict.fromkeys(names))


def _ask(method: str, address: str, missing: bool = False):
    """The server's answer; with `missing`, None if there is no such file."""
    import requests
    from urllib3.exceptions import HTTPError

    def request():
        with session() as own, own.request(method, address, timeout=STALL_S, stream=True, allow_redirects=True,
                                           headers=HEADERS) as answer:
            answer._content = body(answer, _LONGEST, time.monotonic() + 2 * STALL_S)
        return answer

    try:
        answer = within(3 * STALL_S, request)
    except TimeoutError:
        raise InputError(f"{address} takes longer than {2 * STALL_S:g} s to answer") from None
    except (requests.RequestException, HTTPError, HTTPException, ValueError) as error:  # malformed headers, too long
        raise InputError(f"{address} cannot be reached: {short(error)}") from error
    if missing and answer.status_code in (403, 404):
        return None
    if answer.status_code != 200:
        raise InputError(f"{address} answers {answer.status_code} {answer.reason}")
    return answer
