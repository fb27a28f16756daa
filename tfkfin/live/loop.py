"""The loop of a session: takes samples from a source as they come and sends a decision once a stride.

A source in real time is read in a thread of its own, so that its samples get their time stamps when they arrive. Where
decisions take longer than the stride, whole strides are dropped and the newest window is decided.
"""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from tfkfin.live.drift import Drift
from tfkfin.live.outputs import LiveDecision, LiveOutput
from tfkfin.live.priority import Priority
from tfkfin.live.proportional import Proportional
from tfkfin.live.scoring import UNKNOWN, Recent, Scores
from tfkfin.live.sources import Chunk, LiveSource
from tfkfin.live.stream import Decisions, Stream
from tfkfin.live.timing import Times, Timing

STALL_S = 0.5  # without a sample for this long, the signal has stalled
OVERLOAD = 0.5  # share of the stride that a decision takes: if strides are dropped then, no priority helps
CATCH_UP_S = 0.1  # waiting windows are all decided if that takes no longer; otherwise whole strides are dropped


@dataclass
class SignalCounts:
    """Samples `received`, `lost` on the way, and `filled` (not finite); `gaps` and `stalls` of the signal; notes."""

    received: int = 0
    lost: int = 0
    filled: int = 0
    gaps: int = 0
    stalls: int = 0
    start: float | None = None
    end: float = 0.0
    after_start: int = 0  # samples after the first chunk, lost ones included
    notes: list[str] = field(default_factory=list)

    def summary(self, measured: bool) -> dict:
        """`measured`: whether the rate at which samples came means anything."""
        rate = None
        if measured and self.start is not None and self.end > self.start + 1:
            rate = self.after_start / (self.end - self.start)
        return {"received": self.received, "lost": self.lost, "filled": self.filled, "gaps": self.gaps,
                "stalls": self.stalls, "rate_measured_hz": rate, "notes": self.notes}

    def add(self, chunk: Chunk) -> None:
        if self.start is None:
            self.start = chunk.received
        else:
            self.after_start += len(chunk.samples) + chunk.lost
        self.end = chunk.received
        self.received, self.lost = self.received + len(chunk.samples), self.lost + chunk.lost


