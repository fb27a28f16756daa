"""`evaluate --stream`: whole recordings, decided by the same code as a live session."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from tfkfin.base.answers import paper
from tfkfin.base.console import format_numbers, log
from tfkfin.base.errors import InputError
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.fit.scoring import LEARNT, mean_and_sd, three_numbers, trained_on
from tfkfin.live.loop import Loop
from tfkfin.live.measures import Scores
from tfkfin.live.outputs import LiveDecision, LiveOutput
from tfkfin.live.sources.replay import Replay, masked
from tfkfin.live.stream import Stream, load
from tfkfin.pipeline.splits import Part, segments
from tfkfin.pipeline.windows import Windows, samples
from tfkfin.recipe import Split
from tfkfin.recordings import readers
from tfkfin.recordings.recording import Recording, RecordingFile, digests


class _Lines(LiveOutput):
    def __init__(self, recording: Recording, take: Callable[[dict], None]):
        self._recording, self._take = {"subject": recording.subject, "session": recording.file.session}, take

    def __call__(self, decision: LiveDecision) -> None:
        self._take(self._recording | decision.line())


class Offline:
    """Decides the recordings of one person one after another, each from its first sample to its last.

    Args:
        take: gets every decision as a line of JSON, with `subject` and `session`.
        adapt: online adaptation without labels, carried from session to session.
    """

    def __init__(self, decoder: BaseDecoder, stride: int, take: Callable[[dict], None] | None = None,
                 adapt: bool = False):
        self.decoder, self.stride, self._take, self._adapt = decoder, stride, take, adapt
        self._streams, self._session = {}, None

    def __call__(self, recordings: Iterable[Recording]) -> dict:
        """`Scores.summary` of a person's recordings, whose labels are UNKNOWN where they are not to be scored."""
        scores: Scores | None = None
        self._session = None
        for stream in self._streams.values():
            stream.renewed()  # what was adapted to another person is left behind
        for recording in recordings:
            rate_hz, session = recording.rate_hz, recording.file.session
            if rate_hz not in self._streams:
                self._streams[rate_hz] = Stream(self.decoder, self.stride, rate_hz, adapt=self._adapt)
            elif session != self._session is not None:
                self._streams[rate_hz].next_session()
            stream, self._session = self._streams[rate_hz], session
            stream.restart(0, 0)
            if recording.num_channels != stream.channels:
                raise InputError(f"{recording.path} has {recording.num_channels} channels, the model {stream.channels}")
            loop = Loop(stream, Replay(recording, 0), [_Lines(recording, self._take)] if self._take else [], scores)
            loop.run()
            scores = loop.scores
        if scores is None:
            raise InputError("there is no recording to decide")
        return scores.summary()


def run_streams(folder: Path, data: str | None, subjects: tuple[int, ...] | None, adapt: bool) -> Iterator[tuple]:
    """The decoders of a run, each with its person and the person's recordings; only test repetitions have labels."""
    from tfkfin.fit import scoring

    opened, subjects = scoring.opened_run(folder, data, subjects)
    dataset = opened.dataset
    for number in subjects:
        yield opened.decoder(number), number, _recordings(dataset.files[number], dataset.split, dataset.part("test"),
                                                          adapt)


def model_streams(model: Path, data: str, subjects: tuple[int, ...] | None, exercise: tuple[int, ...],
                  repetitions: tuple[int, ...] | None, engine: str, adapt: bool) -> Iterator[tuple]:
    """An exported decoder with each person in a folder and their recordings; only `repetitions` have labels.

    `engine`: as of `tfkfin.live.stream.load`.
    """
    decoder, engine = load(model, engine, adapt)
    log.info("engine %s", engine)
    people = readers.by_subject(readers.find(data, subjects, exercise))
    for number in subjects or people:
        yield decoder, number, _recordings(people[number], Split(), Part(repetitions) if repetitions else None, adapt)


