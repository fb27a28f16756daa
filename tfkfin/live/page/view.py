"""The document that a browser shows of a `State`: its plots, and what of them changes, thirty times a second."""

from collections.abc import Callable
from functools import partial

import numpy as np
from bokeh.document import Document
from bokeh.layouts import column, row
from bokeh.models import Button, ColumnDataSource, Div
from bokeh.palettes import Category10, Category20
from bokeh.plotting import figure

from tfkfin.live.page.cue import Asked, Hand
from tfkfin.live.page.state import BINS, COLUMNS, SECONDS, State

SLOW = 30  # frames between looks at what is slow
COURSE = 300  # decisions that are shown
STYLE = {"toolbar_location": None, "sizing_mode": "stretch_width"}


class View:
    """One browser's view.

    Args:
        send: takes a button's command, its label in lower case.
    """

    def __init__(self, document: Document, state: State, send: Callable[[str], None]):
        self.state, self.send, self.about, self._document = state, send, state.about, document
        self._frame, self._shown, self._decided, self._woken = 0, -1.0, -1.0, False
        movements, names = self.about["movements"], self.about["names"]
        self.names = [names[str(m)] for m in movements]
        signals, probabilities, course = self._signals(), self._probabilities(), self._course()
        imitation, latency = self._imitation(), self._latency()
        self.hand, self.cue = Hand(), Asked(self._named)
        self.words = Div(text="waiting for the signal", styles={"font-size": "150%"}, height=40)
        self.told = Div(text="", height=40)
        self.pausing, self.recording = (Button(label=label, width=120) for label in ("Pause", "Record"))
        self.calibrating = Button(label="Calibrate", width=120, visible=False)
        for button in (self.pausing, self.recording, self.calibrating):
            button.on_click(partial(self._press, button))
        left = column(signals, course, sizing_mode="stretch_width")
        right = column(row(self.hand.plot, probabilities, sizing_mode="stretch_width"),
                       row(imitation, latency, sizing_mode="stretch_width"), sizing_mode="stretch_width")
        document.add_root(column(row(self.pausing, self.recording, self.calibrating, self.words), self.cue.panel,
                                 row(left, right, sizing_mode="stretch_width"), self.told, sizing_mode="stretch_width"))
        document.title = "tfkfin live"

    def wake(self) -> None:
        """Something is new: it is shown as soon as the server has time, together with what comes until then."""
        if not self._woken:
            self._woken = True
            self._document.add_next_tick_callback(self.update)

    def update(self) -> None:
        """Shows what is new: signals every time; the rest, of which each is a message of its own, in turn."""
        self._woken = False
        if (last := self.state.last) is None:
            return
        self._newest()
        name, session = self._named(last["label"]), last["session"]
        if self._frame % 2 == 0:
            self.bars.data = {"name": self.names, "p": last["probabilities"]}
            self.cue.show(last["cue"], last["time_s"], self.state.decisions)
        else:
            self._course_on()
        if self._frame % 3 == 0:
            self.hand.show(last["label"], name, last["speed"], f"{name}, speed {last['speed']:.2f}")
        if self._frame % 3 == 1:
            self.words.text = "paused" if session.get("paused") else f"<b>{name}</b> {last['probability']:.2f}"
        if self._frame % 6 == 2:
            self._features(np.array(last["features"]))
        if self._frame % 6 == 5:
            self.bins.data = self.bins.data | {"top": self.state.counts.tolist()}
        if self._frame % SLOW == 0:
            self._slow()
            self.told.text = " · ".join(self.state.notes)
        self._buttons(session)
        self._frame += 1

    def _newest(self) -> None:
        """Signals since they were last shown; as lists, for of an array Bokeh makes two messages more."""
        points = [point for point in self.state.extremes if point[0] > self._shown]
        if points:
            self._shown = points[-1][0]
            volts = np.array([v for _, v in points]) / self._span + np.arange(self.about["channels"])
            columns = {f"c{c}": column for c, column in enumerate(np.round(volts.T, 3).tolist())}
            self.signals.stream({"t": [t for t, _ in points]} | columns, rollover=int(2 * SECONDS * COLUMNS))

    def _course_on(self) -> None:
        """Decisions since they were last shown."""
        new = [made for made in list(self.state.decisions)[-COURSE:] if made[0] > self._decided]
        if new:
            times, decided, truth, _ = zip(*new, strict=True)
            self._decided, cues = times[-1], [float("nan") if v is None else v for v in truth]
            self.course.stream({"t": times, "decided": decided, "cue": cues}, rollover=COURSE)

    def _named(self, label: int) -> str:
        return "rejected" if label < 0 else self.about["names"].get(str(label), str(label))

    def _press(self, button: Button) -> None:
        self.send(button.label.lower())  # what the session then says that it does, the button shows

    def _buttons(self, session: dict) -> None:
        self.pausing.label = "Start" if session.get("paused") else "Pause"
        self.recording.label = "Stop recording" if session.get("recording") else "Record"
        self.recording.button_type = "danger" if session.get("recording") else "default"
        doing = session.get("calibration")  # None: nobody wants one
        self.calibrating.visible, self.calibrating.disabled = doing is not None, doing == "solving"
        self.calibrating.label = {"asking": "Stop calibrating", "solving": "Solving"}.get(doing, "Calibrate")
        self.pausing.disabled = bool(doing)  # what is asked for goes on by the clock of the samples

    def _slow(self) -> None:
        """Scale and quality of the electrodes."""
        spread = np.std(self.state.raw[-len(self.state.raw) // 2 :], axis=0)
        self._span = 8 * max(float(np.median(spread)), 1e-7)
        labels = {c: f"{c + 1} {quality}" for c, quality in enumerate(self.state.quality())}
        self.plot.yaxis.major_label_overrides = labels

    def _features(self, imitated: np.ndarray) -> None:
        true = self.state.true_features()
        for i, source in enumerate(self.imitated):
            source.data = {"true": np.maximum(true[:, i], 1e-4).tolist(),
                           "imitated": np.maximum(imitated[:, i], 1e-4).tolist()}

    def _signals(self):
        channels = self.about["channels"]
        self._span = 1e-4
        self.signals = ColumnDataSource({"t": [], **{f"c{c}": [] for c in range(channels)}})
        self.plot = figure(height=360, title="electrodes, as recorded", y_range=(-1, channels), **STYLE)
        for c in range(channels):
            self.plot.line("t", f"c{c}", source=self.signals, color=Category20[20][c % 20], name=f"electrode {c + 1}")
        self.plot.yaxis.ticker = list(range(channels))
        self.plot.xaxis.axis_label = "seconds"
        return self.plot

    def _probabilities(self):
        self.bars = ColumnDataSource({"name": self.names, "p": [0.0] * len(self.names)})
        plot = figure(height=260, title="probabilities", x_range=self.names, y_range=(0, 1), **STYLE)
        plot.vbar("name", top="p", width=0.8, source=self.bars)
        plot.xaxis.major_label_orientation = 1.0
        return plot

    def _course(self):
        self.course = ColumnDataSource({"t": [], "decided": [], "cue": []})
        plot = figure(height=300, title="decided, and what is done or asked for", **STYLE)
        plot.step("t", "cue", source=self.course, color="silver", line_width=6, mode="after",
                  legend_label="done or asked")
        plot.step("t", "decided", source=self.course, mode="after", legend_label="decided")
        plot.add_layout(plot.legend[0], "below")
        plot.legend.orientation = "horizontal"
        plot.yaxis.ticker = [-1, *self.about["movements"]]
        called = dict(zip(self.about["movements"], self.names, strict=True))
        plot.yaxis.major_label_overrides = {-1: "rejected"} | called
        return plot

    def _imitation(self):
        self.imitated = [ColumnDataSource({"true": [], "imitated": []}) for _ in self.about["features"]]
        plot = figure(height=360, title="imitated against true features", x_axis_type="log",
                      y_axis_type="log", x_range=(1e-3, 1e4), y_range=(1e-3, 1e4), **STYLE)
        plot.line([1e-3, 1e4], [1e-3, 1e4], color="silver")
        for i, (name, source) in enumerate(zip(self.about["features"], self.imitated, strict=True)):
            plot.scatter("true", "imitated", source=source, color=Category10[10][i % 10], legend_label=name, size=7)
        plot.legend.location = "top_left"
        plot.xaxis.axis_label, plot.yaxis.axis_label = "true", "imitated"
        return plot

    def _latency(self):
        self.bins = ColumnDataSource({"left": BINS.tolist(), "right": (BINS + 0.5).tolist(), "top": [0] * len(BINS)})
        plot = figure(height=360, title="decisions by ms from last sample to sent", **STYLE)
        plot.quad(left="left", right="right", top="top", bottom=0, source=self.bins)
        plot.xaxis.axis_label = "ms (the last bin holds all beyond)"
        return plot
