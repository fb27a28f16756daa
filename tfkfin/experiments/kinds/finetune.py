"""Experiment 3 (Tables 2 and 3): what pre-training FINs gains over random weights, frozen or not, and what it costs."""

import itertools

import numpy as np

from tfkfin.experiments import figures, paper, statistics
from tfkfin.experiments.evaluation import Evaluation
from tfkfin.experiments.kinds import Experiment
from tfkfin.experiments.kinds.downstream import TIME_DOMAIN
from tfkfin.experiments.report import Plot, Result, Table, p_value, percent

TITLES = {"scratch": "LSTM+CNN-II, nothing pre-trained", "random": "LSTM+CNN-II, random FINs", "fin": "LSTM-FIN+CNN-II",
          "random_frozen": "LSTM+CNN-II, random FINs frozen", "fin_frozen": "LSTM-FIN+CNN-II, FINs frozen",
          "cnn2": "CNN-II on true features", "td_lda": f"LDA on {TIME_DOMAIN}"}
TRAINED = {"cnn1": "CNN-I on true features",
           **{name: TITLES[name] for name in ("cnn2", "scratch", "random", "fin", "random_frozen", "fin_frozen")},
           "imitate": "LSTM-FIN (imitation)"}
COMPARED = (("fin", "random"), ("fin", "scratch"), ("fin_frozen", "random_frozen"), ("fin", "fin_frozen"),
            ("fin", "cnn2"), ("fin", "td_lda"))


def result(evaluation: Evaluation, folder) -> Result:
    data = evaluation.by_group(TITLES)
    rows = [[evaluation.called(TITLES[model]), evaluation.groups[group][0], paper.accuracy(model, group),
             percent(scores["accuracy"]), percent(scores["macro_f1"])]
            for group, models in data.items() for model, scores in models.items()]
    table = Table(evaluation.titled("Accuracy % of decoders of raw signals"),
                  ["model", "subjects", "paper: accuracy %", "ours: accuracy %", "ours: macro-F1 %"], rows,
                  "Mean ± sd over subjects, seeds averaged first. The last two are references on true features.")
    plots = _plots(evaluation, folder, data)
    for group, (_, subjects) in evaluation.groups.items():
        data[group]["tests"] = {f"{a} - {b}": _compared(evaluation, a, b, subjects) for a, b in COMPARED}
    group, scores = list(data.items())[-1]
    cost = _costs(evaluation)
    return Result("finetune", "3. Fine-tuning FINs (paper's Table 2, lower rows, and Table 3)",
                  _findings(evaluation, scores["tests"], group),
                  [table, _tests(evaluation, data), *plots, _cost_table(evaluation, cost)], _trust(evaluation),
                  {"groups": data, "cost": cost})


def _accuracies(evaluation: Evaluation, model: str, on: str, subjects) -> dict:
    """(subject, seed) -> accuracy on the windows that the fit of the model `on` was tested on too."""
    found = {}
    for key in itertools.product(subjects, evaluation.seeds):
        own, other = (evaluation.ledger.arrays(evaluation.fit(name, *key).key) for name in (model, on))
        kept = np.isin(own["start"], other["start"])
        found[key] = float(np.mean(own["true"][kept] == own["predicted"][kept]))
    return found


def _compared(evaluation: Evaluation, first: str, second: str, subjects) -> dict:
    one, other = (_accuracies(evaluation, *pair, subjects) for pair in ((first, second), (second, first)))
    return statistics.paired(one, other) | {"by_subject": statistics.paired(
        statistics.by_subject(one), statistics.by_subject(other))}


def _tests(evaluation: Evaluation, data: dict) -> Table:
    rows = []
    for group, scores in data.items():
        for a, b in COMPARED:
            test, printed = scores["tests"][f"{a} - {b}"], paper.ABSENT
            if {a, b} <= paper.TABLE_2.keys():
                printed = f"{paper.TABLE_2[a][group][0] - paper.TABLE_2[b][group][0]:+.2f}, no test"
            rows.append([evaluation.called(f"{TITLES[a]} against {TITLES[b]}"), evaluation.groups[group][0], printed,
                         f"{100 * test['mean']:+.1f}", f"{100 * test['median']:+.1f}",
                         f"{test['wins']} of {test['pairs']}", p_value(test["p"]), p_value(test["by_subject"]["p"])])
    count = len(evaluation.subjects)
    return Table(evaluation.titled("Differences in accuracy, points of %"),
                 ["pair", "subjects", "paper: mean", "ours: mean", "ours: median", "ours: first better",
                  "ours: p, subjects x seeds", "ours: p, subjects"], rows,
                 "Wilcoxon's signed-rank test, two-sided, on the same test windows. Seeds of one subject are not "
                 f"independent: trust the last column. With {count} subjects its p cannot be below "
                 f"{statistics.least_p(count):.3g}.")


