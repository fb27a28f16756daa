"""Experiment 1 (Table 1): how well FINs imitate closed-form features on test repetitions."""

import numpy as np

from tfkfin.experiments import figures
from tfkfin.experiments.evaluation import Evaluation, Fit
from tfkfin.experiments.kinds import Experiment, papers_models
from tfkfin.experiments.paper import published
from tfkfin.experiments.report import Plot, ReportTable, Result, over_subjects, plus_minus, text
from tfkfin.fit import metrics

DIGITS = {"paper_r2": 3, "paper_map": 1, "r2": 4, "nrmse": 3, "spearman": 4}  # shown of each score
LOG_RANGE = 50  # 95 % of a feature's values span more than this factor: its axes are logarithmic


def work(estimators, fit: Fit) -> tuple[dict, dict]:
    """Scores of FINs on the test windows of a fit's subject."""
    evaluation = estimators.evaluation
    names, length = evaluation.names, evaluation.run.length
    test = evaluation.examples(fit, "test", most=evaluation.max_test_windows)
    chosen = np.arange(len(test.labels))
    parts = np.array_split(chosen, -(-len(chosen) // 64))
    imitated = np.concatenate([estimators.imitated(test.part.cut(length, part)) for part in parts])  # (N, C, F)
    energy = test.part.features(("VAR", "SSI"), length, evaluation.dataset.rate_hz)
    scores = {"features": scored(test.features, imitated, names), "windows": len(chosen),
              "optimistic": evaluation.optimistic, "channels": {
                  name: [metrics.r2(test.features[:, c, i], imitated[:, c, i]) for c in range(imitated.shape[1])]
                  for i, name in enumerate(names)}}
    return scores, {"true": test.features, "imitated": imitated, "var": energy[..., 0], "ssi": energy[..., 1]}


def scored(true: np.ndarray, imitated: np.ndarray, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """All scores by feature of (..., F) true and imitated features."""
    from scipy.stats import spearmanr

    scores = metrics.imitation(true, imitated, names)
    for i, name in enumerate(names):
        one, other = true[..., i].ravel(), imitated[..., i].ravel()
        constant = np.ptp(one) == 0 or np.ptp(other) == 0
        scores[name] |= {"nrmse": metrics.nrmse(one, other),
                         "spearman": float("nan") if constant else float(spearmanr(one, other).statistic)}
    return scores


def relation(var: np.ndarray, ssi: np.ndarray, length: int) -> dict[str, float]:
    """How closely SSI equals `length` x VAR over windows and channels."""
    var, ssi = var.ravel().astype(np.float64), ssi.ravel().astype(np.float64)
    kept = var > 0
    return {"length": length, "median_ratio": float(np.median(ssi[kept] / var[kept])),
            "correlation": float(np.corrcoef(var, ssi)[0, 1]), "r2_of_length_times_var": metrics.r2(ssi, length * var)}


def result(evaluation: Evaluation) -> Result:
    names, length, fits = evaluation.names, evaluation.run.length, evaluation.fits(["imitation"])
    kept, arrays = ([get(fit.key) for fit in fits] for get in (evaluation.ledger.get, evaluation.ledger.arrays))
    pooled = {name: np.concatenate([one[name] for one in arrays]) for name in ("true", "imitated", "var", "ssi")}
    every = scored(pooled["true"], pooled["imitated"], names)
    spread = {name: {score: over_subjects(evaluation.values(
        "imitation", key=lambda fit: evaluation.ledger.of(fit.key)["features"][name][score])) for score in DIGITS}
        for name in names}
    tied = relation(pooled["var"], pooled["ssi"], length)
    warning = text("imitation.related", **tied)
    if {"VAR", "SSI"} <= set(names):
        var, ssi = (pooled[k][..., names.index(n)] for k, n in (("imitated", "VAR"), ("true", "SSI")))
        tied["r2_of_length_times_imitated_var"] = metrics.r2(ssi, length * var)
        warning += text("imitation.twice", own=every["SSI"]["r2"], **tied)
    channels = {name: np.array([one["channels"][name] for one in kept]) for name in names}  # (S, C)
    by_subject = {f"S{s}": [f"{one['features'][n]['r2']:.4f}" for n in names]
                  for s, one in zip(evaluation.subjects, kept, strict=True)}
    by_channel = {str(c + 1): [plus_minus(float(r2[:, c].mean()), float(r2[:, c].std()), 4)
                               for r2 in channels.values()] for c in range(evaluation.dataset.channels)}
    blocks = [_table_1(evaluation, spread, every), *_plots(evaluation, pooled, every, channels),
              _by(evaluation, "subject", by_subject), _by(evaluation, "channel", by_channel)]
    windows, order = sum(one["windows"] for one in kept), sorted(names, key=lambda n: every[n]["r2"])
    best, worst = order[-1], order[0]
    return Result(
        "imitation", "1. Imitation of features (paper's Table 1)",
        [text("imitation.finding", windows=windows, subjects=len(kept), channels=evaluation.dataset.channels, best=best,
              highest=every[best]["r2"], worst=worst, lowest=every[worst]["r2"])], blocks, _trust(evaluation),
        {"pooled": every, "subjects": spread, "ssi_and_var": tied, "windows": windows,
         "channels": {n: v.tolist() for n, v in channels.items()}},
        [warning])


def _table_1(evaluation: Evaluation, spread: dict, every: dict) -> ReportTable:
    rows = []
    for name, own in spread.items():
        printed = published.TABLE_1.get(name)
        r2, share = (plus_minus(*printed[key], 2) if printed else published.ABSENT for key in ("r2", "map"))
        ours = {key: plus_minus(own[key]["mean"], own[key]["std"], digits) for key, digits in DIGITS.items()}
        rows.append([name, r2, ours["paper_r2"], share, ours["paper_map"], ours["r2"], f"{every[name]['r2']:.4f}",
                     ours["nrmse"], ours["spearman"]])
    return evaluation.table("imitation.table", rows)


def _by(evaluation: Evaluation, what: str, rows: dict[str, list[str]]) -> ReportTable:
    return evaluation.table(f"imitation.{what}", [[name, f"not by {what}", *row] for name, row in rows.items()],
                            [f"ours: {name}" for name in evaluation.names])


def _plots(evaluation: Evaluation, pooled: dict, every: dict, channels: dict) -> list[Plot]:
    names = evaluation.names
    true, imitated = (pooled[key].reshape(-1, len(names)) for key in ("true", "imitated"))
    low, high = np.percentile(true, [2.5, 97.5], axis=0)
    log = [lo > 0 and hi / lo > LOG_RANGE for lo, hi in zip(low, high, strict=True)]
    titles = [f"{name}   R² {every[name]['r2']:.4f}" for name in names]
    return [evaluation.plot(figures.imitation(true, imitated, names, titles, log), "imitation_features"),
            evaluation.plot(figures.channels(channels, evaluation.subjects), "imitation_channels"),
            evaluation.plot(figures.related(pooled["var"].ravel(), pooled["ssi"].ravel(), evaluation.run.length),
                            "imitation_ssi_var")]


def _trust(evaluation: Evaluation) -> list[str]:
    epochs, cap = evaluation.recipe.imitate.epochs, evaluation.max_test_windows
    most = "as many as they need" if epochs == "auto" else epochs
    return text("imitation.trust", how=text("imitation.trained" if epochs else "imitation.kept", epochs=most,
                                            start=evaluation.started),
                 count=f"at most {cap} test windows a subject, evenly spread" if cap else "every test window")


EXPERIMENT = Experiment(lambda evaluation: evaluation.fits(["imitation"]), result, papers_models, work)
