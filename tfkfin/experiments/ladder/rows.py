"""The ladder's rows: decoders that a user can make with `tfkfin.Decoder.from_preset`, and baselines; how a row decides.

A decoder decides the trials of a group by the public methods of `tfkfin.Decoder` alone.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np

from tfkfin import recipe as recipes
from tfkfin.api import Decoder
from tfkfin.base.console import log
from tfkfin.base.errors import InputError
from tfkfin.base.files import shipped
from tfkfin.decoder.decision import Decision
from tfkfin.experiments.ladder import baselines
from tfkfin.experiments.ladder.baselines import Hierarchical, SessionLDA
from tfkfin.experiments.ladder.rungs import Group, SessionPart, Trial, WindowedSignal, cut, places
from tfkfin.features import describe
from tfkfin.recipe import Recipe
from tfkfin.recordings.recording import Recording

RECOMMENDED = "best"  # the row that we recommend
# Windows that earlier sessions count as where a row is recentred on the way. benchmarks/recentring.py chooses them
# from PRIORS on training sessions alone: each of them is decided by a row that is trained on the person's others, or on
# other people where there is one session; the highest accuracy a window, mean over people, then over sets, is taken
# (BioPatRec, intensity10, wear30; up to 1.5 points above the other values).
PRIORS = (20, 50, 100, 200, 500)
PRIOR = {"tdar_lda_centred": 200, "tdar_cov_lda_centred": 200, "riemann_lda_centred": 200}
CHUNK = 2048  # windows described at a time


@dataclass(frozen=True)
class DecoderRow:
    """A `tfkfin.Decoder` of a preset with settings of its own; `adapts`: with online adaptation, in a session.

    `trained`: by gradients, which takes long, and is calibrated with labels only.
    """

    title: str
    preset: str
    settings: dict[str, Any] = field(default_factory=dict)
    adapts: bool = False
    trained: bool = False


@dataclass(frozen=True)
class BaselineRow:
    """An estimator on a description: windows (N, L, C) and their rate -> (N, ...)."""

    title: str
    describe: Callable
    estimator: Callable


ROWS: dict[str, DecoderRow | BaselineRow] = {
    "paper": DecoderRow("the paper's method, trained end to end", "own", trained=True),
    "paper_frozen": DecoderRow("the same, FINs frozen", "own", {"finetune.fin_learning_rate": 0}, trained=True),
    "best": DecoderRow("best, as fitted", "best"),
    "best_adapt": DecoderRow("best, adapting", "best", adapts=True),
    "best_fins": DecoderRow("FINs + covariances, as fitted", "best_fins"),
    "best_fins_adapt": DecoderRow("FINs + covariances, adapting", "best_fins", adapts=True),
    "no_fins": DecoderRow("covariances without FINs, as fitted", "best_fins", {"features.names": []}),
    "no_fins_adapt": DecoderRow("covariances without FINs, adapting", "best_fins", {"features.names": []}, True),
    "fins_alone": DecoderRow("FINs alone, as fitted", "best_fins", {"classifier.describe": []}),
    "fins_alone_adapt": DecoderRow("FINs alone, adapting", "best_fins", {"classifier.describe": []}, True),
    "closed_form": DecoderRow("closed form, as fitted", "closed_form"),
    "closed_form_adapt": DecoderRow("closed form, adapting", "closed_form", adapts=True),
    "tdar_lda": BaselineRow("TD+AR, LDA", describe.time_domain, SessionLDA),
    "tdar_lda_centred": BaselineRow("TD+AR, LDA, recentred", describe.time_domain, partial(
        SessionLDA, partial(baselines.ZScored, PRIOR["tdar_lda_centred"]))),
    "tdar_cov_lda": BaselineRow("TD+AR + log-covariance, LDA", baselines.tdar_cov, SessionLDA),
    "tdar_cov_lda_centred": BaselineRow("TD+AR + log-covariance, LDA, recentred", baselines.tdar_cov, partial(
        SessionLDA, partial(baselines.ZScored, PRIOR["tdar_cov_lda_centred"]))),
    "cov_lda": BaselineRow("log-covariance, LDA", describe.tangent_space, SessionLDA),
    "riemann_lda": BaselineRow("tangent space, LDA", baselines.covariances, partial(
        SessionLDA, baselines.TangentSpace)),
    "riemann_lda_centred": BaselineRow("tangent space, LDA, recentred", baselines.covariances, partial(
        SessionLDA, partial(baselines.RecentredTangentSpace, PRIOR["riemann_lda_centred"]))),
    "hierarchical": BaselineRow("TD+AR + log-covariance, hierarchical", baselines.tdar_cov, Hierarchical),
}

# What a recipe of the ladder says of all its decoders, and of those that are trained; whatever else it changes against
# the shipped recipe goes to all decoders too.
OF_ALL = ("seed", "window.length_ms", "window.stride_ms", "window.train_stride_ms", "window.rest", "fin.family")
OF_TRAINED = ("classify.", "finetune.")
PASSED = ("seed", "window.", "filter.", "features.", "fin.", "classifier.", "augment.", *OF_TRAINED)


@cache
def available() -> tuple[str, ...]:
    """The rows that can be made here."""
    there = {path.stem for path in shipped("pipelines").glob("*.toml")}
    names = [name for name, row in ROWS.items() if isinstance(row, BaselineRow) or row.preset in there]
    if baselines.riemann_installed():
        return tuple(names)
    log.info("ladder: pyriemann is not installed, so two rows are left out: pip install 'tfkfin[riemann]'")
    return tuple(name for name in names if not name.startswith("riemann"))


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """The rows of these names in the table's order; none given: all that can be made here.

    Raises:
        InputError: a name that is no row, or a row that cannot be made here.
    """
    if unknown := [name for name in names if name not in available()]:
        raise InputError(f"--rows: no row {', '.join(unknown)}; there are {', '.join(available())}")
    return tuple(name for name in available() if name in names or not names)


def settings(row: DecoderRow, recipe: Recipe) -> dict[str, Any]:
    """The settings that `Decoder.from_preset(row.preset, **settings)` takes under a recipe of the ladder."""
    own, before = recipes.values(recipe), recipes.values(recipes.load("ladder"))
    always = OF_ALL + (tuple(key for key in own if key.startswith(OF_TRAINED)) if row.trained else ())
    passed = PASSED if recipes.load(row.preset).features.names else tuple(
        key for key in PASSED if key != "features.")  # a preset without FINs stays without
    return {key: value for key, value in own.items()
            if key in always or key.startswith(passed) and value != before[key]} | row.settings


def updates(recipe: Recipe) -> int:
    """Gradient steps of the rows that are trained end to end, after their heads were trained on exact features."""
    options = recipe.finetune
    return options.epochs * -(-options.windows_per_epoch // options.batch_size)


# === How a row decides the trials of a group ===


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


@lru_cache(1)
def _decoders(preset: str, settings: str, person: int) -> dict[tuple[SessionPart, ...], Decoder]:
    """Decoders of the last recipe and person, by what they are fitted to: rows share them."""
    return {}


class DecoderModel:
    """A row that is a `tfkfin.Decoder`.

    Each session is calibrated, if it is, from the decoder as the sessions before left it: without online adaptation
    that is the decoder as it was fitted.
    """

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
            session = now.session(smooth=False) if self.row.adapts else now
            found = [session.stream(one) for one in recordings]
            yield trial, [answered(one, now.length, now.stride, now.card["rate_hz"], each["probabilities"],
                                   now.movements, each["label"]) for one, each in zip(recordings, found, strict=True)]
            if self.row.adapts and trial.known is None and trial is not group.trials[-1]:
                decoder = session.carried()

    def _fitted(self, group: Group) -> Decoder:
        known = _decoders(self.row.preset, json.dumps(self.settings, sort_keys=True), group.person)
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
        kept = windows.labels > (-1 if self.recipe.window.rest else 0)
        return self._described(part, windows, False), np.where(kept, windows.labels, -1), windows.repetitions

    def _cut(self, part: SessionPart, stream: bool) -> WindowedSignal:
        return part.kept(("cut", stream), lambda: cut(part.recordings, self.window, self.recipe.filter, stream))

    def _described(self, part: SessionPart, windows: WindowedSignal, stream: bool) -> np.ndarray:
        return part.kept((self.row.describe, stream), lambda: np.concatenate([
            self.row.describe(windows.volts(slice(i, i + CHUNK)), windows.rate_hz)
            for i in range(0, len(windows), CHUNK)]))


def model(row: DecoderRow | BaselineRow, recipe: Recipe) -> DecoderModel | BaselineModel:
    return DecoderModel(row, recipe) if isinstance(row, DecoderRow) else BaselineModel(row, recipe)
