"""Experiment 4: less data to learn from, by cutting every held movement short and by leaving repetitions out."""

from dataclasses import replace

from tfkfin.experiments import figures, paper, statistics
from tfkfin.experiments.cells import Cell, Setting
from tfkfin.experiments.decoders import Decoders
from tfkfin.experiments.lab import FULL, Lab, gather
from tfkfin.experiments.report import Figure, Section, Table, p_value, percent
from tfkfin.experiments.statistics import over_subjects

MODELS = {"fin": "LSTM-FIN+CNN-II", "cnn2": "CNN-II on true features"}


def settings(lab: Lab) -> dict[str, list[Setting]]:
    """What is varied: fractions at all repetitions, and 1, 2, ... repetitions at equal numbers of windows."""
    count = len(lab.dataset.split.train_repetitions)
    return {"fraction": [replace(FULL, fraction=f) for f in paper.FRACTIONS],
            "repetitions": [replace(FULL, repetitions=r) for r in range(1, count + 1)]}


def cells(lab: Lab) -> list[Cell]:
    varied = [setting for part in settings(lab).values() for setting in part]
    return [Cell(s, model, setting, seed) for s in lab.subjects for seed in lab.seeds for setting in varied
            for model in reversed(MODELS)]


def worker(lab: Lab, decoders: Decoders):
    return decoders.work


def section(lab: Lab, folder) -> Section:
    data, blocks, panels = {}, [], []
    last, labels = list(lab.groups)[-1], {"fraction": "% of each held movement", "repetitions": "repetitions"}
    for kind, varied in settings(lab).items():
        data[kind] = {group: {str(getattr(s, kind)): {m: _score(lab, m, s, subjects) for m in MODELS} for s in varied}
                      for group, (_, subjects) in lab.groups.items()}
        blocks.append(_table(lab, kind, labels[kind], data[kind]))
        lines = {title: [one[m] for one in data[kind][last].values()] for m, title in MODELS.items()}
        panels.append((labels[kind] + " learnt from", [getattr(s, kind) for s in varied], lines))
    path = figures.save(figures.curves(panels), folder / "plots" / "efficiency.png")
    blocks.append(Figure(path, f"Accuracy against the amount of data, mean ± sd over subjects. Data: {lab.on}. "
                         "Left: every held movement cut short. Right: repetitions at equal numbers of windows."))
    tests = {"100 % - 20 %": _ends(lab, "fraction"), "all repetitions - one": _ends(lab, "repetitions")}
    return Section("efficiency", "4. Data efficiency (paper's experiment 4)", [_finding(tests)], blocks, _trust(lab),
                   data | {"tests": tests})


def _accuracies(lab: Lab, model: str, setting: Setting, subjects) -> dict:
    return gather(lab, [Cell(s, model, setting, seed) for s in subjects for seed in lab.seeds])


def _score(lab: Lab, model: str, setting: Setting, subjects) -> dict:
    return over_subjects(_accuracies(lab, model, setting, subjects))


def _ends(lab: Lab, kind: str) -> dict:
    """The most against the least data, by subject."""
    varied = settings(lab)[kind]
    most, least = (statistics.by_subject(_accuracies(lab, "fin", s, lab.subjects)) for s in (varied[-1], varied[0]))
    return statistics.paired(most, least)


def _table(lab: Lab, kind: str, label: str, data: dict) -> Table:
    rows = []
    for group, scores in data.items():
        rows += [[""]] if rows else []
        for value, one in scores.items():
            printed = paper.EXPERIMENT_4 if kind == "fraction" else paper.MORE_REPETITIONS
            if kind == "fraction" and value == "100":
                printed = f"{paper.accuracy('fin', group)} (Table 2)"
            rows.append([value, lab.groups[group][0], printed, *(percent(one[m]) for m in MODELS)])
    what = {"fraction": "Accuracy % by share of each held movement learnt from",
            "repetitions": "Accuracy % by number of repetitions, at equal numbers of windows"}[kind]
    return Table(lab.titled(what), [label, "subjects", "paper: accuracy %", *(f"ours: {t}" for t in MODELS.values())],
                 rows, "Mean ± sd over subjects, seeds averaged first.")


def _finding(tests: dict) -> str:
    def said(test: dict) -> str:
        return f"{100 * test['mean']:+.1f} points (Wilcoxon over {test['pairs']} subjects p = {p_value(test['p'])})"

    first, second = tests.values()
    return (f"LSTM-FIN+CNN-II: five times as much of every held movement changes accuracy by {said(first)}; the same "
            f"number of windows from all repetitions rather than from one by {said(second)}.")


def _trust(lab: Lab) -> list[str]:
    repetitions = ", ".join(map(str, lab.dataset.split.train_repetitions))
    return ["A fraction is the first part, in time, of every held movement: windows drawn at random would overlap by "
            "up to 97 % with those left out, so 20 % of them would hold nearly every sample, and a flat curve would "
            "say nothing. How the paper drew its fraction it does not say. 100 % is the plain decoder of section 3.",
            "The classifier on true features learns from the same reduced windows. The number of updates is the same "
            "everywhere, so only the data differ. Standardisation and FIN pre-training are those of the whole recipe.",
            f"Repetitions are taken from {repetitions}, in an order that each seed rotates; with r of them, the first "
            "1/r of each held movement is learnt from, so that the number of windows is that of one whole repetition.",
            "OPTIMISTIC: test data choose the epoch and scale themselves (see section 2)." if lab.optimistic else
            "No test window steers anything."]
