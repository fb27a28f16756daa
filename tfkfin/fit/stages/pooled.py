"""The stage `pooled`: FINs are trained further over people and sessions, by episodes.

An episode is two training repetitions of one person (`tfkfin.pipeline.episodes`). On the first a linear discriminant of
the imitated features, and of the head's descriptions, is solved in closed form. The loss is its cross-entropy on the
second repetition, and the gradient goes through the solution into the FINs; a second term is the imitation loss. The
FINs depend on no person, movement or number of channels: `fin.pretrained` takes the stage's folder as it takes shipped
FINs.
"""

import math

import keras
import numpy as np
import tensorflow as tf

from tfkfin.base.console import log
from tfkfin.base.errors import InputError
from tfkfin.features import catalogue
from tfkfin.fit import board, metrics, training
from tfkfin.fit.early_stopping import EarlyStopping
from tfkfin.fit.run import Run
from tfkfin.fit.stages import Stage, imitate
from tfkfin.nets import descriptions, solving, streaming
from tfkfin.nets.layers import LogScale
from tfkfin.pipeline.episodes import Episode, Episodes, augmented
from tfkfin.pipeline.windows import samples
from tfkfin.store import presets

SHARPNESS = np.geomspace(0.01, 1, 13)  # factors of logits, for the discriminant treats windows as independent


def pooled(run: Run) -> dict:
    if run.recipe.source.kind == "signals":
        raise InputError("the stage pooled is trained on recordings: source.kind = 'signals' has none")
    data, names = run.dataset, run.recipe.features.names
    bank = presets.new_bank(run.recipe.fin, names, run.length, data.channels)
    predict, (emg, true) = training.Predictor(bank), imitate.sample(
        run, "test", run.recipe.imitate.test_windows)
    before = metrics.imitation(true, predict(emg), names)
    with board.Summaries(run.board("pooled")) as shown, board.Curves(shown.folder) as curves:
        held_out = _train(run, bank, curves)
        scores = metrics.imitation(true, predict(emg), names)
        shown.scalars({f"r2/{name}": s["r2"] for name, s in scores.items()}, run.recipe.pooled.episodes)
    imitate.keep(run, bank, "pooled", scores)
    log.info("pooled: held-out %s; R² of imitation %s", ", ".join(
        f"{what} {held_out['before'][what]:.3f} -> {held_out['after'][what]:.3f}" for what in held_out["before"])
        or "nothing",
        ", ".join(f"{name} {before[name]['r2']:.3f} -> {scores[name]['r2']:.3f}" for name in names))
    return {"fin": scores, "fin_before": before, "pooled": held_out}


def _train(run: Run, bank: keras.Model, curves: board.Curves) -> dict:
    """Trains the bank and puts its best weights back. Returns scores of held-out episodes, before and after."""
    options, seed, learner = run.recipe.pooled, run.recipe.seed, Learner(run, bank)
    held_out = [learner.episodes.draw(np.random.default_rng([seed, 1, i]), True)
                for i in range(options.validation_episodes * learner.episodes.holds_out)]
    kept = {f"{name}_{when}": tf.Variable(np.nan) for when in ("before", "after") for name in ("loss", "accuracy")}
    stopping = EarlyStopping(run.stage_folder("pooled"), bank, "episode", optimizer=learner.optimizer,
                             sharpness=learner.sharpness, **kept)

    def validate(done: int) -> None:
        """Scores held-out episodes. Without any, the last weights count as the best."""
        scores = learner.scores(held_out) if held_out else {}
        better = stopping.add(scores.get("loss", -done))
        for name, value in scores.items():
            for when, wanted in (("before", not done), ("after", better)):
                if wanted:
                    kept[f"{name}_{when}"].assign(value)
        if scores:
            curves.add("validation", scores, done)
            log.info("pooled %d/%d: held-out loss %.4f, accuracy %.3f", done, options.episodes, scores["loss"],
                     scores["accuracy"])
        stopping.save(done)

    if not stopping.restored():
        training.fit_scales(bank, learner.drawn(0, False)[1])
        learner.sharpen([learner.drawn(i, False)[0] for i in range(8)])
        validate(0)
    with training.progress("pooled", options.episodes) as bar:
        bar.on_train_begin()
        bar.step = stopping.done
        for done in range(stopping.done + 1, options.episodes + 1):
            values = learner.step(done)
            bar.on_train_batch_end(done, values)
            if done % options.look_every == 0 or done == options.episodes:
                curves.add("train", values, done)
                validate(done)
    stopping.load_best()
    return {"episodes": options.episodes} | {
        when: {name: float(kept[f"{name}_{when}"]) for name in ("loss", "accuracy") if held_out}
        for when in ("before", "after")}


