"""Trainers: a head, or a whole decoder, compiled once and trained on one set of windows after another.

The stages and the experiments share them. So do `tfkfin.Decoder.fit` and calibration of heads that are trained by
gradients, from windows in memory, without a run folder: solved heads are solved, other heads are trained as the stages
`classify` and `finetune` train them. The trainers are the stages' own, seeded alike, so that both come to the same
network.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import TypeVar

import keras
import numpy as np
import tensorflow as tf

from tfkfin.base import machine
from tfkfin.base.console import log
from tfkfin.base.errors import InputError
from tfkfin.decoder import decoder as decoders
from tfkfin.features import catalogue
from tfkfin.fit import metrics, training
from tfkfin.fit.run import Run
from tfkfin.nets import heads
from tfkfin.nets.augment import SignalAugment
from tfkfin.nets.forward import Forward, Trunk
from tfkfin.nets.network import Parts, head_parts, network
from tfkfin.nets.quality import MOST_WINDOWS, learnt
from tfkfin.pipeline import batches, windows
from tfkfin.pipeline.subject import Subject
from tfkfin.recipe import Fin, Recipe
from tfkfin.recordings.recording import Recording
from tfkfin.sessions.prior import VIRTUAL_GAINS
from tfkfin.store import card, presets

Kind = TypeVar("Kind", bound=decoders.BaseDecoder)
FEW = 4  # windows: where there are fewer neighbours, signals save nothing
CHUNK = 2048  # windows that are in memory at other forces at a time
MAX_RESTS = 256  # windows of rest to draw from, where rest is a movement


def new_head(run: Run, num_classes: int = 0) -> keras.Model:
    """The head of a recipe with random weights, for `num_classes` (0: one a movement of the dataset)."""
    recipe, data = run.recipe, run.dataset
    return heads.new(recipe.classifier, recipe.features.names, run.length, data.channels,
                     num_classes or len(data.movements))


def new_decoder(run: Run, num_classes: int = 0) -> keras.Model:
    """FINs and head of a recipe as one network of volts, with random weights."""
    bank = presets.new_bank(run.fin, run.recipe.features.names, run.length, run.dataset.channels, started=False)
    changes = run.recipe.augment.model_dump()
    augment = SignalAugment(**changes, seed=run.recipe.seed, name="augment") if any(changes.values()) else None
    return network(bank, new_head(run, num_classes), augment)


class HeadTrainer:
    """A head that is trained by gradients on features alone: compiled once, and trained again from the same start.

    Attributes: `head`; its classifier `model`, which is trained; `network`, both as they are saved; `predict` gives
    probabilities of features; `restart` puts the model back to the start: replace it for another start.
    """

    def __init__(self, run: Run, num_classes: int = 0):
        self.options, options = run.recipe.classify, run.recipe.classify
        self.network = new_head(run, num_classes)
        self.head = heads.kind(run.recipe.classifier.kind)(head_parts(self.network)[1])
        self.model = self.head.classifier
        self.optimizer = training.adam(options.learning_rate, options.weight_decay)
        self.optimizer.build(self.model.trainable_variables)
        self.model.compile(self.optimizer, keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"],
                           jit_compile=False)
        self.restart = training.Restart(self.model, self.optimizer)
        self.predict = training.Predictor(self.model)

    def fit(self, features: np.ndarray, labels: np.ndarray, seed: int, title: str, epochs: int = 0,
            callbacks: Sequence = ()) -> dict[str, list[float]]:
        """Trains on features (N, C, F) in own units and class indices (N,); returns the history by epoch.

        `epochs=0` takes the recipe's.
        """
        self.restart()
        options, epochs = self.options, epochs or self.options.epochs
        if self.head.prepare:
            self.head.prepare(features)
        steps = epochs * -(-len(labels) // options.batch_size)
        data = batches.of_features(features, labels, options.batch_size, seed)
        cosine = [training.Cosine([self.optimizer], steps)] if options.schedule == "cosine" else []
        with training.Progress(title, steps) as bar:
            calls = [bar, *cosine, *callbacks]
            return self.model.fit(data, epochs=epochs, verbose=0, shuffle=False, callbacks=calls).history


class SolvedHead:
    """In place of `HeadTrainer` for heads that are solved in closed form, on a subject's true features.

    Attributes: `head`; `network`, as it is saved; `described` gives descriptions of a subject's windows, None if the
    head takes none.
    """

    def __init__(self, run: Run):
        self.run, self.network = run, new_head(run)
        describe, classifier = head_parts(self.network)
        self.head = heads.kind(run.recipe.classifier.kind)(classifier, describe, run.dataset.channels)
        self.described = partial(described, Trunk(run.length, run.dataset.channels, describe=describe))

    def fit(self, part: Subject, features: np.ndarray, labels: np.ndarray, described: np.ndarray | None) -> None:
        """Solves for a subject's windows: features (N, C, F), class indices (N,) and descriptions (N, S)."""
        def inputs(part: Subject) -> np.ndarray:
            true = part.features(self.run.recipe.features.names, self.run.length, self.run.dataset.rate_hz)
            return np.asarray(self.head.inputs(true, self.described(part)))

        virtual = [virtual_inputs(part, self.run.length, inputs)] if self.run.recipe.classifier.forces else []
        self.head.solve(np.asarray(self.head.inputs(features, described)), labels, part.groups, *virtual)

    def predict(self, features: np.ndarray, described: np.ndarray | None) -> np.ndarray:
        """Probabilities (N, G)."""
        return self.head.probabilities(np.asarray(self.head.inputs(features, described)))


