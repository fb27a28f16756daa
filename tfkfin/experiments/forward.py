"""Experiment 5: telling the movement some time ahead. The labels' rule is in `horizon`."""

from dataclasses import replace

import numpy as np

from tfkfin.experiments import figures, paper
from tfkfin.experiments.cells import Cell, Setting
from tfkfin.experiments.decoders import Decoders
from tfkfin.experiments.lab import FULL, Lab
from tfkfin.experiments.report import Figure, Section, Table, percent
from tfkfin.experiments.statistics import over_subjects, scores

MODELS = {"fin": "LSTM-FIN+CNN-II", "cnn2": "CNN-II on true features"}


def settings() -> list[Setting]:
    return [replace(FULL, horizon_ms=h) for h in paper.HORIZONS_MS]


def cells(lab: Lab) -> list[Cell]:
    return [Cell(s, model, setting, seed) for s in lab.subjects for seed in lab.seeds for setting in settings()
            for model in reversed(MODELS)]


def worker(lab: Lab, decoders: Decoders):
    return decoders.work


def ahead(now: dict[str, np.ndarray], then: dict[str, np.ndarray]) -> dict[str, float]:
    """Scores of a forecast from a cell's arrays (`then`) and those of the same model at horizon 0 (`now`).

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


def section(lab: Lab, folder) -> Section:
    data = {group: {str(s.horizon_ms): {m: _score(lab, m, s, subjects) for m in MODELS} for s in settings()}
            for group, (_, subjects) in lab.groups.items()}
    last = data[list(lab.groups)[-1]]
    x = [s.horizon_ms for s in settings()]

    def curve(key: str, horizons=x, model: str = "fin"):
        return [last[str(h)][model][key] for h in horizons]

    later = x[1:]
    panels = [("ms ahead, all windows", x, {
        MODELS["fin"]: curve("accuracy"), MODELS["cnn2"]: curve("accuracy", x, "cnn2"),
        "decoder of now, unshifted": curve("persistence")})]
    if all(np.isfinite(last[str(h)]["fin"]["changed"]["mean"]) for h in later):
        panels.append(("ms ahead, windows whose label changes", later,
                       {MODELS["fin"]: curve("changed", later), MODELS["cnn2"]: curve("changed", later, "cnn2")}))
    path = figures.save(figures.curves(panels), folder / "plots" / "forward.png")
    figure = Figure(path, f"Accuracy by horizon, mean and ± sd over subjects. Data: {lab.on}.")
    return Section("forward", "5. Forward in time (paper's experiment 5)", [_finding(last)],
                   [_table(lab, data), figure], _trust(lab, last), {"groups": data})


def _score(lab: Lab, model: str, setting: Setting, subjects) -> dict:
    found = {(s, seed): ahead(*(lab.book.arrays(Cell(s, model, one, seed)) for one in (FULL, setting)))
             for s in subjects for seed in lab.seeds}
    keys = next(iter(found.values()))
    return {key: over_subjects({cell: one[key] for cell, one in found.items()}) for key in keys}


def _table(lab: Lab, data: dict) -> Table:
    rows = []
    for group, by_horizon in data.items():
        rows += [[""]] if rows else []
        for horizon, models in by_horizon.items():
            fin, true = models["fin"], models["cnn2"]
            printed = paper.EXPERIMENT_5 if horizon != "0" else f"{paper.accuracy('fin', group)} (Table 2)"
            rows.append([horizon, lab.groups[group][0], printed, percent(fin["accuracy"]), percent(fin["macro_f1"]),
                         f"{100 * fin['changing']['mean']:.1f}", percent(fin["changed"]), percent(fin["persistence"]),
                         percent(true["accuracy"]), percent(true["changed"])])
    return Table(lab.titled("Accuracy % ahead of time"),
                 ["ms ahead", "subjects", "paper: accuracy %", "ours: all windows", "ours: macro-F1 %",
                  "ours: % of windows that change", "ours: those that change", "ours: decoder of now, unshifted",
                  "ours: CNN-II, all", "ours: CNN-II, changing"], rows,
                 "LSTM-FIN+CNN-II but for the last two columns. Mean ± sd over subjects, seeds averaged first. The "
                 "decoder of now answers for the present; its answer is counted as the forecast.")


def _finding(scores: dict) -> str:
    first, last = scores["0"]["fin"], scores[str(paper.HORIZONS_MS[-1])]["fin"]
    drop, changed = 100 * (first["accuracy"]["mean"] - last["accuracy"]["mean"]), last["changed"]["mean"]
    told = "no window's label changes" if changed != changed else \
        f"where the label changes it is right in {100 * changed:.1f} % of windows"
    return (f"From now to {paper.HORIZONS_MS[-1]} ms ahead accuracy over all windows changes by {-drop:+.1f} points "
            f"(paper: about 15 % on DB2). At {paper.HORIZONS_MS[-1]} ms {told}. Letting the decoder of now stand for "
            f"the forecast gives {100 * last['persistence']['mean']:.1f} % over all windows, the trained forecast "
            f"{100 * last['accuracy']['mean']:.1f} %.")


def changing(scores: dict) -> str:
    """How much accuracy over all windows says, from the scores by horizon."""
    furthest = str(paper.HORIZONS_MS[-1])
    last = scores[furthest]["fin"]
    share, ignorant = (100 * last[key]["mean"] for key in ("changing", "persistence"))
    return (f"The labels of {share:.1f} % of the windows change within {furthest} ms, and a decoder that ignores the "
            f"horizon is right on {ignorant:.1f} % of all: that much of accuracy over all windows is no foresight.")


def _trust(lab: Lab, scores: dict) -> list[str]:
    rest = "Windows of rest are classified too (window.rest)." if lab.recipe.window.rest else \
        "Windows are of movements alone, so what changes is a movement that ends; window.rest=true adds those of rest."
    return ["Label ahead = label of the sample at the window's last sample + horizon, in the same recording. Rest is a "
            "class there: movements are parted by rest, so without it no label would change. Windows are left out "
            "where that sample is beyond the recording or in a repetition of the other side of the split (rest belongs "
            "to the repetition before it), so that no sample and no target is shared by training and test.",
            rest, f"{changing(scores)} Read the windows that change. The authors' code shifts labels by windows "
            "along the joined list, across segments and recordings; so the figures are not of the same task.",
            "Horizon 0 is the plain decoder of section 3, without rest as a class.",
            "OPTIMISTIC: test data choose the epoch and scale themselves (see section 2)." if lab.optimistic else
            "No test window steers anything."]
