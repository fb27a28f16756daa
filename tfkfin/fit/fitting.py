"""A decoder's network from windows in memory, without a run folder: `tfkfin.Decoder.fit` and calibration of heads that
are trained by gradients.

Solved heads are solved. Other heads are trained as the stages `classify` and `finetune` train them: the head on true
features, then FINs and head end to end. The trainers are the stages' own, seeded alike, so that both come to the same
network.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import keras
import numpy as np

from tfkfin.base.errors import InputError
from tfkfin.decoder import decoder as decoders
from tfkfin.fit import training
from tfkfin.fit.trainers import HeadTrainer, JointTrainer, virtual_inputs
from tfkfin.nets import heads
from tfkfin.nets.forward import Forward
from tfkfin.nets.network import network
from tfkfin.pipeline import windows
from tfkfin.pipeline.subject import Subject
from tfkfin.recipe import Recipe
from tfkfin.recordings.recording import Recording
from tfkfin.store import card, presets

Kind = TypeVar("Kind", bound=decoders.BaseDecoder)


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


def fit(recipe: Recipe, recordings: Sequence[Recording]) -> tuple[dict, keras.Model]:
    """A decoder's card and network, fitted to all windows of recordings of one person or several.

    Raises:
        InputError: windows of fewer than two movements, or several rates that the recipe does not resample.
    """
    window, rates = recipe.window, sorted({recording.rate_hz for recording in recordings})
    if len(rates) > 1 and not window.rate_hz:
        raise InputError(f"recordings are at {', '.join(f'{rate:g}' for rate in rates)} Hz: set window.rate_hz to "
                         "resample them")
    solved = heads.kind(recipe.classifier.kind).solve is not None
    people = _People(recipe, recordings, solved)
    every = [(subject.windows.movements, subject.statistics) for subject in people]
    movements = tuple(np.unique(np.concatenate([labels for labels, _ in every])).tolist())
    if len(movements) < 2:
        raise InputError(f"`data` must hold windows of two movements or more. Received: {list(movements)}")
    mean, sd = sum((statistics for _, statistics in every[1:]), every[0][1]).mean_and_sd()
    rate = window.rate_hz or rates[0]
    length, stride = (windows.samples(ms, rate) for ms in (window.length_ms, window.stride_ms))
    plan = Plan(recipe, length, len(mean), movements)
    model = _solved(plan, people, mean, sd) if solved else _trained(plan, next(iter(people)))
    names = {movement: name for one in recordings for movement, name in one.names.items()}
    own = decoders.about(recipe, rate, length, stride, movements, mean, sd, names, rates)
    return card.of_fitted(own, sum(len(labels) for labels, _ in every), {one.subject for one in recordings},
                          any(one.synthetic for one in recordings), model.count_params()), model


class _People:
    """Subjects, one after another: each is made when it is its turn, and again the next time, so that one at a time is
    held. A single one is held.
    """

    def __init__(self, recipe: Recipe, recordings: Sequence[Recording], apart: bool):
        """`apart`: a subject for each person; otherwise all recordings are of one."""
        self.recipe, self._held = recipe, None
        people = dict.fromkeys(recording.subject for recording in recordings) if apart else (None,)
        self._recordings = [[one for one in recordings if who in (None, one.subject)] for who in people]

    def __iter__(self) -> Iterator[Subject]:
        for own in self._recordings:
            subject = self._held or Subject.of(own, self.recipe.window, self.recipe.filter)
            self._held = subject if len(self._recordings) == 1 else None
            yield subject


def _solved(plan: Plan, people: Iterable[Subject], mean: np.ndarray, sd: np.ndarray) -> keras.Model:
    """The network with its head solved; each session of each person is a session of its own."""
    recipe, names = plan.recipe, plan.recipe.features.names
    with _seeds_kept():
        keras.utils.set_random_seed(recipe.seed)
        bank = presets.shared_bank(recipe.fin, names, plan.length, plan.channels)
        model = network(bank, heads.new(recipe.classifier, names, plan.length, plan.channels, len(plan.movements)))
    forward = Forward(model)
    forward.parts.standardise.set(mean, sd)
    head = heads.kind(recipe.classifier.kind).of(forward.parts)

    def inputs(part: Subject) -> np.ndarray:
        return forward.recording(part.emg, part.windows.starts, ("inputs",))["inputs"]

    x, rest, rows, virtual = [], [], [], []
    for number, subject in enumerate(people):
        x.append(inputs(subject))
        rows.append(np.stack([subject.windows.movements, *subject.groups, np.full(len(x[-1]), number)]).astype(int))
        if head.rest_statistics and (resting := subject.resting()):
            rest.append(inputs(resting))
        if recipe.classifier.forces:
            virtual.append(virtual_inputs(subject, plan.length, inputs))
    movements, sessions, repetitions, persons = np.concatenate(rows, axis=1)
    if persons.any():
        sessions = 1 + np.unique(np.stack([persons, sessions]), axis=1, return_inverse=True)[1].ravel()
    more = [[np.concatenate(part) for part in zip(*virtual, strict=True)]] if virtual else []
    head.solve(np.concatenate(x), np.searchsorted(plan.movements, movements), (sessions, repetitions), *more)
    if rest:
        head.rest_statistics(np.concatenate(rest))
    return model


def _trained(plan: Plan, subject: Subject) -> keras.Model:
    """The network with its head, then head and FINs, trained by gradients."""
    recipe, names = plan.recipe, plan.recipe.features.names
    features = subject.features(names, plan.length, subject.rate_hz)
    labels = np.searchsorted(plan.movements, subject.windows.movements)
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
    known = {name: decoder.card["recipe"][name] for name in ("seed", "features", "classifier", "classify")}
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
