"""Recording and calibration during a session: cues, new sessions of a person, a new decoder in place of the old.

Recordings are in the project's own format: `recordings.toml` and one .npz file a session. The old decoder goes on
deciding while `tfkfin.live.solving`, a process of its own, solves the new one.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tomli_w

from tfkfin.base.console import log
from tfkfin.base.errors import InputError
from tfkfin.base.files import replacing, write_text
from tfkfin.base.samples import fit
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.live.loop import Loop
from tfkfin.live.measures import UNKNOWN
from tfkfin.live.outputs import LiveOutput
from tfkfin.live.solving import Solver
from tfkfin.live.sources import Chunk, LiveSource
from tfkfin.recordings.recording import count_repetitions
from tfkfin.recordings.sheet import SHEET

LONGEST_S, MOST = 3600.0, 100  # a recording that a button begins, and so many of them in a session
FILES = "subject{subject}_session{session}.npz"


@dataclass(frozen=True)
class Cue:
    """Asks for a movement (0: rest) until `stop_s` of the session; `following` is asked for next, None: nothing."""

    movement: int
    repetition: int
    start_s: float
    stop_s: float
    following: int | None


def cues(movements: Sequence[int], repetitions: int = 1, hold_s: float = 3.0, rest_s: float = 2.0) -> list[Cue]:
    """Cues for every movement with rest before each; a repetition of all movements is followed by the next one."""
    made, now = [], 0.0
    for repetition in range(1, repetitions + 1):
        for movement in filter(None, movements):
            made += [Cue(0, repetition, now, now + rest_s, movement),
                     Cue(movement, repetition, now + rest_s, now + rest_s + hold_s, 0)]
            now += rest_s + hold_s
    return [*made, Cue(0, repetitions, now, now + rest_s, None)]


class Cued(LiveSource):
    """A source whose samples are labelled by cues and recorded; where it brings labels, these are kept.

    Args:
        source: of the signal.
        cues: in order of time, the first at 0 s.
        begins: whether cues begin with the first sample; otherwise `begin` starts them.

    Attributes:
        asking: whether cues are in progress.
        done: whether everything that was asked for is recorded.
    """

    def __init__(self, source: LiveSource, cues: Sequence[Cue], begins: bool = True):
        self.source, self._cues, self._count = source, list(cues), 0
        self.rate_hz, self.channels, self.speed = source.rate_hz, source.channels, source.speed
        self.described, self.drifts, self.labelled = source.described, source.drifts, False
        self.channel_names = source.channel_names
        self._lock = threading.Lock()
        self.begin()
        self.asking = begins

    def begin(self) -> None:
        """Starts with the first cue at the next sample and forgets what was recorded before."""
        with self._lock:
            now = self._count / self.rate_hz
            self.cues = [replace(c, start_s=now + c.start_s, stop_s=now + c.stop_s) for c in self._cues]
            self._parts, self._ended, self._last = [], Counter(), 0  # executions that have ended; the last label
            self.asking, self.done = True, False

    def stop(self) -> None:
        """Ends the cues."""
        with self._lock:
            self.asking = False

    @property
    def cue(self) -> Cue | None:
        """The cue at this moment; None where there is none, or where the signal brings its own labels."""
        now = self._count / self.rate_hz
        return next((c for c in self.cues if now < c.stop_s), None) if self.asking and not self.labelled else None

    def progress(self) -> dict:
        """The movement that is done, or that comes next: which of how many it is, and the one after it."""
        asked, now = [c for c in self.cues if c.movement], self._count / self.rate_hz
        done = sum(self._ended[c.movement] >= c.repetition if self.labelled else c.stop_s <= now for c in asked)
        return {"at": min(done + 1, len(asked)), "of": len(asked),
                "next": asked[done + 1].movement if done + 1 < len(asked) else None}

    def __iter__(self) -> Iterator[Chunk | None]:
        for chunk in self.source:
            if chunk is not None:
                with self._lock:
                    first = self._count + chunk.lost
                    self._count = first + len(chunk.samples)
                    chunk = self._record(chunk, first) if self.asking else chunk
            yield chunk

    def close(self) -> None:
        self.source.close()

    def recorded(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The recording: (T, C) volts, labels (T,) and repetitions (T,)."""
        emg, labels, repetitions = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        return emg, labels, count_repetitions(labels) if self.labelled else repetitions

    def _record(self, chunk: Chunk, first: int) -> Chunk:
        """`first`: the number of the chunk's first sample."""
        if chunk.labels is not None:
            self.labelled, labels = True, np.maximum(chunk.labels, 0)
            repetitions, known = labels, np.concatenate([[self._last], labels])
            self._ended.update(known[:-1][np.diff(known) != 0].tolist())
            self._last = known[-1]
            self.done = all(self._ended[cue.movement] >= cue.repetition for cue in self._cues if cue.movement)
        else:
            times = (first + np.arange(len(chunk.samples))) / self.rate_hz
            which = np.searchsorted([c.stop_s for c in self.cues], times, "right")
            table = np.array([(c.movement, c.repetition) for c in self.cues] + [(0, self.cues[-1].repetition)])
            labels, repetitions = table[which].T
            self.done = self._count / self.rate_hz >= self.cues[-1].stop_s
        self._parts.append((np.array(chunk.samples, np.float32), labels, repetitions))
        self.asking = not self.done
        return replace(chunk, labels=labels)


