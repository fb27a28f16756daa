"""The loop of a session: takes samples from a source as they come and sends a decision once a stride.

A source in real time is read in a thread of its own, so that its samples get their time stamps when they arrive. Where
decisions take longer than the stride, whole strides are dropped and the newest window is decided. Decisions in real
time come before everything else on a busy machine: the threads that make them get a higher priority. On Linux every
thread has its own. What such a thread starts (a page, a calibration) has the usual one again, because of
SCHED_RESET_ON_FORK.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from tfkfin.base import samples
from tfkfin.live.measures import UNKNOWN, FaultNotes, Proportional, Recent, Scores, Times, Timing
from tfkfin.live.outputs import LiveDecision, LiveOutput
from tfkfin.live.sources import Chunk, Drift, LiveSource
from tfkfin.live.stream import Decisions, Stream

STALL_S = 0.5  # without a sample for this long, the signal has stalled
OVERLOAD = 0.5  # share of the stride that a decision takes: if strides are dropped then, no priority helps
CATCH_UP_S = 0.1  # waiting windows are all decided if that takes no longer; otherwise whole strides are dropped


class SignalCounts:
    """Samples `received`, `lost` on the way, `filled` (not finite, or absurd); `gaps` and `stalls`; notes."""

    def __init__(self):
        self.received = self.lost = self.filled = self.gaps = self.stalls = 0
        self.notes: list[str] = []
        self._first, self._end = None, 0.0  # samples of the first chunk, lost ones included, and when it came

    def summary(self, measured: bool) -> dict:
        """`measured`: whether the rate at which samples came means anything."""
        rate, (count, start) = None, self._first or (0, np.inf)
        if measured and self._end > start + 1:
            rate = (self.received + self.lost - count) / (self._end - start)
        return {"received": self.received, "lost": self.lost, "filled": self.filled, "gaps": self.gaps,
                "stalls": self.stalls, "rate_measured_hz": rate, "notes": self.notes}

    def add(self, chunk: Chunk) -> None:
        self._end, self.received, self.lost = chunk.received, self.received + len(chunk.samples), self.lost + chunk.lost
        self._first = self._first or (self.received + self.lost, chunk.received)


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
        self._faults = FaultNotes(stride_s)
        self._force = Proportional(list(stream.decoder.card["features"]), stride_s)
        reach = int((stream.length + stream.stride) * source.rate_hz / stream.rate_hz) + 64
        self._recent = Recent(reach)  # (n, 2): true label, and whether the sample was replaced
        self._count, self._label = 0, UNKNOWN  # samples so far, lost ones included; the last known label
        self._drift = Drift(source.rate_hz) if source.drifts else None
        self.paused, self._ended = False, threading.Event()
        self._first, self._priority, self.priority = first and bool(source.speed), Priority(), None

    def run(self, seconds: float = 0.0) -> None:
        """Decides until the source ends, `stop` is called, or so many seconds of signal have passed (0: no limit)."""
        most = round(seconds * self.source.rate_hz) or None
        if self._first:
            self._priority.take()
            self.priority = self._priority.how
        for output in self.outputs:
            output.begin(self.source, self.timing)
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
                "priority": self.priority, "scores": self.scores.summary() if self._label != UNKNOWN else None}

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
            chunks = []
            with suppress(queue.Empty):
                chunks.append(waiting.get(timeout=STALL_S / 2))
                while True:
                    chunks.append(waiting.get_nowait())
            error = chunks.pop() if chunks and isinstance(chunks[-1], Exception) else None
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

    def _overloaded(self, waiting: int) -> bool:
        """Whether so many samples wait that strides have to be dropped."""
        stride_s, cost = self.timing.stride_s, self.timing.cost_s(50)
        strides = waiting * self._period / stride_s
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
            self._follow(chunk)
        if not len(chunk.samples):
            return
        fit, volts = samples.fit(chunk.samples), chunk.samples
        bad = ~fit.all(axis=1)
        if bad.any():
            volts = np.where(fit, volts, np.nan)
        if bad.any() and not self.signal.filled:
            self.note("samples came that are not finite, or that no amplifier gives: the last one is held instead")
        self.signal.filled += int(bad.sum())
        labels = chunk.labels if chunk.labels is not None else np.full(len(chunk.samples), UNKNOWN)
        self._remember(labels, bad)
        for output in self.outputs:
            output.samples(volts, labels)
        self._count += len(chunk.samples)
        if not self.paused:
            start = time.perf_counter()
            if decisions := self._streamed(volts, newest):
                self._send(decisions, chunk, start)

    def _streamed(self, volts: np.ndarray, newest: int | None) -> Decisions | None:
        before = self.stream.following
        decisions = self.stream(volts, newest)
        self.timing.dropped += self.stream.following - before - (len(decisions) if decisions else 0)
        return decisions

    def _follow(self, chunk: Chunk) -> None:
        """Resamples from the true rate of a device, once that is known to differ from the nominal one."""
        if chunk.lost or chunk.begins:
            self._drift.restart()
        elif rate_hz := self._drift(len(chunk.samples), chunk.received):
            self.note(f"the device gives {rate_hz:.2f} samples a second, not {self.source.rate_hz:g}: from now on they "
                      "are resampled from that rate, and windows begin anew")
            self.stream.set_source_rate(rate_hz, self._count)

    def _fill(self, count: int) -> None:
        """Repeats the last sample in place of lost ones; where more than a window is lost, windows start anew."""
        self.signal.gaps += 1
        long = count * self.stream.rate_hz > self.stream.length * self.stream.source_hz
        if long:
            self._recent.skip(count)
        else:
            self._remember(np.full(count, UNKNOWN), np.ones(count, bool))
        self._count += count
        if long:
            self.note(f"{count} samples are lost: windows begin anew")
            self.stream.restart(self._count)
        else:
            self.note(f"{count} samples are lost: the last one is repeated")
            self._streamed(self.stream.repeated(count), 0)

    def _remember(self, labels: np.ndarray, replaced: np.ndarray) -> None:
        self._recent.add(np.column_stack([labels, replaced]))
        known = np.flatnonzero(labels != UNKNOWN)
        for place in known[np.diff(labels[known], prepend=self._label) != 0]:
            self._label = int(labels[place])
            self.scores.changed(self._count + int(place), self._label)

    def _send(self, decisions: Decisions, chunk: Chunk, start: float) -> None:
        share = 1 / len(decisions)
        for i, number in enumerate(decisions.numbers):
            first, last = self.stream.span(int(number))
            inside, replaced = self._recent.within(first, last).T
            true = int(inside[0]) if len(inside) and (inside == inside[0]).all() else UNKNOWN
            decision = LiveDecision(
                int(number), (last + 1) / self.source.rate_hz, int(decisions.labels[i]),
                float(decisions.probabilities[i].max()), decisions.probabilities[i], decisions.features[i],
                self._force(decisions.features[i]), None if true == UNKNOWN else true, int(replaced.sum()),
                *(decisions.quality[name][i] if name in decisions.quality else None for name in ("quality", "fault")))
            if decision.fault is not None:
                self.note(self._faults(decision.fault))
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


_TASKS = Path("/proc/self/task")


WAYS = ("real-time", "nice -20")  # the lowest real-time priority: below what the system itself needs


class Priority:
    """The priority of a session's threads.

    Attributes:
        how: "real-time", or "nice -20" where only that is permitted; None: the usual priority.
    """

    def __init__(self):
        self.how, self._usual = None, {}

    def take(self) -> None:
        """Raises the priority of all threads of this process.

        Nothing changes where the system does not permit it, or in a process that was started with `nice`.
        """
        possible = hasattr(os, "SCHED_RESET_ON_FORK") and _TASKS.is_dir()
        if not possible or os.getpriority(os.PRIO_PROCESS, 0) > 0:
            return
        self._usual = {}
        for task in _TASKS.iterdir():
            with suppress(ProcessLookupError):  # the thread has ended meanwhile
                self._usual[int(task.name)] = os.getpriority(os.PRIO_PROCESS, int(task.name))
        for self.how in WAYS:
            try:
                self._for_each(self._raise)
                return
            except OSError:  # not permitted, or not known to the system
                self.give_back()

    def join(self) -> None:
        """Raises the priority of the calling thread, if the others have it raised."""
        if self.how:
            thread = threading.get_native_id()
            self._usual[thread] = os.getpriority(os.PRIO_PROCESS, thread)
            self._raise(thread)

    def give_back(self) -> None:
        """Gives all threads the priority that they had before."""
        self._for_each(self._restore)
        self.how = None

    def _raise(self, thread: int) -> None:
        if self.how == "nice -20":
            os.setpriority(os.PRIO_PROCESS, thread, -20)
        policy, level = (os.SCHED_RR, 1) if self.how == "real-time" else (os.SCHED_OTHER, 0)
        os.sched_setscheduler(thread, policy | os.SCHED_RESET_ON_FORK, os.sched_param(level))

    def _restore(self, thread: int) -> None:
        if os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK != os.SCHED_OTHER:
            os.sched_setscheduler(thread, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
        if os.getpriority(os.PRIO_PROCESS, thread) != self._usual[thread]:
            os.setpriority(os.PRIO_PROCESS, thread, self._usual[thread])

    def _for_each(self, change: Callable[[int], None]) -> None:
        for thread in list(self._usual):
            with suppress(ProcessLookupError):  # the thread has ended meanwhile
                change(thread)
