"""Stages of training: one module a stage, which registers itself as `STAGE`.

imitate   FINs are trained to give the features of raw windows, without labels; channels and subjects pooled.
classify  the head is trained on true features, subject by subject.
finetune  FINs and head, loaded from both, are trained end to end, subject by subject.
pooled    FINs are trained further over people and sessions; `fin.pretrained` then starts other runs from them.

Stages that go subject by subject go together: each subject is read once for all of them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np

from tfkfin.base import registry
from tfkfin.base.console import lasting, log
from tfkfin.base.errors import InputError
from tfkfin.decoder.decision import Decision
from tfkfin.fit import board
from tfkfin.fit.metrics import macro_f1
from tfkfin.fit.run import Run
from tfkfin.fit.scoring import THREE_NUMBERS, decide, mean_and_sd, mean_imitation, score, three_numbers
from tfkfin.pipeline.subject import Subject

LONG_S = 60.0  # what takes longer is said before it begins


class SubjectCache:
    """One subject's windows by side of the split, and what stages compute of them: each computed once.

    Sides are "train", "finetune" and "test" of the split; and "context": the test windows with those before each
    segment, which a vote averages over.

    Attributes:
        segments: indices of the windows of "context" in order of time, segment by segment.
        tested: which windows of "context" are test windows.
    """

    def __init__(self, run: Run, subject: Subject):
        self.number, self.run, self.subject, self._kept = subject.number, run, subject, {}
        self.decision = Decision(run.recipe.classifier.vote, run.recipe.classifier.reject)
        context, self.segments, self.tested = self.part("test").with_context(self.decision.memory, run.dataset.stride)
        self._kept["context", "part"] = context

    def part(self, side: str) -> Subject:
        """The subject with the windows of a side."""
        return self._once(side, "part", lambda: self.subject.select(self.run.dataset.part(side)))

    def labels(self, side: str) -> np.ndarray:
        """Class indices (N,)."""
        return self.run.dataset.labels(self.part(side))

    def features(self, side: str) -> np.ndarray:
        """True features (N, C, F), in closed form."""
        if side == "test":
            return self.features("context")[self.tested]
        data, names = self.run.dataset, self.run.recipe.features.names
        return self._once(side, "features", lambda: self.part(side).features(names, data.length, data.rate_hz))

    def described(self, side: str, describe: Callable[[Subject], np.ndarray | None]) -> np.ndarray | None:
        """Descriptions (N, S), which a head takes besides features, computed by the first `describe` given; or None."""
        return self._once(side, "described", lambda: describe(self.part(side)))

    def scores(self, probabilities: np.ndarray) -> dict:
        """Scores of the test windows, from the probabilities (M, G) of the windows of "context"."""
        data = self.run.dataset
        decided = decide(probabilities, self.segments, self.decision, data.movements)[self.tested]
        return score(self.part("test").windows, decided, data.movements, data.stride / data.rate_hz,
                     self.decision.reject)

    def _once(self, side: str, what: str, make: Callable):
        key = side if side == "context" else self.run.dataset.part(side), what  # sides may be the same repetitions
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        needs: stages that must be finished before it.
        run: does the whole stage and returns its scores; or
        each: opens the stage and returns a partial function that does it for one subject and returns the subject's
            scores.
        expected: with the arguments of that function, about how many seconds it will take, by a few steps of it.
    """

    name: str
    needs: tuple[str, ...]
    run: Callable[[Run], dict] | None = None
    each: Callable[[Run], partial] | None = None
    expected: Callable[..., float] = lambda *arguments: 0.0


def run_stage(run: Run, name: str) -> dict:
    """Runs a stage, after those that it needs and that are not finished; returns the content of results.json."""
    stage = registry.load("fit/stages", name, "STAGE")
    if name != "imitate" and run.recipe.source.kind != "signals" and len(run.dataset.movements) < 2:
        raise InputError(f"the recordings hold one movement alone, {run.dataset.movements[0]}: a decoder needs two or "
                         "more (--set window.rest=true makes rest one of them)")
    together = [stage]
    for needed in stage.needs:
        if run.done(needed) is None:
            before = registry.load("fit/stages", needed, "STAGE")
            if stage.each and before.each and not before.needs:
                together.insert(-1, before)
            else:
                run_stage(run, needed)
    if run.done(name) is None:
        if stage.each:
            _by_subject(run, together)
        else:
            keras.utils.set_random_seed(run.recipe.seed)  # a stage gives the same results alone as after another
            began = time.monotonic()
            scores = stage.run(run)
            run.seconds[name] = time.monotonic() - began
            run.finish(name, scores)
    for needed in stage.needs:  # killed after a stage was finished and before its scores were published
        if not (scores := run.scores(needed)).keys() <= run.results().keys():
            run.publish(needed, scores)
    return run.publish(name, run.scores(name))


