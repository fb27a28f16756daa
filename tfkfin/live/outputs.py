"""Where decisions go: the terminal, a file of JSON lines, UDP datagrams, LSL streams."""

import json
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from tfkfin.base.console import log
from tfkfin.base.errors import InputError
from tfkfin.live.extras import required
from tfkfin.live.timing import Times


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
        filled: samples of the window that were lost, or not finite, and were replaced by the last value before.
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

    @property
    def speed(self) -> float:
        """How strongly the movement is done: `force`, but 0 for rest and rejections."""
        return self.force if self.label > 0 else 0.0

    def line(self) -> dict:
        """The decision as a line of JSON."""
        return {"window": self.window, "time_s": round(self.time_s, 6), "label": self.label,
                "probability": round(self.probability, 6), "speed": round(self.speed, 4), "true": self.true,
                "filled": self.filled, "probabilities": [round(float(p), 6) for p in self.probabilities]}


class LiveOutput:
    """Something that takes decisions as they are made. Its methods must return at once."""

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
        self._to, self._label, self._names = to or sys.stdout, None, names or {}

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
        try:
            self._file = open(path, "x", encoding="utf-8")
        except FileExistsError:
            raise InputError(f"{path} is there already and is never overwritten: give another file") from None
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}") from None

    def timed(self, decision: LiveDecision, times: Times) -> None:
        spent = {f"{name}_ms": None if np.isnan(s) else round(1e3 * s, 4) for name, s in vars(times).items()}
        self._file.write(json.dumps(decision.line() | spent) + "\n")

    def note(self, text: str) -> None:
        self._file.write(json.dumps({"note": text}) + "\n")

    def close(self) -> None:
        self._file.close()


class Udp(LiveOutput):
    """One datagram for each decision: "label speed", as LibEMG's controllers read them, or the line of JSON.

    Args:
        address: HOST:PORT.
    """

    def __init__(self, address: str, as_json: bool = False):
        self._to, self._json = socket_address(address), as_json
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def __call__(self, decision: LiveDecision) -> None:
        text = json.dumps(decision.line()) if self._json else f"{decision.label} {decision.speed:.4f}"
        try:
            self._socket.sendto(text.encode(), self._to)
        except OSError:  # the receiver is not there or too slow: the next decision replaces this one
            pass

    def close(self) -> None:
        self._socket.close()


def socket_address(address: str) -> tuple[str, int]:
    """HOST:PORT as sockets take it. The name of a host is resolved once."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"an address is HOST:PORT, such as 127.0.0.1:12346. Received: {address!r}")
    try:
        return socket.getaddrinfo(host, int(port), socket.AF_INET, socket.SOCK_DGRAM)[0][4][:2]
    except OSError:
        raise InputError(f"there is no host {host!r}") from None


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
