"""Ladder: how decoders hold from repetition to repetition, day to day, person to person; three numbers each."""

from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path

import numpy as np

from tfkfin import recipe as recipes
from tfkfin.base.console import InputError, format_numbers, log
from tfkfin.decoder.decision import Decision
from tfkfin.experiments import figures, protocols, riemann
from tfkfin.experiments.evaluation import Evaluation
from tfkfin.experiments.fits import Fit
from tfkfin.experiments.kinds import Experiment
from tfkfin.experiments.lasting import Lasting
from tfkfin.experiments.report import Result, Table, p_value
from tfkfin.experiments.sessions import Session, sessions
from tfkfin.experiments.statistics import holm, paired
from tfkfin.experiments.transfer import Centres, Discriminant, Hierarchical, described
from tfkfin.features import catalogue
from tfkfin.fit import metrics
from tfkfin.pipeline.dataset import open_dataset
from tfkfin.recipe import Recipe

TIME_DOMAIN, SPATIAL = ("time_domain",), ("time_domain", "log_covariance")
TITLES = {
    "paper": "paper: FINs, conv head", "best": "best: FINs + covariances",
    "tdar_lda": "TD+AR, LDA", "tdar_lda_centred": "TD+AR, LDA, recentred",
    "tdar_cov_lda": "TD+AR + log-covariance, LDA", "tdar_cov_lda_centred": "TD+AR + log-covariance, LDA, recentred",
    "cov_lda": "log-covariance, LDA",
    "riemann_lda": "tangent space, LDA", "riemann_lda_centred": "tangent space, LDA, recentred",
    "hierarchical": "TD+AR + log-covariance, hierarchical",
    "tfkfin_fins": "tfkfin_fins: best that adapts", "tfkfin": "tfkfin: closed form, adapts",
}
NUMBERS = {"window": "Accuracy a window, %", "execution": "Accuracy an execution, %",
           "false_per_minute": "False activations a minute of rest"}
REFERENCE = "tfkfin"  # the one that others are tested against
CLOSED_FORM: dict[str, Callable] = {
    "tdar_lda": lambda: Discriminant(partial(described, names=TIME_DOMAIN)),
    "tdar_lda_centred": lambda: Discriminant(partial(described, names=TIME_DOMAIN), Centres),
    "tdar_cov_lda": lambda: Discriminant(partial(described, names=SPATIAL)),
    "tdar_cov_lda_centred": lambda: Discriminant(partial(described, names=SPATIAL), Centres),
    "cov_lda": lambda: Discriminant(partial(described, names=SPATIAL[1:])),
    "riemann_lda": lambda: Discriminant(riemann.covariances, riemann.Tangents),
    "riemann_lda_centred": lambda: Discriminant(riemann.covariances, riemann.Recentred),
    "hierarchical": lambda: Hierarchical(partial(described, names=SPATIAL)),
    "tfkfin": Lasting,
}


@cache
def titles() -> dict[str, str]:
    """The models that can be tried here and what they are called."""
    if riemann.installed():
        return TITLES
    log.info("ladder: pyriemann is not installed, so two rows are left out: pip install 'tfkfin[riemann]'")
    return {name: title for name, title in TITLES.items() if not name.startswith("riemann")}


class Streams:
    """The recordings as sessions of streams, at their own rate and at the recipe's, which FINs need; and the models."""

    def __init__(self, evaluation: Evaluation):
        self.recipe, self.run = evaluation.recipe, evaluation.run
        movements = evaluation.dataset.movements
        self.classes = movements if self.recipe.window.rest else tuple(m for m in movements if m)
        self._imitation = None

    @cache  # noqa: B019  one object a run, and it lives as long
    def people(self, own_rate: bool) -> tuple[dict[int, list[Session]], object]:
        """Person -> sessions, and the dataset they are of."""
        settings = {"window.rest": True, "window.train_stride_ms": 0}
        settings |= {"window.rate_hz": 0} if own_rate else {}
        data = open_dataset(recipes.replaced(self.recipe, **settings), self.run.data)
        log.info("ladder: reading %d people%s", len(data.split.subjects), "" if own_rate else ", at the FINs' rate")
        return {person: list(sessions(data, person)) for person in data.split.subjects}, data

    @cache  # noqa: B019
    def model(self, name: str):
        if name in CLOSED_FORM:
            return CLOSED_FORM[name]()
        import keras

        from tfkfin.experiments.transfer_fins import (
            ConvHead,
            Imitation,
            LastingFins,
            SolvedHead,
        )

        def begun(make: Callable):  # networks' first weights are the same in every process, whatever it did before
            keras.utils.set_random_seed(self.recipe.seed)
            return make()

        seen = self._imitation = self._imitation or begun(lambda: Imitation(self.run))
        return begun({"best": lambda: SolvedHead(seen), "tfkfin_fins": lambda: LastingFins(seen),
                      "paper": lambda: ConvHead(seen, self.run, self.classes)}[name])

    def score(self, name: str, person: int) -> tuple[dict, dict]:
        """The three numbers of a model and person on every rung, and the decisions behind them."""
        people, data = self.people(name in CLOSED_FORM)
        groups = protocols.groups(people, data.split, self.recipe.seed, (person,))
        return climbed(self.model(name), groups, self.recipe, self.classes, data.stride / data.rate_hz)


