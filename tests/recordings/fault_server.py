"""A local HTTP server that misbehaves on request. A fault is a function (handler, body) that answers one GET."""

import hashlib
import http.server
import threading
from contextlib import contextmanager


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        state = self.server.state
        with state.lock:
            state.requests.append((self.command, self.path, dict(self.headers)))
            faults = state.faults.get(self.path, []) if self.command == "GET" else []
            fault = faults.pop(0) if faults else serve
        body = state.files.get(self.path)
        try:
            (fault if body is not None or fault is not serve else status(404))(self, body)
        except (ConnectionError, BrokenPipeError):
            self.close_connection = True

    def answer(self, code, headers, body=b""):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
            self.wfile.flush()


class State:
    def __init__(self):
        self.files, self.faults, self.requests = {}, {}, []
        self.lock, self.closing = threading.Lock(), threading.Event()

    def gets(self, path=""):
        return [headers for method, name, headers in self.requests if method == "GET" and path in name]


@contextmanager
def running():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.state = True, State()
    server.state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.state
    finally:
        server.state.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def etag(body):
    return f'"{hashlib.md5(body).hexdigest()}"'  # noqa: S324


def serve(handler, body):
    """As a good server does: ranges, If-Range, 416."""
    span, guard = handler.headers.get("Range"), handler.headers.get("If-Range")
    start = int(span[6:-1]) if span and guard in (None, etag(body)) else 0
    if start >= len(body):
        handler.answer(416, {"Content-Range": f"bytes */{len(body)}", "Content-Length": 0})
        return
    headers = {"ETag": etag(body), "Content-Length": len(body) - start}
    if start:
        headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
    handler.answer(206 if start else 200, headers, body[start:])


def whole_only(handler, body):
    handler.answer(200, {"Content-Length": len(body)}, body)


def status(code, **headers):
    def fault(handler, _):
        handler.answer(code, {"Content-Length": 0} | {k.replace("_", "-"): v for k, v in headers.items()})
    return fault


def page(handler, _):
    text = b"<html>Please accept the terms of this hotel</html>"
    handler.answer(200, {"Content-Length": len(text), "Content-Type": "text/html"}, text)


def cut(size):
    """Announces all that is left, sends `size` bytes of it, hangs up."""
    def fault(handler, body):
        _first(handler, body, size)
        handler.close_connection = True
    return fault


def stall(size, tick=None):
    """Sends `size` bytes, then nothing (or a byte every `tick` seconds) without hanging up."""
    def fault(handler, body):
        left = _first(handler, body, size)
        while not handler.server.state.closing.wait(tick) and left:
            handler.wfile.write(left[:1])
            handler.wfile.flush()
            left = left[1:]
        handler.close_connection = True
    return fault


def length(change):
    """Announces a length that is `change` bytes off, as an unlucky proxy does."""
    def fault(handler, body):
        handler.answer(200, {"Content-Length": len(body) + change, "ETag": etag(body)}, body[: len(body) + change])
        handler.close_connection = True
    return fault


def damaged(handler, body):
    """One byte in the middle of the first member is wrong; the length is right."""
    serve(handler, body[:500] + bytes([body[500] ^ 0x55]) + body[501:])


def wrong_range(handler, body):
    """206 for a part that was not asked for."""
    headers = {"ETag": etag(body), "Content-Length": 10, "Content-Range": f"bytes 0-9/{len(body)}"}
    handler.answer(206, headers, body[:10])


def squeezed(handler, body):
    handler.answer(200, {"Content-Length": len(body), "Content-Encoding": "gzip"}, body)


def endless(handler, body):
    """No length at all, the end is the end of the connection."""
    handler.answer(200, {"Connection": "close"}, body)
    handler.close_connection = True


def _first(handler, body, size):
    span = handler.headers.get("Range")
    start = int(span[6:-1]) if span else 0
    headers = {"ETag": etag(body), "Content-Length": len(body) - start}
    if start:
        headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
    handler.answer(206 if start else 200, headers, body[start : start + size])
    return body[start + size :]
