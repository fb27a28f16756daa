"""Ladder of faults: what offsets, hum, lost electrodes and others cost decoders that learnt from a clean signal."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

from tfkfin.experiments.evaluation import Evaluation, Fit
from tfkfin.experiments.kinds import Experiment, ladder
from tfkfin.experiments.ladder import rows, rungs
from tfkfin.experiments.ladder.rows import RECOMMENDED, ROWS
from tfkfin.experiments.ladder.rungs import Group, SessionPart, Trial
from tfkfin.experiments.report import Result, text
from tfkfin.fit import metrics
from tfkfin.pipeline import splits
from tfkfin.pipeline.subject import Subject
from tfkfin.signal.faults import FAULTS, places, spoilt

DEFAULT = ("best", "best_adapt", "no_fins", "tdar_lda", "tdar_cov_lda")


class Spoilt(ladder.People):
    """The people of a run, whose tested repetitions or sessions come once with each fault, at each of its places."""

    def __init__(self, evaluation: Evaluation):
        super().__init__(evaluation, "faults")

    def chosen(self, evaluation: Evaluation) -> Sequence[str]:
        return named(evaluation)

    def seconds(self, name: str) -> float:
        row, tested = ROWS[name], 0.0
        for person in self.sessions:
            minutes = sum(one.seconds for trial in self.clean(person)[1] for one in trial.stream.recordings) / 60
            tested += minutes * sum(len(places(fault, self.dataset.channels)) for fault in FAULTS)
        kind = "baseline" if isinstance(row, rows.BaselineRow) else "adapts" if row.adapts else "decoder"
        return tested * ladder.SECONDS[kind] + ladder.FIT * len(self.sessions)

    def clean(self, person: int) -> tuple[tuple[SessionPart, ...], list[Trial]]:
        """What is trained on, and the trials without a fault: of at most `rungs.FEW` sessions."""
        split, own = self.dataset.split, self.sessions[person]
        train, test = splits.part(split, "train"), splits.part(split, "test")
        tested = [(s, wanted) for s in own if (wanted := rungs.of_side(s, test))]
        return rungs.parts_of(own, train), [Trial("clean", s.select(wanted), wanted)
                                            for s, wanted in (tested[i] for i in rungs.spread(len(tested)))]

    def groups(self, person: int) -> Iterator[Group]:
        """A group for each signal, made when it is its turn: every row gets the same signals, none is kept."""
        parts, trials = self.clean(person)
        training = Subject.of([one for part in parts for one in part.recordings], self.recipe.window)
        for trial in trials:
            for fault in FAULTS:
                seeds = [self.recipe.seed + 1000 * person + i for i in range(len(trial.stream.recordings))]
                each = [spoilt(fault, one.emg, training.mean, training.sd, one.rate_hz, seed)
                        for seed, one in zip(seeds, trial.stream.recordings, strict=True)]
                for signals in zip(*each, strict=True):
                    stream = replace(trial.stream, _kept={}, recordings=tuple(
                        replace(one, emg=emg) for one, emg in zip(trial.stream.recordings, signals, strict=True)))
                    yield Group(person, parts, (replace(trial, rung=fault, stream=stream),))


def named(evaluation: Evaluation) -> tuple[str, ...]:
    """The rows that are tried."""
    return rows.chosen(evaluation.rows or DEFAULT)


people = cache(Spoilt)


def fits(evaluation: Evaluation) -> list[Fit]:
    return [Fit(person, f"faults-{name}") for person in evaluation.subjects for name in named(evaluation)]


def work(estimators, fit: Fit) -> tuple[dict, dict]:
    there = people(estimators.evaluation)
    return ladder.scored(rows.model(ROWS[fit.model.removeprefix("faults-")], there.recipe).decide, there, fit.subject)


def result(evaluation: Evaluation) -> Result:
    """Of every row that is there for all people."""
    kept = ladder.finished(evaluation, "faults")
    titles = {name: ROWS[name].title for name in kept}
    faults = {fault: {name: {number: metrics.over_people(
        {s: one["rungs"][fault][number] for s, one in scores.items()}, evaluation.recipe.seed)
        for number in ladder.NUMBERS} for name, scores in kept.items()} for fault in FAULTS}
    reference = RECOMMENDED if RECOMMENDED in kept else next(iter(kept))
    share = {fault: 100 * models[reference]["window"]["mean"] for fault, models in faults.items()}
    worst = sorted(share, key=share.get)[:3]
    finding = text("faults.finding", row=titles[reference], clean=share["clean"], worst="; ".join(
        f"{fault} {share[fault]:.1f}" for fault in worst))
    table = evaluation.table("faults.numbers", [[fault, FAULTS[fault][1], *(
        ladder.shown(one["window"], "window") for one in models.values())] for fault, models in faults.items()],
        titles.values(), papers=False)
    return Result("faults", "What faults of the signal cost", [finding],
                  [table, ladder.people_table(evaluation, "ladder", faults, titles)], text("faults.trust"),
                  {"faults": faults}, top={"faults": faults})


EXPERIMENT = Experiment(fits, result, ladder.check, work, "ladder")