class Loop:
    """A session: decisions from a source to outputs.

    Args:
        stream: decides; its `source_hz` is the rate of the source.
        outputs: get every decision.
        scores: of earlier recordings, which this session adds to.
        first: whether decisions in real time have a higher priority than other programs, where the system permits it.

    Attributes:
        between: called without arguments between decisions, for whatever else has to be done in this thread.
    """

    def __init__(self, stream: Stream, source: LiveSource, outputs: Sequence[LiveOutput] = (),
                 scores: Scores | None = None, first: bool = False):
        self.stream, self.source, self.outputs, self.between = stream, source, list(outputs), lambda: None
        stride_s = stream.stride / stream.rate_hz
        self._period = 1 / (source.rate_hz * source.speed) if source.speed else 0.0  # seconds from sample to sample
        self.timing, self.signal = Timing(stride_s / source.speed if source.speed else 0.0), SignalCounts()
        rests = 0 in stream.movements or stream.decoder.decision.reject > 0
        self.scores = scores or Scores(stream.movements, stride_s, source.rate_hz, rests)
        self.scores.start_recording(source.rate_hz)
        self._force = Proportional(list(stream.decoder.card["features"]), stride_s)
        reach = int((stream.length + stream.stride) * source.rate_hz / stream.rate_hz) + 64
        self._recent = Recent(reach)  # (n, 2): true label, and whether the sample was replaced
        self._count, self._label = 0, UNKNOWN  # samples so far, lost ones included; the last known label
        self._drift = Drift(source.rate_hz) if source.drifts else None
        self.labelled, self.paused, self._ended = False, False, threading.Event()
        self._first, self._priority, self.priority = first and bool(source.speed), Priority(), None

    def run(self, seconds: float = 0.0) -> None:
        """Decides until the source ends, `stop` is called, or so many seconds of signal have passed (0: no limit)."""
        most = round(seconds * self.source.rate_hz) or None
        if self._first:
            self._priority.take()
            self.priority = self._priority.how
        try:
            for chunks in self._available() if self.source.speed else ([chunk] for chunk in self.source):
                self._decide([chunk for chunk in chunks if chunk is not None])
                self.between()
                if self._ended.is_set() or most and self._count >= most:
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
        """Ignores samples while paused; windows start anew afterwards."""
        if self.paused and not paused:
            self.stream.restart(self._count)
        self.paused = paused

    def note(self, text: str) -> None:
        """Sends a note to the outputs and keeps it for the summary; "" is no note."""
        if not text:
            return
        self.signal.notes = [*self.signal.notes[-99:], text]
        for output in self.outputs:
            output.note(text)

    def summary(self) -> dict:
        """Timing, the signal, the delay that belongs to the window, and scores where true movements were known."""
        period_ms, timing = 1e3 / self.stream.rate_hz, self.timing
        return {"stride_ms": period_ms * self.stream.stride,
                "delay": {"window_ms": period_ms * self.stream.length, "middle_ms": 1e3 * self.stream.delay_s},
                "smallest_stride_ms": timing.sustained_ms(period_ms) if timing.decided else None,
                "timing": timing.summary(), "signal": self.signal.summary(bool(self.source.speed)),
                "priority": self.priority, "scores": self.scores.summary() if self.labelled else None}

    def _available(self) -> Iterator[list[Chunk | None]]:
        """All chunks that are there, as soon as there are some."""
        waiting = queue.SimpleQueue()

        def read() -> None:
            try:
                self._priority.join()
                for chunk in self.source:
                    waiting.put(chunk)
                    if self._ended.is_set():
                        break
                waiting.put(StopIteration())
            except Exception as error:  # raised again in the thread of the session
                waiting.put(error)

        threading.Thread(target=read, daemon=True, name="source").start()
        last, stalled = time.perf_counter(), False
        while not self._ended.is_set():
            chunks, error = [], None
            try:
                chunks.append(waiting.get(timeout=STALL_S / 2))
                while True:
                    chunks.append(waiting.get_nowait())
            except queue.Empty:
                pass
            if chunks and isinstance(chunks[-1], Exception):
                error = chunks.pop()
            now = time.perf_counter()
            if any(chunk is not None and len(chunk.samples) for chunk in chunks):
                if stalled:
                    self.note(f"samples again after {now - last:.1f} s")
                last, stalled = now, False
            elif not stalled and now - last > STALL_S and error is None:
                stalled, self.signal.stalls = True, self.signal.stalls + 1
                self.note(f"no samples for {now - last:.1f} s")
            yield chunks
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error

    def _decide(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            self.note(chunk.note)
        overloaded = len(chunks) > 1 and self._overloaded(sum(len(chunk.samples) for chunk in chunks))
        for chunk in chunks:  # where strides are dropped, all samples are processed but only the last window is decided
            self._take(chunk, int(chunk is chunks[-1]) if overloaded else None)

    def _overloaded(self, samples: int) -> bool:
        """Whether so many samples wait that strides have to be dropped."""
        stride_s = self.timing.stride_s
        if not stride_s:
            return False
        strides, cost = samples * self._period / stride_s, self.timing.cost_s(50)
        if not (strides > 1 and strides * cost > (1 - cost / stride_s) * CATCH_UP_S):
            return False
        if not self.timing.dropped:
            self.note(f"{strides:.0f} strides wait, at {1e3 * cost:.1f} ms each: whole strides are dropped")
        if self._priority.how and cost > OVERLOAD * stride_s:
            self._priority.give_back()
            self.note("decisions have the usual priority from now on, so that other programs can go on")
        return True

    def _take(self, chunk: Chunk, newest: int | None = None) -> None:
        """Processes a chunk; `newest`: decides for so many windows at most, the last ones."""
        self.signal.add(chunk)
        if chunk.lost:
            self._fill(chunk.lost)
        if chunk.begins:
            self.stream.restart(self._count)
        if self._drift:
            self._follow(self._drift, chunk)
        if not len(chunk.samples):
            return
        bad = ~np.isfinite(chunk.samples).all(axis=1)
        self.signal.filled += int(bad.sum())
        labels = chunk.labels if chunk.labels is not None else np.full(len(chunk.samples), UNKNOWN)
        self._remember(labels, bad)
        for output in self.outputs:
            output.samples(chunk.samples, labels)
        self._count += len(chunk.samples)
        if not self.paused:
            start = time.perf_counter()
            if decisions := self._streamed(chunk.samples, newest):
                self._send(decisions, chunk, start)

    def _streamed(self, volts: np.ndarray, newest: int | None) -> Decisions | None:
        before = self.stream.following
        decisions = self.stream(volts, newest)
        self.timing.dropped += self.stream.following - before - (len(decisions) if decisions else 0)
        return decisions

    def _follow(self, drift: Drift, chunk: Chunk) -> None:
        """Resamples from the true rate of a device, once that is known to differ from the nominal one."""
        if chunk.lost or chunk.begins:
            drift.restart()
        elif rate_hz := drift(len(chunk.samples), chunk.received):
            self.note(f"the device gives {rate_hz:.2f} samples a second, not {self.source.rate_hz:g}: from now on they "
                      "are resampled from that rate, and windows begin anew")
            self.stream.set_source_rate(rate_hz, self._count)

    def _fill(self, count: int) -> None:
        """Repeats the last sample in place of lost ones; where more than a window is lost, windows start anew."""
        self.signal.gaps += 1
        self._remember(np.full(count, UNKNOWN), np.ones(count, bool))
        self._count += count
        if count * self.stream.rate_hz > self.stream.length * self.stream.source_hz:
            self.note(f"{count} samples are lost: windows begin anew")
            self.stream.restart(self._count)
        else:
            self.note(f"{count} samples are lost: the last one is repeated")
            self._streamed(self.stream.repeated(count), 0)

    def _remember(self, labels: np.ndarray, replaced: np.ndarray) -> None:
        self._recent.add(np.column_stack([labels, replaced]))
        known = np.flatnonzero(labels != UNKNOWN)
        if not len(known):
            return
        self.labelled = True
        before = np.concatenate([[self._label], labels[known[:-1]]])
        for place in known[labels[known] != before]:
            self.scores.changed(self._count + int(place), int(labels[place]))
        self._label = int(labels[known[-1]])

    def _send(self, decisions: Decisions, chunk: Chunk, start: float) -> None:
        share = 1 / len(decisions)
        for i, number in enumerate(decisions.numbers):
            first, last = self.stream.span(int(number))
            inside, replaced = self._recent.within(first, last).T
            true = int(inside[0]) if len(inside) and (inside == inside[0]).all() else UNKNOWN
            decision = LiveDecision(
                int(number), (last + 1) / self.source.rate_hz, int(decisions.labels[i]),
                float(decisions.probabilities[i].max()), decisions.probabilities[i], decisions.features[i],
                self._force(decisions.features[i]), None if true == UNKNOWN else true, int(replaced.sum()))
            for output in self.outputs:
                output(decision)
            sent = time.perf_counter()
            late = chunk.late_s + (self._count - 1 - last) * self._period
            wait, total = (start - chunk.received, sent - chunk.received) if self.source.speed else (np.nan, np.nan)
            times = Times(late, wait, share * decisions.prepared_s, share * decisions.inferred_s, total)
            self.timing.add(times, sent)
            self.scores.add(decision.label, true, last)
            for output in self.outputs:
                output.timed(decision, times)
