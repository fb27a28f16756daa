"""Recordings before windows are cut: resampled, filtered, and parted into segments of movements and rest."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeVar

from tfkfin.base.console import log
from tfkfin.pipeline import splits
from tfkfin.pipeline.windows import Segment
from tfkfin.recipe import Filter, Split, Window
from tfkfin.recordings.recording import Header, Recording, flat_channels
from tfkfin.signal import resampling
from tfkfin.signal.filtering import filtered, sections

Labelled = TypeVar("Labelled", Header, Recording)


def preprocessed(recording: Recording, window: Window, filter: Filter | Mapping | None,
                 split: Split | None) -> tuple[Recording, list[Segment]]:
    """A recording at the windows' rate, filtered, and its segments, those of rest too. Without a split all train.

    Neither resampling nor filtering reaches from a tested segment into others, nor across seams.
    """
    found = splits.segments(recording, split, True)
    if window.rate_hz and window.rate_hz != recording.rate_hz:
        recording = resampled(recording, window.rate_hz, splits.cuts(found, split, window.rest))
        found = splits.segments(recording, split, True)
    for note in recording.notes:
        _warn(recording.path, note)
    if flat := flat_channels(recording):
        _warn(recording.path, f"channel {', '.join(map(str, flat))} is flat")
    edges = {*splits.cuts(found, split, window.rest), *recording.seams}
    emg = filtered(recording.emg, sections(filter, recording.rate_hz), edges)
    return replace(recording, emg=emg), found


def resampled(recording: Recording, rate_hz: float, cuts: Sequence[int] = ()) -> Recording:
    """The recording at `rate_hz` (0 keeps its own): polyphase with an anti-aliasing filter, labels by nearest sample.

    The filter does not reach across seams, nor `cuts`, samples at which another side of the split begins.
    """
    if not rate_hz or recording.rate_hz == rate_hz:
        return recording
    emg = resampling.signal_at_rate(recording.emg, recording.rate_hz, rate_hz, {*cuts, *recording.seams})
    made = labels_at_rate(recording, rate_hz)
    length = min(len(emg), len(made.labels))
    note = f"resampled from {recording.rate_hz:g} to {rate_hz:g} Hz"
    return replace(made, emg=emg[:length], labels=made.labels[:length], repetitions=made.repetitions[:length],
                   notes=(*recording.notes, note))


def labels_at_rate(recording: Labelled, rate_hz: float) -> Labelled:
    """The same with labels, repetitions and seams at another rate (0 keeps its own)."""
    rate = recording.rate_hz
    if not rate_hz or rate == rate_hz:
        return recording
    labels, repetitions = resampling.at_rate(rate, rate_hz, recording.labels, recording.repetitions)
    return replace(recording, labels=labels, repetitions=repetitions, rate_hz=rate_hz,
                   seams=resampling.seams_at_rate(rate, rate_hz, recording.seams))


@cache  # every stage reads a recording: each warning is given once
def _warn(path: Path, note: str) -> None:
    log.warning("warning: %s: %s", path.name, note)