def virtual_inputs(part: Subject, length: int, inputs: Callable[[Subject], np.ndarray]) -> list[np.ndarray]:
    """Head inputs (N, D) of a subject's windows of `length` samples as if made with other forces: `VIRTUAL_GAINS`.

    `inputs` gives those of a subject's windows.

    A window w becomes mean + gain (w - mean) + (rest - mean), where rest is a window of rest, drawn at random: what the
    electrodes record at rest does not shrink with the force. Where no rest is recorded, nothing is added.
    """
    rng, rest, found = np.random.default_rng(0), part.rest, []
    if rest is None:
        rows = np.flatnonzero(part.windows.movements == 0)
        rest = part.volts(length, rows[windows.evenly(len(rows), MAX_RESTS)])
    for gain in VIRTUAL_GAINS:
        chunks = []
        for first in range(0, len(part.windows), CHUNK):
            volts = part.mean + gain * (part.volts(length, slice(first, first + CHUNK)) - part.mean)
            if len(rest):
                volts += rest[rng.integers(len(rest), size=len(volts))] - part.mean
            chunks.append(inputs(part.of_windows(volts)))
        found.append(np.concatenate(chunks))
    return found


def described(trunk: Trunk, part: Subject) -> np.ndarray | None:
    """Descriptions (N, S) of a subject's windows, standardised by its statistics; None if there are none."""
    if "described" not in trunk.parts:
        return None
    return trunk.recording(part.emg, part.windows.starts, part.mean, part.sd, ("described",))["described"]


class TwoRates(keras.Model):
    """A decoder's network while it is trained: FINs and head have an optimiser each (paper's code: Adam 1e-3, 1e-2).

    `TwoRates(network.input, network.output)` shares the network's layers; call `set_optimizers` before `fit`.
    Inputs are windows of volts, or signals as of `training.neighbour_batches`, whose samples are then filtered once.
    """

    def set_optimizers(self, fin: keras.optimizers.Optimizer | None, head: keras.optimizers.Optimizer) -> None:
        """`fin=None` freezes the FINs."""
        self.fin_optimizer, self.head_optimizer, parts = fin, head, Parts.of(self)
        parts.bank.trainable = fin is not None
        if fin is not None:
            fin.build(parts.bank.trainable_variables)
        head.build(parts.head.trainable_variables)

    def train_step(self, data):
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        parts = Parts.of(self)
        with tf.GradientTape() as tape:
            predicted = self.of_signals(*x) if isinstance(x, tuple) else self(x, training=True)
            loss = self.compute_loss(x, y, predicted, weight)
        trained = [(self.head_optimizer, parts.head)]
        if self.fin_optimizer is not None:
            trained.append((self.fin_optimizer, parts.bank))
        gradients = tape.gradient(loss, [part.trainable_variables for _, part in trained])
        for (optimizer, part), gradient in zip(trained, gradients, strict=True):
            optimizer.apply(gradient, part.trainable_variables)
        self._loss_tracker.update_state(loss, sample_weight=tf.shape(tf.nest.flatten(y)[0])[0])
        return self.compute_metrics(x, y, predicted, weight)

    def of_signals(self, emg: tf.Tensor, wanted: tf.Tensor) -> dict[str, tf.Tensor]:
        """Signals (B, T, C) of volts and which of their windows are wanted (B, P) -> outputs in training (n, ...)."""
        forward = Forward(self)
        stride = (emg.shape[1] - forward.trunk.length) // (wanted.shape[1] - 1)
        parts = forward.trunk.signal(stride)(forward.parts.standardise(emg))
        parts = {name: tf.boolean_mask(part, wanted) for name, part in parts.items()}
        return {"probabilities": forward.head.decide(forward.head.inputs(**parts), training=True),
                "features": parts["features"]}


