"""Ladder ablation: the same network from FINs and from random weights, its head on exact features; equal updates."""

from functools import cache

import numpy as np

from tfkfin.base.errors import InputError
from tfkfin.experiments.evaluation import Evaluation, Fit
from tfkfin.experiments.kinds import Experiment, ladder, papers_heads
from tfkfin.experiments.ladder.rows import updates
from tfkfin.experiments.ladder.rungs import LEAKS, RUNGS
from tfkfin.experiments.report import Result, p_value, text
from tfkfin.fit import metrics
from tfkfin.recipe import Recipe

TITLES = text("ablation.arms")


def check(recipe: Recipe) -> None:
    papers_heads(recipe)
    options = recipe.finetune
    if not (options.epochs and options.windows_per_epoch and options.fin_learning_rate):
        raise InputError("the ablation trains FINs by a number of updates: finetune.epochs, finetune.windows_per_epoch "
                         "and finetune.fin_learning_rate must not be 0")
    if any(recipe.augment.model_dump().values()):
        raise InputError("the ablation trains all arms on the same windows, and closed-form features are those of "
                         "windows as recorded: set all of [augment] to 0")
    if not recipe.fin.pretrained:
        raise InputError("the ablation starts from pretrained FINs: fin.pretrained is empty")


def fits(evaluation: Evaluation) -> list[Fit]:
    return [Fit(person, f"ablation-{arm}", seed=seed) for person in evaluation.subjects for seed in evaluation.seeds
            for arm in TITLES]


@cache
def networks(evaluation: Evaluation):
    from tfkfin.experiments.arms import Networks

    movements = evaluation.dataset.movements
    return Networks(evaluation.run, movements if evaluation.recipe.window.rest else tuple(m for m in movements if m))


def work(estimators, fit: Fit) -> tuple[dict, dict]:
    from tfkfin.experiments import arms

    evaluation = estimators.evaluation
    arm = arms.arm(networks(evaluation), fit.model.removeprefix("ablation-"), fit.seed)
    return ladder.scored(arm.decide, ladder.people(evaluation), fit.subject)


def result(evaluation: Evaluation) -> Result:
    from tfkfin.experiments.arms import AGAIN

    scores = {arm: {s: [evaluation.ledger.of(Fit(s, f"ablation-{arm}", seed=seed).key)["rungs"]
                        for seed in evaluation.seeds] for s in evaluation.subjects} for arm in TITLES}
    there = [rung for rung in RUNGS if any(rung in one[0] for one in scores["fin"].values())]
    rungs = {rung: {arm: {number: _over(evaluation, people, rung, number) for number in ladder.NUMBERS}
                    for arm, people in scores.items()} for rung in there}
    tests = ladder.tested(rungs, "fin")
    blocks = [*ladder.number_tables(evaluation, "ablation", rungs, TITLES, seeds=len(evaluation.seeds)),
              ladder.tests_table(evaluation, "ablation", tests, TITLES, "fin"),
              ladder.people_table(evaluation, "ablation", rungs, TITLES),
              ladder.plot(evaluation, "ablation", rungs, TITLES)]
    options, count = evaluation.recipe.finetune, updates(evaluation.recipe)
    trust = text("ablation.trust", count=count, batch=options.batch_size, fin_rate=options.fin_learning_rate,
                 head_rate=options.head_learning_rate, schedule=options.schedule, more=max(1, count // AGAIN),
                 started=evaluation.started)
    data = {"rungs": rungs, "tests": {f"{rung}: fin - {arm}": test for rung, arm, test in tests}}
    return Result("ablation", "Ablation on the ladder: does a FIN start help where it should matter?",
                  _findings(tests), blocks, trust, data, top={"rungs": rungs})


def _over(evaluation: Evaluation, people: dict[int, list[dict]], rung: str, number: str) -> dict:
    """`metrics.over_people` of every person's mean over seeds; `per_seed`: each seed's mean over people."""
    values = {s: [one[rung][number] for one in seeds] for s, seeds in people.items() if rung in seeds[0]}
    known = [row for row in values.values() if None not in row]
    found = metrics.over_people({s: float(np.mean(row)) if None not in row else None for s, row in values.items()},
                                evaluation.recipe.seed)
    return found | {"per_seed": dict(zip(map(str, evaluation.seeds), np.mean(known, axis=0).tolist(), strict=True))
                    if known else {}}


def _findings(tests: list[tuple[str, str, dict]]) -> list[str]:
    gains = [text("ablation.gain", rung=rung, mean=100 * test["mean"], wins=test["wins"], pairs=test["pairs"],
                  p=p_value(test["holm"]))
             for rung, arm, test in tests if arm == "random" and rung not in LEAKS]
    return [text("ablation.finding", gains="; ".join(gains))]


EXPERIMENT = Experiment(fits, result, check, work, "ablation")
