"""`python -m tfkfin.live.page`: the process of the page, which `tfkfin.live` starts and sends its data to."""

import json
import os
import socket
import sys
import threading

LARGEST = 65536  # bytes of a datagram


def main() -> None:
    about = json.loads(sys.stdin.readline())
    from bokeh.server.server import Server

    from tfkfin.live.page.state import State
    from tfkfin.live.page.view import View

    state, views, feed = State(about), [], socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    feed.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    feed.bind(("127.0.0.1", 0))
    feed.setblocking(False)

    def receive(*_) -> None:
        while True:
            try:
                state.take(feed.recv(LARGEST))
            except BlockingIOError:
                break
        for view in views:
            view.wake()

    def open_view(document) -> None:
        views.append(view := View(document, state, send))
        document.on_session_destroyed(lambda _: views.remove(view))

    def send(command: str) -> None:
        feed.sendto(command.encode(), ("127.0.0.1", about["feed"]))

    # The page has no password, so that it is open to this machine alone.
    server = Server({"/": open_view}, port=about["port"], address="127.0.0.1", num_procs=1)
    server.start()
    server.io_loop.add_handler(feed.fileno(), receive, server.io_loop.READ)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()  # ends with the session
    sys.stdout.write(json.dumps({"url": f"http://localhost:{server.port}/", "feed": feed.getsockname()[1]}) + "\n")
    sys.stdout.flush()
    server.io_loop.start()


if __name__ == "__main__":
    main()
