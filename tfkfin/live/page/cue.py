"""A hand that shows a movement, and what is asked for: its picture, a countdown, a ramp of force beside one's own."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from bokeh.layouts import row
from bokeh.models import ColumnDataSource, Div, Range1d
from bokeh.plotting import figure

from tfkfin.live.page.state import FINGERS, posture

RAMP = (0.3, 1.0)  # of one's own range: the force that is asked for when a hold begins, and when it ends
_FINGERS = ((-1.15, 0.3, 0.7, 2.4), (-0.6, 1.0, 1.0, 1.7), (-0.2, 1.05, 1.15, 1.57), (0.2, 1.0, 1.05, 1.45),
            (0.6, 0.85, 0.8, 1.3))  # where each begins, its length and direction


class Hand:
    """A drawn hand."""

    def __init__(self):
        self.fingers = ColumnDataSource(drawn((0.3,) * 5))
        self.plot = figure(height=260, width=240, title="rest", x_range=(-2.3, 1.7), y_range=(-1.2, 2.6),
                           toolbar_location=None)
        self.plot.axis.visible = self.plot.grid.visible = False
        self.plot.rect(0, 0, 1.7, 1.9, fill_color="#e0ac69", line_color="#8d5524")
        self.plot.multi_line("x", "y", source=self.fingers, line_width=18, line_cap="round", color="#e0ac69")

    def show(self, label: int, name: str, speed: float, title: str) -> None:
        self.fingers.data, self.plot.title.text = drawn(posture(label, name, speed)), title


class Asked:
    """What is asked for; there while something is.

    Args:
        named: what movements are called.
    """

    def __init__(self, named: Callable[[int], str]):
        self._named, self._cue = named, None
        self.hand, self.words = Hand(), Div(width=260, height=260, styles={"font-size": "150%", "line-height": "1.3"})
        self.own = ColumnDataSource({"t": [], "force": []})
        self.asked = ColumnDataSource({"t": [0, 1], "force": list(RAMP)})
        plot = figure(height=260, width=420, title="force: follow the line", x_range=Range1d(0, 1), y_range=(0, 1.1),
                      toolbar_location=None)
        plot.line("t", "force", source=self.asked, line_width=10, color="silver", line_cap="round")
        plot.line("t", "force", source=self.own, line_width=3)
        plot.xaxis.axis_label, plot.yaxis.axis_label = "seconds", "of your own range"
        self._span = plot.x_range
        self.panel = row(self.hand.plot, self.words, plot, visible=False)

    def show(self, cue: dict | None, now: float, decisions: Sequence[tuple]) -> None:
        """A cue as of `tfkfin.live.calibration.Cue`, the time of the session in seconds, and its `State.decisions`."""
        self.panel.visible = cue is not None
        if cue is None:
            return
        movement, left = cue["movement"], max(0.0, cue["stop_s"] - now)
        shown = movement or cue["following"] or 0  # while at rest, what comes next
        name = self._named(shown)
        self.hand.show(shown, name, 1.0, name)
        said = f"please: <b>{name}</b>" if movement else f"rest{f', then <b>{name}</b>' if shown else ''}"
        self.words.text = f"{said}<div style='font-size: 500%'>{math.ceil(left)}</div>"
        length = cue["stop_s"] - cue["start_s"]
        if cue != self._cue:
            self._cue, self._span.end = cue, length
            self.asked.data = {"t": [0, length], "force": list(RAMP) if movement else [0, 0]}
        own = [(t - cue["start_s"], force) for t, _, _, force in decisions if t >= cue["start_s"]]
        self.own.data = {"t": [t for t, _ in own], "force": [force for _, force in own]}


def drawn(curled: tuple[float, ...]) -> dict:
    """Two bones a finger: the more it is curled, the shorter it is seen."""
    xs, ys = [], []
    for how, (x, y, length, angle) in zip(curled, _FINGERS, strict=True):
        seen = length * (1 - 0.75 * how)
        xs.append([x, x + seen * np.cos(angle)])
        ys.append([y, y + seen * np.sin(angle)])
    return {"x": xs, "y": ys, "name": list(FINGERS)}
