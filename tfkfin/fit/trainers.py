"""Trainers: a head, or a whole decoder, compiled once and trained on one set of windows after another.

The stages and the experiments share them.
"""

from collections.abc import Callable, Sequence
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from tfkfin.decoder import decoder
from tfkfin.fit import training
from tfkfin.fit.run import Run
from tfkfin.nets import heads, streaming
from tfkfin.nets.layers import SignalAugment, ZScore
from tfkfin.nets.over_recording import OverRecording, over_recording
from tfkfin.pipeline import batches
from tfkfin.pipeline.subject import Subject
from tfkfin.store import presets

FEW = 4  # windows: where there are fewer neighbours, stretches save nothing


def new_head(run: Run, num_classes: int = 0) -> keras.Model:
    """The head of a recipe with random weights, for `num_classes` (0: one a movement of the dataset)."""
    recipe, data = run.recipe, run.dataset
    return heads.new(recipe.classifier, recipe.features.names, run.length, data.channels,
                     num_classes or len(data.movements))


def new_decoder(run: Run, num_classes: int = 0) -> keras.Model:
    """FINs and head of a recipe as one network of volts, with random weights."""
    options, names = run.recipe.fin.model_copy(update={"pretrained": ""}), run.recipe.features.names
    bank = presets.new_bank(options, names, run.length, run.dataset.channels)
    changes = run.recipe.augment.model_dump()
    augment = SignalAugment(**changes, seed=run.recipe.seed, name="augment") if any(changes.values()) else None
    return decoder.network(bank, new_head(run, num_classes), augment)