class JointTrainer:
    """A whole decoder compiled once, trained on windows again and again, each time from the same start.

    Attributes: `network`, the decoder's; `forward`, which runs it; its parts `fins` and `head`; `model`, the same being
    trained; `predict` and `restart` as of `HeadTrainer`; `described` gives descriptions, which `answers` can use again.
    """

    def __init__(self, run: Run, num_classes: int = 0, frozen: bool = False, untrained: bool = False):
        """`frozen` keeps the FINs as they are, whatever the recipe says; `untrained`: the head has random weights, so
        that its BatchNorms must be trained.
        """
        options = run.recipe.finetune
        self.run, self.network = run, new_decoder(run, num_classes)
        self.model = TwoRates(self.network.input, self.network.output)
        self.forward = Forward(self.network)
        self.fins, self.head = self.forward.parts.bank, heads.kind(run.recipe.classifier.kind).of(self.forward.parts)
        for layer in self.head.classifier.layers:
            if options.freeze_norm and not untrained and isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
        fin_rate = 0 if frozen or not self.fins.trainable_variables else options.fin_learning_rate
        self.rates = (training.adam(fin_rate, options.fin_weight_decay) if fin_rate else None,
                      training.adam(options.head_learning_rate, options.head_weight_decay))
        self.model.set_optimizers(*self.rates)
        losses, weights = {"probabilities": keras.losses.SparseCategoricalCrossentropy(), "features": None}, None
        if run.recipe.features.names:
            losses["features"] = training.imitation_loss(self.fins)
            weights = {"probabilities": 1.0, "features": options.imitation_weight}
        self.model.compile(self.rates[1], losses, metrics={"probabilities": ["accuracy"]}, jit_compile=False,
                           loss_weights=weights)
        self.restart = training.Restart(self.model, *self.rates)
        self.predict = training.Predictor(self.model)
        self.described = partial(described, self.forward.trunk)

    def answers(self, part: Subject, described: np.ndarray | None = None,
                wanted: Sequence[str] = ("features", "probabilities")) -> dict[str, np.ndarray]:
        """What `forward` answers for a subject's windows, (N, ...) each.

        `described`: descriptions of the windows, if they are known already: fine-tuning does not change them.
        """
        if described is None:
            return self.forward.recording(part.emg, part.windows.starts, wanted)
        features = self.forward.recording(part.emg, part.windows.starts, ("features",))["features"]
        inputs = np.asarray(self.head.inputs(features, described))
        answers = {"features": features, "inputs": inputs}
        if "probabilities" in wanted:
            answers["probabilities"] = self.head.probabilities(inputs)
        return answers

    def standardise(self, part: Subject) -> None:
        """Lets the network standardise by a subject's statistics."""
        self.forward.parts.standardise.set(part.mean, part.sd)

    def fit(self, part: Subject, targets: np.ndarray, labels: np.ndarray, seed: int, count: int = 0,
            callbacks: Sequence = (), after: Callable[[int, dict], None] = lambda epoch, values: None) -> None:
        """Trains from where the model is, on a subject's windows, their true features (N, C, F) and classes (N,).

        Args:
            seed: with the subject's number and the epoch it decides the order of windows.
            count: windows an epoch, some of them more than once if there are fewer; 0 takes as the recipe says.
            after: called with the epoch and its {name: value} when it is done.
        """
        self.standardise(part)
        options, there = self.run.recipe.finetune, len(part.windows)
        count = count or min(there, options.windows_per_epoch or there)
        steps = options.epochs * -(-count // options.batch_size)
        cosine = [training.Cosine(self.rates, steps)] if options.schedule == "cosine" else []
        with training.Progress(f"finetune S{part.number}", steps) as bar:
            for epoch in range(options.epochs):
                rng = np.random.default_rng([seed, part.number, epoch])
                order = np.concatenate([rng.permutation(there) for _ in range(-(-count // there))])[:count]
                data = self._batches(part, targets, labels, order, rng)
                history = self.model.fit(data, verbose=0, shuffle=False, callbacks=[bar, *cosine, *callbacks]).history
                after(epoch, {name: values[0] for name, values in history.items()})

    def _batches(self, part: Subject, targets: np.ndarray, labels: np.ndarray, order: np.ndarray,
                 rng: np.random.Generator) -> tf.data.Dataset:
        """An epoch. All windows of a recording, none of them changed, go in pieces of neighbours if the FINs stream."""
        recipe, there = self.run.recipe, len(part.windows)
        data = part, targets, labels, self.run.length, recipe.finetune.batch_size
        if len(order) == there and self.forward.streams and not any(recipe.augment.model_dump().values()):
            pieces = training.neighbours(part.windows.starts)
            if there > FEW * len(pieces):
                return training.neighbour_batches(*data, [pieces[i] for i in rng.permutation(len(pieces))])
        return batches.of_subject(*data, order, recipe.batches.prefetch)


def where_fins_fail(forward: Forward, part: Subject, names: tuple[str, ...]) -> dict:
    """Warns of a person whose features on these training windows the FINs do not imitate.

    Returns:
        what its card says of it: `imitates_badly`, the worst feature's name and R²; nothing where FINs hold.
    """
    if not names or not len(part.windows):
        return {}
    chosen = windows.evenly(len(part.windows), metrics.LOOKED_AT)
    true = catalogue.direct(part.cut(forward.trunk.length, chosen), names, part.rate_hz)
    said = forward.recording(part.emg, part.windows.starts[chosen], ("features",))["features"]
    name, r2 = metrics.lowest_r2(true, said, names)
    if r2 >= metrics.HOLDS:
        return {}
    log.warning("warning: S%d: the FINs do not hold on these recordings: R² of %s is %.2f on training windows. Let "
                "them learn from these recordings first (imitate.epochs=auto), or do without (features.names=)",
                part.number, name, r2)
    return {"imitates_badly": {"feature": name, "r2": round(r2, 3)}}


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

    @property
    def fin(self) -> Fin:
        return self.recipe.fin


def fit(recipe: Recipe, recordings: Sequence[Recording]) -> tuple[dict, keras.Model]:
    """A decoder's card and network, fitted to all windows of recordings of one person or several.

    Raises:
        InputError: windows of fewer than two movements, or several rates that the recipe does not resample.
    """
    machine.one_process()
    window, rates = recipe.window, sorted({recording.rate_hz for recording in recordings})
    if len(rates) > 1 and not window.rate_hz:
        raise InputError(f"recordings are at {', '.join(f'{rate:g}' for rate in rates)} Hz: set window.rate_hz to "
                         "resample them")
    solved = heads.kind(recipe.classifier.kind).solve is not None
    # each is made when it is its turn, and again the next time, so that one at a time is held; a single one is held
    people: list[Callable[[], Subject]] = [
        partial(Subject.of, [one for one in recordings if who in (None, one.subject)], window, recipe.filter)
        for who in (dict.fromkeys(one.subject for one in recordings) if solved else (None,))]
    people = people if len(people) > 1 else [cache(people[0])]
    every, shown, most = [], [], MOST_WINDOWS // len({recording.subject for recording in recordings})
    for subject in (make() for make in people):
        every += [(subject.windows.movements, subject.statistics)]
        shown += subject.some_windows(round(subject.rate_hz * window.length_ms / 1000), most)
    movements = tuple(np.unique(np.concatenate([labels for labels, _ in every])).tolist())
    if len(movements) < 2:
        raise InputError(f"`data` must hold windows of two movements or more. Received: {list(movements)}")
    mean, sd = sum((statistics for _, statistics in every[1:]), every[0][1]).mean_and_sd()
    rate = window.rate_hz or rates[0]
    length, stride = (windows.samples(ms, rate) for ms in (window.length_ms, window.stride_ms))
    plan = Plan(recipe, length, len(mean), movements)
    model, poor = _solved(plan, people, mean, sd) if solved else _trained(plan, people[0]())
    names = {movement: name for one in recordings for movement, name in one.names.items()}
    own = card.about(recipe, rate, length, stride, movements, mean, sd, names, rates) | poor | {
        "signal": learnt(shown, mean, sd, rate)}
    return card.of_fitted(own, sum(len(labels) for labels, _ in every), {one.subject for one in recordings},
                          any(one.synthetic for one in recordings), model.count_params()), model


def _solved(plan: Plan, people: Sequence[Callable[[], Subject]], mean: np.ndarray,
            sd: np.ndarray) -> tuple[keras.Model, dict]:
    """The network with its head solved, each session of each person by itself; and where its FINs fail."""
    recipe, names = plan.recipe, plan.recipe.features.names
    with _seeded(recipe.seed):
        model = network(presets.shared_bank(recipe.fin, names, plan.length, plan.channels), new_head(plan))
    forward = Forward(model)
    forward.parts.standardise.set(mean, sd)
    head = heads.kind(recipe.classifier.kind).of(forward.parts)

    def inputs(part: Subject) -> np.ndarray:
        return forward.recording(part.emg, part.windows.starts, ("inputs",))["inputs"]

    x, rest, rows, virtual, poor = [], [], [], [], {}
    for number, subject in enumerate(make() for make in people):
        poor |= where_fins_fail(forward, subject, names)
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
    return model, poor


def _trained(plan: Plan, subject: Subject) -> tuple[keras.Model, dict]:
    """The network with its head, then head and FINs, trained by gradients; and where its FINs fail."""
    recipe, names = plan.recipe, plan.recipe.features.names
    features = subject.features(names, plan.length, subject.rate_hz)
    labels = np.searchsorted(plan.movements, subject.windows.movements)
    with _seeded(recipe.seed):
        head = HeadTrainer(plan)
        keras.utils.set_random_seed(recipe.seed)  # as each stage begins
        joint = JointTrainer(plan)
        joint.fins.set_weights(presets.new_bank(recipe.fin, names, plan.length, plan.channels).get_weights())
        if not recipe.fin.pretrained:
            training.fit_scales(joint.fins, features)
        head.fit(features, labels, recipe.seed, f"classify S{subject.number}")
        joint.forward.parts.head.set_weights(head.network.get_weights())
        joint.standardise(subject)
        poor = where_fins_fail(joint.forward, subject, names)
        joint.fit(subject, features, labels, recipe.seed)
    return joint.network, poor


def train_on(decoder: Kind, inputs: np.ndarray, labels: np.ndarray) -> tuple[Kind, dict]:
    """A new decoder whose head is trained further on head inputs (N, ...) of a session; FINs stay as they are.

    The head takes `classify.epochs` x ceil(N / `classify.batch_size`) updates at `classify.learning_rate`, from where
    it stands. Its z-score is that of the session.

    Args:
        labels: class indices (N,).
    """
    known = {name: decoder.card["recipe"][name] for name in ("seed", "features", "classifier", "classify")}
    plan = Plan(Recipe.model_validate(known), decoder.length, decoder.channels, tuple(decoder.movements.tolist()))
    with _seeded(plan.recipe.seed):
        trainer = HeadTrainer(plan)
        trainer.model.set_weights(decoder.head.classifier.get_weights())
        trainer.restart = training.Restart(trainer.model, trainer.optimizer)
        trainer.fit(inputs, labels, plan.recipe.seed, "calibrate")
    new = decoder.with_head(decoder.head.copy())
    new.head.classifier.set_weights(trainer.model.get_weights())
    return new, {"unseen": np.setdiff1d(decoder.movements, decoder.movements[labels]).tolist(),
                 "updates": int(trainer.optimizer.iterations.numpy())}


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Sets every seed; Python's and NumPy's random numbers go on afterwards as if nothing had been drawn meanwhile."""
    kept, numpys = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(kept)
        np.random.set_state(numpys)
