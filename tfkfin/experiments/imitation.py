"""Experiment 1 (Table 1): how well FINs imitate closed-form features on test repetitions."""

import numpy as np

from tfkfin.experiments import figures, paper, statistics
from tfkfin.experiments.cells import Cell
from tfkfin.experiments.decoders import Decoders
from tfkfin.experiments.lab import Lab
from tfkfin.experiments.report import Figure, Section, Table, plus_minus
from tfkfin.fit import metrics, training
from tfkfin.models import presets

SCORES = ("paper_r2", "paper_map", "r2", "nrmse", "spearman")
DIGITS = {"paper_map": 1, "r2": 4, "spearman": 4}
LOG_RANGE = 50  # 95 % of a feature's values span more than this factor: its axes are logarithmic


def cells(lab: Lab) -> list[Cell]:
    return [Cell(s, "imitation") for s in lab.subjects]


def worker(lab: Lab, decoders: Decoders):
    """What `Book.finish` calls: FINs on the test windows of a cell's subject."""
    found = {}

    def predictor() -> training.Predictor:
        if not found:
            options = lab.recipe.fin.model_copy(update={"pretrained": ""})
            bank = presets.new_bank(options, lab.names, lab.run.length, lab.dataset.channels)
            bank.load_weights(decoders.fins())
            found["predict"] = training.Predictor(bank)
        return found["predict"]

    def work(cell: Cell) -> tuple[dict, dict]:
        test = lab.examples(cell, "test", most=lab.max_test_windows)
        length, predict = lab.run.length, predictor()
        chosen = np.arange(len(test.labels))
        parts = np.array_split(chosen, -(-len(chosen) // 64))
        imitated = np.concatenate([predict(test.part.cut(length, part)) for part in parts])  # (N, C, F)
        energy = test.part.features(("VAR", "SSI"), length, lab.dataset.rate_hz)
        scores = {"features": scored(test.features, imitated, lab.names), "windows": len(chosen),
                  "optimistic": lab.optimistic, "channels": {
                      name: [metrics.r2(test.features[:, c, i], imitated[:, c, i])
                             for c in range(imitated.shape[1])] for i, name in enumerate(lab.names)}}
        return scores, {"true": test.features, "imitated": imitated, "var": energy[..., 0], "ssi": energy[..., 1]}

    return work


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
    """How nearly SSI is `length` x VAR over windows and channels."""
    var, ssi = var.ravel().astype(np.float64), ssi.ravel().astype(np.float64)
    kept = var > 0
    return {"length": length, "median_ratio": float(np.median(ssi[kept] / var[kept])),
            "correlation": float(np.corrcoef(var, ssi)[0, 1]), "r2_of_length_times_var": metrics.r2(ssi, length * var)}


def section(lab: Lab, folder) -> Section:
    kept = [(lab.book.get(cell), lab.book.arrays(cell)) for cell in cells(lab)]
    pooled = {name: np.concatenate([arrays[name] for _, arrays in kept]) for name in ("true", "imitated", "var", "ssi")}
    every = scored(pooled["true"], pooled["imitated"], lab.names)
    spread = {name: {score: statistics.over_subjects({(s, None): one["features"][name][score] for s, (one, _)
                                                      in zip(lab.subjects, kept, strict=True)}) for score in SCORES}
              for name in lab.names}
    tied = relation(pooled["var"], pooled["ssi"], lab.run.length)
    if {"VAR", "SSI"} <= set(lab.names):
        var, ssi = (pooled[k][..., lab.names.index(n)] for k, n in (("imitated", "VAR"), ("true", "SSI")))
        tied["r2_of_length_times_imitated_var"] = metrics.r2(ssi, lab.run.length * var)
    channels = {name: np.array([one["channels"][name] for one, _ in kept]) for name in lab.names}
    blocks = [_table_1(lab, spread, every), *_plots(lab, folder, pooled, every, channels),
              _by_subject(lab, kept), _by_channel(lab, channels)]
    windows = sum(one["windows"] for one, _ in kept)
    best = max(every, key=lambda n: every[n]["r2"])
    worst = min(every, key=lambda n: every[n]["r2"])
    return Section(
        "imitation", "1. Imitation of features (paper's Table 1)",
        [f"On {windows} windows of {len(kept)} subjects, each with {lab.dataset.channels} channels, the FINs' true R² "
         f"is highest for {best} ({every[best]['r2']:.4f}) and lowest for {worst} ({every[worst]['r2']:.3f})."],
        blocks, _trust(lab), {"pooled": every, "subjects": spread, "ssi_and_var": tied, "windows": windows,
                              "channels": {n: v.tolist() for n, v in channels.items()}},
        [_warning(tied, every.get("SSI", {}).get("r2", float("nan")))])


def _table_1(lab: Lab, spread: dict, every: dict) -> Table:
    rows = []
    for name in lab.names:
        printed, own = paper.TABLE_1.get(name), spread[name]
        theirs = [plus_minus(*printed[key], 2) if printed else paper.ABSENT for key in ("r2", "map")]
        ours = {key: plus_minus(own[key]["mean"], own[key]["std"], DIGITS.get(key, 3)) for key in SCORES}
        rows.append([name, theirs[0], ours["paper_r2"], theirs[1], ours["paper_map"], ours["r2"],
                     f"{every[name]['r2']:.4f}", ours["nrmse"], ours["spearman"]])
    return Table(lab.titled("Imitation on test repetitions"),
                 ["feature", "paper: R²", "ours: paper_r2", "paper: MAP %", "ours: paper_map %", "ours: true R²",
                  "ours: true R², pooled", "ours: nRMSE", "ours: Spearman"], rows,
                 "Ours: mean ± sd over subjects; pooled: all windows of all subjects together. paper_r2 and paper_map "
                 "are the clipped ratios that the authors' code averages and their Table 1 calls R² and MAP; the "
                 "paper's ± is over windows.")


def _plots(lab: Lab, folder, pooled: dict, every: dict, channels: dict) -> list[Figure]:
    flat = {key: pooled[key].reshape(-1, len(lab.names)) for key in ("true", "imitated")}
    low, high = np.percentile(flat["true"], [2.5, 97.5], axis=0)
    log = [lo > 0 and hi / lo > LOG_RANGE for lo, hi in zip(low, high, strict=True)]
    titles = [f"{name}   R² {every[name]['r2']:.4f}" for name in lab.names]
    made = ((figures.imitation(flat["true"], flat["imitated"], lab.names, titles, log), "imitation_features",
             "Imitated against true features, and residuals, of test windows (one point a window and channel)"),
            (figures.channels(channels, lab.subjects), "imitation_channels", "True R² by subject and channel"),
            (figures.related(pooled["var"].ravel(), pooled["ssi"].ravel(), lab.run.length), "imitation_ssi_var",
             "SSI and VAR of the same windows"))
    return [Figure(figures.save(figure, folder / "plots" / f"{name}.png"), f"{caption}. Data: {lab.on}.")
            for figure, name, caption in made]


def _by_subject(lab: Lab, kept: list) -> Table:
    rows = [[f"S{s}", "not by subject", *(f"{one['features'][n]['r2']:.4f}" for n in lab.names)]
            for s, (one, _) in zip(lab.subjects, kept, strict=True)]
    return Table(lab.titled("True R² by subject, channels pooled"),
                 ["subject", "paper", *(f"ours: {n}" for n in lab.names)], rows)


def _by_channel(lab: Lab, channels: dict) -> Table:
    rows = [[str(c + 1), "not by channel", *(plus_minus(float(r2[:, c].mean()), float(r2[:, c].std()), 4)
                                             for r2 in channels.values())] for c in range(lab.dataset.channels)]
    return Table(lab.titled("True R² by channel, mean ± sd over subjects"),
                 ["channel", "paper", *(f"ours: {n}" for n in lab.names)], rows)


def _warning(tied: dict, own: float) -> str:
    twice = ""
    if "r2_of_length_times_imitated_var" in tied:
        twice = (f" {tied['length']} times the VAR that its FIN imitates gives SSI with R² "
                 f"{tied['r2_of_length_times_imitated_var']:.3f}; SSI's own FIN gives {own:.3f}.")
    return (f"SSI and VAR are nearly one feature: SSI = {tied['length']} (VAR + mean²) for windows of {tied['length']} "
            f"samples, and the mean of surface EMG is nearly 0. Here the median SSI / VAR is "
            f"{tied['median_ratio']:.1f}, their correlation {tied['correlation']:.5f}, and {tied['length']} VAR "
            f"explains SSI with R² {tied['r2_of_length_times_var']:.5f} (the authors' own z-score constants: 606.243 / "
            f"1.00697 = 602). After z-scoring they carry the same information.{twice}")


def _trust(lab: Lab) -> list[str]:
    count = f"at most {lab.max_test_windows} test windows a subject, evenly spread" if lab.max_test_windows else \
        "every test window"
    start = f"the pretrained ones ({lab.recipe.fin.pretrained})" if lab.recipe.fin.pretrained else "random weights"
    epochs = lab.recipe.imitate.epochs
    how = f"start from {start} and learn in the stage imitate of this recipe (at most {epochs} epochs, one seed)" if \
        epochs else f"are {start} as they are"
    return [f"Test repetitions only, {count}. The FINs {how}.",
            "Read the true R². The paper's R² clips every window's error at 0, so one bad window costs at most 1/N, "
            "and divides by that window's own distance from the mean; a low paper_r2 can go with a high true R².",
            "True R² weighs large values: a few strong windows decide it for VAR and SSI. Spearman does not."]
