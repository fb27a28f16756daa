"""How a row of the ladder decides the trials of a group: a decoder by the public methods of `tfkfin.Decoder` alone."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tfkfin.api import Decoder
from tfkfin.decoder.decision import Decision
from tfkfin.experiments.ladder.rows import BaselineRow, DecoderRow, settings
from tfkfin.experiments.ladder.rungs import Group, SessionPart, Trial
from tfkfin.experiments.ladder.windows import WindowedSignal, cut, places
from tfkfin.recipe import Recipe
from tfkfin.recordings.recording import Recording

CHUNK = 2048  # windows described at a time


@dataclass(frozen=True)
class Answers:
    """Windows of one recording, each decided by itself, in order of time.

    Attributes:
        begins, ends: (N,) the samples [begin, end) of the recording.
        probabilities: (N, G); movements: (G,) of the classes.
        labels: (N,), -1 where rejected.
    """

    begins: np.ndarray
    ends: np.ndarray
    probabilities: np.ndarray
    movements: np.ndarray
    labels: np.ndarray


def answered(recording: Recording, length: int, stride: int, rate_hz: float, probabilities: np.ndarray,
             movements: np.ndarray, labels: np.ndarray) -> Answers:
    """Answers for a recording's windows of so many samples at another rate."""
    begins, ends = places(len(recording.emg), recording.rate_hz, length, stride, rate_hz)
    count = min(len(begins), len(labels))  # the last samples at one rate may reach beyond the other's
    return Answers(begins[:count], ends[:count], probabilities[:count], movements, labels[:count])


def of_stream(trial: Trial, stream: WindowedSignal, probabilities: np.ndarray, movements: np.ndarray,
              decision: Decision) -> list[Answers]:
    """Answers for each recording of a stream, from the probabilities (N, G) of all its windows."""
    labels, _ = decision(probabilities, movements)
    edges = np.cumsum(stream.sizes)[:-1]
    return [answered(recording, stream.length, stream.stride, stream.rate_hz, one, movements, own)
            for recording, one, own in zip(trial.stream.recordings, np.split(probabilities, edges),
                                           np.split(labels, edges), strict=True)]


class Model(Protocol):
    """A row that can be trained: decides the trials of a group, one after another."""

    def decide(self, group: Group) -> Iterator[tuple[Trial, list[Answers]]]: ...


class DecoderModel:
    """A row that is a `tfkfin.Decoder`.

    Each session is calibrated, if it is, from the decoder as the sessions before left it: without online adaptation
    that is the decoder as it was fitted.
    """

    fitted: tuple[Any, dict[Any, Decoder]] = (None, {})  # of the last recipe and person, by parts: rows share them

    def __init__(self, row: DecoderRow, recipe: Recipe):
        self.row, self.settings = row, settings(row, recipe)

    def decide(self, group: Group) -> Iterator[tuple[Trial, list[Answers]]]:
        decoder = self._fitted(group)
        for trial in group.trials:
            now = decoder
            if trial.known is not None and (trial.labelled or not self.row.trained):  # trained heads need labels
                now = decoder.calibrate(list(trial.known.recordings), labelled=trial.labelled, repetitions=None)
            shortest = now.length / now.card["rate_hz"]
            recordings = [one for one in trial.stream.recordings if one.seconds >= shortest]
            if self.row.adapts:
                session = now.session(smooth=False)
                found = [session.stream(one) for one in recordings]
            else:
                found = [now.stream(one) for one in recordings]
            yield trial, [answered(one, now.length, now.stride, now.card["rate_hz"], each["probabilities"],
                                   now.movements, each["label"]) for one, each in zip(recordings, found, strict=True)]
            if self.row.adapts and trial.known is None and trial is not group.trials[-1]:
                decoder = session.carried()

    def _fitted(self, group: Group) -> Decoder:
        key = self.row.preset, json.dumps(self.settings, sort_keys=True), group.person
        if DecoderModel.fitted[0] != key:
            DecoderModel.fitted = key, {}
        known = DecoderModel.fitted[1]
        if group.parts not in known:  # parts are compared by identity
            known[group.parts] = Decoder.from_preset(self.row.preset, **self.settings).fit(
                [recording for part in group.parts for recording in part.recordings])
        return known[group.parts]


class BaselineModel:
    """A row that is an estimator on descriptions of windows, which it gets in the same order of time."""

    def __init__(self, row: BaselineRow, recipe: Recipe):
        self.row, self.recipe = row, recipe
        self.window = recipe.window.model_copy(update={"rate_hz": 0.0})
        self.decision = Decision(1, recipe.classifier.reject)

    def decide(self, group: Group) -> Iterator[tuple[Trial, list[Answers]]]:
        fitted, names = self.fit(group.parts), [(part.person, part.session) for part in group.parts]
        for trial in group.trials:
            name = trial.stream.person, trial.stream.session
            if trial.known is None:
                yield trial, self.answers(fitted, trial, names.index(name) if name in names else None)
            else:
                x, labels, _ = self._labelled(trial.known)
                yield trial, self.answers(fitted.calibrate(x, labels if trial.labelled else None), trial)

    def fit(self, parts: Sequence[SessionPart]):
        """The estimator, trained on these parts; their places are the names of its sessions."""
        rows = [self._labelled(part) for part in parts]
        x, y, repetitions = (np.concatenate(column) for column in zip(*rows, strict=True))
        sessions = np.repeat(np.arange(len(parts)), [len(labels) for _, labels, _ in rows])
        return self.row.estimator().fit(x, y, sessions=sessions, repetitions=repetitions)

    def answers(self, estimator, trial: Trial, session: int | None = None) -> list[Answers]:
        """`session`: as of `predict_proba`."""
        stream = self._cut(trial.stream, True)
        probabilities = estimator.predict_proba(self._described(trial.stream, stream, True), session)
        return of_stream(trial, stream, probabilities, estimator.classes_, self.decision)

    def _labelled(self, part: SessionPart) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Descriptions, labels and repetitions (N,) of the windows that are trained on; rest has no label if none is
        decided.
        """
        windows = self._cut(part, False)
        labels = windows.content.labels
        if not self.recipe.window.rest:
            labels = np.where(labels > 0, labels, -1)
        return self._described(part, windows, False), labels, windows.content.repetitions

    def _cut(self, part: SessionPart, stream: bool) -> WindowedSignal:
        return part.kept(("cut", stream), lambda: cut(part.recordings, self.window, self.recipe.filter, stream))

    def _described(self, part: SessionPart, windows: WindowedSignal, stream: bool) -> np.ndarray:
        return part.kept((self.row.describe, stream), lambda: np.concatenate([
            self.row.describe(windows.volts(slice(i, i + CHUNK)), windows.rate_hz)
            for i in range(0, len(windows), CHUNK)]))


def model(row: DecoderRow | BaselineRow, recipe: Recipe) -> Model:
    return DecoderModel(row, recipe) if isinstance(row, DecoderRow) else BaselineModel(row, recipe)