class Learner:
    """The FINs, their episodes, and a step of training."""

    def __init__(self, run: Run, bank: keras.Model):
        recipe, data, options = run.recipe, run.dataset, run.recipe.pooled
        self.run, self.length, self.stride = run, run.length, samples(options.stride_ms, data.rate_hz)
        side = data.part("pretrain")
        people = (data.load(s, side).select(side) for s in data.split.pretrain_subjects)
        most = samples(1000 * options.seconds, data.rate_hz)
        self.episodes = Episodes(people, self.length, self.stride, most, options)
        self.bank, self.variables = bank, bank.trainable_variables
        self.optimizer = training.adam(options.learning_rate, options.weight_decay, options.clip_norm)
        self.optimizer.build(self.variables)
        self.sharpness = tf.Variable(1.0, trainable=False)
        self._features = streaming.stream_bank(bank, self.stride)
        self._describe = recipe.classifier.describe and streaming.stream_layer(
            descriptions.new(recipe.classifier, "describe"), self.length, self.stride)
        self._log, self._imitation = LogScale(recipe.features.names), training.imitation_loss(bank)
        self._outputs = tf.function(self._compute)
        self._step = tf.function(self._train)

    def drawn(self, number: int, augment: bool = True) -> tuple[Episode, np.ndarray]:
        """Episode `number`, augmented, and the true features (2 K W, C, F) of its windows."""
        rng = np.random.default_rng([self.run.recipe.seed, 0, number])
        episode = self.episodes.draw(rng)
        episode = augmented(episode, self.run.recipe.augment, rng) if augment else episode
        joined = np.concatenate([episode.solved, episode.decided])
        starts = np.arange(self.episodes.windows) * self.stride + len(joined[0]) * np.arange(len(joined))[:, None]
        return episode, catalogue.extract(joined.reshape(-1, joined.shape[2]), starts.ravel(), self.length,
                                          self.run.recipe.features.names, self.run.dataset.rate_hz)

    def step(self, number: int) -> dict[str, float]:
        """Trains on an episode."""
        options = self.run.recipe.pooled
        cosine = 0.5 * (1 + math.cos(math.pi * (number - 1) / options.episodes))
        self.optimizer.learning_rate.assign(options.learning_rate * cosine)
        episode, true = self.drawn(number)
        found = self._step(*_tensors(episode), tf.constant(true))
        return {name: float(value) for name, value in found.items()}

    def scores(self, episodes: list[Episode]) -> dict[str, float]:
        """Mean cross-entropy and accuracy."""
        found = [self._loss_and_accuracy(*self._outputs(*_tensors(episode))[:2]) for episode in episodes]
        return {name: float(np.mean([one[name] for one in found])) for name in found[0]}

    def sharpen(self, episodes: list[Episode]) -> None:
        """Chooses the factor of the logits with the lowest cross-entropy on training episodes."""
        found = [self._outputs(*_tensors(episode))[:2] for episode in episodes]

        def loss(by: float) -> float:
            return sum(float(tf.reduce_mean(_cross_entropy(by * logits, classes))) for logits, classes in found)

        self.sharpness.assign(min(SHARPNESS, key=loss))

    def _compute(self, solved: tf.Tensor, decided: tf.Tensor, same: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Logits (K W, K) and classes (K W, K) of the second repetition's windows; features (2 K, W, C, F)."""
        x = tf.concat([solved, decided], 0)
        features = self._features(x)
        rows = self.episodes.windows * tf.shape(solved)[0]
        inputs = tf.reshape(self._log(features), (2 * rows, features.shape[2] * features.shape[3]))
        if self._describe:
            described = tf.stop_gradient(self._describe(x))
            inputs = tf.concat([inputs, tf.reshape(described, (2 * rows, described.shape[2]))], 1)
        inputs = tf.cast(inputs, tf.float64)
        one, other = solving.z_scored(inputs[:rows], inputs[rows:], same)
        classes = tf.repeat(tf.eye(tf.shape(solved)[0], dtype=tf.float64), self.episodes.windows, axis=0)
        weights, bias = solving.discriminant(one, classes)
        return tf.cast(other @ weights + bias, tf.float32), tf.cast(classes, tf.float32), features

    def _loss_and_accuracy(self, logits: tf.Tensor, classes: tf.Tensor) -> dict[str, tf.Tensor]:
        right = tf.equal(tf.argmax(logits, 1), tf.argmax(classes, 1))
        return {"loss": tf.reduce_mean(_cross_entropy(self.sharpness * logits, classes)),
                "accuracy": tf.reduce_mean(tf.cast(right, tf.float32))}

    def _train(self, solved: tf.Tensor, decided: tf.Tensor, same: tf.Tensor, true: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            logits, classes, features = self._compute(solved, decided, same)
            values = self._loss_and_accuracy(logits, classes)
            imitated = tf.reshape(features, (-1, *features.shape[2:]))
            values["imitation"] = tf.reduce_mean(self._imitation(true, imitated))
            loss = values["loss"] + self.run.recipe.pooled.imitation_weight * values["imitation"]
        self.optimizer.apply(tape.gradient(loss, self.variables), self.variables)
        return values


def _cross_entropy(logits: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    return tf.nn.softmax_cross_entropy_with_logits(classes, logits)


def _tensors(episode: Episode) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    return tf.constant(episode.solved), tf.constant(episode.decided), tf.constant(episode.same)


STAGE = Stage("pooled", (), pooled)
