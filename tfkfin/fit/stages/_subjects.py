"""What stages that go subject by subject share: who is left, what is seen of a subject, scores, the scores over all."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tfkfin.base.console import log
from tfkfin.decoder.decision import Decision
from tfkfin.fit import board
from tfkfin.fit.metrics import macro_f1
from tfkfin.fit.run import Run
from tfkfin.fit.scores import mean_imitation, score, spread, three_numbers
from tfkfin.pipeline.subject import Subject


def decision(run: Run) -> Decision:
    return Decision(run.recipe.classifier.vote, run.recipe.classifier.reject)


def folder(run: Run, stage: str, subject: int) -> Path:
    """Where a stage keeps what it made for a subject."""
    return run.stage_folder(stage) / f"S{subject}"


class Views:
    """A subject's windows by the side of the split that they are on, and what is seen of them; each worked out once."""

    def __init__(self, run: Run, subject: Subject):
        self.number, self.run, self.subject, self._known = subject.number, run, subject, {}

    def part(self, side: str) -> Subject:
        """The subject's windows of "train", "finetune" or "test"."""
        return self._once(side, "part", lambda: self.subject.select(self.run.dataset.part(side)))

    def labels(self, side: str) -> np.ndarray:
        """Class indices (N,)."""
        return self.run.dataset.labels(self.part(side))

    def features(self, side: str) -> np.ndarray:
        """True features (N, C, F)."""
        return self._once(side, "features", lambda: true_features(self.run, self.part(side)))

    def described(self, side: str, describe: Callable[[Subject], np.ndarray | None]) -> np.ndarray | None:
        """What a head is told beside features (N, S), by the first `describe` that is asked; None if nothing."""
        return self._once(side, "described", lambda: describe(self.part(side)))

    def _once(self, side: str, what: str, make: Callable):
        key = self.run.dataset.part(side), what  # sides may be the same repetitions
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]


def true_features(run: Run, part: Subject) -> np.ndarray:
    """Closed-form features (N, C, F) of a subject's windows."""
    return part.features(run.recipe.features.names, run.dataset.length, run.dataset.rate_hz)


def unfinished(run: Run, stages: tuple[str, ...]) -> Iterator[Views]:
    """Subjects that one of the stages has not finished; the next is read while the caller trains on this one."""
    left = [s for s in run.dataset.split.subjects if any(run.done(stage, f"S{s}") is None for stage in stages)]
    for subject in run.dataset.subjects(left, memory=decision(run).memory):
        yield Views(run, subject)


def watched(windows: int, most: int = 256) -> np.ndarray:
    """Indices of the test windows, evenly spread, that are looked at after each epoch and steer nothing."""
    return np.unique(np.linspace(0, windows - 1, min(windows, most)).astype(int))


def scores(run: Run, test: Subject, labels: np.ndarray) -> dict:
    """A subject's scores from the labels (N,) that its test windows were given."""
    data = run.dataset
    return score(test.windows, labels, data.movements, data.stride / data.rate_hz, run.recipe.classifier.reject)


def finish(run: Run, stage: str, subject: int, scores: dict, began: float) -> None:
    """Keeps a subject's scores: the stage is done with it."""
    log.info("%s S%d: accuracy %.1f %%", stage, subject, 100 * scores["accuracy"])
    with board.Board(run.board(f"{stage}/S{subject}")) as shown:
        figure = board.confusion_figure(np.asarray(scores["confusion"]), list(run.dataset.movements),
                                        f"{stage}, subject {subject}, test windows", run.dataset.names)
        shown.figure("confusion matrix", figure, 0)
        known = {name: scores[name] for name in ("accuracy", "execution", "false_per_minute")} | {
            "macro F1": macro_f1(np.asarray(scores["confusion"]))}
        shown.scalars({f"test/{name}": value for name, value in known.items() if value is not None}, 0)
    run.finish(stage, scores | {"seconds": time.monotonic() - began}, f"S{subject}")


def accuracies(run: Run, stage: str) -> dict:
    """Scores over subjects, for results.json; the confusion matrix and hyperparameters go to TensorBoard."""
    every = {s: run.left(stage, f"S{s}") for s in run.dataset.split.subjects}
    matrix = np.sum([one["confusion"] for one in every.values()], axis=0)
    movements = list(run.dataset.movements)
    summary = three_numbers(every)
    if run.recipe.classifier.reject:
        summary["rejection"] = {str(s): one["rejection"] for s, one in every.items()}
    if stage == "classify":
        summary["classifier"] = summary["accuracy"]
        summary["svm"] = spread({s: one["svm"] for s, one in every.items()})
    else:
        summary["fin_finetuned"] = mean_imitation([one["fin_finetuned"] for one in every.values()])
    with board.Board(run.board(stage)) as shown:
        what = "synthetic recordings" if run.dataset.synthetic else f"{len(every)} subjects"
        figure = board.confusion_figure(matrix, movements, f"{stage}, {what}, all test windows",
                                        run.dataset.names)
        shown.figure("confusion matrix", figure, 0, run.folder / "plots" / f"confusion_{stage}.png")
        shown.hparams(run.recipe, {"accuracy": summary["accuracy"]["mean"]})
    return summary | {"confusion": {"movements": movements, "counts": matrix.tolist()}}
