"""Experiment 4: less training data, by shortening every held movement and by leaving repetitions out."""

from dataclasses import replace

from tfkfin.experiments import figures
from tfkfin.experiments.evaluation import FULL, Evaluation, Fit, Setting
from tfkfin.experiments.kinds import Experiment
from tfkfin.experiments.paper import published
from tfkfin.experiments.report import ReportTable, Result, by_subject, p_value, paired, percent, text

MODELS = {"fin": "LSTM-FIN+CNN-II", "cnn2": "CNN-II on exact features"}


def settings(evaluation: Evaluation) -> dict[str, list[Setting]]:
    """What is varied: fractions at all repetitions, and 1, 2, ... repetitions at equal numbers of windows."""
    count = len(evaluation.dataset.split.train_repetitions)
    return {"fraction": [replace(FULL, fraction=f) for f in published.FRACTIONS],
            "repetitions": [replace(FULL, repetitions=r) for r in range(1, count + 1)]}


def fits(evaluation: Evaluation) -> list[Fit]:
    return evaluation.fits(reversed(MODELS), [setting for part in settings(evaluation).values() for setting in part])


def result(evaluation: Evaluation) -> Result:
    data, tables, panels = {}, [], []
    for kind, varied in settings(evaluation).items():
        found = {str(getattr(setting, kind)): evaluation.by_group(MODELS, setting) for setting in varied}
        data[kind] = {group: {value: {model: one[group][model]["accuracy"] for model in MODELS}
                              for value, one in found.items()} for group in evaluation.groups}
        tables.append(_table(evaluation, kind, data[kind]))
        last = list(data[kind].values())[-1]
        lines = {evaluation.called(title): [one[model] for one in last.values()] for model, title in MODELS.items()}
        panels.append((f"{text(f'efficiency.{kind}.columns')[0]} in training",
                       [getattr(setting, kind) for setting in varied], lines))
    plot = evaluation.plot(figures.curves(panels), "efficiency")
    tests = {"100 % - 20 %": ends(evaluation, "fraction"), "all repetitions - one": ends(evaluation, "repetitions")}
    first, second = (f"{100 * test['mean']:+.1f} points (Wilcoxon over {test['pairs']} subjects p = "
                     f"{p_value(test['p'])})" for test in tests.values())
    found = evaluation.called(text("efficiency.finding", fraction=first, repetitions=second))
    trust = text("efficiency.trust", steering=evaluation.steering,
                 repetitions=", ".join(map(str, evaluation.dataset.split.train_repetitions)))
    return Result("efficiency", "4. Data efficiency (paper's experiment 4)", [found], [*tables, plot], trust,
                  data | {"tests": tests})


def ends(evaluation: Evaluation, kind: str) -> dict:
    """Test of the most against the least data, by subject."""
    varied = settings(evaluation)[kind]
    most, least = (by_subject(evaluation.values("fin", setting)) for setting in (varied[-1], varied[0]))
    return paired(most, least)


def _table(evaluation: Evaluation, kind: str, data: dict) -> ReportTable:
    rows = []
    for group, scores in data.items():
        for value, one in scores.items():
            printed = published.EXPERIMENT_4 if kind == "fraction" else published.MORE_REPETITIONS
            if kind == "fraction" and value == "100":
                printed = f"{published.accuracy('fin', group)} (Table 2)"
            rows.append([value, evaluation.groups[group][0], printed, *(percent(one[m]) for m in MODELS)])
    return evaluation.table(f"efficiency.{kind}", rows, (f"ours: {evaluation.called(m)}" for m in MODELS.values()))


EXPERIMENT = Experiment(fits, result)
