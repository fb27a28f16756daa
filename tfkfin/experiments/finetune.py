"""Experiment 3 (Table 2, lower rows, and Table 3): what pre-training FINs gains, and what it costs."""

import numpy as np
import tensorflow as tf

from tfkfin.experiments import downstream, figures, paper, statistics
from tfkfin.experiments.cells import Cell
from tfkfin.experiments.decoders import RAW, Decoders
from tfkfin.experiments.lab import Lab, gather
from tfkfin.experiments.report import Figure, Section, Table, p_value, percent
from tfkfin.experiments.statistics import over_subjects

ORDER = ("scratch", "random", "fin", "random_frozen", "fin_frozen", "cnn2", "td_lda")
TITLES = {"scratch": "LSTM+CNN-II, nothing pre-trained", "random": "LSTM+CNN-II, random FINs", "fin": "LSTM-FIN+CNN-II",
          "random_frozen": "LSTM+CNN-II, random FINs frozen", "fin_frozen": "LSTM-FIN+CNN-II, FINs frozen",
          "cnn2": "CNN-II on true features", "td_lda": f"LDA on {downstream.TIME_DOMAIN}",
          "cnn1": "CNN-I on true features", "imitate": "LSTM-FIN (imitation)"}
COMPARED = (("fin", "random"), ("fin", "scratch"), ("fin_frozen", "random_frozen"), ("fin", "fin_frozen"),
            ("fin", "cnn2"), ("fin", "td_lda"))


def cells(lab: Lab) -> list[Cell]:
    return [_cell(s, model, seed) for s in lab.subjects for seed in lab.seeds for model in ("td_lda", "cnn2", *RAW)]


def _cell(subject: int, model: str, seed: int) -> Cell:
    return Cell(subject, model, seed=None if model in downstream.CLASSICAL else seed)


def worker(lab: Lab, decoders: Decoders):
    return downstream.worker(lab, decoders)


def section(lab: Lab, folder) -> Section:
    every = cells(lab)
    found = {model: {key: gather(lab, [c for c in every if c.model == model], key) for key in ("accuracy", "macro_f1")}
             for model in ORDER}
    rows, tests, data = [], [], {}
    for group, (title, subjects) in lab.groups.items():
        rows, tests = rows + ([[""]] if rows else []), tests + ([[""]] if tests else [])
        data[group] = {model: {key: over_subjects(_of(values, subjects)) for key, values in found[model].items()}
                       for model in ORDER}
        for model in ORDER:
            score = data[group][model]
            rows.append([TITLES[model], title, paper.accuracy(model, group), percent(score["accuracy"]),
                         percent(score["macro_f1"])])
        data[group]["tests"] = {f"{a} - {b}": _compared(lab, a, b, subjects) for a, b in COMPARED}
        for a, b in COMPARED:
            tests.append(_test_row(group, title, a, b, data[group]["tests"][f"{a} - {b}"]))
    last = list(lab.groups)[-1]
    cost, cost_data = _costs(lab)
    table = Table(lab.titled("Accuracy % of decoders of raw signals"),
                  ["model", "subjects", "paper: accuracy %", "ours: accuracy %", "ours: macro-F1 %"], rows,
                  "Mean ± sd over subjects, seeds averaged first. The last two are references on true features.")
    return Section("finetune", "3. Fine-tuning FINs (paper's Table 2, lower rows, and Table 3)",
                   _findings(lab, data[last]["tests"], last),
                   [table, _tests(lab, tests), *_plots(lab, folder, found, data[last], last), cost],
                   _trust(lab), {"groups": data, "cost": cost_data})


def _of(values: dict, subjects) -> dict:
    return {key: value for key, value in values.items() if key[0] in subjects}


def _accuracies(lab: Lab, model: str, on: str, subjects) -> dict:
    """Accuracy by (subject, seed) on the windows that the cells of model `on` were tested on."""
    found = {}
    for subject in subjects:
        for seed in lab.seeds:
            own, other = (lab.book.arrays(_cell(subject, name, seed)) for name in (model, on))
            kept = np.isin(own["start"], other["start"])
            found[subject, seed] = float(np.mean(own["true"][kept] == own["predicted"][kept]))
    return found


def _compared(lab: Lab, first: str, second: str, subjects) -> dict:
    one, other = _accuracies(lab, first, second, subjects), _accuracies(lab, second, first, subjects)
    return statistics.paired(one, other) | {"by_subject": statistics.paired(
        statistics.by_subject(one), statistics.by_subject(other))}


def _test_row(group: str, title: str, first: str, second: str, test: dict) -> list[str]:
    printed = paper.ABSENT
    if {first, second} <= paper.TABLE_2.keys():
        printed = f"{paper.TABLE_2[first][group][0] - paper.TABLE_2[second][group][0]:+.2f}, no test"
    return [f"{TITLES[first]} against {TITLES[second]}", title, printed, f"{100 * test['mean']:+.1f}",
            f"{100 * test['median']:+.1f}", f"{test['wins']} of {test['pairs']}", p_value(test["p"]),
            p_value(test["by_subject"]["p"])]


def _tests(lab: Lab, rows: list) -> Table:
    return Table(lab.titled("Differences in accuracy, points of %"),
                 ["pair", "subjects", "paper: mean", "ours: mean", "ours: median", "ours: first better",
                  "ours: p, subjects x seeds", "ours: p, subjects"], rows,
                 "Wilcoxon's signed-rank test, two-sided, on the same test windows. Seeds of one subject are not "
                 f"independent: trust the last column. With {len(lab.subjects)} subjects its p cannot be below "
                 f"{statistics.least_p(len(lab.subjects)):.3g}.")


