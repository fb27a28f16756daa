"""The loop: samples are taken from a source as they come, a decision is sent once a stride, nothing is waited for.

A source that keeps a clock is read in a thread of its own, so that what it gives is stamped when it is there. Where
decisions cost more than the stride, whole strides are dropped and the newest is decided.
"""

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tfkfin.live.drift import Drift
from tfkfin.live.outputs import Made, Output
from tfkfin.live.priority import Priority
from tfkfin.live.proportional import Proportional
from tfkfin.live.scoring import UNKNOWN, Scores, Truth
from tfkfin.live.sources import Chunk, Source
from tfkfin.live.stream import Decisions, Stream
from tfkfin.live.timing import Times, Timing

STALL_S = 0.5  # without a sample: it is said
OVERLOAD = 0.5  # of the stride, that a decision costs: where strides are dropped then, no priority helps
CATCH_UP_S = 0.1  # a backlog is decided whole if it is made up for within this time; otherwise strides are dropped


@dataclass
class Signal:
    """What came of the samples: `received`, `lost` on the way, `filled` (not finite), `gaps`, `stalls`."""

    paced: bool = True
    received: int = 0
    lost: int = 0
    filled: int = 0
    gaps: int = 0
    stalls: int = 0
    began: float | None = None
    ended: float = 0.0
    after: int = 0  # samples after the first chunk, those that were lost too
    notes: list[str] = field(default_factory=list)

    def summary(self) -> dict:
        rate = None  # of what came after the first chunk
        if self.paced and self.began is not None and self.ended > self.began + 1:
            rate = self.after / (self.ended - self.began)
        return {"received": self.received, "lost": self.lost, "filled": self.filled, "gaps": self.gaps,
                "stalls": self.stalls, "rate_measured_hz": rate, "notes": self.notes}

    def add(self, chunk: Chunk) -> None:
        if self.began is None:
            self.began = chunk.received
        else:
            self.after += len(chunk.samples) + chunk.lost
        self.ended = chunk.received
        self.received, self.lost = self.received + len(chunk.samples), self.lost + chunk.lost


