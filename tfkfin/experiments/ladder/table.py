"""The ladder's numbers: three of every row and rung, window by window and after one common smoothing, with tests."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tfkfin.base.console import format_numbers
from tfkfin.decoder.decision import Decision, Smoothed
from tfkfin.experiments import figures
from tfkfin.experiments.evaluation import Evaluation
from tfkfin.experiments.ladder.adapter import Answers, Model
from tfkfin.experiments.ladder.rows import RECOMMENDED, ROWS, DecoderRow, settings, updates
from tfkfin.experiments.ladder.rungs import LEAKS, RUNGS, Group, Trial
from tfkfin.experiments.ladder.windows import MIXED, content
from tfkfin.experiments.report import Plot, ReportTable, Result, p_value
from tfkfin.experiments.statistics import holm, paired
from tfkfin.experiments.texts import text, texts
from tfkfin.fit import metrics
from tfkfin.recipe import Recipe

NUMBERS = {"window": "Accuracy a window, %", "execution": "Accuracy an execution, %",
           "false_per_minute": "False activations a minute of rest"}
WAYS = {"rungs": "each window decided by itself", "smoothed": "every row's decisions smoothed alike"}
Scores = dict[str, dict[int, dict[str, dict]]]  # row -> person -> rungs
COLUMNS = ("true", "decided", "segment", "smoothed")  # of the decisions that are kept

# === Scores of one row and person ===


def scored(model: Model, groups: Iterable[Group], recipe: Recipe, rest: bool, stride_s: float) -> tuple[dict, dict]:
    """The three numbers of a model on every rung, both ways, and the decisions behind them: COLUMNS (4, N) each.

    Args:
        rest: whether rest is decided.
        stride_s: seconds between windows.
    """
    kept: dict[str, list[np.ndarray]] = {}
    for group in groups:
        for trial, answers in model.decide(group):
            before = kept.setdefault(trial.rung, [])
            before.append(decisions(trial, answers, recipe.classifier.reject, 1_000_000 * len(before)))
    arrays = {rung: np.concatenate(parts, axis=1).astype(np.int64) for rung, parts in kept.items()}
    numbers = {way: {rung: _numbers(true, decided if way == "rungs" else smoothed, segments, rest, stride_s)
                     for rung, (true, decided, segments, smoothed) in arrays.items()} for way in WAYS}
    return numbers, arrays


def decisions(trial: Trial, answers: list[Answers], reject: float, offset: int = 0) -> np.ndarray:
    """COLUMNS (4, N) of a trial's windows that are scored; `offset` is added to the numbers of segments."""
    smooth, found = None, []
    for i, (recording, one) in enumerate(zip(trial.stream.recordings, answers, strict=True)):
        inside = content(recording, one.begins, one.ends)
        smooth = smooth or Smoothed(len(one.movements))
        smoothed, _ = Decision(1, reject)(smooth(one.probabilities), one.movements)
        at = (inside.labels != MIXED) & np.isin(inside.repetitions, trial.tested)
        if trial.drawn:
            drawn = trial.drawn[i][:len(at)]
            at &= np.pad(~drawn, (0, len(at) - len(drawn)))
        segments = inside.segments + offset
        offset += int(inside.segments.max(initial=-1)) + 1
        found.append(np.stack([inside.labels, one.labels, segments, smoothed])[:, at])
    return np.concatenate(found, axis=1) if found else np.empty((4, 0), np.int64)


def _numbers(true: np.ndarray, decided: np.ndarray, segments: np.ndarray, rest: bool, stride_s: float) -> dict:
    return {"window": metrics.window_accuracy(true, decided),
            "execution": metrics.execution_accuracy(true, decided, segments),
            "false_per_minute": metrics.false_activations(true, decided, stride_s) if rest else None}


# === The tables ===


def over_people(scores: Scores, rungs: list[str], seed: int) -> dict:
    """{rung: {row: {number: as of `metrics.over_people`}}}."""
    return {rung: {name: {number: metrics.over_people(
        {s: one[rung][number] for s, one in people.items() if rung in one}, seed) for number in NUMBERS}
        for name, people in scores.items()} for rung in rungs}


def result(evaluation: Evaluation, folder: Path, kept: dict[str, dict[int, dict]]) -> Result:
    """What came out, of the numbers that were kept: row -> person -> {way: rungs}."""
    reference = RECOMMENDED if RECOMMENDED in kept else next(iter(kept))
    ways, blocks = {}, []
    for way, said in WAYS.items():
        scores = {name: {s: one[way] for s, one in people.items()} for name, people in kept.items()}
        there = [rung for rung in RUNGS if any(rung in one for one in scores[reference].values())]
        rungs = ways[way] = over_people(scores, there, evaluation.recipe.seed)
        blocks += [_table(evaluation, number, f"{title}, {said}", rungs) for number, title in NUMBERS.items()
                   if any(one[number]["mean"] is not None for models in rungs.values() for one in models.values())]
        if way == "rungs":
            few = len(evaluation.subjects) < 6
            blocks += [_people(evaluation, rungs)] if few else [_tests(evaluation, scores, there, reference)]
            blocks.append(_plot(evaluation, folder, rungs))
    top = ways | {"recommended": RECOMMENDED, "rows": {name: about(name, evaluation.recipe) for name in kept},
                  "note": evaluation.recipe.source.note}
    return Result("ladder", "Ladder: what holds tomorrow, and on another person", _findings(ways["rungs"], reference),
                  blocks, _trust(evaluation, kept), dict(ways), top=top)