class HeadTrainer:
    """A head's classifier compiled once, trained on features again and again, each time from the same start.

    For heads that see features alone and are not solved. Attributes: `head`, and its `model` being trained; `predict`
    gives its outputs; `restart` puts it back to the start: replace it for another one.
    """

    def __init__(self, run: Run, num_classes: int = 0):
        self.options, options = run.recipe.classify, run.recipe.classify
        self.kind = run.recipe.classifier.kind
        self.head = self.network = new_head(run, num_classes)
        self.model = self.head.get_layer("classifier")
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
        if prepare := heads.kind(self.kind).prepare:
            prepare(self.model, [features])
        steps = epochs * -(-len(labels) // options.batch_size)
        data = batches.of_features(features, labels, options.batch_size, seed)
        cosine = [training.Cosine([self.optimizer], steps)] if options.schedule == "cosine" else []
        with training.progress(title, steps) as bar:
            calls = [bar, *cosine, *callbacks]
            return self.model.fit(data, epochs=epochs, verbose=0, shuffle=False, callbacks=calls).history


class SolvedHead:
    """In place of `HeadTrainer` for heads that are solved in closed form, on a subject's true features."""

    def __init__(self, run: Run):
        self.head, self.kind = new_head(run), heads.kind(run.recipe.classifier.kind)
        self.model = self.head.get_layer("classifier")
        self.described = _Describe(self.head, run)
        self._predict = training.Predictor(self.model)

    def fit(self, part: Subject, features: np.ndarray, labels: np.ndarray, described: np.ndarray | None) -> None:
        """Solves for a subject's windows: their features (N, C, F), class indices (N,) and what `described` says."""
        self.kind.solve(self.model, _seen(features, described), labels, part.groups)

    def predict(self, features: np.ndarray, described: np.ndarray | None) -> np.ndarray:
        """Probabilities (N, G)."""
        seen = _seen(features, described)
        return self._predict(seen if len(seen) > 1 else seen[0], 4096)


def _seen(features: np.ndarray, described: np.ndarray | None) -> list[np.ndarray]:
    """What a head's classifier is given."""
    return [features] if described is None else [features, described]


class _Describe:
    """What a head computes from samples beside features, for a subject's windows: (N, S), or None if it does not.

    Samples are standardised in float32, as the decoder will do.
    """

    def __init__(self, head: keras.Model, run: Run):
        self._describe, self._standardise = None, ZScore(dtype="float32")
        self._standardise.build((None, None, run.dataset.channels))
        if heads.describer(head) is not None:
            self._describe = OverRecording(partial(self._of_volts, head), run.length, run.dataset.channels, True)

    def _of_volts(self, head: keras.Model, stride: int) -> Callable[[tf.Tensor], tf.Tensor]:
        describe = streaming.stream_described(head, stride)
        return lambda volts: describe(self._standardise(volts))

    def __call__(self, part: Subject) -> np.ndarray | None:
        if self._describe is None:
            return None
        self._standardise.set(part.mean, part.sd)
        return self._describe(part.emg, part.windows.starts)


class TwoRates(keras.Model):
    """A decoder's network while it is trained: FINs and head have an optimiser each (paper's code: Adam 1e-3, 1e-2).

    `TwoRates(network.input, network.output)` shares the network's layers; call `set_optimizers` before `fit`.
    Inputs are windows of volts, or stretches as of `training.stretches`, whose samples are then filtered once.
    """

    def set_optimizers(self, fin: keras.optimizers.Optimizer | None, head: keras.optimizers.Optimizer) -> None:
        """`fin=None` freezes the FINs."""
        self.fin_optimizer, self.head_optimizer = fin, head
        bank, head_model = self.get_layer("fins"), self.get_layer("head")
        bank.trainable = fin is not None
        if fin is not None:
            fin.build(bank.trainable_variables)
        head.build(head_model.trainable_variables)

    def train_step(self, data):
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            predicted = self.of_stretches(*x) if isinstance(x, tuple) else self(x, training=True)
            loss = self.compute_loss(x, y, predicted, weight)
        parts = [(self.head_optimizer, self.get_layer("head"))]
        if self.fin_optimizer is not None:
            parts.append((self.fin_optimizer, self.get_layer("fins")))
        gradients = tape.gradient(loss, [part.trainable_variables for _, part in parts])
        for (optimizer, part), gradient in zip(parts, gradients, strict=True):
            optimizer.apply(gradient, part.trainable_variables)
        self._loss_tracker.update_state(loss, sample_weight=tf.shape(tf.nest.flatten(y)[0])[0])
        return self.compute_metrics(x, y, predicted, weight)

    def of_stretches(self, emg: tf.Tensor, wanted: tf.Tensor) -> dict[str, tf.Tensor]:
        """Stretches (B, T, C) of volts and which of their windows are wanted (B, P) -> outputs in training (n, ...)."""
        bank, head = self.get_layer("fins"), self.get_layer("head")
        stride = (emg.shape[1] - bank.input_shape[1]) // (wanted.shape[1] - 1)
        x = self.get_layer("standardise")(emg)
        parts = streaming.stream_bank(bank, stride), streaming.stream_described(head, stride)
        seen = [tf.boolean_mask(part(x), wanted) for part in parts if part is not None]
        return {"probabilities": head.get_layer("classifier")(seen if len(seen) > 1 else seen[0], training=True),
                "features": seen[0]}


class JointTrainer:
    """A whole decoder compiled once, trained on windows again and again, each time from the same start.

    Attributes: `network`, the decoder's, and its parts `fins` and `head`; `model`, the same being trained;
    `predict` and `restart` as of `HeadTrainer`.
    """

    def __init__(self, run: Run, num_classes: int = 0, frozen: bool = False, untrained: bool = False):
        """`frozen` keeps the FINs as they are, whatever the recipe says; `untrained` says that the head has learnt
        nothing yet, so that its BatchNorms must.
        """
        options = run.recipe.finetune
        self.run, self.network = run, new_decoder(run, num_classes)
        self.model = TwoRates(self.network.input, self.network.output)
        self.fins, self.head = self.network.get_layer("fins"), self.network.get_layer("head")
        for layer in self.head.get_layer("classifier").layers:
            if options.freeze_norm and not untrained and isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
        fin_rate = 0 if frozen else options.fin_learning_rate
        self.rates = (training.adam(fin_rate, options.fin_weight_decay) if fin_rate else None,
                      training.adam(options.head_learning_rate, options.head_weight_decay))
        self.model.set_optimizers(*self.rates)
        losses = {"probabilities": keras.losses.SparseCategoricalCrossentropy(),
                  "features": training.imitation_loss(self.fins)}
        self.model.compile(self.rates[1], losses, metrics={"probabilities": ["accuracy"]}, jit_compile=False,
                           loss_weights={"probabilities": 1.0, "features": options.imitation_weight})
        self.restart = training.Restart(self.model, *self.rates)
        self.predict = training.Predictor(self.model)
        self.described = _Describe(self.head, run)
        self._features = over_recording(self.network, streaming.stream_features)
        self._decide = training.Predictor(self.head.get_layer("classifier"))

    def seen(self, part: Subject, described: np.ndarray | None = None) -> list[np.ndarray]:
        """What the head's classifier is given for a subject's windows, (N, ...) each; streamed where the FINs can.

        `described`: what it is told beside features, if that is known already.
        """
        features = self._features(part.emg, part.windows.starts)
        return _seen(features, self.described(part) if described is None else described)

    def answers(self, part: Subject, described: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The network's outputs for a subject's windows, (N, ...) each."""
        seen = self.seen(part, described)
        return {"probabilities": self._decide(seen if len(seen) > 1 else seen[0], 4096), "features": seen[0]}

    def standardise(self, part: Subject) -> None:
        """Lets the network standardise by a subject's statistics."""
        self.network.get_layer("standardise").set(part.mean, part.sd)

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
        with training.progress(f"finetune S{part.number}", steps) as bar:
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
        if len(order) == there and streaming.streams(self.fins) and not any(recipe.augment.model_dump().values()):
            pieces = training.pieces(part.windows.starts)
            if there > FEW * len(pieces):
                return training.stretches(*data, [pieces[i] for i in rng.permutation(len(pieces))])
        return batches.of_subject(*data, order, recipe.batches.prefetch)
