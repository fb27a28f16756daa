"""Calibration in a live session: cues are followed and recorded, a new decoder is calibrated and takes over.

The old decoder decides while the new one is solved and compiled in a thread.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.fit import scoring
from tfkfin.fit.calibration import calibrate
from tfkfin.live import recorder
from tfkfin.live.loop import Loop
from tfkfin.live.sources import Chunk, Source
from tfkfin.recordings import readers


@dataclass(frozen=True)
class Cue:
    """A movement (0: rest) to make until `stop_s` of the session; `following` is the next one, None: there is none."""

    movement: int
    repetition: int
    start_s: float
    stop_s: float
    following: int | None


def cues(movements: Sequence[int], repetitions: int = 1, hold_s: float = 3.0, rest_s: float = 2.0) -> list[Cue]:
    """Cues for every movement, with rest before each: all of them once, then the second repetition and so on."""
    made, now = [], 0.0
    for movement, repetition in [(m, r) for r in range(1, repetitions + 1) for m in movements if m]:
        made.append(Cue(0, repetition, now, now + rest_s, movement))
        made.append(Cue(movement, repetition, now + rest_s, now + rest_s + hold_s, 0))
        now += rest_s + hold_s
    return [*made, Cue(0, repetitions, now, now + rest_s, None)]


class Cued(Source):
    """A source whose samples are recorded, labelled by cues; a source with labels of its own keeps these.

    Args:
        source: of the signal.
        cues: in order of time, the first at 0 s.
        begins: with the first sample; otherwise when `begin` is called.
    """

    def __init__(self, source: Source, cues: Sequence[Cue], begins: bool = True):
        self.source, self._asked, self._taken = source, list(cues), 0
        self.rate_hz, self.channels, self.speed = source.rate_hz, source.channels, source.speed
        self.described, self.drifts, self.labelled = source.described, source.drifts, False
        self._wanted = {(cue.movement, cue.repetition) for cue in cues if cue.movement}
        self._lock, self.asking = threading.Lock(), False
        self.begin()
        self.asking = begins

    def begin(self) -> None:
        """Begins with the first cue at the next sample; what was recorded before is dropped."""
        with self._lock:
            now = self._taken / self.rate_hz
            self.cues = [replace(c, start_s=now + c.start_s, stop_s=now + c.stop_s) for c in self._asked]
            self._parts, self._counts, self._last = [], {}, 0
            self.asking, self._done = True, False

    def stop(self) -> None:
        """Ends the cues."""
        with self._lock:
            self.asking = False

    @property
    def cue(self) -> Cue | None:
        """The present cue; None when there is none, or where the source has labels of its own."""
        now = self._taken / self.rate_hz
        return next((c for c in self.cues if now < c.stop_s), None) if self.asking and not self.labelled else None

    @property
    def done(self) -> bool:
        """Whether every cue is recorded."""
        return self._done

    def __iter__(self) -> Iterator[Chunk | None]:
        for chunk in self.source:
            if chunk is not None:
                with self._lock:
                    asked, self._taken = self._taken, self._taken + chunk.lost + len(chunk.samples)
                    chunk = self._kept(chunk, asked + chunk.lost) if self.asking else chunk
            yield chunk

    def close(self) -> None:
        self.source.close()

    def recorded(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(T, C) volts, labels (T,) and repetitions (T,) int16."""
        return tuple(np.concatenate(part) for part in zip(*self._parts, strict=True))

    def _kept(self, chunk: Chunk, first: int) -> Chunk:
        """Records a chunk and returns it with labels; `first`: the number of its first sample."""
        if chunk.labels is not None:
            self.labelled, labels = True, np.maximum(chunk.labels, 0)
            repetitions = self._counted(labels)
        else:
            times = (first + np.arange(len(chunk.samples))) / self.rate_hz
            which = np.searchsorted([c.stop_s for c in self.cues], times, "right")
            table = np.array([(c.movement, c.repetition) for c in self.cues] + [(0, self.cues[-1].repetition)])
            labels, repetitions = table[which].T
        self._parts.append((np.array(chunk.samples, np.float32), labels, repetitions))
        ended = self._taken / self.rate_hz >= self.cues[-1].stop_s
        self._done = self._wanted <= self._held() if self.labelled else ended
        self.asking = not self._done
        return replace(chunk, labels=np.asarray(labels))

    def _counted(self, labels: np.ndarray) -> np.ndarray:
        """The execution of its movement that each sample belongs to, counted from 1."""
        found = np.zeros(len(labels), np.int64)
        edges = [0, *np.flatnonzero(np.diff(labels)) + 1, len(labels)]
        for start, stop in zip(edges, edges[1:], strict=False):
            movement = int(labels[start]) if stop > start else self._last
            if movement and movement != self._last:
                self._counts[movement] = self._counts.get(movement, 0) + 1
            found[start:stop], self._last = self._counts.get(movement, 0), movement
        return found

    def _held(self) -> set:
        """Executions that are over."""
        return {(m, r) for m, n in self._counts.items() for r in range(1, n + 1 - (m == self._last))}


