"""The door of the live page: who may look at it and press its buttons, from where, and how much at once.

The key is a part of the printed address, so that everything below it (page, scripts, websocket) needs it. Host and
Origin are checked, because a browser on this machine asks for whatever other pages tell it to. All browsers share one
session of Bokeh: the page is made once, however often somebody asks for it.
"""

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from bokeh.application import Application
from bokeh.application.handlers import FunctionHandler
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from bokeh.util.token import generate_session_id
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import ErrorHandler

HOME = "127.0.0.1"
LARGEST = 1 << 20  # bytes of a request, or of a message of a browser
MOST = 20  # browsers at once
IDLE_S = 60  # that a connection may wait before it asks


class Door(BokehTornado):
    """Bokeh's server behind a door.

    Args:
        key: has to be the first part of a request's path.
        host: the address that it is opened at: names other than this one, this machine's and numbers are refused.
    """

    def __init__(self, opened: Callable[[Any], None], key: str, host: str = HOME):
        self._key, self._names, secret = key.encode(), {"localhost", host.lower()}, secrets.token_bytes(32)
        if not is_home(host):
            self._names.add(socket.gethostname().lower())
        super().__init__({"/": Application(FunctionHandler(opened))}, prefix=key, sign_sessions=True,
                         secret_key=secret, extra_websocket_origins=["*"],  # `refuses` is stricter
                         websocket_max_message_size_bytes=LARGEST)
        self._session, self._at_home = generate_session_id(secret, signed=True), is_home(host)

    def find_handler(self, request: HTTPServerRequest, **how: Any) -> Any:
        if status := self.refuses(request):
            return self.get_handler_delegate(request, ErrorHandler, {"status_code": status})
        request.headers["Bokeh-Session-Id"] = self._session
        return super().find_handler(request, **how)

    def refuses(self, request: HTTPServerRequest) -> int:
        """The HTTP status of a refusal; 0: it may come in."""
        origin, upgrades = request.headers.get("Origin"), "Upgrade" in request.headers or request.path.endswith("/ws")
        if not self._known(request.host) or not hmac.compare_digest(request.path.split("/")[1].encode(), self._key):
            return 403
        if origin not in (f"http://{request.host}", f"https://{request.host}", *[None] * (not upgrades)):
            return 403
        if request.method not in ("GET", "HEAD") or request.arguments.keys() & {"bokeh-session-id", "bokeh-token"}:
            return 405
        return 503 if upgrades and sum(one.connection_count for one in self.get_sessions("/")) >= MOST else 0

    def _known(self, host: str) -> bool:
        """Whether a page of somebody else cannot have this Host: names of others can be made to mean this machine."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self._names or (is_home(name) if self._at_home else bool(ipaddress.ip_address(name)))
        except ValueError:
            return False


def is_home(host: str) -> bool:
    """Whether an address is of this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(opened: Callable[[Any], None], key: str, port: int, host: str = HOME) -> tuple[BaseServer, str]:
    """A server that has started, and its address; `opened` fills the document.

    Raises:
        OSError: the port is taken, or there is no such address here.
    """
    tornado, loop = Door(opened, key, host), IOLoop.current()
    http = HTTPServer(tornado, max_body_size=LARGEST, idle_connection_timeout=IDLE_S, body_timeout=IDLE_S)
    sockets = bind_sockets(port, host)
    http.add_sockets(sockets)
    server = BaseServer(loop, tornado, http)
    server.start()
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return server, f"http://{shown}:{sockets[0].getsockname()[1]}/{key}/"
