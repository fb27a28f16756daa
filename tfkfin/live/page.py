"""The page of a live session: Bokeh's server, in a process of its own, so that it cannot slow decisions.

Bokeh's server sends only new data to plots that stay in the browser, so that this needs no JavaScript of its own. Where
things stand on it, and how they look in the light and in the dark, is in page.jinja and page.css; its words are in
words.jinja, its hands in `tfkfin.live.hands`.
`tfkfin.live` starts `python -m tfkfin.live.page` and sends its data to it.
"""

import json
import math
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import jinja2
import numpy as np
from bokeh.document import Document
from bokeh.layouts import row
from bokeh.models import Button, ColumnDataSource, DataRange1d, Div, Range1d
from bokeh.palettes import Category10
from bokeh.plotting import figure
from markupsafe import Markup
from tornado.ioloop import IOLoop

from tfkfin.base.files import PACKAGE
from tfkfin.base.quoted import html, line
from tfkfin.live import hands
from tfkfin.live.door import HOME, serve
from tfkfin.live.state import BINS, COLUMNS, SECONDS, State

LARGEST = 65536  # bytes of a datagram
AT_ONCE = 100  # datagrams that are taken before anything else is done
SLOW = 30  # frames between updates of the electrodes' quality and of notes
LANE = 0.48  # of the distance of two lanes: as far as an electrode is drawn from the middle of its own
LEAST_V = 5e-7  # that a lane reaches to each side: noise of amplifiers is not blown up
COURSE, GAP_S = 300, 0.5  # decisions that are shown; the longest time that one is shown for
RAMP = (0.3, 1.0)  # force at the beginning and at the end of a movement, within the person's own range
NAME, SHORT = 80, 24  # letters of a movement's name; beside an axis
RIGHT, WRONG, SIGNAL = "#0072b2", "#d55e00", ("#0072b2", "#009e73", "#d55e00", "#8a5a9c")  # for colour-blind people too
HERE = PACKAGE / "live"


