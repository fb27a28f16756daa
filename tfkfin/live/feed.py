"""From a session to its page, a process of its own: datagrams on this machine, which are dropped if it is too slow."""

import json
import os
import socket
import subprocess
import sys
import time

import numpy as np

from tfkfin.base.errors import InputError
from tfkfin.live.outputs import LiveDecision, LiveOutput
from tfkfin.live.timing import Times

FRAME_S = 1 / 30  # between datagrams
LARGEST = 60_000  # bytes of a datagram


class Feed(LiveOutput):
    """Sends samples, the newest decision and its times thirty times a second; receives the commands of the buttons.

    Args:
        about: what the page needs to know in advance, as JSON.
        port: of the page; 0: any that is free.

    Attributes:
        session: the state of the session, which the buttons show: `paused`, `recording`, `calibration`.

    Raises:
        InputError: the page does not start.
    """

    def __init__(self, about: dict, port: int = 0):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tfkfin.live.page"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        self._process.stdin.write(json.dumps(about | {"feed": self._socket.getsockname()[1], "port": port}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or "{}")
        if not answer:
            self.close()
            raise InputError(f"the page did not start{f': is port {port} free?' if port else ''}")
        self.url, self.pid = answer["url"], self._process.pid
        self.prepare(("127.0.0.1", answer["feed"]))

    def prepare(self, to: tuple[str, int]) -> None:
        """Nothing has been sent to the address `to` yet."""
        self._to, self._samples, self._times, self._notes = to, [], [], []
        self._decision, self._cue, self._due, self.session = None, None, 0.0, {}

    def samples(self, volts: np.ndarray, labels: np.ndarray) -> None:
        self._samples.append(volts)
        if self.session.get("paused") and self._decision is not None:  # no decision will come
            self._send_if_due()

    def timed(self, decision: LiveDecision, times: Times) -> None:
        self._decision = decision
        self._times.append(1e3 * times.total if np.isfinite(times.total) else 1e3 * times.inference)
        self._send_if_due()

    def cue(self, cue) -> None:
        self._cue = None if cue is None else vars(cue)

    def note(self, text: str) -> None:
        self._notes.append(text)

    def commands(self) -> list[str]:
        """The buttons that were pressed since the last call."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(100).decode())
            except OSError:
                return found

    def close(self) -> None:
        self._socket.close()
        self._process.stdin.close()  # at which the page's process ends
        self._process.stdout.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _send_if_due(self) -> None:
        if (now := time.perf_counter()) >= self._due:
            self._due = max(self._due + FRAME_S, now)  # decisions come in steps: this keeps the rate on average
            self._send()

    def _send(self) -> None:
        volts = np.concatenate(self._samples or [np.empty((0, 1), np.float32)]).astype(np.float32)
        volts = volts[-(LARGEST // (4 * volts.shape[1])) :]
        head = self._decision.line() | {
            "force": round(self._decision.force, 4), "features": np.round(self._decision.features, 5).tolist(),
            "cue": self._cue, "notes": self._notes, "ms": np.round(self._times, 3).tolist(), "shape": volts.shape,
            "session": self.session}
        self._samples, self._times, self._notes = [], [], []
        try:
            self._socket.sendto(json.dumps(head).encode() + b"\n" + volts.tobytes(), self._to)
        except OSError:  # the page is too slow or has gone: decisions go on
            pass