def _scored(card: dict, recording: Recording, known: dict[str, set[int]], asked: bool) -> Recording:
    """The recording, without labels of repetitions that the model of a card learnt from unless they were `asked` for.

    Adds to `known`: repetitions that are scored though the model was trained on them, and those that are not.
    """
    learnt = {r for r, digest in digests(recording).items() if digest in card.get("learnt_from", ())}
    if learnt:
        log.info(LEARNT, recording.subject, format_numbers(learnt), "scored all the same" if asked else "not scored")
    if learnt and not asked:
        others = Part(tuple(set(np.unique(recording.repetitions).tolist()) - learnt))
        recording = masked(recording, Split(), others)
    known["trained_on" if asked else "left_out"] |= learnt
    at = np.flatnonzero((recording.labels > 0) & (recording.repetitions > 0))
    scored = Windows(at, recording.labels[at], recording.repetitions[at], np.full_like(at, recording.file.session))
    known["trained_on"] |= trained_on(card, scored, recording.subject)
    return recording


def _recordings(files: Iterable[RecordingFile], split: Split, part: Part | None, adapt: bool) -> Iterator[Recording]:
    """Recordings with labels where they belong to a part of the split; session by session to `adapt` to them."""
    for recording in map(readers.read, files):
        for one in of_sessions(recording, split, part) if adapt else [recording]:
            yield masked(one, split, part) if part else one


def of_sessions(recording: Recording, split: Split, part: Part | None = None) -> Iterator[Recording]:
    """The recording session by session, where its repetition numbers go on through several sessions.

    Each sample belongs to the session of the last segment that has begun. `part` selects sessions.
    """
    found = segments(recording, split, rest=True)
    edges = [0, *(s.start for before, s in pairwise(found) if s.session != before.session), len(recording.labels)]
    sessions = [next((s.session for s in found if start <= s.start < stop), recording.file.session)
                for start, stop in pairwise(edges)]
    of = np.repeat(sessions, np.diff(edges))
    for session in sorted(set(sessions)):
        if part is None or part.sessions is None or session in part.sessions:
            yield replace(recording.at(np.flatnonzero(of == session)), file=replace(recording.file, session=session))


def evaluate(name: str, streams: Iterable[tuple], stride_ms: float | None, decisions: Path | None,
             adapt: bool = False, asked: bool = False) -> dict:
    """Scores whole recordings and prints the scores; returns them.

    Args:
        streams: tuples of a decoder, the number of a person, and the recordings of this person in order of time.
        stride_ms: between decisions; None: the decoder's own.
        decisions: a new file that gets every decision as a line of JSON.
        adapt: as of `Offline`.
        asked: whether the repetitions that have labels were chosen by number: otherwise those that a decoder was
            calibrated on are not scored.

    Raises:
        InputError: recordings do not fit a decoder, or the file exists already.
    """
    if decisions and decisions.exists():
        raise InputError(f"{decisions} is there already and is never overwritten: give another file")
    found, offline, known = {}, None, {"trained_on": set(), "left_out": set()}
    with open(decisions, "x", encoding="utf-8") if decisions else nullcontext() as file:
        take = (lambda line: file.write(json.dumps(line) + "\n")) if file else None
        for decoder, number, recordings in streams:
            if offline is None or decoder is not offline.decoder:  # in a run every person has a decoder
                stride = samples(stride_ms, decoder.card["rate_hz"]) if stride_ms else decoder.stride
                offline = Offline(decoder, stride, take, adapt)
            log.info("deciding the recordings of S%d", number)
            found[number] = offline(_scored(decoder.card, one, known, asked) for one in recordings)
    delays = {key: mean_and_sd({s: one["transition"][key] for s, one in found.items()}) for key in ("p50_ms", "p95_ms")}
    _print(found)
    return {"model": name, "stream": True, "adapt": adapt, "stride_ms": 1e3 * stride / decoder.card["rate_hz"],
            **three_numbers(found), "transition": delays,
            **{name: sorted(repetitions) for name, repetitions in known.items()},
            "windows": {str(s): one["windows"] for s, one in found.items()}}


def _print(found: dict[int, dict]) -> None:
    from rich.table import Column, Table

    titles = ("subject", "windows", "% right", "% of executions", "false/min", "delay ms", "transitions")
    table = Table(*(Column(title, justify="right") for title in titles),
                  title="Whole recordings, as live: windows inside one label, and between")
    for subject, one in found.items():
        values = (one["accuracy"] and 100 * one["accuracy"], one["execution"] and 100 * one["execution"],
                  one["false_per_minute"], one["transition"]["p50_ms"])
        table.add_row(str(subject), str(one["windows"]), *("-" if v is None else f"{v:.1f}" for v in values),
                      f"{one['transition']['followed']}/{one['transition']['count']}")
    paper().print(table)
