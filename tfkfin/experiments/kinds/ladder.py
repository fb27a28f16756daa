"""Ladder: how decoders hold from repetition to repetition, day to day, person to person; three numbers each."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

import numpy as np

from tfkfin.base.console import format_numbers, log
from tfkfin.base.errors import InputError
from tfkfin.decoder.decision import Decision, Smoothed
from tfkfin.experiments import figures
from tfkfin.experiments.evaluation import Evaluation, Fit
from tfkfin.experiments.kinds import Experiment
from tfkfin.experiments.ladder import rows, rungs
from tfkfin.experiments.ladder.rows import RECOMMENDED, ROWS, Answers, BaselineRow, DecoderRow
from tfkfin.experiments.ladder.rungs import LEAKS, MIXED, RUNGS, Trial, content
from tfkfin.experiments.report import Plot, ReportTable, Result, holm, least_p, p_value, paired, text
from tfkfin.fit import metrics
from tfkfin.recipe import Recipe
from tfkfin.recordings import readers
from tfkfin.recordings.recording import digests

SECONDS = {"baseline": 0.2, "decoder": 0.5, "adapts": 1.0}  # of one core, that a minute of signal takes to be decided
UPDATE, FIT = 0.3, 3.0  # seconds of an update by gradients, and of making a decoder
NUMBERS, WAYS = text("ladder.three"), text("ladder.ways")
COLUMNS = ("true", "decided", "segment", "smoothed")  # of the decisions that are kept


class People:
    """The sessions of everybody in a run, read once, and the groups of the person that is worked on."""

    def __init__(self, evaluation: Evaluation, kind: str = "ladder"):
        self.recipe, self.dataset = evaluation.recipe, evaluation.dataset
        self.rest, self.person, self._groups = self.recipe.window.rest, 0, []
        split, files = self.dataset.split, self.dataset.files
        log.info("%s: reading %d people", kind, len(split.subjects))
        self.sessions = {person: rungs.sessions(person, map(readers.read, files[person]), split.repetitions_per_session)
                         for person in split.subjects}
        for person, parts in self.sessions.items() if (learnt := evaluation.run.learnt_from) else ():
            if any(learnt & set(digests(one).values()) for part in parts for one in part.recordings):
                raise InputError(f"labels of subject {person}, who is tested as a new person here, taught the FINs: "
                                 "choose other --subjects, or start from other FINs (fin.pretrained)")
        names = [name for name in self.chosen(evaluation)
                 if evaluation.ledger.get(Fit(split.subjects[0], f"{kind}-{name}").key) is None]
        seconds = {name: self.seconds(name) for name in names}
        trained = sum(took for name, took in seconds.items() if getattr(ROWS[name], "trained", False))
        log.info("%s: about %.0f minutes of one core for %d rows, %.0f of them for rows that are trained by "
                 "gradients; --rows chooses rows", kind, sum(seconds.values()) / 60, len(names), trained / 60)

    def chosen(self, evaluation: Evaluation) -> Sequence[str]:
        """The rows that are worked on."""
        return rows.chosen(evaluation.rows)

    def seconds(self, name: str) -> float:
        """About how long a row takes for everybody, on one core."""
        row, people = ROWS[name], self.sessions.values()
        streams = sum(6 * sum(len(one.emg) / one.rate_hz for one in part.recordings) / 60
                      for parts in people for part in parts)  # of a session and of a person: 0, 0u and 1
        if isinstance(row, BaselineRow):
            return streams * SECONDS["baseline"]
        few = sum(4 * min(rungs.FEW, len(parts)) + 2 for parts in people)  # groups, each fitted anew
        made = few + sum(4 * len(parts) for parts in people)  # and calibrations
        if row.trained:
            made *= 1 + UPDATE / FIT * rows.updates(self.recipe)
        return streams * SECONDS["adapts" if row.adapts else "decoder"] + made * FIT

    def groups(self, person: int) -> Iterable[rungs.Group]:
        """The same objects for every row: what is computed of them is kept."""
        if person != self.person:
            for session in self.sessions.get(self.person, ()):
                session.forget_streams()
            self.person, self._groups = person, list(rungs.groups(
                self.sessions, self.dataset.split, self.recipe.window, self.recipe.seed, (person,)))
        return self._groups


people = cache(People)


def check(recipe: Recipe) -> None:
    """Each row has a head of its own, and decides window by window."""
    options = recipe.classifier
    if options.kind != "conv" or options.describe != ("correlations",):
        raise InputError("the ladder's rows have heads and descriptions of their own: take --pipeline ladder, or --set "
                         "classifier.kind=conv --set classifier.describe=correlations")
    if options.vote != 1:
        raise InputError("the ladder decides window by window, and smooths every row alike beside that: set "
                         "classifier.vote=1")


def fits(evaluation: Evaluation) -> list[Fit]:
    return [Fit(person, f"ladder-{name}") for person in evaluation.subjects for name in rows.chosen(evaluation.rows)]


def work(estimators, fit: Fit) -> tuple[dict, dict]:
    there = people(estimators.evaluation)
    return scored(rows.model(ROWS[fit.model.removeprefix("ladder-")], there.recipe).decide, there, fit.subject)


# === Scores of one row and person ===


def scored(decide: Callable, there: People, person: int) -> tuple[dict, dict]:
    """Three numbers of a person on every rung, both ways, and the decisions behind them: COLUMNS (4, N).

    `decide`: a group -> its trials one after another, each with answers for its recordings.
    """
    kept: dict[str, list[np.ndarray]] = {}
    for group in there.groups(person):
        for trial, answers in decide(group):
            before = kept.setdefault(trial.rung, [])
            before.append(decisions(trial, answers, there.recipe.classifier.reject, 1_000_000 * len(before)))
    arrays = {rung: np.concatenate(parts, axis=1).astype(np.int64) for rung, parts in kept.items()}
    stride_s, numbers = there.recipe.window.stride_ms / 1000, {way: {} for way in WAYS}
    for rung, (true, decided, segments, smoothed) in arrays.items():
        for way, labels in zip(WAYS, (decided, smoothed), strict=True):
            numbers[way][rung] = {
                "window": metrics.window_accuracy(true, labels),
                "execution": metrics.execution_accuracy(true, labels, segments),
                "false_per_minute": metrics.false_activations(true, labels, stride_s) if there.rest else None}
    return numbers, arrays


def decisions(trial: Trial, answers: list[Answers], reject: float, offset: int = 0) -> np.ndarray:
    """COLUMNS (4, N) of a trial's windows that are scored; `offset` is added to the numbers of segments."""
    smooth, found = None, []
    for i, (recording, one) in enumerate(zip(trial.stream.recordings, answers, strict=True)):
        inside = content(recording, one.begins, one.ends)
        smooth = smooth or Smoothed(len(one.movements))
        smoothed, _ = Decision(1, reject)(smooth(one.probabilities), one.movements)
        at = (inside.movements != MIXED) & np.isin(inside.repetitions, trial.tested)
        if trial.drawn:
            drawn = trial.drawn[i][:len(at)]
            at &= np.pad(~drawn, (0, len(at) - len(drawn)))
        segments = inside.segments + offset
        offset += int(inside.segments.max(initial=-1)) + 1
        found.append(np.stack([inside.movements, one.labels, segments, smoothed])[:, at])
    return np.concatenate(found, axis=1) if found else np.empty((4, 0), np.int64)