def _by_subject(run: Run, stages: list[Stage]) -> None:
    """Does stages for one subject after another; subjects that a stage has finished before are left out."""
    doing, spent = {}, dict.fromkeys((stage.name for stage in stages), 0.0)
    for stage in stages:
        keras.utils.set_random_seed(run.recipe.seed)
        began = time.monotonic()
        doing[stage.name] = stage.each(run)
        spent[stage.name] += time.monotonic() - began
    left = [s for s in run.dataset.split.subjects if any(run.done(name, f"S{s}") is None for name in doing)]
    for subject in run.dataset.subjects(left, context=run.recipe.classifier.vote - 1):  # the next is read meanwhile
        cache = SubjectCache(run, subject)
        if subject.number == left[0]:
            _foretell(stages, doing, cache, len(left))
        for name, does in doing.items():
            if run.done(name, f"S{cache.number}") is None:
                began = time.monotonic()
                _finish_subject(run, name, cache.number, does(cache), began)
                spent[name] += time.monotonic() - began
    for name in doing:
        run.seconds[name] = spent[name]
        run.publish(name, run.finish(name, _over_subjects(run, name)))


def _foretell(stages: list[Stage], doing: dict[str, partial], cache: SubjectCache, people: int) -> None:
    """Says how long stages will take for all people, by a few steps for the first one, which leave no trace."""
    seconds = people * sum(stage.expected(*doing[stage.name].args, cache) for stage in stages)
    if seconds > LONG_S:
        log.info("%s of %d people: about %s in all", " and ".join(doing), people, lasting(seconds))


def _finish_subject(run: Run, stage: str, subject: int, scores: dict, began: float) -> None:
    """Writes a subject's scores, to TensorBoard too: the stage has finished it."""
    log.info("%s S%d: accuracy %.1f %%", stage, subject, 100 * scores["accuracy"])
    counts = np.asarray(scores["confusion"])
    with board.Summaries(run.board(f"{stage}/S{subject}")) as shown:
        figure = board.confusion_figure(counts, list(run.dataset.movements),
                                        f"{stage}, subject {subject}, test windows", run.dataset.names)
        shown.figure("confusion matrix", figure, 0)
        known = {name: scores[name] for name in THREE_NUMBERS} | {"macro F1": macro_f1(counts)}
        shown.scalars({f"test/{name}": value for name, value in known.items() if value is not None}, 0)
    run.finish(stage, scores | {"seconds": time.monotonic() - began}, f"S{subject}")


def _over_subjects(run: Run, stage: str) -> dict:
    """Scores over subjects, for results.json; the confusion matrix and hyperparameters go to TensorBoard."""
    every = {s: run.scores(stage, f"S{s}") for s in run.dataset.split.subjects}
    matrix = np.sum([one["confusion"] for one in every.values()], axis=0)
    movements = list(run.dataset.movements)
    summary = three_numbers(every)
    if run.recipe.classifier.reject:
        summary["rejection"] = {str(s): one["rejection"] for s, one in every.items()}
    if stage == "classify":
        summary |= {"classifier": summary["accuracy"], "svm": mean_and_sd({s: one["svm"] for s, one in every.items()})}
    else:
        summary["fin_finetuned"] = mean_imitation([one["fin_finetuned"] for one in every.values()])
    with board.Summaries(run.board(stage)) as shown:
        what = "synthetic recordings" if run.dataset.synthetic else f"{len(every)} subjects"
        figure = board.confusion_figure(matrix, movements, f"{stage}, {what}, all test windows", run.dataset.names)
        shown.figure("confusion matrix", figure, 0, run.folder / "plots" / f"confusion_{stage}.png")
        shown.hparams(run.recipe, stage, {"accuracy": summary["accuracy"]["mean"]})
    return summary | {"confusion": {"movements": movements, "counts": matrix.tolist()}}
