"""Where decisions go: the terminal, a file of JSON lines, UDP datagrams, LSL streams, the page.

The page is a process of its own, which gets datagrams on this machine; they are dropped if it is too slow.
"""

import hmac
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from tfkfin.base.console import log
from tfkfin.base.errors import InputError, refused_as
from tfkfin.base.extras import required
from tfkfin.base.quoted import line
from tfkfin.live.measures import UNKNOWN, Times, Timing
from tfkfin.live.sources import LiveSource
from tfkfin.recordings.formats import xdf

FRAME_S = 1 / 30  # between datagrams to the page
LARGEST = 60_000  # bytes of a datagram
AT_ONCE = 100  # datagrams of the page that are read between decisions


@dataclass(frozen=True)
class LiveDecision:
    """One decision.

    Attributes:
        window: its number in the stream.
        time_s: end of its window, in seconds of signal.
        label: -1 where it was rejected.
        probability: of the most probable movement, averaged by the vote.
        probabilities: (G,).
        features: (C, F), imitated.
        force: from 0 to 1, the level of the signal within the person's own range so far.
        true: the true movement of the whole window; None where it is unknown or changes.
        quality: (C,) of each electrode, 1: as in training; None where the decoder does not know that.
        fault: (C,) what is wrong with it, an index of `tfkfin.signal.condition.FAULTS`; or None.
        filled: samples of the window that were lost, not finite or absurd, and were replaced by the last value before.
    """

    window: int
    time_s: float
    label: int
    probability: float
    probabilities: np.ndarray
    features: np.ndarray
    force: float
    true: int | None
    filled: int
    quality: np.ndarray | None = None
    fault: np.ndarray | None = None

    @property
    def speed(self) -> float:
        """How strongly the movement is done: `force`, but 0 for rest and rejections."""
        return self.force if self.label > 0 else 0.0

    def line(self) -> dict:
        """The decision as a line of JSON."""
        found = {"window": self.window, "time_s": round(self.time_s, 6), "label": self.label,
                 "probability": round(self.probability, 6), "speed": round(self.speed, 4), "true": self.true,
                 "filled": self.filled, "probabilities": [round(float(p), 6) for p in self.probabilities]}
        return found if self.quality is None else found | {
            "quality": np.round(self.quality.astype(float), 4).tolist(),
            "quality_overall": round(float(self.quality.min()), 4), "fault": np.asarray(self.fault, int).tolist()}


class LiveOutput:
    """Something that takes decisions as they are made. Its methods must return at once."""

    def begin(self, source: LiveSource, timing: Timing) -> None:
        """The session begins; `timing` goes on counting its decisions."""

    def __call__(self, decision: LiveDecision) -> None:
        """A decision."""

    def timed(self, decision: LiveDecision, times: Times) -> None:
        """The same decision after it has been sent, and where its time went."""

    def samples(self, volts: np.ndarray, labels: np.ndarray) -> None:
        """Samples (n, C) in volts and their true labels (n,), as they come."""

    def cue(self, cue: Any) -> None:
        """The cue from now on, a `tfkfin.live.calibration.Cue`; None: there are no more."""

    def note(self, text: str) -> None:
        """Something that happened to the signal."""

    def close(self) -> None:
        """The session ends."""


class Terminal(LiveOutput):
    """One line whenever the decision changes."""

    def __init__(self, names: Mapping[int, str] | None = None, to: TextIO | None = None):
        self._to, self._label = to or sys.stdout, None
        self._names = {movement: line(name, 80) for movement, name in (names or {}).items()}

    def timed(self, decision: LiveDecision, times: Times) -> None:
        if decision.label != self._label:
            self._label = decision.label
            name = self._names.get(decision.label, "")
            true = "" if decision.true is None else f"   true {decision.true:>3}"
            self._to.write(f"{decision.time_s:9.3f} s   decided {decision.label:>3} ({decision.probability:.2f}) {name}"
                           f"   speed {decision.speed:.2f}{true}   "
                           f"{1e3 * (times.preparation + times.inference):7.2f} ms\n")

    def cue(self, cue: Any) -> None:
        if cue is not None:
            name = self._names.get(cue.movement, cue.movement) if cue.movement else "rest"
            self._to.write(f"{cue.start_s:9.3f} s   please: {name}, until {cue.stop_s:.1f} s\n")

    def note(self, text: str) -> None:
        log.warning("%s", text)


class JsonLines(LiveOutput):
    """One line of JSON for each decision.

    Raises:
        InputError: the file exists already, or cannot be written.
    """

    def __init__(self, path: Path):
        if path.exists():
            raise InputError(f"{path} is there already and is never overwritten: give another file")
        with refused_as(f"{path} cannot be written", OSError):
            self._file = open(path, "x", encoding="utf-8", buffering=1)  # each line is there, whatever comes

    def timed(self, decision: LiveDecision, times: Times) -> None:
        spent = {f"{name}_ms": None if np.isnan(s) else round(1e3 * s, 4) for name, s in vars(times).items()}
        self._file.write(json.dumps(decision.line() | spent) + "\n")

    def note(self, text: str) -> None:
        self._file.write(json.dumps({"note": text}) + "\n")

    def close(self) -> None:
        self._file.close()


