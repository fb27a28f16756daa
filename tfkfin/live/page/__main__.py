"""`python -m tfkfin.live.page`: the page's process, which `tfkfin.live` starts and tells what it shows."""

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

    state, views, there = State(about), [], socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    there.bind(("127.0.0.1", 0))
    there.setblocking(False)

    def take(*_) -> None:
        while True:
            try:
                state.take(there.recv(LARGEST))
            except BlockingIOError:
                break
        for view in views:
            view.wake()

    def shown(document) -> None:
        views.append(view := View(document, state, send))
        document.on_session_destroyed(lambda _: views.remove(view))

    def send(command: str) -> None:
        there.sendto(command.encode(), ("127.0.0.1", about["feed"]))

    server = Server({"/": shown}, port=about["port"], address="127.0.0.1", num_procs=1)  # this machine alone
    server.start()
    server.io_loop.add_handler(there.fileno(), take, server.io_loop.READ)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()  # the session has ended
    sys.stdout.write(json.dumps({"url": f"http://localhost:{server.port}/", "feed": there.getsockname()[1]}) + "\n")
    sys.stdout.flush()
    server.io_loop.start()


if __name__ == "__main__":
    main()