class Calibration:
    """The calibrations of a session: each records while cues are shown, solves, and may then replace the decoder.

    Args:
        loop: of a `Cued` source; it calls `between`.
        decoder: with its network.
        folder: of recordings, which gets a new session.
        subject: number of the person.
        replace: whether new decoders replace the one that decides; None: each waits for `answer`.

    Attributes:
        decoder: decides; it has other weights once a new decoder replaced it.
        made: `decoder` once one did.
        report: of `tfkfin.fit.calibration.calibrate`, with `evidence` for it, `recording`, its file, `ready_s`, seconds
            from the last cue until the new decoder could decide, and whether it `replaced` the one before.
        failed: why the last calibration failed.
        wanted: whether a calibration was started.

    Raises:
        InputError: the decoder cannot be calibrated.
    """

    def __init__(self, loop: Loop, decoder: BaseDecoder, folder: Path, subject: int, replace: bool | None = True):
        decoder.check_calibrates()  # before a person is asked for movements
        self.loop, self.folder, self.subject, self.replace = loop, folder, subject, replace
        self.decoder = decoder.with_head(decoder.head.copy())  # the caller's stays as it is
        self._solver = Solver(self.decoder)
        loop.stream.use(self.decoder, loop.stream.prepared(self.decoder, apart=True))
        self._solver.wait()
        self.made, self.report, self.failed, self._new = None, {}, None, None
        self._thread, self._ready, self._shown, self.asked = None, None, None, False
        self._begun = self.wanted = loop.source.asking

    @property
    def doing(self) -> str:
        """"asking", "solving", "ready" while a new decoder waits for `answer`, or "" otherwise."""
        solving = self._ready is not None or self._thread is not None and self._thread.is_alive()
        return "asking" if self.loop.source.asking else "solving" if solving else "ready" if self.asked else ""

    def shown(self) -> dict:
        """What the page shows: what is being done, how far it is, and what the last one came to."""
        result = self.report.get("evidence", {}) | {"replaced": self.report.get("replaced", False)}
        return {"calibration": self.doing, "progress": self.loop.source.progress(),
                "result": result if self.report else {}}

    def begin(self) -> None:
        """Starts a calibration of the decoder that decides now, if none is in progress."""
        if not self.doing:
            self.loop.source.begin()
            self._begun = self.wanted = True

    def stop(self) -> None:
        """Ends the cues; what was recorded is not used."""
        self.loop.source.stop()
        self.wanted = self._new is not None

    def between(self) -> None:
        """Between decisions: shows cues, starts to solve, and replaces the decoder."""
        cued: Cued = self.loop.source
        if (cue := cued.cue) != self._shown:
            self._shown = cue
            for output in self.loop.outputs:
                output.cue(cue)
        if cued.done and self._begun:
            self._begun, self._start, self.failed = False, time.monotonic(), None
            self._thread = threading.Thread(target=self._solve, daemon=True, name="calibration")
            self._thread.start()
        if self._ready is None:
            return
        ready, self._ready = self._ready, None
        if isinstance(ready, Exception):
            self.failed = str(ready)
            self.loop.note(f"calibration failed, the old decoder goes on: {self.failed}")
            return
        self._new, self.report, self.asked = ready, ready[2], True
        self.report["ready_s"] = time.monotonic() - self._start
        self.loop.note(f"calibrated on {self.report['windows']} windows, solved in {self.report['seconds']:.2f} s, "
                       f"{self.report['ready_s']:.1f} s after the last cue: {told(self.report['evidence'])}")
        if self.replace is not None:
            self.answer(self.replace)

    def answer(self, replace: bool) -> None:
        """Lets the new decoder that waits for it decide, or not; without one nothing happens."""
        if not self.asked:
            return
        self.asked, self.report["replaced"] = False, replace
        if replace:
            self._solver.take()
            snapshot, self.decoder.card, _ = self._new
            self.decoder.head.restore(snapshot)
            self.loop.stream.renewed()
            self.made = self.decoder
        self.loop.note("the new decoder decides" if replace else "the decoder before goes on deciding")

    def new(self) -> BaseDecoder | None:
        """The last new decoder, whether it replaced the one before or not."""
        if self._new is None or self.made is not None and self.report.get("replaced"):
            return self.made
        made = self.decoder.with_head(self.decoder.head.copy())
        snapshot, made.card, _ = self._new
        made.head.restore(snapshot)
        return made

    def _solve(self) -> None:
        card, cued = self.decoder.card, self.loop.source
        try:
            path, session = save(self.folder, self.subject, cued.rate_hz, movement_names(card), *cued.recorded())
            self._ready = self._solver(self.folder, self.subject, path, session)
        except Exception as error:  # the thread of the session reports it and goes on
            self._ready = error


