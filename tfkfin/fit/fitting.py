"""A decoder's network from windows in memory, without a run folder: `tfkfin.Decoder.fit` and calibration of heads that
are trained by gradients.

Solved heads are solved. Other heads are trained as the stages `classify` and `finetune` train them: the head on true
features, then FINs and head end to end. The trainers are the stages' own, seeded alike, so that both come to the same
network.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import keras
import numpy as np

from tfkfin.base.console import InputError
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.fit import training
from tfkfin.fit.trainers import HeadTrainer, JointTrainer
from tfkfin.nets import heads
from tfkfin.nets.forward import Forward
from tfkfin.nets.network import network
from tfkfin.pipeline import windows
from tfkfin.pipeline.subject import Subject
from tfkfin.recipe import Recipe
from tfkfin.store import presets

Kind = TypeVar("Kind", bound=BaseDecoder)


@dataclass(frozen=True)
class Plan:
    """In place of a `Run`, where trainers want to know no more: a recipe, and the shapes of windows and answers."""

    recipe: Recipe
    length: int
    channels: int
    movements: tuple[int, ...]

    @property
    def dataset(self) -> "Plan":
        return self


def fit(recipe: Recipe, subject: Subject) -> tuple[keras.Model, tuple[int, ...]]:
    """The recipe's network, fitted to all windows of a subject, and its movements.

    Raises:
        InputError: windows of fewer than two movements.
    """
    movements = tuple(np.unique(subject.windows.movements).tolist())
    if len(movements) < 2:
        raise InputError(f"`data` must hold windows of two movements or more. Received: {list(movements)}")
    plan = Plan(recipe, windows.samples(recipe.window.length_ms, subject.rate_hz), subject.emg.shape[1], movements)
    labels = np.searchsorted(movements, subject.windows.movements)
    solved = heads.kind(recipe.classifier.kind).solve is not None
    return (_solved(plan, subject, labels) if solved else _trained(plan, subject, labels)), movements


def _solved(plan: Plan, subject: Subject, labels: np.ndarray) -> keras.Model:
    recipe, kind = plan.recipe, heads.kind(plan.recipe.classifier.kind)
    bank = presets.shared_bank(recipe.fin, recipe.features.names, plan.length, plan.channels)
    model = network(bank, heads.new(recipe.classifier, recipe.features.names, plan.length, plan.channels,
                                    len(plan.movements)))
    forward = Forward(model)
    forward.parts.standardise.set(subject.mean, subject.sd)
    head = kind.of(forward.parts)
    head.solve(forward.recording(subject.emg, subject.windows.starts, ("inputs",))["inputs"], labels, subject.groups)
    if head.rest_statistics and (rest := subject.resting()):
        head.rest_statistics(forward.recording(rest.emg, rest.windows.starts, ("inputs",))["inputs"])
    return model


def _trained(plan: Plan, subject: Subject, labels: np.ndarray) -> keras.Model:
    recipe, names = plan.recipe, plan.recipe.features.names
    features = subject.features(names, plan.length, subject.rate_hz)
    with _seeds_kept():
        keras.utils.set_random_seed(recipe.seed)  # as each stage begins
        head = HeadTrainer(plan)
        keras.utils.set_random_seed(recipe.seed)
        joint = JointTrainer(plan)
        joint.fins.set_weights(presets.new_bank(recipe.fin, names, plan.length, plan.channels).get_weights())
        if not recipe.fin.pretrained:
            training.fit_scales(joint.fins, features)
        head.fit(features, labels, recipe.seed, f"classify S{subject.number}")
        joint.forward.parts.head.set_weights(head.network.get_weights())
        joint.standardise(subject)
        joint.fit(subject, features, labels, recipe.seed)
    return joint.network


def train_on(decoder: Kind, inputs: np.ndarray, labels: np.ndarray) -> tuple[Kind, dict]:
    """A new decoder whose head is trained further on head inputs (N, ...) of a session; FINs stay as they are.

    The head takes `classify.epochs` x ceil(N / `classify.batch_size`) updates at `classify.learning_rate`, from where
    it stands. Its z-score is that of the session.

    Args:
        labels: class indices (N,).
    """
    card = decoder.card
    known = {name: card["recipe"][name] for name in ("seed", "features", "classifier", "classify")}
    plan = Plan(Recipe.model_validate(known), decoder.length, decoder.channels, tuple(decoder.movements.tolist()))
    with _seeds_kept():
        keras.utils.set_random_seed(plan.recipe.seed)
        trainer = HeadTrainer(plan)
        trainer.model.set_weights(decoder.head.classifier.get_weights())
        trainer.restart = training.Restart(trainer.model, trainer.optimizer)
        trainer.fit(inputs, labels, plan.recipe.seed, "calibrate")
    new = decoder.with_head(decoder.head.copy())
    new.head.classifier.set_weights(trainer.model.get_weights())
    return new, {"unseen": np.setdiff1d(decoder.movements, decoder.movements[labels]).tolist(),
                 "updates": int(trainer.optimizer.iterations.numpy())}


@contextmanager
def _seeds_kept() -> Iterator[None]:
    """Python's and NumPy's random numbers go on afterwards as if nothing had been drawn or seeded meanwhile."""
    kept, numpys = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(kept)
        np.random.set_state(numpys)