class Loop:
    """A stream of decisions from a source to outputs.

    Args:
        stream: decides; its `source_hz` is the source's rate.
        source: gives samples.
        outputs: take every decision.
        scores: of earlier recordings, to go on with.
        first: decisions in real time have a priority above the usual, where the system permits it.
    """

    def __init__(self, stream: Stream, source: Source, outputs: Sequence[Output] = (), scores: Scores | None = None,
                 first: bool = False):
        self.stream, self.source, self.outputs = stream, source, list(outputs)
        stride_s = stream.stride / stream.rate_hz
        self._period = 1 / (source.rate_hz * source.speed) if source.speed else 0.0  # seconds from sample to sample
        self.timing = Timing(stride_s / source.speed if source.speed else 0.0)
        rests = 0 in stream.movements or stream.decoder.decision.reject > 0
        self.scores = scores or Scores(stream.movements, stride_s, source.rate_hz, rests)
        self.scores.begin(source.rate_hz)
        self.signal = Signal(bool(source.speed))
        self._speed = Proportional(list(stream.decoder.card["features"]), stride_s)
        reach = int((stream.length + stream.stride) * source.rate_hz / stream.rate_hz) + 64
        self._truth, self._bad = Truth(reach), Truth(reach)
        self._seen, self._label = 0, UNKNOWN
        self._drift = Drift(source.rate_hz) if source.drifts else None
        self.labelled, self.paused, self._ended = False, False, threading.Event()
        self._first, self._priority, self.priority = first and bool(source.speed), Priority(), None

    def run(self, seconds: float = 0.0) -> None:
        """Until the source ends, `stop` is called, or so many seconds of signal are over (0: no limit)."""
        most = round(seconds * self.source.rate_hz) or None
        if self._first:
            self._priority.take()
            self.priority = self._priority.how
        try:
            for chunks in self._taken() if self.source.speed else ([chunk] for chunk in self.source):
                self._decided([chunk for chunk in chunks if chunk is not None])
                self.between()
                if self._ended.is_set() or most and self._seen >= most:
                    break
        finally:
            self._ended.set()
            self._priority.give_back()
            self.source.close()
            for output in self.outputs:
                output.close()

    def stop(self) -> None:
        self._ended.set()

    def pause(self, paused: bool) -> None:
        """Samples are passed by until it goes on; then windows begin anew."""
        if self.paused and not paused:
            self.stream.restart(self._seen)
        self.paused = paused

    def between(self) -> None:
        """Called between decisions: for what else has to be done in this thread."""

    def note(self, text: str) -> None:
        """Tells the outputs, and keeps it for the summary, what happened; "" says nothing."""
        if not text:
            return
        self.signal.notes = [*self.signal.notes[-99:], text]
        for output in self.outputs:
            output.note(text)

    def summary(self) -> dict:
        """Timing, the signal, the delay that is the window's own, and scores where the truth was known."""
        delay = {"window_ms": 1e3 * self.stream.length / self.stream.rate_hz, "middle_ms": 1e3 * self.stream.delay_s}
        sustained = self.timing.sustained_ms(1e3 / self.stream.rate_hz)
        return {"stride_ms": 1e3 * self.stream.stride / self.stream.rate_hz, "delay": delay,
                "smallest_stride_ms": sustained if self.timing.decided else None, "timing": self.timing.summary(),
                "signal": self.signal.summary(), "priority": self.priority,
                "scores": self.scores.summary() if self.labelled else None}

    def _taken(self):
        """All chunks that are there, as soon as some are."""
        there = queue.SimpleQueue()

        def read() -> None:
            try:
                self._priority.join()
                for chunk in self.source:
                    there.put(chunk)
                    if self._ended.is_set():
                        break
                there.put(StopIteration())
            except Exception as error:  # it is raised where the session is
                there.put(error)

        threading.Thread(target=read, daemon=True, name="source").start()
        last, stalled = time.perf_counter(), False
        while not self._ended.is_set():
            chunks, error = [], None
            try:
                chunks.append(there.get(timeout=STALL_S / 2))
                while True:
                    chunks.append(there.get_nowait())
            except queue.Empty:
                pass
            if chunks and isinstance(chunks[-1], Exception):
                error = chunks.pop()
            came = [chunk for chunk in chunks if chunk is not None and len(chunk.samples)]
            now = time.perf_counter()
            if came:
                if stalled:
                    self.note(f"samples again after {now - last:.1f} s")
                last, stalled = now, False
            elif not stalled and now - last > STALL_S and error is None:
                stalled, self.signal.stalls = True, self.signal.stalls + 1
                self.note(f"no samples for {now - last:.1f} s")
            yield chunks
            if error is not None:
                if not isinstance(error, StopIteration):
                    raise error
                return

    def _decided(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            if chunk.note:
                self.note(chunk.note)
        newest = None
        if self.source.speed and len(chunks) > 1:
            backlog = sum(len(chunk.samples) for chunk in chunks) * self._period / self.timing.stride_s
            cost = self.timing.parts["preparation"].percentile(50) + self.timing.parts["inference"].percentile(50)
            spare = 1 - cost / self.timing.stride_s
            if backlog > 1 and backlog * cost > spare * CATCH_UP_S:
                newest = 1
                if not self.timing.dropped:
                    self.note(f"{backlog:.0f} strides wait, at {1e3 * cost:.1f} ms each: whole strides are dropped")
                if self._priority.how and cost > OVERLOAD * self.timing.stride_s:
                    self._priority.give_back()
                    self.note("decisions have the usual priority from now on: the rest of the machine is to go on")
        if newest is None:
            for chunk in chunks:
                self._taken_in(chunk, None)
            return
        # what is dropped is dropped whole: the samples of all chunks are seen, their last window is decided
        for chunk in chunks[:-1]:
            self._taken_in(chunk, 0)
        self._taken_in(chunks[-1], 1)

    def _taken_in(self, chunk: Chunk, newest: int | None) -> None:
        self.signal.add(chunk)
        if chunk.lost:
            self._lost(chunk.lost)
        if chunk.begins:
            self.stream.restart(self._seen)
        if self._drift:
            self._followed(self._drift, chunk)
        if not len(chunk.samples):
            return
        bad = ~np.isfinite(chunk.samples).all(axis=1)
        self.signal.filled += int(bad.sum())
        self._bad.add(bad.astype(np.int64))
        labels = chunk.labels if chunk.labels is not None else np.full(len(chunk.samples), UNKNOWN)
        self._truly(labels)
        for output in self.outputs:
            output.samples(chunk.samples, labels)
        self._seen += len(chunk.samples)
        if self.paused:
            return
        turn, before = time.perf_counter(), self.stream.following
        made = self.stream(chunk.samples, newest)
        self.timing.dropped += self.stream.following - before - (len(made) if made else 0)
        if made:
            self._sent(made, chunk, turn)

    def _followed(self, drift: Drift, chunk: Chunk) -> None:
        """A device whose clock is off is resampled as it truly samples, once that is known."""
        if chunk.lost or chunk.begins:
            drift.restart()
        elif rate_hz := drift(len(chunk.samples), chunk.received):
            self.note(f"{rate_hz:.2f} samples a second come, not {self.source.rate_hz:g}: they are resampled so, and "
                      "windows begin anew")
            self.stream.follow(rate_hz, self._seen)

    def _lost(self, count: int) -> None:
        """Samples that never came: a few are held as the last one was, more than a window begins anew."""
        self.signal.gaps += 1
        self._truly(np.full(count, UNKNOWN))
        self._bad.add(np.ones(count, np.int64))
        self._seen += count
        if count * self.stream.rate_hz > self.stream.length * self.stream.source_hz:
            self.note(f"{count} samples are lost: the stream begins anew")
            self.stream.restart(self._seen)
        else:
            self.note(f"{count} samples are lost: they are held")
            before = self.stream.following
            self.stream(self.stream.held(count), 0)
            self.timing.dropped += self.stream.following - before

    def _truly(self, labels: np.ndarray) -> None:
        self._truth.add(labels)
        known = np.flatnonzero(labels != UNKNOWN)
        if not len(known):
            return
        self.labelled = True
        before = np.concatenate([[self._label], labels[known[:-1]]])
        for place in known[labels[known] != before]:
            self.scores.changed(self._seen + int(place), int(labels[place]))
        self._label = int(labels[known[-1]])

    def _sent(self, made: Decisions, chunk: Chunk, turn: float) -> None:
        share = 1 / len(made)
        for i, number in enumerate(made.numbers):
            first, last = self.stream.span(int(number))
            inside, label = self._truth.within(first, last), int(made.labels[i])
            true = int(inside[0]) if len(inside) and (inside == inside[0]).all() else UNKNOWN
            force = self._speed(made.features[i])
            one = Made(int(number), (last + 1) / self.source.rate_hz, label, float(made.probabilities[i].max()),
                       made.probabilities[i], made.features[i], force if label > 0 else 0.0, force,
                       None if true == UNKNOWN else true, int(self._bad.within(first, last).sum()))
            for output in self.outputs:
                output(one)
            sent = time.perf_counter()
            late = chunk.late_s + (self._seen - 1 - last) * self._period
            waited = (turn - chunk.received, sent - chunk.received) if self.source.speed else (np.nan, np.nan)
            times = Times(late, waited[0], share * made.prepared_s, share * made.inferred_s, waited[1])
            self.timing.add(times, sent)
            self.scores.add(label, true, last)
            for output in self.outputs:
                output.timed(one, times)
