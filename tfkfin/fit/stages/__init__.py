"""The staged fit: one module a stage, which registers itself as `STAGE`.

imitate   FINs learn the features from raw windows, without labels; channels and subjects pooled.
classify  the head learns movements from true features, subject by subject.
finetune  FINs and head, loaded from both, trained as a whole, subject by subject.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import keras

from tfkfin import registry
from tfkfin.fit.run import Run


@dataclass(frozen=True)
class Stage:
    """One training stage: what must be finished before it, and the function that does it and returns its scores."""

    name: str
    needs: tuple[str, ...]
    run: Callable[[Run], dict]


def run_stage(run: Run, name: str) -> dict:
    """Runs a stage and whatever it needs that is not finished yet, as make does; returns results.json's content."""
    stage = registry.load("fit/stages", name, "STAGE")
    for needed in stage.needs:
        if run.done(needed) is None:
            run_stage(run, needed)
    scores = run.done(name)
    if scores is None:
        keras.utils.set_random_seed(run.recipe.seed)  # a stage gives the same alone as after another
        began = time.monotonic()
        scores = stage.run(run)
        run.seconds[name] = time.monotonic() - began
        run.finish(name, scores)
    return run.publish(name, scores)
