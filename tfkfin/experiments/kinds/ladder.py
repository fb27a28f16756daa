"""Ladder: how decoders hold from repetition to repetition, day to day, person to person; three numbers each."""

from functools import cache
from pathlib import Path

from tfkfin.base.console import log
from tfkfin.base.errors import InputError
from tfkfin.experiments.evaluation import Evaluation
from tfkfin.experiments.fits import Fit
from tfkfin.experiments.kinds import Experiment
from tfkfin.experiments.ladder import adapter, rows, rungs, table
from tfkfin.experiments.report import Result
from tfkfin.recipe import Recipe
from tfkfin.recordings import readers

SECONDS = {"baseline": 0.2, "decoder": 0.5, "adapts": 1.0}  # of one core, that a minute of signal takes to be decided
UPDATE, FIT = 0.3, 3.0  # seconds of an update by gradients, and of making a decoder


class People:
    """The sessions of everybody in a run, read once, and the groups of the person that is worked on."""

    def __init__(self, evaluation: Evaluation):
        self.recipe, self.dataset = evaluation.recipe, evaluation.dataset
        self.rest, self.person, self._groups = self.recipe.window.rest, 0, []
        split, files = self.dataset.split, self.dataset.files
        log.info("ladder: reading %d people", len(split.subjects))
        self.sessions = {person: rungs.sessions(person, map(readers.read, files[person]), split.repetitions_per_session)
                         for person in split.subjects}
        names = [fit.model.removeprefix("ladder-") for fit in fits(evaluation)
                 if fit.subject == split.subjects[0] and evaluation.ledger.get(fit.key) is None]
        seconds = {name: self.seconds(name) for name in names}
        trained = sum(took for name, took in seconds.items() if getattr(rows.ROWS[name], "trained", False))
        log.info("ladder: about %.0f minutes of one core for %d rows, %.0f of them for rows that are trained by "
                 "gradients; --rows chooses rows", sum(seconds.values()) / 60, len(names), trained / 60)

    def seconds(self, name: str) -> float:
        """About how long a row takes for everybody, on one core."""
        row, people = rows.ROWS[name], self.sessions.values()
        streams = sum(6 * sum(len(one.emg) / one.rate_hz for one in part.recordings) / 60
                      for parts in people for part in parts)  # of a session and of a person: 0, 0u and 1
        if isinstance(row, rows.BaselineRow):
            return streams * SECONDS["baseline"]
        few = sum(4 * min(rungs.FEW, len(parts)) + 2 for parts in people)  # groups, each fitted anew
        made = few + sum(4 * len(parts) for parts in people)  # and calibrations
        if row.trained:
            made *= 1 + UPDATE / FIT * rows.updates(self.recipe)
        return streams * SECONDS["adapts" if row.adapts else "decoder"] + made * FIT

    def groups(self, person: int) -> list[rungs.Group]:
        """The same objects for every row: what is computed of them is kept."""
        if person != self.person:
            for session in self.sessions.get(self.person, ()):
                session.forget_streams()
            self.person, self._groups = person, list(rungs.groups(
                self.sessions, self.dataset.split, self.recipe.window, self.recipe.seed, (person,)))
        return self._groups


@cache
def people(evaluation: Evaluation) -> People:
    return People(evaluation)


def check(recipe: Recipe) -> None:
    """Each row has a head of its own, and decides window by window."""
    options = recipe.classifier
    if options.kind != "conv" or options.describe != ("correlations",):
        raise InputError("the ladder's rows have heads and descriptions of their own: take --pipeline ladder, or --set "
                         "classifier.kind=conv --set classifier.describe=correlations")
    if options.vote != 1:
        raise InputError("the ladder decides window by window, and smooths every row alike beside that: set "
                         "classifier.vote=1")


def fits(evaluation: Evaluation) -> list[Fit]:
    return [Fit(person, f"ladder-{name}") for person in evaluation.subjects for name in rows.chosen(evaluation.rows)]


def work(estimators, fit: Fit) -> tuple[dict, dict]:
    there = people(estimators.evaluation)
    model = adapter.model(rows.ROWS[fit.model.removeprefix("ladder-")], there.recipe)
    stride_s = there.recipe.window.stride_ms / 1000
    return table.scored(model, there.groups(fit.subject), there.recipe, there.rest, stride_s)


def result(evaluation: Evaluation, folder: Path) -> Result:
    """Of every row that is there for all people, by whichever command."""
    kept = {}
    for name in rows.available():
        found = {s: evaluation.ledger.get(Fit(s, f"ladder-{name}").key) for s in evaluation.subjects}
        if all(found.values()):
            kept[name] = found
    return table.result(evaluation, folder, kept)


EXPERIMENT = Experiment(fits, result, check, work, "ladder")
