"""Experiment 3 (Tables 2 and 3): what pre-training FINs gains over random weights, frozen or not, and what it costs."""

import itertools

import numpy as np

from tfkfin.experiments import figures, report
from tfkfin.experiments.evaluation import Evaluation
from tfkfin.experiments.kinds import Experiment
from tfkfin.experiments.kinds.downstream import TIME_DOMAIN
from tfkfin.experiments.paper import published
from tfkfin.experiments.report import ReportTable, Result, p_value, percent, text

TITLES, TRAINED = text("finetune.models", features=TIME_DOMAIN), text("finetune.trained")
COMPARED = (("fin", "random"), ("fin", "scratch"), ("fin_frozen", "random_frozen"), ("fin", "fin_frozen"),
            ("fin", "cnn2"), ("fin", "td_lda"))


def result(evaluation: Evaluation) -> Result:
    data, titles = evaluation.by_group(TITLES), {model: evaluation.called(title) for model, title in TITLES.items()}
    rows = [[titles[model], evaluation.groups[group][0], published.accuracy(model, group),
             percent(scores["accuracy"]), percent(scores["macro_f1"])]
            for group, models in data.items() for model, scores in models.items()]
    points = figures.pairs(evaluation.values("fin"), evaluation.values("random"), (titles["fin"], titles["random"]))
    plots = [evaluation.plot(figures.models(titles, data, evaluation, "Raw signals"), "finetune"),
             evaluation.plot(points, "finetune_pairs")]
    for group, (_, subjects) in evaluation.groups.items():
        data[group]["tests"] = {f"{a} - {b}": _compared(evaluation, a, b, subjects) for a, b in COMPARED}
    (group, scores), cost = list(data.items())[-1], _costs(evaluation)
    tables = [evaluation.table("finetune.table", rows), _tests(evaluation, data)]
    return Result("finetune", "3. Fine-tuning FINs (paper's Table 2, lower rows, and Table 3)",
                  _findings(evaluation, scores["tests"], group),
                  [*tables, *plots, _cost_table(evaluation, cost)], _trust(evaluation, cost),
                  {"groups": data, "cost": cost})


def _accuracies(evaluation: Evaluation, model: str, on: str, subjects) -> dict:
    """(subject, seed) -> accuracy of a model on the windows that the model `on` was tested on too."""
    found = {}
    for key in itertools.product(subjects, evaluation.seeds):
        own, other = (evaluation.ledger.arrays(evaluation.fit(name, *key).key) for name in (model, on))
        kept = np.isin(own["start"], other["start"])
        found[key] = float(np.mean(own["true"][kept] == own["predicted"][kept]))
    return found


def _compared(evaluation: Evaluation, first: str, second: str, subjects) -> dict:
    one, other = (_accuracies(evaluation, *pair, subjects) for pair in ((first, second), (second, first)))
    by_subject = report.paired(report.by_subject(one), report.by_subject(other))
    return report.paired(one, other) | {"by_subject": by_subject}


def _tests(evaluation: Evaluation, data: dict) -> ReportTable:
    rows = []
    for group, scores in data.items():
        for a, b in COMPARED:
            test, printed = scores["tests"][f"{a} - {b}"], published.ABSENT
            if {a, b} <= published.TABLE_2.keys():
                printed = f"{published.TABLE_2[a][group][0] - published.TABLE_2[b][group][0]:+.2f}, no test"
            rows.append([evaluation.called(f"{TITLES[a]} against {TITLES[b]}"), evaluation.groups[group][0], printed,
                         f"{100 * test['mean']:+.1f}", f"{100 * test['median']:+.1f}",
                         f"{test['wins']} of {test['pairs']}", p_value(test["p"]), p_value(test["by_subject"]["p"])])
    count = len(evaluation.subjects)
    return evaluation.table("finetune.tests", rows, count=count, least_p=report.least_p(count))


def _costs(evaluation: Evaluation) -> dict:
    """Model -> epochs and seconds an epoch, as its fits measured them."""
    data, run = {}, evaluation.run
    for model in TRAINED:
        kept = [scores for fit in evaluation.fits([model]) if (scores := evaluation.ledger.get(fit.key))]
        if kept:
            data[model] = {key: float(np.mean([one[key] for one in kept])) for key in ("epochs", "seconds_an_epoch")}
    if done := run.done("imitate"):
        import tensorflow as tf

        folder = str(run.folder / "imitate" / "checkpoints")
        epochs = int(tf.train.load_variable(folder, "epoch/.ATTRIBUTES/VARIABLE_VALUE")) if \
            tf.train.latest_checkpoint(folder) else 0
        data["imitate"] = {"epochs": epochs, "seconds_an_epoch": done.get("seconds", float("nan")) / epochs if epochs
                           else float("nan")}
    return data


def _cost_table(evaluation: Evaluation, cost: dict) -> ReportTable:
    rows = []
    for model, one in cost.items():
        printed = "{} / {:g}".format(*published.TABLE_3[model]) if model in published.TABLE_3 else published.ABSENT
        seconds = f"{one['seconds_an_epoch']:.2f}" if one["epochs"] else "none: shipped FINs"
        rows.append([evaluation.called(TRAINED[model]), printed, f"{one['epochs']:.1f}".removesuffix(".0"), seconds])
    about = "the epoch of the best test accuracy" if evaluation.optimistic else "as many as the recipe has"
    return evaluation.table("finetune.cost", rows, about=about, fins=evaluation.called("LSTM-FIN"),
                            windows=evaluation.recipe.finetune.windows_per_epoch or "all")


def _findings(evaluation: Evaluation, tests: dict, group: str) -> list[str]:
    def shown(test: dict) -> str:
        own = test["by_subject"]
        return text("finetune.test", mean=100 * test["mean"], median=100 * test["median"], wins=test["wins"],
                    pairs=test["pairs"], p=p_value(own["p"]),
                    few=text("finetune.few", **own) if own["least_p"] > 0.05 else "",
                    verdict="not significant" if own["p"] >= 0.05 else "significant")

    return text("finetune.findings", data=evaluation.data_name, random=shown(tests["fin - random"]),
                 scratch=shown(tests["fin - scratch"]), lda=shown(tests["fin - td_lda"]),
                 printed=published.TABLE_2["fin"][group][0] - published.TABLE_2["scratch"][group][0])


def _trust(evaluation: Evaluation, cost: dict) -> list[str]:
    cap, options = evaluation.max_test_windows, evaluation.recipe.finetune
    return text("finetune.trust", epochs=options.epochs, windows=options.windows_per_epoch or "all",
                 batch=options.batch_size, start=evaluation.recipe.fin.start,
                 before="were trained on all of them before" if cost.get("imitate", {}).get("epochs") else
                 "were trained on none of them before",
                 counted=text("finetune.capped", cap=cap) if cap else "Every test window counts.",
                 steering=evaluation.steering if evaluation.optimistic else text("finetune.fixed"))


EXPERIMENT = Experiment(lambda evaluation: evaluation.fits(reversed(TITLES)), result)