class XdfFile(LiveOutput):
    """The session's samples, and what is done in them where that is known, as LabRecorder would write them.

    Raises:
        InputError: the file exists already, or cannot be written.
    """

    def __init__(self, path: Path, rate_hz: float, channels: int, names: Mapping[int, str]):
        self._to, self._names, self._label = xdf.Writer(path, rate_hz, channels), {0: "rest"} | dict(names), UNKNOWN

    def samples(self, volts: np.ndarray, labels: np.ndarray) -> None:
        for place in np.flatnonzero(np.diff(labels, prepend=self._label)).tolist():
            self._label = int(labels[place])
            if self._label != UNKNOWN:
                self._to.mark(self._names.get(self._label, str(self._label)), place)
        self._to.samples(volts)

    def close(self) -> None:
        self._to.close()


class Udp(LiveOutput):
    """One datagram for each decision: "label speed", as LibEMG's controllers read them, or the line of JSON.

    Args:
        address: HOST:PORT.

    Raises:
        InputError: it is none, or there is no such host.
    """

    def __init__(self, address: str, as_json: bool = False):
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise InputError(f"an address is HOST:PORT, such as 127.0.0.1:12346. Received: {address!r}")
        try:  # the name of a host is resolved once
            self._to = socket.getaddrinfo(host, int(port), socket.AF_INET, socket.SOCK_DGRAM)[0][4][:2]
        except OSError:
            raise InputError(f"there is no host {host!r}") from None
        self._json = as_json
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def __call__(self, decision: LiveDecision) -> None:
        text = json.dumps(decision.line()) if self._json else f"{decision.label} {decision.speed:.4f}"
        with suppress(OSError):  # the receiver is not there or too slow: the next decision replaces this one
            self._socket.sendto(text.encode(), self._to)

    def close(self) -> None:
        self._socket.close()


class LslMarkers(LiveOutput):
    """An LSL stream of markers, the label of each decision as text, and an LSL stream of numbers beside it.

    The numbers are label, speed and the probabilities, for receivers that take no text.
    """

    def __init__(self, name: str, movements: Sequence[int], rate_hz: float):
        pylsl = required("pylsl")
        marks = pylsl.StreamInfo(name, "Markers", 1, pylsl.IRREGULAR_RATE, pylsl.cf_string, f"tfkfin-{name}-markers")
        numbers = pylsl.StreamInfo(f"{name}-decisions", "Decisions", 2 + len(movements), rate_hz, pylsl.cf_float32,
                                   f"tfkfin-{name}-decisions")
        channels = numbers.desc().append_child("channels")
        for label in ("label", "speed", *(f"p{m}" for m in movements)):
            channels.append_child("channel").append_child_value("label", label)
        self._marks, self._numbers = pylsl.StreamOutlet(marks), pylsl.StreamOutlet(numbers)

    def __call__(self, decision: LiveDecision) -> None:
        self._marks.push_sample([str(decision.label)])
        self._numbers.push_sample([float(decision.label), decision.speed, *map(float, decision.probabilities)])


class Feed(LiveOutput):
    """Sends samples, the newest decision and its times thirty times a second; receives the commands of the buttons.

    Both sides begin each datagram with the key that is in the page's address; what does not is counted and passed over.

    Args:
        about: what the page needs to know in advance, as JSON.
        port: of the page; 0: any that is free.
        host: the address at which the page is open; this machine alone, unless another one is given.

    Attributes:
        passed_over: number of datagrams that were not the page's.
        session: the state of the session, which the buttons show: `paused`, `recording`, `calibration`.

    Raises:
        InputError: the page does not start.
    """

    def __init__(self, about: dict, port: int = 0, host: str = "127.0.0.1"):
        self._socket, self.passed_over = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tfkfin.live.page"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        key, feed = secrets.token_urlsafe(24), self._socket.getsockname()[1]
        own = {"key": key, "feed": feed, "port": port, "host": host}  # through a pipe, so that nobody else sees it
        self._process.stdin.write(json.dumps(about | own) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or "{}")
        if not answer:
            self.close()
            asked = [f"port {port} free"] * bool(port) + [f"{host} an address of this machine"] * (host != "127.0.0.1")
            raise InputError("the page did not start" + f": is {' and '.join(asked)}?" * bool(asked))
        self.url, self.pid = answer["url"], self._process.pid
        self.prepare(("127.0.0.1", answer["feed"]), key)

    def prepare(self, to: tuple[str, int], key: str = "") -> None:
        """Nothing has been sent to the address `to` yet."""
        self._key, self.passed_over = key.encode(), 0
        self._to, self._samples, self._times, self._notes = to, [], [], []
        self._decision, self._cue, self._due, self.session = None, None, 0.0, {}
        self._names, self._timing = [], Timing(0.0)

    def begin(self, source: LiveSource, timing: Timing) -> None:
        self._names, self._timing = [line(name, 80) for name in source.channel_names], timing

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
        with suppress(OSError):
            for _ in range(AT_ONCE):
                key, _, command = self._socket.recv(200).partition(b" ")
                if hmac.compare_digest(key, self._key) and command.isascii():
                    found.append(command.decode())
                else:
                    self.passed_over += 1
        return found

    def close(self) -> None:
        if self.passed_over:
            log.warning("%d datagrams to the page's feed were not the page's, and were passed over", self.passed_over)
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
            "session": self.session | {"late": self._timing.missed, "dropped": self._timing.dropped,
                                       "channel_names": self._names}}
        self._samples, self._times, self._notes = [], [], []
        with suppress(OSError):  # the page is too slow or has gone: decisions go on
            self._socket.sendto(b" ".join([self._key, json.dumps(head).encode()]) + b"\n" + volts.tobytes(), self._to)
