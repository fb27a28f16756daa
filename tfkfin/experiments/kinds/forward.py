"""Experiment 5: telling the movement 50 to 300 ms ahead.

The labels' rule is in `horizon`.
"""

from dataclasses import replace

import numpy as np

from tfkfin.experiments import figures, paper
from tfkfin.experiments.evaluation import FULL, Evaluation
from tfkfin.experiments.fits import Fit, Setting
from tfkfin.experiments.kinds import Experiment
from tfkfin.experiments.report import Result, Table, percent
from tfkfin.experiments.statistics import over_subjects, scores

MODELS = {"fin": "LSTM-FIN+CNN-II", "cnn2": "CNN-II on true features"}


def settings() -> list[Setting]:
    return [replace(FULL, horizon_ms=h) for h in paper.HORIZONS_MS]


def ahead(now: dict[str, np.ndarray], then: dict[str, np.ndarray]) -> dict[str, float]:
    """Scores of a forecast from a fit's arrays (`then`) and those of the same model at horizon 0 (`now`).

    Returns:
        {"accuracy", "macro_f1", "changed": accuracy where the label changes, "changing": share of such windows,
         "unchanged": accuracy where it stays, "persistence": accuracy of the model of now as a forecast}; NaN where
        there is no such window.
    """
    right, changed = then["true"] == then["predicted"], then["own"] != then["true"]
    _, mine, its = np.intersect1d(then["start"], now["start"], return_indices=True)
    told = scores(then["true"], then["predicted"])
    return {"accuracy": told["accuracy"], "macro_f1": told["macro_f1"], "changing": float(np.mean(changed)),
            "changed": _mean(right[changed]), "unchanged": _mean(right[~changed]),
            "persistence": _mean(now["predicted"][its] == then["true"][mine])}


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def result(evaluation: Evaluation, folder) -> Result:
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
    plot = figures.save(figures.curves(_panels(evaluation, last)), folder, "forward",
                        f"Accuracy by horizon, mean and ± sd over subjects. Data: {evaluation.on}.")
    return Result("forward", "5. Forward in time (paper's experiment 5)", [_finding(last)],
                  [_table(evaluation, data), plot], _trust(evaluation, last), {"groups": data})


def _panels(evaluation: Evaluation, scores: dict) -> list[tuple]:
    """Curves of all windows and, where there are some at every horizon, of those whose label changes."""
    def curve(key: str, model: str = "fin") -> list[dict]:
        return [one[model][key] for one in scores.values()]

    x, titles = list(map(int, scores)), {model: evaluation.called(title) for model, title in MODELS.items()}
    panels = [("ms ahead, all windows", x, {**{title: curve("accuracy", model) for model, title in titles.items()},
                                            "decoder of now, unshifted": curve("persistence")})]
    if all(np.isfinite(one["mean"]) for one in curve("changed")[1:]):
        panels.append(("ms ahead, windows whose label changes", x[1:],
                       {title: curve("changed", model)[1:] for model, title in titles.items()}))
    return panels


def _table(evaluation: Evaluation, data: dict) -> Table:
    rows = []
    for group, by_horizon in data.items():
        for horizon, models in by_horizon.items():
            fin, true = models["fin"], models["cnn2"]
            printed = paper.EXPERIMENT_5 if horizon != "0" else f"{paper.accuracy('fin', group)} (Table 2)"
            rows.append([horizon, evaluation.groups[group][0], printed, percent(fin["accuracy"]),
                         percent(fin["macro_f1"]), f"{100 * fin['changing']['mean']:.1f}", percent(fin["changed"]),
                         percent(fin["persistence"]), percent(true["accuracy"]), percent(true["changed"])])
    return Table(evaluation.titled("Accuracy % ahead of time"),
                 ["ms ahead", "subjects", "paper: accuracy %", "ours: all windows", "ours: macro-F1 %",
                  "ours: % of windows that change", "ours: those that change", "ours: decoder of now, unshifted",
                  "ours: CNN-II, all", "ours: CNN-II, changing"], rows,
                 f"{evaluation.called(MODELS['fin'])} but for the last two columns. Mean ± sd over subjects, seeds "
                 "averaged first. The "
                 "decoder of now answers for the present; its answer is counted as the forecast.")


def _finding(scores: dict) -> str:
    furthest = paper.HORIZONS_MS[-1]
    first, last = scores["0"]["fin"], scores[str(furthest)]["fin"]
    drop, changed = 100 * (first["accuracy"]["mean"] - last["accuracy"]["mean"]), last["changed"]["mean"]
    told = "no window's label changes" if changed != changed else \
        f"where the label changes it is right in {100 * changed:.1f} % of windows"
    return (f"From now to {furthest} ms ahead accuracy over all windows changes by {-drop:+.1f} points (paper: about "
            f"15 % on DB2). At {furthest} ms {told}. Letting the decoder of now stand for the forecast gives "
            f"{100 * last['persistence']['mean']:.1f} % over all windows, the trained forecast "
            f"{100 * last['accuracy']['mean']:.1f} %.")


def changing(scores: dict) -> str:
    """How much accuracy over all windows says, from the scores by horizon."""
    furthest = str(paper.HORIZONS_MS[-1])
    share, ignorant = (100 * scores[furthest]["fin"][key]["mean"] for key in ("changing", "persistence"))
    return (f"The labels of {share:.1f} % of the windows change within {furthest} ms, and a decoder that ignores the "
            f"horizon is right on {ignorant:.1f} % of all: that much of accuracy over all windows is no foresight.")


def _trust(evaluation: Evaluation, scores: dict) -> list[str]:
    rest = "Windows of rest are classified too (window.rest)." if evaluation.recipe.window.rest else \
        "Windows are of movements alone, so what changes is a movement that ends; window.rest=true adds those of rest."
    return ["Label ahead = label of the sample at the window's last sample + horizon, in the same recording. Rest is a "
            "class there: movements are parted by rest, so without it no label would change. Windows are left out "
            "where that sample is beyond the recording or in a repetition of the other side of the split (rest belongs "
            "to the repetition before it), so that no sample and no target is shared by training and test.",
            rest, f"{changing(scores)} Read the windows that change. The authors' code shifts labels by windows "
            "along the joined list, across segments and recordings; so the figures are not of the same task.",
            "Horizon 0 is the plain decoder of section 3, without rest as a class.", evaluation.steering]


EXPERIMENT = Experiment(lambda evaluation: evaluation.fits(reversed(MODELS), settings()), result)