def about(name: str, recipe: Recipe) -> dict:
    """How a row is made, for results.json; a decoder's `preset` and `settings` are those of `Decoder.from_preset`."""
    row = ROWS[name]
    if not isinstance(row, DecoderRow):
        return {"title": row.title}
    found = {"title": row.title, "preset": row.preset, "settings": settings(row, recipe), "adapts": row.adapts}
    return found | ({"updates": updates(recipe)} if row.trained else {})


def titled(rung: str) -> str:
    return f"{rung} (leaks)" if rung in LEAKS else rung


def shown(one: dict, number: str) -> str:
    factor = 1 if number == "false_per_minute" else 100
    if one["mean"] is None:
        return "–"
    between = f" ({factor * one['low']:.1f}–{factor * one['high']:.1f})" if one["low"] is not None else ""
    return f"{factor * one['mean']:.1f}{between}"


def _table(evaluation: Evaluation, number: str, title: str, rungs: dict) -> ReportTable:
    names = next(iter(rungs.values()))
    rows = [[ROWS[name].title, *(shown(models[name][number], number) for models in rungs.values())] for name in names]
    return ReportTable(f"{title} ({evaluation.on})", ["row", *map(titled, rungs)], rows, text("ladder.note"),
                       papers=False)


def _plot(evaluation: Evaluation, folder: Path, rungs: dict) -> Plot:
    figure = figures.ladder({ROWS[name].title: [100 * (models[name]["window"]["mean"] or np.nan)
                                                for models in rungs.values()] for name in next(iter(rungs.values()))},
                            [titled(rung) for rung in rungs], evaluation.on)
    return figures.save(figure, folder, "ladder", f"Accuracy a window by rung. Data: {evaluation.on}.")


def _people(evaluation: Evaluation, rungs: dict) -> ReportTable:
    rows = [[titled(rung), ROWS[name].title, *(
        f"{100 * v:.1f}" if (v := one["window"]["per_subject"].get(str(s))) is not None else "–"
        for s in evaluation.subjects)] for rung, models in rungs.items() for name, one in models.items()]
    return ReportTable(f"Every person's accuracy a window, % ({evaluation.on})",
                       ["rung", "row", *(f"S{s}" for s in evaluation.subjects)], rows, papers=False)


def _tests(evaluation: Evaluation, scores: Scores, there: list[str], reference: str) -> ReportTable:
    """The reference against the other rows, over people, corrected for how many tests there are."""
    found = []
    for rung in there:
        own, *others = ({s: one[rung]["window"] for s, one in scores[name].items() if rung in one}
                        for name in (reference, *(name for name in scores if name != reference)))
        found += [(rung, name, paired(own, other)) for name, other in zip(
            (name for name in scores if name != reference), others, strict=True)]
    corrected = holm([test["p"] for *_, test in found])
    rows = [[titled(rung), ROWS[name].title, f"{100 * test['mean']:+.1f}", f"{test['wins']} of {test['pairs']}",
             p_value(p)] for (rung, name, test), p in zip(found, corrected, strict=True)]
    return ReportTable(f"{ROWS[reference].title} against the others, accuracy a window ({evaluation.on})",
                       ["rung", "row", "difference, points", "people better", "p"], rows,
                       text("ladder.tests", tests=len(rows)), papers=False)


def _findings(rungs: dict, reference: str) -> list[str]:
    found = []
    for rung, models in rungs.items():
        if rung not in LEAKS:
            best = max(models, key=lambda name: models[name]["window"]["mean"] or 0.0)
            other = "" if best == reference else f" ({ROWS[best].title}: {100 * models[best]['window']['mean']:.1f})"
            found.append(f"{rung} {shown(models[reference]['window'], 'window').partition(' ')[0]}{other}")
    return [text("ladder.finding", row=reference, found="; ".join(found))]


def _trust(evaluation: Evaluation, kept: dict[str, dict]) -> list[str]:
    recipe, split = evaluation.recipe, evaluation.dataset.split
    reject, note = recipe.classifier.reject, recipe.source.note
    lines = texts(
        "ladder.trust",
        split=text("ladder.sessions", train=format_numbers(split.train_sessions),
                   test=format_numbers(split.test_sessions)) if split.between_sessions else text("ladder.repetitions"),
        rejected=text("ladder.rejected", reject=reject) if reject else text("ladder.none_rejected"),
        rest=text("ladder.rest" if recipe.window.rest else "ladder.no_rest"))
    if any(isinstance(row := ROWS[name], DecoderRow) and row.trained for name in kept):
        lines.append(text("ladder.trained", updates=updates(recipe), batch=recipe.finetune.batch_size))
    return lines + ([text("ladder.about", note=note)] if note else [])
