"""Experiment 2 (Table 2, upper rows): classifiers on true features, and the baseline that the field uses."""

from tfkfin.experiments import figures, paper
from tfkfin.experiments.cells import Cell
from tfkfin.experiments.decoders import Decoders, judged
from tfkfin.experiments.lab import Lab, gather
from tfkfin.experiments.report import Figure, Section, Table, percent
from tfkfin.experiments.statistics import over_subjects
from tfkfin.fit import baselines

TIME_DOMAIN = "MAV, WL, ZC, SSC, AR(4)"
CLASSICAL = {  # name -> (model, features: the recipe's or the time domain's, title)
    "svm": (baselines.svm, (), "SVM, Gaussian kernel"),
    "lda": (baselines.lda, (), "shrinkage LDA"),
    "td_svm": (baselines.svm, baselines.TIME_DOMAIN, "SVM, Gaussian kernel"),
    "td_lda": (baselines.lda, baselines.TIME_DOMAIN, "shrinkage LDA"),
}
ORDER = ("cnn1", "cnn2", "svm", "lda", "td_svm", "td_lda")
TITLES = {"cnn1": "CNN-I, subjects pooled", "cnn2": "CNN-II, one subject",
          **{name: title for name, (*_, title) in CLASSICAL.items()}}


def cells(lab: Lab) -> list[Cell]:
    return [Cell(s, model, seed=seed) for s in lab.subjects for model in ORDER
            for seed in ((None,) if model in CLASSICAL else lab.seeds)]


def worker(lab: Lab, decoders: Decoders):
    return lambda cell: classical(lab, cell) if cell.model in CLASSICAL else decoders.work(cell)


def classical(lab: Lab, cell: Cell) -> tuple[dict, dict]:
    make, names, _ = CLASSICAL[cell.model]
    train, test = lab.examples(cell, "train", names), lab.examples(cell, "test", names)
    predicted = baselines.predict(make(), (train.features, train.labels), test.features)
    return judged(lab, cell, test, predicted)


def inputs(lab: Lab, model: str) -> str:
    return TIME_DOMAIN if model.startswith("td_") else ", ".join(lab.names)


def section(lab: Lab, folder) -> Section:
    every = cells(lab)
    found = {model: {key: gather(lab, [c for c in every if c.model == model], key) for key in ("accuracy", "macro_f1")}
             for model in ORDER}
    rows, data, drawn = [], {}, []
    for group, (title, subjects) in lab.groups.items():
        rows += [[""]] if rows else []
        data[group] = {model: {key: over_subjects({k: v for k, v in values.items() if k[0] in subjects})
                               for key, values in found[model].items()} for model in ORDER}
        for model in ORDER:
            score = data[group][model]
            rows.append([f"{TITLES[model]}", inputs(lab, model), title, paper.accuracy(model, group),
                         percent(score["accuracy"]), percent(score["macro_f1"])])
    last = list(lab.groups)[-1]
    for model in ORDER:
        drawn.append((f"{TITLES[model]}\n{inputs(lab, model)}", data[last][model]["accuracy"],
                      paper.TABLE_2.get(model, {}).get(last)))
    table = Table(lab.titled("Accuracy % on true features"),
                  ["model", "inputs", "subjects", "paper: accuracy %", "ours: accuracy %", "ours: macro-F1 %"], rows,
                  "Mean ± sd over subjects, seeds averaged first. LDA and time-domain features are ours.")
    plot = figures.models(drawn, f"True features, {lab.groups[last][0] if len(lab.groups) > 1 else 'all subjects'}",
                          f"ours: {lab.on}")
    path = figures.save(plot, folder / "plots" / "downstream.png")
    return Section("downstream", "2. Classifiers on true features (paper's Table 2, upper rows)",
                   [_finding(data[last])], [table, Figure(path, f"Accuracy by model. Data: {lab.on}.")], _trust(lab),
                   {"groups": data})


def _finding(scores: dict) -> str:
    mean = {model: 100 * scores[model]["accuracy"]["mean"] for model in ORDER}
    own = max(("cnn1", "cnn2", "svm", "lda"), key=mean.get)
    field = max(("td_svm", "td_lda"), key=mean.get)
    return (f"Best on the recipe's features: {TITLES[own]} with {mean[own]:.1f} %. The field's usual features "
            f"({TIME_DOMAIN}) with {TITLES[field]} give {mean[field]:.1f} %, a difference of "
            f"{mean[field] - mean[own]:+.1f} points.")


def _trust(lab: Lab) -> list[str]:
    pooled = len(lab.dataset.split.pretrain_subjects)
    others = ", ".join(f"{name} {value:g}" for name, value in paper.OTHERS.items())
    return ["Statistics, training and epochs come from the training repetitions; every test window counts." if
            not lab.optimistic else
            "OPTIMISTIC: best test accuracy over the epochs, test windows scaled by their own statistics, BatchNorm "
            "and dropout as in training, the last incomplete batch dropped. SVM and LDA have no epochs: of all that, "
            "only the scaling touches them.",
            f"CNN-I learns from {pooled} subjects pooled (the recipe's pre-training subjects), "
            f"{lab.recipe.classify.epochs} epochs; seeds: {len(lab.seeds)}. SVM and LDA learn from at most 4000 "
            "windows a subject, evenly spread (windows overlap), with fixed constants (SVM: C = 10).",
            "The paper's classifiers learn from repetitions 1, 3, 4, 6 of DB2 and its figures come from the optimistic "
            "protocol. Accuracies on other recordings, with other movements and channels, do not compare with them.",
            f"Better accuracies published for DB2's 17 movements: {others} %."]