class Calibration:
    """A session's calibrations: cues are recorded, a new decoder is solved, and takes over.

    Args:
        loop: whose source is a `Cued`, and which calls `between`.
        whole: the decoder with its network.
        folder: of recordings, which gets a new session.

    Attributes:
        made: the new decoder, with its card, once it decides.
        report: as of `tfkfin.fit.calibration.calibrate`, with `ready_s`, seconds from the last cue to the new decoder's
            first decision.
        failed: why the last calibration made no decoder.
        wanted: whether a calibration was begun.

    Raises:
        InputError: the decoder cannot be calibrated.
    """

    def __init__(self, loop: Loop, whole: BaseDecoder, folder: Path, subject: int):
        whole.check_calibrates()  # before anybody follows a cue
        self.loop, self.whole, self.folder, self.subject = loop, whole, folder, subject
        self.made, self.report, self.failed = None, {}, None
        self._thread, self._ready, self._shown = None, None, None
        self._begun = self.wanted = loop.source.asking

    @property
    def doing(self) -> str:
        """"asking", "solving", or "" before and after."""
        solving = self._ready is not None or self._thread is not None and self._thread.is_alive()
        return "asking" if self.loop.source.asking else "solving" if solving else ""

    def begin(self) -> None:
        """Begins a calibration of the decoder that decides now."""
        if not self.doing:
            self.loop.source.begin()
            self._begun = self.wanted = True

    def stop(self) -> None:
        """Ends the cues; no decoder is made of what was recorded."""
        self.loop.source.stop()
        self.wanted = self.made is not None

    def between(self) -> None:
        """Called between decisions: shows cues, begins to solve, and swaps decoders."""
        cued: Cued = self.loop.source
        if (cue := cued.cue) != self._shown:
            self._shown = cue
            for output in self.loop.outputs:
                output.cue(cue)
        if cued.done and self._begun:
            self._begun, self._began, self.failed = False, time.monotonic(), None
            self._thread = threading.Thread(target=self._solve, daemon=True, name="calibration")
            self._thread.start()
        if self._ready is None:
            return
        ready, self._ready = self._ready, None
        if isinstance(ready, Exception):
            self.failed = str(ready)
            self.loop.note(f"calibration failed, the old decoder goes on: {self.failed}")
            return
        (self.made, network), self.report = ready
        self.whole = self.made
        self.loop.stream.use(self.made, network)
        self.report["ready_s"] = time.monotonic() - self._began
        self.loop.note(f"calibrated on {self.report['windows']} windows, solved in {self.report['seconds']:.2f} s; the "
                       f"new decoder decides {self.report['ready_s']:.1f} s after the last cue")

    def _solve(self) -> None:
        try:
            self._ready = self._solved()
        except Exception as error:  # `between` reports it; the session goes on
            self._ready = error

    def _solved(self) -> tuple[tuple[BaseDecoder, Any], dict]:
        about = self.whole.card
        cued: Cued = self.loop.source
        path, session = recorder.save(self.folder, self.subject, cued.rate_hz, names(about), *cued.recorded())
        files = [f for f in readers.find(self.folder, (self.subject,)) if f.path.samefile(path)]
        subject = scoring.windows_of(about, map(readers.read, files))
        made, report = calibrate(self.whole, subject, session=session, where=str(path))
        return (made, self.loop.stream.prepared(made)), report | {"recording": str(path)}


def names(about: dict) -> dict[int, str]:
    """Names of a card's movements."""
    return {int(m): name for m, name in (about.get("names") or {}).items() if int(m)}
