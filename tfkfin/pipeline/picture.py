"""A picture of one movement of one recording: signals, labels and the windows cut from it."""

from pathlib import Path

import numpy as np

from tfkfin.base.console import format_numbers
from tfkfin.base.errors import InputError
from tfkfin.base.files import replacing
from tfkfin.pipeline import windows
from tfkfin.recordings.recording import Recording

_MARGIN_S = 0.5  # s of signal shown before and after the movement
_POINTS = 4000  # a signal is drawn as the minima and maxima of at most so many pieces


def draw(recording: Recording, movement: int, to: Path, length_ms: float = 300, stride_ms: float = 10) -> None:
    """Writes a PNG with a column for each repetition of `movement`.

    Raises:
        InputError: no such movement, `to` is there already or not a .png, or windows do not fit.
    """
    if to.suffix.lower() != ".png":
        raise InputError(f"{to} must end in .png")
    if to.exists():
        raise InputError(f"{to} is there already and is never overwritten: choose another name")
    every = windows.segments(recording.labels, recording.repetitions, seams=recording.seams)
    shown = [segment for segment in every if segment.movement == movement]
    if not shown:
        there = format_numbers({segment.movement for segment in every})
        raise InputError(f"{recording.path} has no movement {movement}: it has {there}")
    from matplotlib import figure as figures  # without pyplot: no display is needed, nothing is left open

    figure = figures.Figure((2.2 + 2.6 * len(shown), 3.2 + 0.45 * recording.num_channels), layout="constrained")
    grid = figure.subplots(2, len(shown), squeeze=False, sharey="row", sharex="col",
                           gridspec_kw={"height_ratios": [2 + recording.num_channels, 3]})
    height = 8 * np.median(recording.emg[:: max(1, len(recording.emg) // 10000)].std(axis=0)) or 1.0
    for column, segment in enumerate(shown):
        _signals(grid[0, column], recording, segment, height)
        _labels(grid[1, column], recording, segment, length_ms, stride_ms)
    grid[0, 0].set_yticks(-height * np.arange(recording.num_channels), np.arange(1, recording.num_channels + 1))
    grid[0, 0].set_ylabel(f"channel (spacing {1e6 * height:.0f} µV)")
    grid[1, 0].set_ylabel("label, windows")
    made = "synthetic, " if recording.synthetic else ""
    called = f" {recording.names[movement]}" if movement in recording.names else ""
    figure.suptitle(f"subject {recording.subject}, movement {movement}{called} ({made}{recording.rate_hz:g} Hz; "
                    f"windows {length_ms:g} ms every {stride_ms:g} ms, one line in ten)")
    with replacing(to) as partial:
        figure.savefig(partial, dpi=100)


def _span(recording: Recording, segment: windows.Segment) -> slice:
    margin = int(_MARGIN_S * recording.rate_hz)
    return slice(max(0, segment.start - margin), min(len(recording.emg), segment.stop + margin))


def _signals(axes, recording: Recording, segment: windows.Segment, height: float) -> None:
    span = _span(recording, segment)
    piece = max(1, (span.stop - span.start) // _POINTS)
    edges = np.arange(span.start, span.stop, piece)
    for channel in range(recording.num_channels):
        signal = recording.emg[span, channel]
        low, high = (ufunc.reduceat(signal, edges - span.start) for ufunc in (np.minimum, np.maximum))
        line = np.column_stack([low, high]).ravel() - channel * height
        axes.plot(np.repeat(edges, 2) / recording.rate_hz, line, lw=0.4)
    axes.set_title(f"repetition {segment.repetition}", fontsize=9)


def _labels(axes, recording: Recording, segment: windows.Segment, length_ms: float, stride_ms: float) -> None:
    rate = recording.rate_hz
    span = _span(recording, segment)
    axes.step(np.arange(span.start, span.stop) / rate, recording.labels[span], where="post", color="black")
    length, stride = windows.samples(length_ms, rate), windows.samples(stride_ms, rate)
    first = windows.starts([segment], length, stride, rate).starts[::10]
    rows = -0.5 - 0.12 * (np.arange(len(first)) % 30)
    axes.hlines(rows * max(1, segment.movement) / 4, first / rate, (first + length) / rate, lw=0.8, color="tab:blue")
    axes.set_xlabel("s")
