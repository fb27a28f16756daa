"""Experiment 2 (Table 2, upper rows): classifiers on true features, and the baseline that the field uses."""

from tfkfin.experiments import figures, paper
from tfkfin.experiments.evaluation import Evaluation
from tfkfin.experiments.kinds import Experiment, papers_models
from tfkfin.experiments.report import Result, Table, percent

TIME_DOMAIN = "MAV, WL, ZC, SSC, AR(4)"
SVM, LDA = "SVM, Gaussian kernel", "shrinkage LDA"
TITLES = {"cnn1": "CNN-I, subjects pooled", "cnn2": "CNN-II, one subject", "svm": SVM, "lda": LDA, "td_svm": SVM,
          "td_lda": LDA}


def inputs(evaluation: Evaluation, model: str) -> str:
    return TIME_DOMAIN if model.startswith("td_") else ", ".join(evaluation.names)


def result(evaluation: Evaluation, folder) -> Result:
    data = evaluation.by_group(TITLES)
    rows = [[title, inputs(evaluation, model), evaluation.groups[group][0], paper.accuracy(model, group),
             percent(scores[model]["accuracy"]), percent(scores[model]["macro_f1"])]
            for group, scores in data.items() for model, title in TITLES.items()]
    table = Table(evaluation.titled("Accuracy % on true features"),
                  ["model", "inputs", "subjects", "paper: accuracy %", "ours: accuracy %", "ours: macro-F1 %"], rows,
                  "Mean ± sd over subjects, seeds averaged first. LDA and time-domain features are ours.")
    titles = {model: f"{title}\n{inputs(evaluation, model)}" for model, title in TITLES.items()}
    plot = figures.models(titles, data, evaluation, "True features")
    caption = f"Accuracy by model. Data: {evaluation.on}."
    return Result("downstream", "2. Classifiers on true features (paper's Table 2, upper rows)",
                  [_finding(list(data.values())[-1])], [table, figures.save(plot, folder, "downstream", caption)],
                  _trust(evaluation), {"groups": data})


def _finding(scores: dict) -> str:
    mean = {model: 100 * scores[model]["accuracy"]["mean"] for model in TITLES}
    own = max(("cnn1", "cnn2", "svm", "lda"), key=mean.get)
    field = max(("td_svm", "td_lda"), key=mean.get)
    return (f"Best on the recipe's features: {TITLES[own]} with {mean[own]:.1f} %. The field's usual features "
            f"({TIME_DOMAIN}) with {TITLES[field]} give {mean[field]:.1f} %, a difference of "
            f"{mean[field] - mean[own]:+.1f} points.")


def _trust(evaluation: Evaluation) -> list[str]:
    pooled = len(evaluation.dataset.split.pretrain_subjects)
    others = ", ".join(f"{name} {value:g}" for name, value in paper.OTHERS.items())
    return ["OPTIMISTIC: best test accuracy over the epochs, test windows scaled by their own statistics, BatchNorm "
            "and dropout as in training, the last incomplete batch dropped. SVM and LDA have no epochs: of all that, "
            "only the scaling touches them." if evaluation.optimistic else
            "Statistics, training and epochs come from the training repetitions; every test window counts.",
            f"CNN-I learns from {pooled} subjects pooled (the recipe's pre-training subjects), "
            f"{evaluation.recipe.classify.epochs} epochs; seeds: {len(evaluation.seeds)}. SVM and LDA learn from at "
            "most 4000 windows a subject, evenly spread (windows overlap), with fixed constants (SVM: C = 10).",
            "The paper's classifiers learn from repetitions 1, 3, 4, 6 of DB2 and its figures come from the optimistic "
            "protocol. Accuracies on other recordings, with other movements and channels, do not compare with them.",
            f"Better accuracies published for DB2's 17 movements: {others} %."]


EXPERIMENT = Experiment(lambda evaluation: evaluation.fits(TITLES), result, papers_models)
