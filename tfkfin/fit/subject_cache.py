"""One subject while stages work on it: windows by side of the split, features and descriptions computed once."""

from collections.abc import Callable

import numpy as np

from tfkfin.decoder.decision import Decision
from tfkfin.fit.run import Run
from tfkfin.fit.scoring import decide, score
from tfkfin.pipeline.subject import Subject


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