# === What a report shows; `titles` of rows, as {name: title} ===


def finished(evaluation: Evaluation, kind: str) -> dict[str, dict[int, dict]]:
    """Row -> person -> scores, of the rows that are there for all people; `kind`: the experiment."""
    return {name: found for name in rows.available() if all(
        (found := {s: evaluation.ledger.get(Fit(s, f"{kind}-{name}").key) for s in evaluation.subjects}).values())}


def result(evaluation: Evaluation) -> Result:
    """Of every row that is there for all people, by whichever command."""
    kept = finished(evaluation, "ladder")
    reference, recipe = RECOMMENDED if RECOMMENDED in kept else next(iter(kept)), evaluation.recipe
    titles, ways, blocks = {name: ROWS[name].title for name in kept}, {}, []
    there = [rung for rung in RUNGS if any(rung in one["rungs"] for one in kept[reference].values())]
    for way, said in WAYS.items():
        found = ways[way] = {rung: {name: {number: metrics.over_people(
            {s: one[way][rung][number] for s, one in scores.items() if rung in one[way]}, recipe.seed)
            for number in NUMBERS} for name, scores in kept.items()} for rung in there}
        blocks += number_tables(evaluation, "ladder", found, titles, said)
        if way == "rungs":
            blocks += [people_table(evaluation, "ladder", found, titles) if len(evaluation.subjects) < 6 else
                       tests_table(evaluation, "ladder", tested(found, reference), titles, reference),
                       plot(evaluation, "ladder", found, titles)]
    top = ways | {"recommended": RECOMMENDED, "rows": {name: about(name, recipe) for name in kept},
                  "note": recipe.source.note}
    return Result("ladder", "Ladder: what holds tomorrow, and on another person", _findings(ways["rungs"], reference),
                  blocks, _trust(evaluation, kept), dict(ways), top=top)


def about(name: str, recipe: Recipe) -> dict:
    """How a row is made, for results.json; a decoder's `preset` and `settings` are those of `Decoder.from_preset`."""
    row = ROWS[name]
    if not isinstance(row, DecoderRow):
        return {"title": row.title}
    found = {"title": row.title, "preset": row.preset, "settings": rows.settings(row, recipe), "adapts": row.adapts}
    return found | ({"updates": rows.updates(recipe)} if row.trained else {})


