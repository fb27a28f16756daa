"""The staged fit: one module a stage, which registers itself as `STAGE`.

imitate   FINs learn the features from raw windows, without labels; channels and subjects pooled.
classify  the head learns movements from true features, subject by subject.
finetune  FINs and head, loaded from both, trained as a whole, subject by subject.
pooled    FINs go on learning over people and sessions, by episodes; `fin.pretrained` then starts other runs from them.

Stages that go subject by subject go together: a subject is read, and looked at, once for all of them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import keras

from tfkfin.base import registry
from tfkfin.base.console import InputError
from tfkfin.fit.run import Run
from tfkfin.fit.stages import _subjects


@dataclass(frozen=True)
class Stage:
    """One training stage: what must be finished before it, and what does it.

    Attributes:
        run: does the whole stage and returns its scores; or
        each: opens the stage, and returns what does it for one subject and returns the subject's scores.
    """

    name: str
    needs: tuple[str, ...]
    run: Callable[[Run], dict] | None = None
    each: Callable[[Run], Callable[[_subjects.Views], dict]] | None = None


def run_stage(run: Run, name: str) -> dict:
    """Runs a stage and whatever it needs that is not finished yet, as make does; returns results.json's content."""
    stage = registry.load("fit/stages", name, "STAGE")
    if name != "imitate" and run.recipe.source.kind != "signals" and len(run.dataset.movements) < 2:
        raise InputError(f"the recordings hold one movement alone, {run.dataset.movements[0]}: a decoder tells two or "
                         "more apart (--set window.rest=true makes rest one of them)")
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
            _seeded(run)
            began = time.monotonic()
            scores = stage.run(run)
            run.seconds[name] = time.monotonic() - began
            run.finish(name, scores)
    for needed in stage.needs:  # killed after a stage was finished and before its scores were published
        if not (scores := run.left(needed)).keys() <= run.results().keys():
            run.publish(needed, scores)
    return run.publish(name, run.left(name))


def _seeded(run: Run) -> None:
    keras.utils.set_random_seed(run.recipe.seed)  # a stage gives the same alone as after another


def _by_subject(run: Run, stages: list[Stage]) -> None:
    """Does stages for one subject after another; subjects that a stage has finished before are left as they are."""
    doing, spent = {}, dict.fromkeys((stage.name for stage in stages), 0.0)
    for stage in stages:
        _seeded(run)
        began = time.monotonic()
        doing[stage.name] = stage.each(run)
        spent[stage.name] += time.monotonic() - began
    for views in _subjects.unfinished(run, tuple(doing)):
        for name, does in doing.items():
            if run.done(name, f"S{views.number}") is None:
                began = time.monotonic()
                _subjects.finish(run, name, views.number, does(views), began)
                spent[name] += time.monotonic() - began
    for name in doing:
        run.seconds[name] = spent[name]
        run.publish(name, run.finish(name, _subjects.accuracies(run, name)))
