"""The live page's door and its feed, attacked by other users, other pages, and anybody who has no key."""

import asyncio
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import requests
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from tfkfin.live import session
from tfkfin.live.door import is_home
from tfkfin.live.outputs import Feed
from tfkfin.live.page import State

ABOUT = {"rate_hz": 2000.0, "source_hz": 2000.0, "length": 200, "channels": 4, "features": ["RMS"],
         "movements": [0, 1, 2], "mean_v": [0.0] * 4, "sd_v": [1e-5] * 4, "names": {"0": "rest", "1": "a", "2": "b"}}
JUNK = [b"", b"\xff", b"\xff" * 50, b"record", b"pause\n", b"x" * 5000, b" record", b"none record", b"{}\n",
        b"[" * 5000]


@pytest.fixture(scope="module")
def feed():
    made = Feed(ABOUT)
    yield made
    made.close()


def asked(feed, path: str | None = None, method: str = "GET", **headers) -> int:
    parts = urlsplit(feed.url)
    url = f"http://{parts.netloc}{parts.path if path is None else path}"
    with requests.request(method, url, headers=headers, timeout=20) as answer:
        return answer.status_code


def test_the_address_holds_a_key_that_nothing_is_told_without(feed):
    key = urlsplit(feed.url).path.strip("/")
    assert urlsplit(feed.url).hostname == "127.0.0.1" and len(key) >= 22 and asked(feed) == 200
    assert asked(feed, f"/{key}/static/js/bokeh.min.js") == 200
    for path in ("/", "", "/ws", "/static/js/bokeh.min.js", "/autoload.js", "/metadata", f"/{key[:-1]}/", f"/{key}x/",
                 f"//{key}/", f"/x/{key}/", "/%ff%fe/", f"/?{key}", "/" + "x" * 5000):
        assert asked(feed, path) in (400, 403), path


def test_the_key_is_in_no_list_of_processes(feed):
    key = urlsplit(feed.url).path.strip("/")
    for place in ("cmdline", "environ"):
        assert key.encode() not in Path(f"/proc/{feed.pid}/{place}").read_bytes()


@pytest.mark.parametrize("host, status", [
    ("evil.example", 403), ("evil.example:{port}", 403), ("127.0.0.1.evil.example", 403),
    ("localhost.evil.example", 403), ("10.1.2.3", 403), ("", 403), ("[::", 403), ("a@b", 403),
    ("localhost:{port}", 200), ("127.0.0.1:9", 200),
    ("[::1]:{port}", 200)])
def test_a_host_that_means_this_machine_by_a_name_of_its_own_is_refused(feed, host, status):
    assert asked(feed, Host=host.format(port=urlsplit(feed.url).port)) in {status, 400 if status == 403 else status}


def test_other_methods_origins_and_sessions_are_refused(feed):
    assert [asked(feed, method=method) for method in ("POST", "PUT", "DELETE", "OPTIONS")] == [405] * 4
    assert asked(feed, Origin="http://evil.example") == 403
    path = urlsplit(feed.url).path
    assert asked(feed, path + "?bokeh-session-id=mine") == asked(feed, path + "?bokeh-token=mine") == 405


def told(feed, origin: str | None, host: str = "", key: str = "", token: str | None = None) -> int:
    """The status of a websocket: 101 where it was opened and Bokeh acknowledged it."""
    text, parts = requests.get(feed.url, timeout=20).text, urlsplit(feed.url)
    token = token or re.search(r'"token":"([^"]+)"', text)[1]
    headers = {"Origin": origin} if origin else {}
    headers |= {"Host": host} if host else {}
    request = HTTPRequest(f"ws://{parts.netloc}{key or parts.path}ws", headers=headers)

    async def ask() -> int:
        try:
            link = await websocket_connect(request, subprotocols=["bokeh", token])
        except HTTPClientError as error:
            return error.code
        said = [await asyncio.wait_for(link.read_message(), 20)]
        link.close()
        while said[-1] is not None:  # closed, and its socket with it
            said.append(await asyncio.wait_for(link.read_message(), 20))
        return 101 if any("ACK" in str(one) for one in said) else 0

    return asyncio.run(ask())