def _plots(evaluation: Evaluation, folder, data: dict) -> list[Plot]:
    titles = {model: evaluation.called(title) for model, title in TITLES.items()}
    points = figures.pairs(evaluation.values("fin"), evaluation.values("random"), (titles["fin"], titles["random"]))
    return [figures.save(figures.models(titles, data, evaluation, "Raw signals"), folder, "finetune",
                         f"Accuracy by model. Data: {evaluation.on}."),
            figures.save(points, folder, "finetune_pairs", "The same subject and seed with pre-trained and with random "
                         "FINs, each with a trained classifier; above the line pre-training is better. Data: "
                         f"{evaluation.on}.")]


def _costs(evaluation: Evaluation) -> dict:
    """Model -> epochs and seconds an epoch, from the clocks of whatever fits there are."""
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
        seconds = done.get("seconds", float("nan")) / epochs if epochs else float("nan")
        data["imitate"] = {"epochs": epochs, "seconds_an_epoch": seconds}
    return data


def _cost_table(evaluation: Evaluation, cost: dict) -> Table:
    rows = []
    for model, one in cost.items():
        printed = "{} / {:g}".format(*paper.TABLE_3[model]) if model in paper.TABLE_3 else paper.ABSENT
        seconds = f"{one['seconds_an_epoch']:.2f}" if one["epochs"] else "none: shipped FINs"
        rows.append([evaluation.called(TRAINED[model]), printed, f"{one['epochs']:.1f}".removesuffix(".0"), seconds])
    about = "the epoch of the best test accuracy" if evaluation.optimistic else \
        "all that the recipe runs: nothing is selected"
    windows = evaluation.recipe.finetune.windows_per_epoch or "all"
    return Table(evaluation.titled("Cost of training"),
                 ["model", "paper: epochs / seconds an epoch (GPU)", "ours: epochs", "ours: seconds an epoch"], rows,
                 f"Ours: epochs are {about}; seconds on this machine, median epoch without the first; an epoch of raw "
                 f"signals is {windows} windows. {evaluation.called('LSTM-FIN')}: the whole stage "
                 "over its epochs. Seconds are of different "
                 "machines and amounts of data: compare rows, not columns.")


def _findings(evaluation: Evaluation, tests: dict, group: str) -> list[str]:
    def said(test: dict) -> str:
        own = test["by_subject"]
        verdict = "not to be told from chance" if own["p"] >= 0.05 else "beyond chance"
        few = f", and {own['pairs']} cannot give less than {own['least_p']:.3g}" if own["least_p"] > 0.05 else ""
        return (f"{100 * test['mean']:+.1f} points of accuracy (median {100 * test['median']:+.1f}; better in "
                f"{test['wins']} of {test['pairs']} pairs of subject and seed; Wilcoxon over subjects "
                f"p = {p_value(own['p'])}{few}: {verdict})")

    printed = paper.TABLE_2["fin"][group][0] - paper.TABLE_2["scratch"][group][0]
    return [f"What pre-training the FINs gains on {evaluation.data_name}: over random FINs with a classifier trained "
            f"on them, {said(tests['fin - random'])}.",
            f"Over the same network with nothing pre-trained, at the same number of updates: "
            f"{said(tests['fin - scratch'])}. The paper prints {printed:+.2f} points for this on DB2.",
            f"Over LDA on the field's usual features: {said(tests['fin - td_lda'])}."]


def _trust(evaluation: Evaluation) -> list[str]:
    cap, options = evaluation.max_test_windows, evaluation.recipe.finetune
    return [evaluation.steering if evaluation.optimistic else
            "The epochs are fixed beforehand; no test window steers anything.",
            f"Raw-signal models are tested on at most {cap} windows a subject, evenly spread; the references on all, "
            "but on the same ones in the tests." if cap else "Every test window counts.",
            "Random FINs (not those of \"nothing pre-trained\") get a classifier trained on what they answer for as "
            "long as CNN-II is trained on true features, then the same fine-tuning: their weights are all that they "
            f"lack. Fine-tuning is {options.epochs} epochs of {options.windows_per_epoch or 'all'} windows in batches "
            f"of {options.batch_size}; a network from scratch may catch up when trained for longer.",
            "Random weights learn from all training repetitions, pre-trained FINs from the recipe's "
            "finetune_repetitions, as in the paper. Either way all training repetitions have been seen.",
            f"Random FINs start as fin.start={evaluation.recipe.fin.start} says, their output scale set from true "
            "training features. The paper does not say how its control started."]


EXPERIMENT = Experiment(lambda evaluation: evaluation.fits(reversed(TITLES)), result)
