"""The page of a live session: Bokeh's server, in a process of its own, so that it cannot slow decisions.

Bokeh's server sends only new data to plots that stay in the browser, so that this needs no JavaScript of its own.
`tfkfin.live` starts `python -m tfkfin.live.page` and sends its data to it.
"""

import hmac
import json
import math
import os
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import numpy as np
from bokeh.document import Document
from bokeh.layouts import column, row
from bokeh.models import Button, ColumnDataSource, Div, Range1d
from bokeh.palettes import Category10, Category20
from bokeh.plotting import figure
from tornado.ioloop import IOLoop

from tfkfin.base.quoted import html, line
from tfkfin.base.samples import fit
from tfkfin.features import catalogue
from tfkfin.live.door import HOME, serve
from tfkfin.recordings.health import MAINS_HZ, is_clipped, mains_share
from tfkfin.signal.filtering import Causal, sections
from tfkfin.signal.resampling import Resampler

LARGEST = 65536  # bytes of a datagram
AT_ONCE = 100  # datagrams that are taken before anything else is done
SECONDS = 3.0  # of signal that is shown
COLUMNS = 100  # pairs of minimum and maximum a second
HUM = 0.2  # share of an electrode's power within 1 Hz of the mains frequency, above which it has hum
BINS = np.arange(0, 20.5, 0.5)  # ms
SLOW = 30  # frames between updates of the electrodes' quality and of notes
LANE = 0.48  # of the distance of two lanes: as far as an electrode is drawn from the middle of its own
LEAST_V = 5e-7  # that a lane reaches to each side: noise of amplifiers is not blown up
COURSE = 300  # decisions that are shown
RAMP = (0.3, 1.0)  # force at the beginning and at the end of a movement, within the person's own range
_FINGERS = ((-1.15, 0.3, 0.7, 2.4), (-0.6, 1.0, 1.0, 1.7), (-0.2, 1.05, 1.15, 1.57), (0.2, 1.0, 1.05, 1.45),
            (0.6, 0.85, 0.8, 1.3))  # x, y, length and direction of each finger
_CURLED = {"rest": (0.3,) * 5, "open": (0,) * 5, "close": (1,) * 5, "fist": (1,) * 5, "grip": (1,) * 5,
           "point": (1, 0, 1, 1, 1), "pinch": (0.6, 0.6, 0, 0, 0), "fine": (0.6, 0.6, 0, 0, 0),
           "thumb": (0, 1, 1, 1, 1), "agree": (0, 1, 1, 1, 1), "tripod": (0.6, 0.6, 0.6, 1, 1)}