def titled(rung: str) -> str:
    """A rung in words; what is none, such as a fault, as it is."""
    return text("ladder.rungs").get(rung, rung)


def shown(one: dict, number: str) -> str:
    """A mean over people, and in brackets the range of seeds' means or the interval over people, where there is one."""
    factor = 1 if number == "false_per_minute" else 100
    if one["mean"] is None:
        return "–"
    between = list(one["per_seed"].values()) if "per_seed" in one else [one["low"], one["high"]]
    bracket = f" ({factor * min(between):.1f}–{factor * max(between):.1f})" if None not in between else ""
    return f"{factor * one['mean']:.1f}{bracket}"


def number_tables(evaluation: Evaluation, kind: str, rungs: dict, titles: Mapping[str, str], said: str = "",
                  **values: object) -> list[ReportTable]:
    """Rows by rungs, a table for each of the three numbers that there is; `kind`: the experiment."""
    return [evaluation.table(
        f"{kind}.numbers", [[own, *(shown(models[name][number], number) for models in rungs.values())]
                            for name, own in titles.items()],
        map(titled, rungs), papers=False, number=title, said=said, **values) for number, title in NUMBERS.items()
        if any(one[number]["mean"] is not None for models in rungs.values() for one in models.values())]


def people_table(evaluation: Evaluation, kind: str, rungs: dict, titles: Mapping[str, str]) -> ReportTable:
    rows = [[titled(rung), titles[name], *(
        f"{100 * v:.1f}" if (v := one["window"]["per_subject"].get(str(s))) is not None else "–"
        for s in evaluation.subjects)] for rung, models in rungs.items() for name, one in models.items()]
    return evaluation.table(f"{kind}.people", rows, (f"S{s}" for s in evaluation.subjects), papers=False)


def plot(evaluation: Evaluation, kind: str, rungs: dict, titles: Mapping[str, str]) -> Plot:
    lines = {title: 100 * np.array([models[row]["window"]["mean"] for models in rungs.values()], float)
             for row, title in titles.items()}
    return evaluation.plot(figures.ladder(lines, [titled(rung) for rung in rungs], evaluation.on), kind)


def tested(rungs: dict, reference: str) -> list[tuple[str, str, dict]]:
    """(rung, other row, the reference against it over people); `holm` is p corrected for all of them."""
    found = [(rung, name, paired(models[reference]["window"]["per_subject"], one["window"]["per_subject"]))
             for rung, models in rungs.items() for name, one in models.items() if name != reference]
    corrected = holm([test["p"] for *_, test in found])
    return [(rung, name, test | {"holm": p}) for (rung, name, test), p in zip(found, corrected, strict=True)]


def tests_table(evaluation: Evaluation, kind: str, tests: list[tuple[str, str, dict]], titles: Mapping[str, str],
                reference: str) -> ReportTable:
    """`tests` as of `tested`; the ablation shows p before the correction too."""
    shown = ("p", "holm") if kind == "ablation" else ("holm",)
    rows = [[titled(rung), titles[name], f"{100 * test['mean']:+.1f}", f"{test['wins']} of {test['pairs']}",
             *(p_value(test[p]) for p in shown)] for rung, name, test in tests]
    count = len(evaluation.subjects)
    return evaluation.table(f"{kind}.tests", rows, papers=False, reference=titles[reference], tests=len(rows),
                            people=count, least_p=least_p(count))


def _findings(rungs: dict, reference: str) -> list[str]:
    found = []
    for rung, models in rungs.items():
        if rung not in LEAKS:
            best = max(models, key=lambda name: models[name]["window"]["mean"] or 0.0)
            other = "" if best == reference else f" ({ROWS[best].title}: {100 * models[best]['window']['mean']:.1f})"
            found.append(f"{titled(rung)} {shown(models[reference]['window'], 'window').partition(' ')[0]}{other}")
    return [text("ladder.finding", row=reference, found="; ".join(found))]


def _trust(evaluation: Evaluation, kept: dict[str, dict]) -> list[str]:
    recipe, split = evaluation.recipe, evaluation.dataset.split
    reject, note = recipe.classifier.reject, recipe.source.note
    lines = text(
        "ladder.trust",
        split=text("ladder.sessions", train=format_numbers(split.train_sessions),
                   test=format_numbers(split.test_sessions)) if split.between_sessions else text("ladder.repetitions"),
        rejected=text("ladder.rejected", reject=reject) if reject else text("ladder.none_rejected"),
        rest=text("ladder.rest" if recipe.window.rest else "ladder.no_rest"))
    if any(isinstance(row := ROWS[name], DecoderRow) and row.trained for name in kept):
        lines.append(text("ladder.trained", updates=rows.updates(recipe), batch=recipe.finetune.batch_size))
    return lines + ([text("ladder.about", note=note)] if note else [])


EXPERIMENT = Experiment(fits, result, check, work, "ladder")
