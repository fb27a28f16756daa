"""`evaluate --stream`: whole recordings decided as a live session would decide them, by the same code."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

from tfkfin.base.answers import paper
from tfkfin.base.console import InputError, log
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.fit.scoring import mean_and_sd, three_numbers
from tfkfin.live.loop import Loop
from tfkfin.live.outputs import Made, Output, line
from tfkfin.live.scoring import Scores, masked, of_sessions
from tfkfin.live.sources.replay import Replay
from tfkfin.live.stream import Stream, load, whole
from tfkfin.pipeline.splits import Part
from tfkfin.pipeline.windows import samples
from tfkfin.recipe import Split
from tfkfin.recordings import readers
from tfkfin.recordings.recording import Recording, RecordingFile


class _Kept(Output):
    def __init__(self, recording: Recording, take: Callable[[dict], None]):
        self._who, self._take = {"subject": recording.subject, "session": recording.file.session}, take

    def __call__(self, made: Made) -> None:
        self._take(self._who | line(made))


class Offline:
    """Recordings of one person after another, each from its first sample to its last.

    Args:
        take: gets every decision, as `tfkfin.live.outputs.line` has it with `subject` and `session`.
        adapt: online adaptation without labels, carried from session to session.
    """

    def __init__(self, decoder: BaseDecoder, stride: int, take: Callable[[dict], None] | None = None,
                 adapt: bool = False):
        self.decoder, self.stride, self._take, self._adapt = decoder, stride, take, adapt
        self._streams, self._session = {}, None

    def __call__(self, recordings: Iterable[Recording]) -> dict:
        """`Scores.summary` of a person's recordings, with their true labels, UNKNOWN where not to be scored."""
        scores: Scores | None = None
        for recording in recordings:
            stream = self._stream(recording.rate_hz, recording.file.session)
            outputs = [_Kept(recording, self._take)] if self._take else []
            if recording.num_channels != stream.channels:
                raise InputError(f"{recording.path} has {recording.num_channels} channels, the model {stream.channels}")
            loop = Loop(stream, Replay(recording, 0), outputs, scores)
            loop.run()
            scores = loop.scores
        if scores is None:
            raise InputError("there is no recording to decide")
        return scores.summary()

    def _stream(self, rate_hz: float, session: int) -> Stream:
        if rate_hz not in self._streams:
            self._streams[rate_hz] = Stream(self.decoder, self.stride, rate_hz, adapt=self._adapt)
        elif session != self._session:
            self._streams[rate_hz].begin()
        self._session = session
        self._streams[rate_hz].restart(0, 0)
        return self._streams[rate_hz]


def run_streams(folder: Path, data: str | None, subjects: tuple[int, ...] | None, adapt: bool) -> Iterator[tuple]:
    """A run's decoders with their people and these people's recordings, labelled where they are test repetitions."""
    from tfkfin.fit import evaluation
    from tfkfin.fit.stages import finetune

    opened, subjects = evaluation.opened_run(folder, data, subjects)
    dataset = opened.dataset
    for number in subjects:
        yield finetune.load(opened, number), number, _recordings(dataset.files[number], dataset.split,
                                                                 dataset.part("test"), adapt)


def model_streams(model: Path, data: str, subjects: tuple[int, ...] | None, exercise: tuple[int, ...],
                  repetitions: tuple[int, ...] | None, engine: str, adapt: bool) -> Iterator[tuple]:
    """An exported decoder with each of the people in a folder and their recordings, labelled where `repetitions` are.

    `engine`: as of `tfkfin.live.stream.load`.
    """
    decoder, engine = load(model, engine)
    if adapt and decoder.model is None:
        decoder, engine = whole(decoder, model), "keras"
    log.info("engine %s", engine)
    people = readers.by_subject(readers.find(data, subjects, exercise))
    for number in subjects or people:
        yield decoder, number, _recordings(people[number], Split(), Part(repetitions) if repetitions else None, adapt)


def _recordings(files: Iterable[RecordingFile], split: Split, part: Part | None, adapt: bool) -> Iterator[Recording]:
    """Recordings, to `adapt` to session by session, with labels where they belong to a part of the split."""
    for recording in map(readers.read, files):
        for one in of_sessions(recording, split, part) if adapt else [recording]:
            yield masked(one, split, part) if part else one


def evaluate(name: str, streams: Iterable[tuple], stride_ms: float | None, decisions: Path | None,
             adapt: bool = False) -> dict:
    """Scores whole recordings and prints the scores; returns them.

    Args:
        streams: a decoder, a person's number, and the recordings of this person, one after another.
        stride_ms: between decisions; None: the decoder's own.
        decisions: a new file for every decision as a line of JSON.
        adapt: as of `Offline`.

    Raises:
        InputError: recordings that do not fit a decoder, or a file that is there already.
    """
    if decisions and decisions.exists():
        raise InputError(f"{decisions} is there already and is never overwritten: give another file")
    found, offline = {}, None
    with open(decisions, "x", encoding="utf-8") if decisions else nullcontext() as file:
        take = (lambda made: file.write(json.dumps(made) + "\n")) if file else None
        for decoder, number, recordings in streams:
            if offline is None or decoder is not offline.decoder:  # in a run each person has a decoder
                stride = samples(stride_ms, decoder.card["rate_hz"]) if stride_ms else decoder.stride
                offline = Offline(decoder, stride, take, adapt)
            log.info("deciding the recordings of S%d", number)
            found[number] = offline(recordings)
    delays = {key: mean_and_sd({s: one["transition"][key] for s, one in found.items()}) for key in ("p50_ms", "p95_ms")}
    _show(found)
    return {"model": name, "stream": True, "adapt": adapt, "stride_ms": 1e3 * stride / decoder.card["rate_hz"],
            **three_numbers(found), "transition": delays,
            "windows": {str(s): one["windows"] for s, one in found.items()}}


def _show(found: dict[int, dict]) -> None:
    from rich.table import Table

    table = Table(title="Whole recordings, as live: windows inside one label, and between")
    columns = ("subject", "windows", "% right", "% of executions", "false/min", "delay ms", "transitions")
    for name in columns:
        table.add_column(name, justify="right")
    for subject, one in found.items():
        moved = one["transition"]
        values = (one["accuracy"] and 100 * one["accuracy"], one["execution"] and 100 * one["execution"],
                  one["false_per_minute"], moved["p50_ms"])
        table.add_row(str(subject), str(one["windows"]), *("-" if v is None else f"{v:.1f}" for v in values),
                      f"{moved['followed']}/{moved['count']}")
    paper().print(table)
