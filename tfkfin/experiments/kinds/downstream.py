"""Experiment 2 (Table 2, upper rows): classifiers on exact features, and the baseline that the field uses."""

from tfkfin.experiments import figures
from tfkfin.experiments.evaluation import Evaluation
from tfkfin.experiments.kinds import Experiment, papers_models
from tfkfin.experiments.paper import published
from tfkfin.experiments.report import Result, percent, text

TIME_DOMAIN = "MAV, WL, ZC, SSC, AR(4)"
TITLES = text("downstream.models")


def inputs(evaluation: Evaluation, model: str) -> str:
    return TIME_DOMAIN if model.startswith("td_") else ", ".join(evaluation.names)


def result(evaluation: Evaluation) -> Result:
    data = evaluation.by_group(TITLES)
    rows = [[title, inputs(evaluation, model), evaluation.groups[group][0], published.accuracy(model, group),
             percent(scores[model]["accuracy"]), percent(scores[model]["macro_f1"])]
            for group, scores in data.items() for model, title in TITLES.items()]
    table = evaluation.table("downstream.table", rows)
    titles = {model: f"{title}\n{inputs(evaluation, model)}" for model, title in TITLES.items()}
    plot = evaluation.plot(figures.models(titles, data, evaluation, "True features"), "downstream")
    trust = text("downstream.trust", pooled=len(evaluation.dataset.split.pretrain_subjects),
                 epochs=evaluation.recipe.classify.epochs, seeds=len(evaluation.seeds),
                 protocol=text("downstream.optimistic" if evaluation.optimistic else "downstream.honest"),
                 others=", ".join(f"{name} {value:g}" for name, value in published.OTHERS.items()))
    return Result("downstream", "2. Classifiers on exact features (paper's Table 2, upper rows)",
                  [_finding(list(data.values())[-1])], [table, plot], trust, {"groups": data})


def _finding(scores: dict) -> str:
    mean = {model: 100 * scores[model]["accuracy"]["mean"] for model in TITLES}
    own = max(("cnn1", "cnn2", "svm", "lda"), key=mean.get)
    field = max(("td_svm", "td_lda"), key=mean.get)
    return text("downstream.finding", own=TITLES[own], best=mean[own], field=TITLES[field], features=TIME_DOMAIN,
                usual=mean[field], difference=mean[field] - mean[own])


EXPERIMENT = Experiment(lambda evaluation: evaluation.fits(TITLES), result, papers_models)
