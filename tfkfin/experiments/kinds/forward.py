"""Experiment 5: deciding the movement 50 to 300 ms ahead.

`tfkfin.experiments.evaluation` defines the labels.
"""

from dataclasses import replace

import numpy as np

from tfkfin.experiments import figures
from tfkfin.experiments.evaluation import FULL, Evaluation, Fit, Setting, scores
from tfkfin.experiments.kinds import Experiment
from tfkfin.experiments.paper import published
from tfkfin.experiments.report import ReportTable, Result, over_subjects, percent, text

MODELS = {"fin": "LSTM-FIN+CNN-II", "cnn2": "CNN-II on exact features"}


def settings() -> list[Setting]:
    return [replace(FULL, horizon_ms=h) for h in published.HORIZONS_MS]


def ahead(now: dict[str, np.ndarray], then: dict[str, np.ndarray]) -> dict[str, float]:
    """Scores of a forecast from a fit's arrays (`then`) and those of the same model at horizon 0 (`now`).

    Returns:
        {"accuracy", "macro_f1", "changed": accuracy where the label changes, "changing": share of such windows,
         "unchanged": accuracy where it stays, "persistence": accuracy of the decisions of `now` as a forecast}; NaN
        where there is no such window.
    """
    right, changed = then["true"] == then["predicted"], then["own"] != then["true"]
    _, mine, its = np.intersect1d(then["start"], now["start"], return_indices=True)
    every = scores(then["true"], then["predicted"])
    return {"accuracy": every["accuracy"], "macro_f1": every["macro_f1"], "changing": float(np.mean(changed)),
            "changed": _mean(right[changed]), "unchanged": _mean(right[~changed]),
            "persistence": _mean(now["predicted"][its] == then["true"][mine])}


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def result(evaluation: Evaluation) -> Result:
    def scored(fit: Fit) -> dict[str, float]:
        return ahead(*(evaluation.ledger.arrays(one.key) for one in (replace(fit, setting=FULL), fit)))

    data = {group: {} for group in evaluation.groups}
    for setting in settings():
        found = {model: evaluation.values(model, setting, scored) for model in MODELS}
        for group, (_, subjects) in evaluation.groups.items():
            data[group][str(setting.horizon_ms)] = {
                model: {key: over_subjects({of: one[key] for of, one in values.items()}, subjects)
                        for key in next(iter(values.values()))} for model, values in found.items()}
    last = list(data.values())[-1]
    plot = evaluation.plot(figures.curves(_panels(evaluation, last)), "forward")
    trust = text("forward.trust", changing=changing(last), steering=evaluation.steering,
                 windows=text("forward.rest" if evaluation.recipe.window.rest else "forward.movements"))
    return Result("forward", "5. Forward in time (paper's experiment 5)", [_finding(last)],
                  [_table(evaluation, data), plot], trust, {"groups": data})


def _panels(evaluation: Evaluation, scores: dict) -> list[tuple]:
    """Curves of all windows and, where there are some at every horizon, of those whose label changes."""
    def curve(key: str, model: str = "fin") -> list[dict]:
        return [one[model][key] for one in scores.values()]

    x, titles = list(map(int, scores)), {model: evaluation.called(title) for model, title in MODELS.items()}
    panels = [("ms ahead, all windows", x, {**{title: curve("accuracy", model) for model, title in titles.items()},
                                            "present decision as forecast": curve("persistence")})]
    if all(np.isfinite(one["mean"]) for one in curve("changed")[1:]):
        panels.append(("ms ahead, windows whose label changes", x[1:],
                       {title: curve("changed", model)[1:] for model, title in titles.items()}))
    return panels


def _table(evaluation: Evaluation, data: dict) -> ReportTable:
    rows = []
    for group, by_horizon in data.items():
        for horizon, models in by_horizon.items():
            fin, true = models["fin"], models["cnn2"]
            printed = published.EXPERIMENT_5 if horizon != "0" else f"{published.accuracy('fin', group)} (Table 2)"
            rows.append([horizon, evaluation.groups[group][0], printed, percent(fin["accuracy"]),
                         percent(fin["macro_f1"]), f"{100 * fin['changing']['mean']:.1f}", percent(fin["changed"]),
                         percent(fin["persistence"]), percent(true["accuracy"]), percent(true["changed"])])
    return evaluation.table("forward.table", rows, model=evaluation.called(MODELS["fin"]))


def _finding(scores: dict) -> str:
    furthest = published.HORIZONS_MS[-1]
    first, last = ({key: 100 * one["mean"] for key, one in scores[str(h)]["fin"].items()} for h in (0, furthest))
    nothing = last["changed"] != last["changed"]
    return text("forward.finding", furthest=furthest, change=last["accuracy"] - first["accuracy"],
                changes="no window's label changes" if nothing else text("forward.changes", **last), **{
                    key: last[key] for key in ("accuracy", "persistence")})


def changing(scores: dict) -> str:
    """How much of the accuracy over all windows needs no forecast, from the scores by horizon."""
    furthest = str(published.HORIZONS_MS[-1])
    share, ignorant = (100 * scores[furthest]["fin"][key]["mean"] for key in ("changing", "persistence"))
    return text("forward.changing", share=share, furthest=furthest, ignorant=ignorant)


EXPERIMENT = Experiment(lambda evaluation: evaluation.fits(reversed(MODELS), settings()), result)
