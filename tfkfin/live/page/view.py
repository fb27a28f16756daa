"""The document that a browser shows of a `State`: its plots, and what of them changes thirty times a second."""

from collections.abc import Callable

import numpy as np
from bokeh.document import Document
from bokeh.layouts import column, row
from bokeh.models import Button, ColumnDataSource, Div
from bokeh.palettes import Category10, Category20
from bokeh.plotting import figure

from tfkfin.live.page.state import BINS, COLUMNS, FINGERS, SECONDS, State, posture

FRAME_MS, SLOW = 33, 30  # of the view; frames between looks at what is slow
STYLE = {"toolbar_location": None, "sizing_mode": "stretch_width"}
_FINGERS = ((-1.15, 0.3, 0.7, 2.4), (-0.6, 1.0, 1.0, 1.7), (-0.2, 1.05, 1.15, 1.57), (0.2, 1.0, 1.05, 1.45),
            (0.6, 0.85, 0.8, 1.3))  # where each begins, its length and direction


class View:
    """One browser's view.

    Args:
        send: takes a button's command: "pause", "go on", "record", "stop recording".
    """

    def __init__(self, document: Document, state: State, send: Callable[[str], None]):
        self.state, self.send, self.about, self._frame, self._shown = state, send, state.about, 0, -1.0
        movements, names = self.about["movements"], self.about["names"]
        self.names = [names[str(m)] for m in movements]
        signals, probabilities, course = self._signals(), self._probabilities(), self._course()
        imitation, hand, latency = self._imitation(), self._hand(), self._latency()
        self.words = Div(text="waiting for the signal", styles={"font-size": "150%"}, height=40)
        self.told = Div(text="", height=40)
        self.pausing = Button(label="Pause", width=120)
        self.recording = Button(label="Record", width=120)
        self.pausing.on_click(lambda: self._press(self.pausing, "Pause", "Go on"))
        self.recording.on_click(lambda: self._press(self.recording, "Record", "Stop recording"))
        left = column(signals, course, sizing_mode="stretch_width")
        right = column(row(hand, probabilities, sizing_mode="stretch_width"),
                       row(imitation, latency, sizing_mode="stretch_width"), sizing_mode="stretch_width")
        document.add_root(column(row(self.pausing, self.recording, self.words),
                                 row(left, right, sizing_mode="stretch_width"), self.told, sizing_mode="stretch_width"))
        document.title = "tfkfin live"
        document.add_periodic_callback(self.update, FRAME_MS)

    def update(self) -> None:
        """Shows what is new."""
        state = self.state
        with state.lock:
            last = state.last
            points = [point for point in state.extremes if point[0] > self._shown]
            decisions, counts = list(state.decisions), state.counts.copy()
            notes = " · ".join(state.notes)
        if last is None:
            return
        self._frame += 1
        if points:
            self._shown = points[-1][0]
            volts = np.array([v for _, v in points]) / self._span + np.arange(self.about["channels"])
            self.signals.stream({"t": [t for t, _ in points], **{f"c{c}": volts[:, c] for c in range(volts.shape[1])}},
                                rollover=int(2 * SECONDS * COLUMNS))
        self.bars.data = {"name": self.names, "p": last["probabilities"]}
        times, decided, truth = zip(*decisions[-300:], strict=True)
        self.course.data = {"t": times, "decided": decided, "cue": [np.nan if v is None else v for v in truth]}
        self.fingers.data = _drawn(posture(last["label"], self._named(last["label"]), last["speed"]))
        self.hand.title.text = f"{self._named(last['label'])}, speed {last['speed']:.2f}"
        if self._frame % 5 == 0:
            self._features(np.array(last["features"]))
            self.bins.data = {"left": BINS, "right": BINS + 0.5, "top": counts}
        if self._frame % SLOW == 1:
            self._slow()
            self.told.text = notes
        self.words.text = f"<b>{self._named(last['label'])}</b> {last['probability']:.2f}" + self._asked(last)

    def _named(self, label: int) -> str:
        return "rejected" if label < 0 else self.about["names"].get(str(label), str(label))

    def _asked(self, last: dict) -> str:
        if not last["cue"]:
            return ""
        movement, stop, following = last["cue"]
        left = max(0.0, stop - last["time_s"])
        then = "" if following is None else f", then {self._named(following)}"
        return f" &nbsp; please: <b>{self._named(movement)}</b> for {left:.0f} s{then}"

    def _press(self, button: Button, off: str, on: str) -> None:
        self.send(button.label.lower())
        button.label = on if button.label == off else off

    def _slow(self) -> None:
        """Scale and quality of the electrodes."""
        with self.state.lock:
            spread = np.std(self.state.raw[-len(self.state.raw) // 2 :], axis=0)
        self._span = 8 * max(float(np.median(spread)), 1e-7)
        labels = {c: f"{c + 1} {quality}" for c, quality in enumerate(self.state.quality())}
        self.plot.yaxis.major_label_overrides = labels

    def _features(self, imitated: np.ndarray) -> None:
        true = self.state.true_features()
        for i, source in enumerate(self.imitated):
            source.data = {"true": np.maximum(true[:, i], 1e-4), "imitated": np.maximum(imitated[:, i], 1e-4)}

    def _signals(self):
        channels = self.about["channels"]
        self._span = 1e-4
        self.signals = ColumnDataSource({"t": [], **{f"c{c}": [] for c in range(channels)}})
        self.plot = figure(height=360, title="electrodes, as recorded", y_range=(-1, channels), **STYLE)
        for c in range(channels):
            self.plot.line("t", f"c{c}", source=self.signals, color=Category20[20][c % 20])
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
        plot = figure(height=360, title="imitated against true features, an electrode a point", x_axis_type="log",
                      y_axis_type="log", x_range=(1e-3, 1e4), y_range=(1e-3, 1e4), **STYLE)
        plot.line([1e-3, 1e4], [1e-3, 1e4], color="silver")
        for i, (name, source) in enumerate(zip(self.about["features"], self.imitated, strict=True)):
            plot.scatter("true", "imitated", source=source, color=Category10[10][i % 10], legend_label=name, size=7)
        plot.legend.location = "top_left"
        plot.xaxis.axis_label, plot.yaxis.axis_label = "true", "imitated"
        return plot

    def _hand(self):
        self.fingers = ColumnDataSource(_drawn((0.3,) * 5))
        self.hand = figure(height=260, width=240, title="rest", x_range=(-2.3, 1.7), y_range=(-1.2, 2.6),
                           toolbar_location=None)
        self.hand.axis.visible = self.hand.grid.visible = False
        self.hand.rect(0, 0, 1.7, 1.9, fill_color="#e0ac69", line_color="#8d5524")
        self.hand.multi_line("x", "y", source=self.fingers, line_width=18, line_cap="round", color="#e0ac69")
        return self.hand

    def _latency(self):
        self.bins = ColumnDataSource({"left": BINS, "right": BINS + 0.5, "top": np.zeros(len(BINS))})
        plot = figure(height=360, title="decisions by ms, sample received to decision sent", **STYLE)
        plot.quad(left="left", right="right", top="top", bottom=0, source=self.bins)
        plot.xaxis.axis_label = "ms (the last bin holds all beyond)"
        return plot


def _drawn(curled: tuple[float, ...]) -> dict:
    """Two bones a finger: the more it is curled, the shorter it is seen."""
    xs, ys = [], []
    for how, (x, y, length, angle) in zip(curled, _FINGERS, strict=True):
        seen = length * (1 - 0.75 * how)
        xs.append([x, x + seen * np.cos(angle)])
        ys.append([y, y + seen * np.sin(angle)])
    return {"x": xs, "y": ys, "name": list(FINGERS)}