def _plots(lab: Lab, folder, found: dict, scores: dict, group: str) -> list[Figure]:
    drawn = [(TITLES[m], scores[m]["accuracy"], paper.TABLE_2.get(m, {}).get(group)) for m in ORDER]
    title = lab.groups[group][0] if len(lab.groups) > 1 else "all subjects"
    bars = figures.models(drawn, f"Raw signals, {title}", f"ours: {lab.on}")
    points = figures.pairs(found["fin"]["accuracy"], found["random"]["accuracy"], (TITLES["fin"], TITLES["random"]))
    return [Figure(figures.save(bars, folder / "plots" / "finetune.png"), f"Accuracy by model. Data: {lab.on}."),
            Figure(figures.save(points, folder / "plots" / "finetune_pairs.png"), "The same subject and seed with "
                   f"pre-trained and with random FINs, each with a trained "
                   f"classifier; above the line pre-training is better. Data: {lab.on}.")]


def _costs(lab: Lab) -> tuple[Table, dict]:
    """Table 3: epochs and seconds an epoch, from the clocks of the cells."""
    rows, data = [], {}
    for model in ("cnn1", "cnn2", "scratch", "random", "fin", "random_frozen", "fin_frozen"):
        kept = [lab.book.get(Cell(s, model, seed=seed)) for s in lab.subjects for seed in lab.seeds]
        kept = [one for one in kept if one]
        if kept:
            data[model] = {key: float(np.mean([one[key] for one in kept])) for key in ("epochs", "seconds_an_epoch")}
    if done := lab.run.done("imitate"):
        folder = str(lab.run.folder / "imitate" / "checkpoints")
        epochs = int(tf.train.load_variable(folder, "epoch/.ATTRIBUTES/VARIABLE_VALUE")) if \
            tf.train.latest_checkpoint(folder) else 0
        seconds = done.get("seconds", float("nan")) / epochs if epochs else float("nan")
        data["imitate"] = {"epochs": epochs, "seconds_an_epoch": seconds}
    for model, one in data.items():
        printed = "{} / {:g}".format(*paper.TABLE_3[model]) if model in paper.TABLE_3 else paper.ABSENT
        seconds = f"{one['seconds_an_epoch']:.2f}" if one["epochs"] else "none: shipped FINs"
        rows.append([TITLES[model], printed, f"{one['epochs']:.1f}".removesuffix(".0"), seconds])
    about = "the epoch of the best test accuracy" if lab.optimistic else "all that the recipe runs: nothing is selected"
    return Table(lab.titled("Cost of training"), ["model", "paper: epochs / seconds an epoch (GPU)", "ours: epochs",
                                                  "ours: seconds an epoch"], rows,
                 f"Ours: epochs are {about}; seconds on this machine, median epoch without the first; an epoch of raw "
                 f"signals is {lab.recipe.finetune.windows_per_epoch or 'all'} windows. LSTM-FIN: the whole stage over "
                 "its epochs. Seconds are of different machines and amounts of data: compare rows, not columns."), data


def _findings(lab: Lab, tests: dict, group: str) -> list[str]:
    def said(test: dict) -> str:
        own = test["by_subject"]
        verdict = "not to be told from chance" if own["p"] >= 0.05 else "beyond chance"
        few = f", and {own['pairs']} cannot give less than {own['least_p']:.3g}" if own["least_p"] > 0.05 else ""
        return (f"{100 * test['mean']:+.1f} points of accuracy (median {100 * test['median']:+.1f}; better in "
                f"{test['wins']} of {test['pairs']} pairs of subject and seed; Wilcoxon over subjects "
                f"p = {p_value(own['p'])}{few}: {verdict})")

    printed = paper.TABLE_2["fin"][group][0] - paper.TABLE_2["scratch"][group][0]
    return [f"What pre-training the FINs gains on {lab.data_name}: over random FINs with a classifier trained on them, "
            f"{said(tests['fin - random'])}.",
            f"Over the same network with nothing pre-trained, at the same number of updates: "
            f"{said(tests['fin - scratch'])}. The paper prints {printed:+.2f} points for this on DB2.",
            f"Over LDA on the field's usual features: {said(tests['fin - td_lda'])}."]


def _trust(lab: Lab) -> list[str]:
    capped = f"Raw-signal models are tested on at most {lab.max_test_windows} windows a subject, evenly spread; the "\
        "references on all, but on the same ones in the tests." if lab.max_test_windows else "Every test window counts."
    options = lab.recipe.finetune
    return ["OPTIMISTIC: test data choose the epoch and scale themselves (see section 2)." if lab.optimistic else
            "The epochs are fixed beforehand; no test window steers anything.", capped,
            "Random FINs (not those of \"nothing pre-trained\") get a classifier trained on what they answer for as "
            "long as CNN-II is trained on true features, then the same fine-tuning: their weights are all that they "
            f"lack. Fine-tuning is {options.epochs} epochs of {options.windows_per_epoch or 'all'} windows in batches "
            f"of {options.batch_size}; a network from scratch may catch up when trained for longer.",
            "Random weights learn from all training repetitions, pre-trained FINs from the recipe's "
            "finetune_repetitions, as in the paper. Either way all training repetitions have been seen.",
            f"Random FINs start as fin.start={lab.recipe.fin.start} says, their output scale set from true training "
            "features. The paper does not say how its control started."]