class View:
    """One browser's view.

    Args:
        send: sends the command of a button, its label in lower case.
    """

    def __init__(self, document: Document, state: State, send: Callable[[str], None]):
        self.state, self.send, self.about, self._document = state, send, state.about, document
        self._frame, self._shown, self._decided, self._scheduled = 0, -1.0, 0.0, False
        movements = self.about["movements"]
        self._names = {int(m): line(name, NAME).replace("$$", "$ $") for m, name in self.about["names"].items()}
        if len(set(self._names.values())) < len(self._names):  # else nobody could tell them apart
            self._names = {m: f"{name} {m}" for m, name in self._names.items()}
        self._rows = {movement: i for i, movement in enumerate(movements)} | {-1: -1}  # of decisions, from below
        self._words = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True,
                                         lstrip_blocks=True).get_template("words.jinja")
        self._css = (HERE / "page.css").read_text("utf-8")
        self.status, self.cards, self.notes = (
            Div(name=name, stylesheets=[self._css], sizing_mode="stretch_both" if name == "cards" else "stretch_width")
            for name in ("status", "cards", "notes"))
        self.status.text = "waiting for the signal"
        roots = [self.status, self._buttons_row(), self.cards, self._signals(), *self._decisions(), self._latency(),
                 self._force(), *self._imitation(), self.notes]
        for root in roots:
            document.add_root(root)
        document.title, document.template = "tfkfin live", (HERE / "page.jinja").read_text("utf-8")
        document.template_variables.update(css=self._css, imitated=bool(self.about["features"]))

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
        if self._frame % 2 == 0:
            self.bars.data = self.bars.data | {"p": last["probabilities"]}
            self._show_force(last["cue"])
        else:
            self._show_course()
        if self._frame % 3 == 0:
            self._show_words(last)
        if self._frame % 6 == 2 and self.imitated:
            self._show_features(np.array(last["features"]))
        if self._frame % 6 == 5:
            self.bins.data = self.bins.data | {"top": self.state.counts.tolist()}
        if self._frame % SLOW == 0:
            self._show_quality()
            passed = self.state.passed_over
            self.notes.text = html(" · ".join([*self.state.notes, *[f"{passed} foreign datagrams"] * bool(passed)]))
        self._show_buttons(last["session"])
        self._frame += 1

    # === Words and hands ===

    def _show_words(self, last: dict) -> None:
        """The status line, and the cards: what is decided beside what is asked for, or done."""
        session, cue = last["session"], last["cue"]
        progress, result = session.get("progress") or {}, session.get("result") or {}
        asked, following = last["true"] if cue is None else cue["movement"], None
        if cue is not None:
            following = cue["following"] if not asked else progress.get("next") or 0
        made: Any = self._words.make_module({
            "last": last, "session": session, "progress": progress, "result": result, "cue": cue, "asked": asked,
            "following": following, "left": math.ceil(max(0.0, cue["stop_s"] - last["time_s"])) if cue else 0,
            "rate": self.state.rate_hz, "called": self._called, "picture": self._picture, "percent": percent})
        for div, text in ((self.status, str(made.status())), (self.cards, str(made.cards()))):
            if div.text != text:
                div.text = text

    def _picture(self, movement: int, strength: float) -> Markup:
        """A movement's hand; "" where it has no name that is known, and for what was rejected."""
        return Markup(hands.picture(self._names.get(movement, ""), round(strength, 1)))

    def _called(self, label: int) -> str:
        """A movement's name as one short line without mathematics ($$) for Bokeh; not yet fit for HTML."""
        return "rejected" if label < 0 else self._names.get(label) or str(label)

    # === Buttons ===

    def _buttons_row(self):
        self.pausing, self.recording = (Button(label=label, stylesheets=[self._css]) for label in ("Pause", "Record"))
        self.calibrating, self.keeping = (Button(label=label, visible=False, stylesheets=[self._css])
                                          for label in ("Calibrate", "Keep old decoder"))
        every = (self.pausing, self.recording, self.calibrating, self.keeping)
        for button in every:
            button.on_click(partial(self._press, button))
        return row(*every, name="buttons", spacing=4)

    def _press(self, button: Button) -> None:
        self.send(button.label.lower())  # the session reports its new state, which changes the label

    def _show_buttons(self, session: dict) -> None:
        self.pausing.label = "Start" if session.get("paused") else "Pause"
        self.recording.label = "Stop recording" if session.get("recording") else "Record"
        self.recording.button_type = "danger" if session.get("recording") else "default"
        doing = session.get("calibration")  # None: the session has no calibration
        self.calibrating.visible, self.calibrating.disabled = doing is not None, doing == "solving"
        self.calibrating.label = {"asking": "Stop calibrating", "solving": "Solving",
                                  "ready": "Use new decoder"}.get(doing, "Calibrate")
        self.keeping.visible = doing == "ready"
        self.pausing.disabled = doing in ("asking", "solving")  # cues follow the clock of the samples

    # === Electrodes ===

    def _signals(self):
        channels = self.about["channels"]
        self._middle, self._reach = np.zeros(channels), np.full(channels, 1e-4)  # volts, of each lane
        self.signals = ColumnDataSource({"t": [], **{f"c{c}": [] for c in range(channels)}})
        self.plot = _plot("signals", "electrodes, as recorded", "seconds", y_range=(channels - 0.4, -0.6))
        for c in range(channels):
            self.plot.line("t", f"c{c}", source=self.signals, color=SIGNAL[c % len(SIGNAL)], name=f"electrode {c + 1}")
        self.plot.yaxis.ticker = list(range(channels))
        return self.plot

    def _show_signals(self, anew: bool = False) -> None:
        """Adds the newest signals, or draws all `anew`, as lists: for an array Bokeh sends two more messages.

        Every electrode stays inside its lane, however loud it becomes before the lane's scale follows.
        """
        points = [point for point in self.state.extremes if anew or point[0] > self._shown]
        if points:
            self._shown = points[-1][0]
            apart = (self._middle - np.array([v for _, v in points])) / (2 * self._reach)  # the axis points down
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

    def _show_quality(self) -> None:
        """Updates the scales of the lanes and the quality of the electrodes."""
        if self._scale_lanes():
            self._show_signals(anew=True)
        quality = self.state.quality()
        names = (self.state.last or {}).get("session", {}).get("channel_names")
        self.plot.yaxis.major_label_overrides = {
            c: f"{short(names[c]) if names else c + 1}  {one}  ±{1e6 * self._reach[c]:.3g} µV"
            for c, one in enumerate(quality)}
        told = ", ".join(f"{count} {kind}" for kind, count in Counter(quality).most_common())
        self.plot.title.text = f"electrodes, as recorded: {told}"

    # === Decisions ===

    def _decisions(self):
        """The course of decisions and their probabilities now, which share their rows."""
        movements = self.about["movements"]
        self._range = Range1d(-0.5, len(movements) - 0.5)
        self.course = ColumnDataSource({name: [] for name in ("begin", "t", "decided", "asked", "colour")})
        course = self.course_plot = _plot("course", "decided (asked for: grey)", "seconds", y_range=self._range)
        course.hbar("asked", left="begin", right="t", height=0.9, source=self.course, color="#c6ccd2")
        course.hbar("decided", left="begin", right="t", height=0.45, source=self.course, color="colour")
        course.yaxis.major_label_text_font_size = "11px" if len(movements) <= 12 else "9px"
        course.yaxis.ticker = [-1, *range(len(movements))]
        course.yaxis.major_label_overrides = {
            self._rows[label]: short(self._called(label)) for label in (-1, *movements)}
        self.bars = ColumnDataSource({"row": list(range(len(movements))), "p": [0.0] * len(movements)})
        bars = _plot("bars", "probabilities", " ", y_range=self._range, x_range=(0, 1))
        bars.hbar("row", left=0, right="p", height=0.7, source=self.bars, color=RIGHT)
        bars.yaxis.visible, bars.xaxis.ticker = False, [0, 0.5, 1]
        return course, bars

    def _show_course(self) -> None:
        """Adds the newest decisions."""
        new = [made for made in list(self.state.decisions)[-COURSE:] if made[0] > self._decided]
        if new:
            times, decided, truth, _ = zip(*new, strict=True)
            begin = [max(before, now - GAP_S) for before, now in zip((self._decided, *times), times, strict=False)]
            self._decided = times[-1]
            if -1 in decided:
                self._range.start = -1.5
            self.course.stream({
                "begin": begin, "t": times, "decided": [self._rows.get(label, math.nan) for label in decided],
                "asked": [self._rows.get(label, math.nan) for label in truth],
                "colour": [RIGHT if made[2] in (None, made[1]) else WRONG for made in new]}, rollover=COURSE)

    def _force(self):
        """The force to follow during a cue, and the person's own."""
        self.own = ColumnDataSource({"t": [], "force": []})
        self.ramp, self._cue = ColumnDataSource({"t": [0, 1], "force": list(RAMP)}), None
        plot = self.force = _plot("force", "force: follow the grey line", "seconds", x_range=Range1d(0, 1),
                                  y_range=(0, 1.1), visible=False)
        plot.line("t", "force", source=self.ramp, line_width=10, color="#c6ccd2", line_cap="round")
        plot.line("t", "force", source=self.own, line_width=3, color=RIGHT)
        return plot

    def _show_force(self, cue: dict | None) -> None:
        """Shows the force instead of the times, during a `tfkfin.live.calibration.Cue`."""
        self.force.visible, self.latency.visible = cue is not None, cue is None
        if cue is None:
            return
        if cue != self._cue:
            self._cue, self.force.x_range.end = cue, cue["stop_s"] - cue["start_s"]
            self.ramp.data = {"t": [0, self.force.x_range.end], "force": list(RAMP) if cue["movement"] else [0, 0]}
        own = [(t - cue["start_s"], force) for t, _, _, force in self.state.decisions if t >= cue["start_s"]]
        self.own.data = {"t": [t for t, _ in own], "force": [force for _, force in own]}

    def _latency(self):
        self.bins = ColumnDataSource({"left": BINS.tolist(), "right": (BINS + 0.5).tolist(), "top": [0] * len(BINS)})
        plot = self.latency = _plot("latency", "decisions by time from last sample to sent",
                                    "ms (the last bin holds all beyond)")
        plot.quad(left="left", right="right", top="top", bottom=0, source=self.bins, color=RIGHT, line_color="white")
        return plot

    # === FINs ===

    def _imitation(self):
        """The plot of FINs; none where the decoder has none."""
        self.imitated = [ColumnDataSource({"true": [], "imitated": []}) for _ in self.about["features"]]
        if not self.imitated:
            return []
        ends = (1e-3, 1e4)
        plot = _plot("imitation", "FINs against exact features", "exact", "FIN", x_axis_type="log", y_axis_type="log",
                     x_range=ends, y_range=ends)
        plot.line(ends, ends, color="silver")
        for i, (name, source) in enumerate(zip(self.about["features"], self.imitated, strict=True)):
            plot.scatter("true", "imitated", source=source, color=Category10[10][i % 10], legend_label=name, size=6)
        plot.legend.update(location="top_left", background_fill_alpha=0, border_line_alpha=0, padding=2, spacing=0,
                           label_text_font_size="10px")
        return [plot]

    def _show_features(self, imitated: np.ndarray) -> None:
        true = self.state.true_features()
        for i, source in enumerate(self.imitated):
            source.data = {"true": np.maximum(true[:, i], 1e-4).tolist(),
                           "imitated": np.maximum(imitated[:, i], 1e-4).tolist()}


def short(name: str) -> str:
    """A name beside an axis: its beginning and its end."""
    return name if len(name) <= SHORT else f"{name[:9]}…{name[10 - SHORT :]}"


def percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.0f} %"


def _plot(name: str, title: str, x: str | None = None, y: str | None = None, **options):
    """A figure without tools that fills its place on the page; `x` and `y` name its axes."""
    plot = figure(name=name, title=title, x_axis_label=x, y_axis_label=y, toolbar_location=None, min_border=10,
                  sizing_mode="stretch_both", background_fill_color=None, border_fill_color=None,
                  outline_line_color=None, **options)
    plot.title.update(text_font_size="12px", text_font_style="normal", text_color="#5b6570")
    if isinstance(plot.x_range, DataRange1d):
        plot.x_range.range_padding = 0.01
    for axis in plot.axis:
        axis.update(axis_label_text_font_size="11px", axis_label_text_font_style="normal",
                    major_label_text_font_size="11px", axis_label_standoff=2, minor_tick_line_color=None)
    return plot


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
