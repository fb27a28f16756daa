"""Ladder ablation: the same network from FINs and from random weights, its head on true features; equal updates."""

from functools import cache
from pathlib import Path

import numpy as np

from tfkfin.base.errors import InputError
from tfkfin.experiments import figures
from tfkfin.experiments.evaluation import Evaluation
from tfkfin.experiments.fits import Fit
from tfkfin.experiments.kinds import Experiment, papers_heads
from tfkfin.experiments.kinds.ladder import people
from tfkfin.experiments.ladder.rungs import LEAKS, RUNGS
from tfkfin.experiments.ladder.table import NUMBERS, scored, titled
from tfkfin.experiments.report import ReportTable, Result, p_value
from tfkfin.experiments.statistics import holm, least_p, paired
from tfkfin.experiments.texts import text, texts
from tfkfin.fit import metrics
from tfkfin.recipe import Recipe

TITLES = {"fin": "FIN start, trained end to end", "random": "random start, trained end to end",
          "frozen": "FIN start, FINs frozen", "true": "head on closed-form features"}
Scores = dict[str, dict[int, list[dict]]]  # arm -> person -> rungs of each seed


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
    from tfkfin.experiments.ablation import Networks

    movements = evaluation.dataset.movements
    return Networks(evaluation.run, movements if evaluation.recipe.window.rest else tuple(m for m in movements if m))


def work(estimators, fit: Fit) -> tuple[dict, dict]:
    from tfkfin.experiments import ablation

    evaluation = estimators.evaluation
    there = people(evaluation)
    arm = ablation.arm(networks(evaluation), fit.model.removeprefix("ablation-"), fit.seed)
    stride_s = there.recipe.window.stride_ms / 1000
    return scored(arm, there.groups(fit.subject), there.recipe, there.rest, stride_s)


def result(evaluation: Evaluation, folder: Path) -> Result:
    scores = {arm: {s: [evaluation.ledger.of(Fit(s, f"ablation-{arm}", seed=seed).key)["rungs"]
                        for seed in evaluation.seeds] for s in evaluation.subjects} for arm in TITLES}
    there = [rung for rung in RUNGS if any(rung in one[0] for one in scores["fin"].values())]
    rungs = {rung: {arm: {number: _over(evaluation, people, rung, number) for number in NUMBERS}
                    for arm, people in scores.items()} for rung in there}
    tests = _tested(rungs)
    blocks = [_table(evaluation, number, title, rungs) for number, title in NUMBERS.items()
              if any(one[number]["mean"] is not None for arms in rungs.values() for one in arms.values())]
    blocks += [_tests(evaluation, tests), _people(evaluation, rungs)]
    plot = figures.ladder({title: [100 * rungs[rung][arm]["window"]["mean"] for rung in there]
                           for arm, title in TITLES.items()}, [titled(rung) for rung in there], evaluation.on)
    blocks.append(evaluation.plot(plot, "ablation", "Accuracy a window by rung"))
    data = {"rungs": rungs, "tests": {f"{rung}: fin - {arm}": test for rung, arm, test in tests}}
    return Result("ablation", "Ablation on the ladder: does a FIN start help where it should matter?",
                  _findings(tests), blocks, _trust(evaluation), data, top={"rungs": rungs})


def _over(evaluation: Evaluation, people: dict[int, list[dict]], rung: str, number: str) -> dict:
    """`metrics.over_people` of every person's mean over seeds; `per_seed`: each seed's mean over people."""
    values = {s: [one[rung][number] for one in seeds] for s, seeds in people.items() if rung in seeds[0]}
    known = [row for row in values.values() if None not in row]
    found = metrics.over_people({s: float(np.mean(row)) if None not in row else None for s, row in values.items()},
                                evaluation.recipe.seed)
    return found | {"per_seed": dict(zip(map(str, evaluation.seeds), np.mean(known, axis=0).tolist(), strict=True))
                    if known else {}}


def _table(evaluation: Evaluation, number: str, title: str, rungs: dict) -> ReportTable:
    factor = 1 if number == "false_per_minute" else 100

    def shown(one: dict) -> str:
        if one["mean"] is None:
            return "–"
        seeds = factor * np.array(list(one["per_seed"].values()))
        return f"{factor * one['mean']:.1f} ({seeds.min():.1f}–{seeds.max():.1f})"

    rows = [[name, *(shown(arms[arm][number]) for arms in rungs.values())] for arm, name in TITLES.items()]
    return ReportTable(f"{title} ({evaluation.on})", ["arm", *map(titled, rungs)], rows,
                       text("ablation.note", seeds=len(evaluation.seeds)), papers=False)


def _tested(rungs: dict) -> list[tuple[str, str, dict]]:
    """(rung, other arm, FIN start against it over people); `holm` is p corrected for all of them."""
    found = [(rung, arm, paired(arms["fin"]["window"]["per_subject"], arms[arm]["window"]["per_subject"]))
             for rung, arms in rungs.items() for arm in TITLES if arm != "fin"]
    corrected = holm([test["p"] for *_, test in found])
    return [(rung, arm, test | {"holm": p}) for (rung, arm, test), p in zip(found, corrected, strict=True)]


def _tests(evaluation: Evaluation, tests: list[tuple[str, str, dict]]) -> ReportTable:
    rows = [[titled(rung), TITLES[arm], f"{100 * test['mean']:+.1f}", f"{test['wins']} of {test['pairs']}",
             p_value(test["p"]), p_value(test["holm"])] for rung, arm, test in tests]
    count = len(evaluation.subjects)
    return ReportTable(f"{TITLES['fin']}, against the other arms, accuracy a window ({evaluation.on})",
                       ["rung", "against", "difference, points", "people better", "p", "p, Holm"], rows,
                       text("ablation.tests", tests=len(rows), people=count, least_p=least_p(count)), papers=False)


def _people(evaluation: Evaluation, rungs: dict) -> ReportTable:
    rows = [[titled(rung), name, *(f"{100 * arms[arm]['window']['per_subject'][str(s)]:.1f}"
                                   if str(s) in arms[arm]["window"]["per_subject"] else "–"
                                   for s in evaluation.subjects)]
            for rung, arms in rungs.items() for arm, name in TITLES.items()]
    return ReportTable(f"Every person's accuracy a window, % ({evaluation.on})",
                       ["rung", "arm", *(f"S{s}" for s in evaluation.subjects)], rows, "Seeds averaged.", papers=False)


def _findings(tests: list[tuple[str, str, dict]]) -> list[str]:
    gains = [text("ablation.gain", rung=rung, mean=100 * test["mean"], wins=test["wins"], pairs=test["pairs"],
                  p=p_value(test["holm"]))
             for rung, arm, test in tests if arm == "random" and rung not in LEAKS]
    return [text("ablation.finding", gains="; ".join(gains))]


def _trust(evaluation: Evaluation) -> list[str]:
    from tfkfin.experiments.ablation import AGAIN, updates

    options, count = evaluation.recipe.finetune, updates(evaluation.recipe)
    return texts("ablation.trust", count=count, batch=options.batch_size, fin_rate=options.fin_learning_rate,
                 head_rate=options.head_learning_rate, schedule=options.schedule, more=max(1, count // AGAIN))


EXPERIMENT = Experiment(fits, result, check, work, "ablation")