def test_websockets_open_to_the_page_itself_alone(feed):
    parts = urlsplit(feed.url)
    own = f"http://{parts.netloc}"
    assert told(feed, own) == 101
    assert told(feed, f"http://localhost:{parts.port}", f"localhost:{parts.port}") == 101
    for origin, host, key in ((None, "", ""), ("http://evil.example", "", ""), ("null", "", ""),
                              (f"http://localhost:{parts.port}", "", ""), (f"{own}.evil.example", "", ""),
                              (f"http://evil.example:{parts.port}", f"evil.example:{parts.port}", ""),
                              (own, "", "/x/"), (own, "", "/")):
        assert told(feed, origin, host, key) == 403, (origin, host, key)
    assert told(feed, own, token="forged.token") in (0, 403, 500)


def test_many_requests_stall_nothing(feed):
    with ThreadPoolExecutor(150) as pool:
        found = list(pool.map(lambda _: asked(feed), range(150)))
    assert set(found) == {200}
    began = time.monotonic()
    assert asked(feed) == 200 and time.monotonic() - began < 1


def test_an_open_page_is_opened_on_purpose_and_still_needs_its_key():
    open_to_all = Feed(ABOUT, 0, "0.0.0.0")
    try:
        port, path = urlsplit(open_to_all.url).port, urlsplit(open_to_all.url).path
        assert len(path) > 22 and urlsplit(open_to_all.url).hostname == socket.gethostname().lower()
        for host, there, status in ((f"127.0.0.1:{port}", path, 200), (f"10.1.2.3:{port}", path, 200),
                                    (f"127.0.0.1:{port}", "/", 403), (f"evil.example:{port}", path, 403)):
            found = requests.get(f"http://127.0.0.1:{port}{there}", headers={"Host": host}, timeout=20)
            assert found.status_code == status, (host, there)
    finally:
        open_to_all.close()
    assert [is_home(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "a.b")] == [
        True, True, True, False, False, False]


def test_the_session_obeys_its_page_and_counts_all_others(feed):
    to, before = feed._socket.getsockname(), feed.passed_over
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for junk in [*JUNK, feed._key + b" \xff", feed._key[:-1] + b" record", feed._key + b"record"]:
            stranger.sendto(junk, to)
        stranger.sendto(feed._key + b" record", to)
        time.sleep(0.3)
        assert feed.commands() == ["record"] and feed.passed_over - before == len(JUNK) + 3
        for _ in range(3 * 100):
            stranger.sendto(b"\xff", to)
        time.sleep(0.3)
        began = time.monotonic()
        assert feed.commands() == [] and time.monotonic() - began < 0.1  # as many as a decision has time for


def test_unknown_commands_are_counted_too(tmp_path, monkeypatch):
    made = SimpleNamespace(url="", passed_over=0, commands=lambda: ["format", "pause", "__class__"])
    monkeypatch.setattr(session.outputs, "Feed", lambda *_: made)
    done = []
    card = {name: ABOUT[name] for name in session.SHOWN} | {"names": {"1": "a"}}
    loop = SimpleNamespace(stream=SimpleNamespace(decoder=SimpleNamespace(card=card)), outputs=[], paused=False,
                           source=SimpleNamespace(rate_hz=2000.0), pause=done.append, note=done.append)
    session.open_page(loop, 0, tmp_path / "r", 1)()
    assert done == [True] and made.passed_over == 2


def test_the_page_takes_its_session_and_counts_all_others(feed):
    state = State(ABOUT)
    for junk in [*JUNK, b"key ", b"key \xff", b"key {}", b"key {}\nabc", b"key []\n", b'key {"shape": [2, 9]}\nabcd',
                 b"key " + b"[" * 50_000]:
        state.take_from(junk, b"key")
    assert state.passed_over == len(JUNK) + 7 and state.last is None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for junk in JUNK * 30:
            stranger.sendto(junk, feed._to)
    assert asked(feed) == 200


def test_an_address_that_is_not_here_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="did not start: is 192.0.2.1 an address of this machine"):
        Feed(ABOUT, 0, "192.0.2.1")
    done = subprocess.run([sys.executable, "-m", "tfkfin.live", "--help"], capture_output=True, text=True, timeout=60)
    assert "--page-host" in done.stdout