def climbed(model, groups: Iterable[protocols.Group], recipe: Recipe, classes: tuple[int, ...],
            stride_s: float) -> tuple[dict, dict]:
    """The three numbers of a model on every rung, and the decisions behind them: true, decided, segment (3, N) each."""
    decision, found = Decision(recipe.classifier.vote, recipe.classifier.reject), {}
    for group in groups:
        fitted = model.fit(group.learnt, classes)
        for trial in group.trials:
            decided, _ = decision(fitted.decide(trial.session, trial.known), classes)
            at, offset = trial.tested, 1_000_000 * len(found.get(trial.rung, ()))
            found.setdefault(trial.rung, []).append(
                np.stack([trial.session.labels[at], decided[at], trial.session.segments[at] + offset]))
    arrays = {rung: np.concatenate(parts, axis=1).astype(np.int64) for rung, parts in found.items()}
    return {"rungs": {rung: {
        "window": metrics.window_accuracy(true, decided),
        "execution": metrics.execution_accuracy(true, decided, segments),
        "false_per_minute": metrics.false_activations(true, decided, stride_s) if 0 in classes else None,
    } for rung, (true, decided, segments) in arrays.items()}}, arrays


@cache
def streams(evaluation: Evaluation) -> Streams:
    return Streams(evaluation)


def check(recipe: Recipe) -> None:
    """The recipe's head is that of the row `paper`; the others on FINs see what it describes and covariances."""
    catalogue.names(recipe.features.names)  # of one channel
    options = recipe.classifier
    if options.kind != "conv" or "log_covariance" in options.describe:
        raise InputError("the ladder tries its own heads beside the paper's: take --pipeline ladder, or --set "
                         "classifier.kind=conv --set classifier.describe=correlations")


def fits(evaluation: Evaluation) -> list[Fit]:
    return [Fit(person, f"ladder-{name}") for person in evaluation.subjects for name in titles()]


def work(estimators, fit: Fit) -> tuple[dict, dict]:
    return streams(estimators.evaluation).score(fit.model.removeprefix("ladder-"), fit.subject)


def result(evaluation: Evaluation, folder: Path) -> Result:
    scores = {name: {s: evaluation.ledger.of(Fit(s, f"ladder-{name}").key)["rungs"] for s in evaluation.subjects}
              for name in titles()}
    there = [rung for rung in protocols.RUNGS if any(rung in one for one in scores[REFERENCE].values())]
    rungs = {rung: {name: {number: metrics.over_people({s: one[rung][number] for s, one in people.items()
                                                        if rung in one}, evaluation.recipe.seed)
                           for number in NUMBERS} for name, people in scores.items()} for rung in there}
    blocks = [_table(evaluation, number, title, rungs) for number, title in NUMBERS.items()
              if any(one[number]["mean"] is not None for models in rungs.values() for one in models.values())]
    few = len(evaluation.subjects) < 6
    blocks += [_people(evaluation, rungs)] if few else [_tests(evaluation, scores, there)]
    plot = figures.ladder({TITLES[name]: [100 * rungs[rung][name]["window"]["mean"] for rung in there]
                           for name in titles()}, [titled(rung) for rung in there], evaluation.on)
    blocks.append(figures.save(plot, folder, "ladder", f"Accuracy a window by rung. Data: {evaluation.on}."))
    return Result("ladder", "Ladder of protocols: what holds tomorrow, and on another person", _findings(rungs), blocks,
                  _trust(evaluation), {"rungs": rungs}, top={"rungs": rungs})


def titled(rung: str) -> str:
    return f"{rung} (leaks)" if rung in protocols.LEAKS else rung


def shown(one: dict, number: str) -> str:
    factor, digits = (1, 1) if number == "false_per_minute" else (100, 1)
    if one["mean"] is None:
        return "–"
    between = f" ({factor * one['low']:.{digits}f}–{factor * one['high']:.{digits}f})" if one["low"] is not None else ""
    return f"{factor * one['mean']:.{digits}f}{between}"