def told(evidence: dict) -> str:
    """Evidence of a calibration, for people."""
    after = "unknown" if evidence["after"] is None else f"{100 * evidence['after']:.1f} %"
    return (f"of windows that were left out in turn it decides {after} right, the decoder before "
            f"{100 * evidence['before']:.1f} %, chance is {100 * evidence['chance']:.1f} %"
            + ("" if evidence["trusted"] else ": were the cues followed?"))


def movement_names(card: dict) -> dict[int, str]:
    """Names of movements in a decoder's card, as far as they are known."""
    return {int(m): name for m, name in (card.get("names") or {}).items() if int(m)}


def check_folder(folder: Path, rate_hz: float, names: dict[int, str]) -> str:
    """Checks that sessions at this rate can be added to a folder; returns the text of its recordings.toml.

    Raises:
        InputError: it holds other recordings, or something else.
    """
    sheet = {"rate_hz": float(rate_hz), "unit": "V", "files": FILES, "channels": ["emg"], "label": "label",
             "repetition": "repetition"} | ({"movements": {str(m): name for m, name in names.items()}} if names else {})
    text, path = tomli_w.dumps(sheet), folder / SHEET
    if path.is_file():
        if path.read_text("utf-8") != text:
            raise InputError(f"{path} is of other recordings: give another folder")
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} holds something else: give another folder")
    return text


def save(folder: Path, subject: int, rate_hz: float, names: dict[int, str], emg: np.ndarray, labels: np.ndarray,
         repetitions: np.ndarray) -> tuple[Path, int]:
    """Writes a new session of a person, beside the earlier ones; returns its file and its number.

    Args:
        names: of movements.
        emg: (T, C) volts; samples that are not finite, or absurd, are left out.
        labels, repetitions: (T,), 0 at rest; all labels UNKNOWN: nobody was asked for movements.

    Raises:
        InputError: the folder holds other recordings, or something else.
    """
    text = check_folder(folder, rate_hz, names)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / SHEET).is_file():
        write_text(folder / SHEET, text)
    earlier = [int(path.stem.rpartition("session")[2]) for path in folder.glob(f"subject{subject}_session*.npz")]
    session = max(earlier, default=0) + 1
    path, finite = folder / FILES.format(subject=subject, session=session), fit(emg).all(axis=1)
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez(file, emg=emg[finite].astype(np.float32), label=labels[finite].astype(np.int16),
                 repetition=repetitions[finite].astype(np.int16))
    return path, session


class Recorder(LiveOutput):
    """Records samples, with their true labels where these are known, while it is switched on.

    A recording that is `LONGEST_S` long takes no more samples, and there are at most `MOST` in a session.
    """

    def __init__(self, folder: Path, subject: int, rate_hz: float, names: dict[int, str]):
        self._to = folder, subject, rate_hz, names
        self._parts: list | None = None
        self._made = self._count = 0

    @property
    def full(self) -> bool:
        """Whether a recording is as long as it may be: it has to be switched off."""
        return self.on and self._count >= LONGEST_S * self._to[2]

    @property
    def seconds(self) -> float:
        """Of the recording so far."""
        return self._count / self._to[2]

    @property
    def on(self) -> bool:
        return self._parts is not None

    def switch(self, on: bool) -> str:
        """Starts a recording, or ends it and writes it; returns a note for people."""
        if on and self.on:
            return ""
        if on:
            if self._made >= MOST:
                return f"not recorded: this session has {MOST} recordings already"
            try:
                check_folder(self._to[0], *self._to[2:])
            except InputError as error:
                return f"not recorded: {error}"
        parts, self._parts = self._parts, [] if on else None
        self._count = 0
        if on or not parts:
            return ""
        self._made += 1
        emg, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        known = np.where(labels == UNKNOWN, 0, labels).astype(np.int16)
        labels = labels if (labels == UNKNOWN).all() else known
        return f"recorded: {save(*self._to, emg, labels, count_repetitions(known))[0]}"

    def samples(self, volts: np.ndarray, labels: np.ndarray) -> None:
        if self._parts is not None and not self.full:
            self._count += len(volts)
            self._parts.append((np.array(volts, np.float32), np.array(labels)))

    def close(self) -> None:
        if note := self.switch(False):
            log.info("%s", note)
