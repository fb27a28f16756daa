"""A root on `http(s)://`: listed by its `index.txt` or the server's pages of links, downloaded by `transfer`."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote, unquote, urljoin, urlsplit

from tfkfin.base.bounded import body, within
from tfkfin.base.console import log
from tfkfin.base.errors import InputError
from tfkfin.recordings.transfer import HEADERS, PartialFile, Transfer, length_of, session, short

_DEEPEST = 4  # folders below the root
_PAGES = 1000  # folders in all
_TIMEOUT_S = 30  # s without an answer
_LONGEST = 16 << 20  # bytes of a list of files


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
        return dict(zip(names, pool.map(lambda name: stamp(_address(url, name)), names), strict=True))


def fetch(url: str, targets: dict[str, Path]) -> Iterator[str]:
    """Downloads files, one after another, and yields each name when its file is complete."""
    transfer = Transfer(_TIMEOUT_S, log.info, lambda part: None)
    for name, target in targets.items():
        part = PartialFile(_address(url, name), target)
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
    for i in range(_PAGES):
        if i >= len(pages):
            break
        address, depth = pages[i]
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


def _address(url: str, name: str) -> str:
    return f"{url}/{quote(name)}"


def _ask(method: str, address: str, missing: bool = False):
    """The server's answer; with `missing`, None if there is no such file."""
    import requests
    from urllib3.exceptions import HTTPError

    def request():
        with session() as own, own.request(method, address, timeout=_TIMEOUT_S, stream=True, allow_redirects=True,
                                           headers=HEADERS) as answer:
            answer._content = body(answer, _LONGEST, time.monotonic() + 2 * _TIMEOUT_S)
        return answer

    try:
        answer = within(3 * _TIMEOUT_S, request)
    except TimeoutError:
        raise InputError(f"{address} takes longer than {2 * _TIMEOUT_S} s to answer") from None
    except (requests.RequestException, HTTPError, HTTPException, ValueError) as error:  # malformed headers, too long
        raise InputError(f"{address} cannot be reached: {short(error)}") from error
    if missing and answer.status_code in (403, 404):
        return None
    if answer.status_code != 200:
        raise InputError(f"{address} answers {answer.status_code} {answer.reason}")
    return answer