def _table(evaluation: Evaluation, number: str, title: str, rungs: dict) -> Table:
    rows = [[text, *(shown(models[name][number], number) for models in rungs.values())]
            for name, text in titles().items()]
    note = "Mean over people; from six people on with the 95 % bootstrap interval."
    return Table(f"{title} ({evaluation.on})", ["model", *map(titled, rungs)], rows, note, papers=False)


def _people(evaluation: Evaluation, rungs: dict) -> Table:
    rows = [[titled(rung), TITLES[name], *(f"{100 * v:.1f}" if v is not None else "–"
                                            for v in models[name]["window"]["per_subject"].values())]
            for rung, models in rungs.items() for name in titles()]
    return Table(f"Every person's accuracy a window, % ({evaluation.on})",
                 ["rung", "model", *(f"S{s}" for s in evaluation.subjects)],
                 [row for row in rows if len(row) == 2 + len(evaluation.subjects)], papers=False)


def _tests(evaluation: Evaluation, scores: dict, there: list[str]) -> Table:
    """Others against one, over people, corrected for how many tests there are."""
    found = []
    for rung in there:
        own = {s: one[rung]["window"] for s, one in scores[REFERENCE].items() if rung in one}
        for name in titles():
            if name != REFERENCE:
                other = {s: one[rung]["window"] for s, one in scores[name].items() if rung in one}
                found.append((rung, name, paired(own, other)))
    corrected = holm([test["p"] for *_, test in found])
    rows = [[titled(rung), TITLES[name], f"{100 * test['mean']:+.1f}", f"{test['wins']} of {test['pairs']}",
             p_value(p)] for (rung, name, test), p in zip(found, corrected, strict=True)]
    return Table(f"{TITLES[REFERENCE]} against the others, accuracy a window ({evaluation.on})",
                 ["rung", "model", "difference, points", "people better", "p"], rows,
                 f"Wilcoxon's signed-rank test over people, two-sided, Holm's correction for {len(rows)} tests.",
                 papers=False)


def _findings(rungs: dict) -> list[str]:
    said = []
    for rung, models in rungs.items():
        if rung not in protocols.LEAKS:
            best = max(models, key=lambda name: models[name]["window"]["mean"])
            other = "" if best == REFERENCE else f" ({TITLES[best]}: {100 * models[best]['window']['mean']:.1f})"
            said.append(f"{rung} {100 * models[REFERENCE]['window']['mean']:.1f}{other}")
    return [f"Accuracy a window of {REFERENCE}, %, and of the best where that is another: {'; '.join(said)}."]


def _trust(evaluation: Evaluation) -> list[str]:
    recipe, split = evaluation.recipe, evaluation.dataset.split
    parted = (f"sessions {format_numbers(split.train_sessions)} are learnt from, {format_numbers(split.test_sessions)} "
              "tested" if split.between_sessions else
              "one session a person: repetitions part what is learnt from and tested")
    vote, reject = recipe.classifier.vote, recipe.classifier.reject
    return [f"Rungs: random parts windows that overlap, so that it leaks; repetition-k learns from k repetitions of a "
            f"session; 0 knows nothing of the new session or person but what came earlier in its stream, 0u its first "
            f"repetition without labels, 1 with labels, and that repetition is not tested then. Here {parted}.",
            f"One operating point for all three numbers: "
            f"{f'the last {vote} windows averaged' if vote > 1 else 'each window decided by itself'}, "
            f"{f'decisions less probable than {reject:g} rejected and counted as wrong' if reject else 'none rejected'}"
            f"; rest is "
            f"{'one more class' if recipe.window.rest else 'not decided, so that there are no false activations'}.",
            "Every model learns from the same windows, the paper's from at most 4000 of them, evenly spread; FINs are "
            "the shipped ones, which no recording trained. TD+AR are MAV, WL, ZC, SSC, AR(4) and log VAR, LDA has a "
            "shrunk covariance, recentred means by each session's own mean, hierarchical is a Gaussian whose class "
            "means vary by session. best is LDA on what FINs imitate, correlations and log-covariances until it is "
            "calibrated, hierarchical from then on; tfkfin_fins is the same decoder adapting to the stream, "
            "tfkfin does so on broad closed-form descriptions. Both go on learning from earlier sessions of the "
            "stream, without labels. tangent space is pyriemann's."]


EXPERIMENT = Experiment(fits, result, check, work, "ladder")