class State:
    """The state of a session, from the datagrams of `tfkfin.live.outputs`; every browser's view reads it.

    Args:
        about: `rate_hz` of the decoder and `source_hz` of the signal, `length`, `channels`, `features`, `movements`,
            `names`, `mean_v`, `sd_v`, and optionally `filter`.
    """

    def __init__(self, about: dict):
        self.about = about
        self._block = max(1, round(about["source_hz"] / COLUMNS))
        channels = about["channels"]
        self.raw = np.zeros((round(SECONDS * about["source_hz"]), channels), np.float32)
        self.extremes: deque = deque(maxlen=int(2 * SECONDS * COLUMNS))  # (seconds, (C,) volts)
        self._waiting, self._count = np.empty((0, channels), np.float32), 0
        same = about["source_hz"] == about["rate_hz"]
        self._resample = None if same else Resampler(about["source_hz"], about["rate_hz"])
        self._filter = Causal(sections(about.get("filter"), about["rate_hz"]))
        self._window = np.zeros((about["length"], channels), np.float32)
        self.last: dict | None = None
        self.passed_over = 0  # datagrams that were not the session's
        self.decisions: deque = deque(maxlen=1000)  # (seconds, decided, true or asked-for label, force)
        self.counts, self.notes = np.zeros(len(BINS), np.int64), deque(maxlen=5)

    def take_from(self, datagram: bytes, key: bytes) -> None:
        """Takes a datagram of the session, which begins with the key; all others are counted and passed over."""
        given, _, own = datagram.partition(b" ")
        try:
            if not hmac.compare_digest(given, key):
                raise ValueError
            self.take(own)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            self.passed_over += 1

    def take(self, datagram: bytes) -> None:
        """Takes one datagram."""
        head, _, rest = datagram.partition(b"\n")
        decision = json.loads(head)
        volts = np.frombuffer(rest, np.float32).reshape(decision["shape"])
        if len(volts):
            self._add(volts)
        cued = decision["cue"]["movement"] if decision["cue"] else None
        if self.last is None or decision["window"] != self.last["window"]:
            self.decisions.append((decision["time_s"], decision["label"], decision["true"] if cued is None else cued,
                                   decision["force"]))
        self.last = decision
        np.add.at(self.counts, np.clip(np.searchsorted(BINS, decision["ms"]) - 1, 0, len(BINS) - 1), 1)
        self.notes.extend(decision["notes"])

    def _add(self, volts: np.ndarray) -> None:
        volts = np.where(fit(volts), volts, 0).astype(np.float32)
        self.raw = np.concatenate([self.raw, volts])[-len(self.raw) :]
        known, size = np.concatenate([self._waiting, volts]), self._block
        for start in range(0, len(known) - size + 1, size):
            block, now = known[start : start + size], (self._count + start) / self.about["source_hz"]
            self.extremes += [(now, block.min(axis=0)), (now + 0.5 * size / self.about["source_hz"], block.max(axis=0))]
        self._count += len(known) // size * size
        self._waiting = known[len(known) // size * size :]
        volts = self._filter(self._resample(volts) if self._resample else volts)
        self._window = np.concatenate([self._window, volts])[-len(self._window) :]

    def true_features(self) -> np.ndarray:
        """Features (C, F) of the newest window in closed form, which the FINs imitate."""
        x = (self._window - self.about["mean_v"]) / self.about["sd_v"]
        return catalogue.direct(x[None].astype(np.float32), tuple(self.about["features"]), self.about["rate_hz"])[0]

    def quality(self) -> list[str]:
        """The quality of each electrode: "flat", "clipped", "hum 50 Hz", or "good"."""
        rate, found = self.about["source_hz"], []
        span = int(2 * rate)  # samples that hum is measured in
        for one in self.raw[-min(self._count or 1, len(self.raw)) :].T:
            shares = mains_share(one[-span:, None], rate) if len(one) >= span else (0.0, 0.0)
            hum = [f"hum {hertz:g} Hz" for hertz, share in zip(MAINS_HZ, shares, strict=True) if share > HUM]
            found.append("flat" if (one == one[0]).all() else "clipped" if is_clipped(one) else (hum or ["good"])[0])
        return found


def posture(label: int, name: str, speed: float) -> tuple[float, ...]:
    """How far each finger is curled, 0 to 1: by words in the movement's name, or else by its number in binary."""
    if label <= 0:
        return _CURLED["rest"]
    known = next((curls for word, curls in _CURLED.items() if word in name.lower()), None)
    full = known or tuple(float(label >> i & 1) for i in range(5))
    return tuple(0.3 + (curl - 0.3) * (0.4 + 0.6 * speed) for curl in full)


class View:
    """One browser's view.

    Args:
        send: sends the command of a button, its label in lower case.
    """

    def __init__(self, document: Document, state: State, send: Callable[[str], None]):
        self.state, self.send, self.about, self._document = state, send, state.about, document
        self._frame, self._shown, self._decided, self._scheduled = 0, -1.0, -1.0, False
        movements = self.about["movements"]
        self._names = {int(m): line(name, 40).replace("$$", "$ $") for m, name in self.about["names"].items()}
        if len(set(self._names.values())) < len(self._names):  # Bokeh's bars need names that all differ
            self._names = {m: f"{name} {m}" for m, name in self._names.items()}
        self.names = [self._called(m) for m in movements]
        signals, probabilities, course = self._signals(), self._probabilities(), self._course()
        imitation, latency = self._imitation(), self._latency()
        self.hand, self.cue = Hand(), CuePanel(self._called)
        self.words = Div(text="waiting for the signal", styles={"font-size": "150%"}, height=40)
        self.notes = Div(text="", height=40)
        self.pausing, self.recording = (Button(label=label, width=120) for label in ("Pause", "Record"))
        self.calibrating, self.keeping = (Button(label=label, width=120, visible=False)
                                          for label in ("Calibrate", "Keep old decoder"))
        for button in (self.pausing, self.recording, self.calibrating, self.keeping):
            button.on_click(partial(self._press, button))
        across, down = (partial(layout, sizing_mode="stretch_width") for layout in (row, column))
        right = down(across(self.hand.plot, probabilities), across(imitation, latency))
        buttons = row(self.pausing, self.recording, self.calibrating, self.keeping, self.words)
        document.add_root(down(buttons, self.cue.panel,
                               across(down(signals, course), right), self.notes))
        document.title = "tfkfin live"

    def wake(self) -> None:
        """Schedules an update, as soon as the server has time; it shows all data that has come until then."""
        if not self._scheduled:
            self._scheduled = True
            self._document.add_next_tick_callback(self.update)

    def update(self) -> None:
        """Shows new data: signals every time, everything else in turn, because each plot takes a message of its own."""
        self._scheduled = False
        if (last := self.state.last) is None:
            return
        self._show_signals()
        name, session = self._called(last["label"]), last["session"]
        if self._frame % 2 == 0:
            self.bars.data = {"name": self.names, "p": last["probabilities"]}
            self.cue.show(last["cue"], last["time_s"], self.state.decisions)
        else:
            self._show_course()
        if self._frame % 3 == 0:
            self.hand.show(last["label"], name, last["speed"], f"{name}, speed {last['speed']:.2f}")
        if self._frame % 3 == 1:
            self.words.text = "paused" if session.get("paused") else f"<b>{html(name)}</b> {last['probability']:.2f}"
        if self._frame % 6 == 2 and self.imitated:
            self._show_features(np.array(last["features"]))
        if self._frame % 6 == 5:
            self.bins.data = self.bins.data | {"top": self.state.counts.tolist()}
        if self._frame % SLOW == 0:
            self._show_quality()
            passed = self.state.passed_over
            self.notes.text = html(" · ".join([*self.state.notes, *[f"{passed} foreign datagrams"] * bool(passed)]))
        self._buttons(session)
        self._frame += 1

    def _show_signals(self, anew: bool = False) -> None:
        """Adds the newest signals, or draws all `anew`, as lists: for an array Bokeh sends two more messages.

        Every electrode stays inside its lane, however loud it becomes before the lane's scale follows.
        """
        points = [point for point in self.state.extremes if anew or point[0] > self._shown]
        if points:
            self._shown = points[-1][0]
            apart = (np.array([v for _, v in points]) - self._middle) / (2 * self._reach)
            lanes = np.clip(apart, -LANE, LANE) + np.arange(self.about["channels"])
            columns = {"t": [t for t, _ in points]} | {
                f"c{c}": column for c, column in enumerate(np.round(lanes.T, 3).tolist())}
            if anew:
                self.signals.data = columns
            else:
                self.signals.stream(columns, rollover=int(2 * SECONDS * COLUMNS))

    def _scale_lanes(self) -> bool:
        """Fits each lane to what its electrode shows, where that has changed by much; whether one has another scale.

        Its middle is the median, and it reaches as far as 95 % of the extremes, so that a spike makes nothing flat.
        """
        if not self.state.extremes:
            return False
        volts = np.array([v for _, v in self.state.extremes])
        middle = np.median(volts, axis=0)
        reach = np.maximum(1.25 * np.quantile(np.abs(volts - middle), 0.95, axis=0), LEAST_V)
        ratio = reach / self._reach
        changed = (ratio > 1.25) | (ratio < 0.6) | (np.abs(middle - self._middle) > 0.25 * self._reach)
        self._middle, self._reach = np.where(changed, middle, self._middle), np.where(changed, reach, self._reach)
        return bool(changed.any())

    def _show_course(self) -> None:
        """Adds the newest decisions."""
        new = [made for made in list(self.state.decisions)[-COURSE:] if made[0] > self._decided]
        if new:
            times, decided, truth, _ = zip(*new, strict=True)
            self._decided, cues = times[-1], [float("nan") if v is None else v for v in truth]
            self.course.stream({"t": times, "decided": decided, "cue": cues}, rollover=COURSE)

    def _called(self, label: int) -> str:
        """A movement's name as one short line without mathematics ($$) for Bokeh; not yet fit for HTML."""
        return "rejected" if label < 0 else self._names.get(label) or str(label)

    def _press(self, button: Button) -> None:
        self.send(button.label.lower())  # the session reports its new state, which changes the label

    def _buttons(self, session: dict) -> None:
        self.pausing.label = "Start" if session.get("paused") else "Pause"
        self.recording.label = "Stop recording" if session.get("recording") else "Record"
        self.recording.button_type = "danger" if session.get("recording") else "default"
        doing = session.get("calibration")  # None: the session has no calibration
        self.calibrating.visible, self.calibrating.disabled = doing is not None, doing == "solving"
        self.calibrating.label = {"asking": "Stop calibrating", "solving": "Solving",
                                  "ready": "Use new decoder"}.get(doing, "Calibrate")
        self.keeping.visible = doing == "ready"
        self.pausing.disabled = doing in ("asking", "solving")  # cues follow the clock of the samples

    def _show_quality(self) -> None:
        """Updates the scales of the lanes and the quality of the electrodes."""
        if self._scale_lanes():
            self._show_signals(anew=True)
        labels = {c: f"{c + 1} {quality}, ±{1e6 * self._reach[c]:.3g} µV"
                  for c, quality in enumerate(self.state.quality())}
        self.plot.yaxis.major_label_overrides = labels

    def _show_features(self, imitated: np.ndarray) -> None:
        true = self.state.true_features()
        for i, source in enumerate(self.imitated):
            source.data = {"true": np.maximum(true[:, i], 1e-4).tolist(),
                           "imitated": np.maximum(imitated[:, i], 1e-4).tolist()}

    def _signals(self):
        channels = self.about["channels"]
        self._middle, self._reach = np.zeros(channels), np.full(channels, 1e-4)  # volts, of each lane
        self.signals = ColumnDataSource({"t": [], **{f"c{c}": [] for c in range(channels)}})
        self.plot = _plot("electrodes, as recorded", 360, "seconds", y_range=(-0.6, channels - 0.4))
        for c in range(channels):
            self.plot.line("t", f"c{c}", source=self.signals, color=Category20[20][c % 20], name=f"electrode {c + 1}")
        self.plot.yaxis.ticker = list(range(channels))
        return self.plot

    def _probabilities(self):
        self.bars = ColumnDataSource({"name": self.names, "p": [0.0] * len(self.names)})
        plot = _plot("probabilities", 260, x_range=self.names, y_range=(0, 1))
        plot.vbar("name", top="p", width=0.8, source=self.bars)
        plot.xaxis.major_label_orientation = 1.0
        return plot

    def _course(self):
        self.course = ColumnDataSource({"t": [], "decided": [], "cue": []})
        plot = _plot("decided, and done or asked for", 300)
        plot.step("t", "cue", source=self.course, color="silver", line_width=6, mode="after",
                  legend_label="done or asked for")
        plot.step("t", "decided", source=self.course, mode="after", legend_label="decided")
        plot.add_layout(plot.legend[0], "below")
        plot.legend.orientation = "horizontal"
        plot.yaxis.ticker = [-1, *self.about["movements"]]
        plot.yaxis.major_label_overrides = {-1: "rejected", **{
            movement: self._called(movement) for movement in self.about["movements"]}}
        return plot

    def _imitation(self):
        self.imitated = [ColumnDataSource({"true": [], "imitated": []}) for _ in self.about["features"]]
        ends = (1e-3, 1e4)
        plot = _plot("imitated against true features", 360, "true", "imitated", x_axis_type="log", y_axis_type="log",
                     x_range=ends, y_range=ends)
        plot.line(ends, ends, color="silver")
        for i, (name, source) in enumerate(zip(self.about["features"], self.imitated, strict=True)):
            plot.scatter("true", "imitated", source=source, color=Category10[10][i % 10], legend_label=name, size=7)
        if self.imitated:
            plot.legend.location = "top_left"
        plot.visible = bool(self.imitated)  # a decoder may have no FINs
        return plot

    def _latency(self):
        self.bins = ColumnDataSource({"left": BINS.tolist(), "right": (BINS + 0.5).tolist(), "top": [0] * len(BINS)})
        plot = _plot("decisions by ms from last sample to sent", 360, "ms (the last bin holds all beyond)")
        plot.quad(left="left", right="right", top="top", bottom=0, source=self.bins)
        return plot


def _plot(title: str, height: int, x: str | None = None, y: str | None = None, **options):
    """A figure without tools; `x` and `y` name its axes."""
    return figure(title=title, height=height, x_axis_label=x, y_axis_label=y, toolbar_location=None,
                  **{"sizing_mode": "stretch_width"} | options)


class Hand:
    """A drawn hand."""

    def __init__(self):
        self.fingers = ColumnDataSource(drawn((0.3,) * 5))
        self.plot = _plot("rest", 260, x_range=(-2.3, 1.7), y_range=(-1.2, 2.6), width=240, sizing_mode=None)
        self.plot.axis.visible = self.plot.grid.visible = False
        self.plot.rect(0, 0, 1.7, 1.9, fill_color="#e0ac69", line_color="#8d5524")
        self.plot.multi_line("x", "y", source=self.fingers, line_width=18, line_cap="round", color="#e0ac69")

    def show(self, label: int, name: str, speed: float, title: str) -> None:
        self.fingers.data, self.plot.title.text = drawn(posture(label, name, speed)), title


class CuePanel:
    """The cue; visible while there is one.

    Args:
        named: the name of a movement.
    """

    def __init__(self, named: Callable[[int], str]):
        self._called, self._cue = named, None
        self.hand, self.words = Hand(), Div(width=260, height=260, styles={"font-size": "150%", "line-height": "1.3"})
        self.own = ColumnDataSource({"t": [], "force": []})
        self.ramp = ColumnDataSource({"t": [0, 1], "force": list(RAMP)})
        plot = _plot("force: follow the line", 260, "seconds", "of your own range", x_range=Range1d(0, 1),
                     y_range=(0, 1.1), width=420, sizing_mode=None)
        plot.line("t", "force", source=self.ramp, line_width=10, color="silver", line_cap="round")
        plot.line("t", "force", source=self.own, line_width=3)
        self._span = plot.x_range
        self.panel = row(self.hand.plot, self.words, plot, visible=False)

    def show(self, cue: dict | None, now: float, decisions: Sequence[tuple]) -> None:
        """Shows a `tfkfin.live.calibration.Cue`; `now`: seconds of the session; `decisions`: as of `State`."""
        self.panel.visible = cue is not None
        if cue is None:
            return
        movement, left = cue["movement"], max(0.0, cue["stop_s"] - now)
        shown = movement or cue["following"] or 0  # at rest, the movement that comes next
        name = self._called(shown)
        self.hand.show(shown, name, 1.0, name)
        bold = f"<b>{html(name)}</b>"
        text = f"please: {bold}" if movement else f"rest{f', then {bold}' if shown else ''}"
        self.words.text = f"{text}<div style='font-size: 500%'>{math.ceil(left)}</div>"
        length = cue["stop_s"] - cue["start_s"]
        if cue != self._cue:
            self._cue, self._span.end = cue, length
            self.ramp.data = {"t": [0, length], "force": list(RAMP) if movement else [0, 0]}
        own = [(t - cue["start_s"], force) for t, _, _, force in decisions if t >= cue["start_s"]]
        self.own.data = {"t": [t for t, _ in own], "force": [force for _, force in own]}


def drawn(curled: tuple[float, ...]) -> dict:
    """Lines for the fingers: the more a finger is curled, from 0 to 1, the shorter its line."""
    x, y, length, angle = np.transpose(_FINGERS)
    visible = length * (1 - 0.75 * np.array(curled))
    ends = {"x": [x, x + visible * np.cos(angle)], "y": [y, y + visible * np.sin(angle)]}
    return {name: np.transpose(values).tolist() for name, values in ends.items()}


def main() -> None:
    about = json.loads(sys.stdin.readline())
    key, state, views = about["key"].encode(), State(about), []
    feed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    feed.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    feed.bind((HOME, 0))
    feed.setblocking(False)

    def receive(*_) -> None:
        with suppress(OSError):
            for _ in range(AT_ONCE):
                state.take_from(feed.recv(LARGEST), key)
        for view in views:
            view.wake()

    def open_view(document) -> None:
        views.append(view := View(document, state, send))
        document.on_session_destroyed(lambda _: views.remove(view))

    def send(command: str) -> None:
        feed.sendto(key + b" " + command.encode(), (HOME, about["feed"]))

    server, url = serve(open_view, about["key"], about["port"], about["host"])
    server.io_loop.add_handler(feed.fileno(), receive, IOLoop.READ)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()  # ends with the session
    sys.stdout.write(json.dumps({"url": url, "feed": feed.getsockname()[1]}) + "\n")
    sys.stdout.flush()
    server.io_loop.start()


if __name__ == "__main__":
    main()
