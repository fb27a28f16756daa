"""Where decisions go: the terminal, a JSON-lines file, UDP, an LSL stream of markers."""

import json
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from tfkfin.base.console import InputError, log
from tfkfin.live.timing import Times


@dataclass(frozen=True)
class Made:
    """One decision.

    Attributes:
        window: its number in the stream.
        time_s: seconds of signal up to the end of its window.
        label: -1 where rejected.
        probability: of the most probable movement, averaged over the vote.
        probabilities: (G,).
        features: (C, F), imitated.
        speed: how strongly it is done, 0 to 1 of the person's own range so far; 0 for rest and rejections.
        force: the same whatever was decided.
        true: what was truly done in the whole window; None where that is not known or not one thing.
        filled: samples of the window that were lost, or not finite, and are held values.
    """

    window: int
    time_s: float
    label: int
    probability: float
    probabilities: np.ndarray
    features: np.ndarray
    speed: float
    force: float
    true: int | None
    filled: int


class Output:
    """Something that decisions are given to as they are made."""

    def __call__(self, made: Made) -> None:
        """A decision; it has to be taken in no time."""

    def timed(self, made: Made, times: Times) -> None:
        """The same decision once it has been sent, and where its time went."""

    def samples(self, volts: np.ndarray, labels: np.ndarray) -> None:
        """What came: (n, C) volts, and what is truly done (n,)."""

    def cue(self, cue: Any) -> None:
        """What is asked for from now on, as of `tfkfin.live.calibration.Cue`; None: nothing more."""

    def note(self, text: str) -> None:
        """What happened to the signal."""

    def close(self) -> None:
        """The session is over."""


class Terminal(Output):
    """A line whenever the decision changes."""

    def __init__(self, names: Mapping[int, str] | None = None, to: TextIO | None = None):
        self._to, self._label, self._names = to or sys.stdout, None, names or {}

    def timed(self, made: Made, times: Times) -> None:
        if made.label != self._label:
            self._label = made.label
            name = self._names.get(made.label, "")
            true = "" if made.true is None else f"   true {made.true:>3}"
            self._to.write(f"{made.time_s:9.3f} s   decided {made.label:>3} ({made.probability:.2f}) {name}   speed "
                           f"{made.speed:.2f}{true}   {1e3 * (times.preparation + times.inference):7.2f} ms\n")

    def cue(self, cue: Any) -> None:
        if cue is None:
            return
        name = self._names.get(cue.movement, cue.movement) if cue.movement else "rest"
        self._to.write(f"{cue.start_s:9.3f} s   please: {name}, until {cue.stop_s:.1f} s\n")

    def note(self, text: str) -> None:
        log.warning("%s", text)


class JsonLines(Output):
    """One line of JSON a decision.

    Raises:
        InputError: the file is there already, or cannot be written.
    """

    def __init__(self, path: Path):
        try:
            self._file = open(path, "x", encoding="utf-8")
        except FileExistsError:
            raise InputError(f"{path} is there already and is never overwritten: give another file") from None
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}") from None

    def timed(self, made: Made, times: Times) -> None:
        spent = {f"{name}_ms": None if np.isnan(s) else round(1e3 * s, 4) for name, s in vars(times).items()}
        self._file.write(json.dumps(line(made) | spent) + "\n")

    def note(self, text: str) -> None:
        self._file.write(json.dumps({"note": text}) + "\n")

    def close(self) -> None:
        self._file.close()


def line(made: Made) -> dict:
    """A decision as JSON has it."""
    return {"window": made.window, "time_s": round(made.time_s, 6), "label": made.label,
            "probability": round(made.probability, 6), "speed": round(made.speed, 4), "true": made.true,
            "filled": made.filled, "probabilities": [round(float(p), 6) for p in made.probabilities]}


class Udp(Output):
    """A datagram a decision: "label speed", as LibEMG's controllers read them, or the line of JSON.

    Args:
        address: HOST:PORT.
    """

    def __init__(self, address: str, as_json: bool = False):
        self._to, self._json = parsed(address), as_json
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def __call__(self, made: Made) -> None:
        text = json.dumps(line(made)) if self._json else f"{made.label} {made.speed:.4f}"
        try:
            self._socket.sendto(text.encode(), self._to)
        except OSError:  # nobody listens, or not fast enough: the next decision replaces this one
            pass

    def close(self) -> None:
        self._socket.close()


def parsed(address: str) -> tuple[str, int]:
    """HOST:PORT as a socket takes it; a host that has a name is looked up once."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"an address is HOST:PORT, such as 127.0.0.1:12346. Received: {address!r}")
    try:
        return socket.getaddrinfo(host, int(port), socket.AF_INET, socket.SOCK_DGRAM)[0][4][:2]
    except OSError:
        raise InputError(f"there is no host {host!r}") from None


class Markers(Output):
    """An LSL stream of markers: the label of each decision, as text, and beside it a stream of numbers.

    The numbers are label, speed and the probabilities, for receivers that take no text.
    """

    def __init__(self, name: str, movements: Sequence[int], rate_hz: float):
        pylsl = needed("pylsl")
        marks = pylsl.StreamInfo(name, "Markers", 1, pylsl.IRREGULAR_RATE, pylsl.cf_string, f"tfkfin-{name}-markers")
        numbers = pylsl.StreamInfo(f"{name}-decisions", "Decisions", 2 + len(movements), rate_hz, pylsl.cf_float32,
                                   f"tfkfin-{name}-decisions")
        channels = numbers.desc().append_child("channels")
        for label in ("label", "speed", *(f"p{m}" for m in movements)):
            channels.append_child("channel").append_child_value("label", label)
        self._marks, self._numbers = pylsl.StreamOutlet(marks), pylsl.StreamOutlet(numbers)

    def __call__(self, made: Made) -> None:
        self._marks.push_sample([str(made.label)])
        self._numbers.push_sample([float(made.label), made.speed, *map(float, made.probabilities)])


def needed(package: str):
    """A package of the extra `live`, imported.

    Raises:
        InputError: it is not installed.
    """
    import importlib

    try:
        found = importlib.import_module(package)
        if package == "pylsl" and hasattr(found, "set_config_content"):  # its library tells of its own start
            found.set_config_content("[log]\nlevel = -2\n")
        return found
    except (ImportError, RuntimeError) as error:  # pylsl: its library is not there
        raise InputError(f"this needs {package} ({error}): pip install 'tfkfin[live]'") from None
