"""`python -m tfkfin.live.page`: the page's process, which `tfkfin.live` starts and tells what it shows."""

import json
import os
import socket
import sys
import threading


def main() -> None:
    about = json.loads(sys.stdin.readline())
    from bokeh.server.server import Server

    from tfkfin.live.page.state import State
    from tfkfin.live.page.view import View

    state, there = State(about), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    there.bind(("127.0.0.1", 0))

    def take() -> None:
        while True:
            state.take(there.recv(65536))

    def send(command: str) -> None:
        there.sendto(command.encode(), ("127.0.0.1", about["feed"]))

    server = Server({"/": lambda document: View(document, state, send)}, port=about["port"], num_procs=1)
    server.start()
    threading.Thread(target=take, daemon=True).start()
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()  # the session has ended
    sys.stdout.write(json.dumps({"url": f"http://localhost:{server.port}/", "feed": there.getsockname()[1]}) + "\n")
    sys.stdout.flush()
    server.io_loop.start()


if __name__ == "__main__":
    main()
