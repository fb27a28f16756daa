"""The stage `pooled`: FINs go on learning over people and sessions, by episodes.

An episode draws a person and two training repetitions (`tfkfin.pipeline.episodes`). On the first a linear discriminant
is solved in closed form, of what the FINs answer and what heads see besides; the loss is its cross-entropy on the
second, and its gradient goes through the solution into the FINs. A second term keeps them imitating. What is learnt
knows no person, movement or number of channels: `fin.pretrained` takes the stage's folder, as it takes shipped FINs.
"""

import math

import keras
import numpy as np
import tensorflow as tf

from tfkfin.base.console import InputError, log
from tfkfin.features import catalogue
from tfkfin.fit import board, metrics, training
from tfkfin.fit.run import Run
from tfkfin.fit.stages import Stage, _fins, imitate
from tfkfin.nets import descriptions, saving, solving, streaming
from tfkfin.nets.layers import LogScale
from tfkfin.pipeline.episodes import Episode, Episodes, augmented
from tfkfin.pipeline.windows import samples
from tfkfin.store import presets

BEST = "fins.weights.h5"
SHARPNESS = np.geomspace(0.01, 1, 13)  # of probabilities: a discriminant takes neighbours for independent


def pooled(run: Run) -> dict:
    if run.recipe.source.kind == "signals":
        raise InputError("the stage pooled learns from recordings: source.kind = 'signals' has none")
    data, names, folder = run.dataset, run.recipe.features.names, run.stage_folder("pooled")
    bank = presets.new_bank(run.recipe.fin, names, run.length, data.channels)
    predict, (emg, true) = training.Predictor(bank), imitate.sample(
        run.recipe, data, run.length, "test", run.recipe.imitate.test_windows)
    before = metrics.imitation(true, predict(emg), names)
    with board.Board(run.board("pooled")) as shown, board.Curves(shown.folder) as curves:
        told = _trained(run, bank, curves)
        saving.load_weights(bank, folder / BEST, f"remove {folder}, and the same command makes it anew")
        scores = metrics.imitation(true, predict(emg), names)
        shown.scalars({f"r2/{name}": s["r2"] for name, s in scores.items()}, run.recipe.pooled.episodes)
    _fins.keep(run, bank, folder, {"fin": scores})
    log.info("pooled: held-out %s; R² of imitation %s", ", ".join(
        f"{what} {told['before'][what]:.3f} -> {told['after'][what]:.3f}" for what in told["before"]) or "nothing",
        ", ".join(f"{name} {before[name]['r2']:.3f} -> {scores[name]['r2']:.3f}" for name in names))
    return {"fin": scores, "fin_before": before, "pooled": told}


def _trained(run: Run, bank: keras.Model, curves: board.Curves) -> dict:
    """Trains the bank from where it is; the best weights are kept. Returns what was held out, before and after."""
    options, seed, best = run.recipe.pooled, run.recipe.seed, run.stage_folder("pooled") / BEST
    learner = Learner(run, bank)
    held = [learner.episodes.draw(np.random.default_rng([seed, 1, i]), True)
            for i in range(options.validation_episodes * learner.episodes.holds_out)]
    state = {name: tf.Variable(value) for name, value in (("episode", 0), ("best", np.inf), ("stale", 0))}
    looked = {name: tf.Variable(np.nan) for name in ("loss_before", "accuracy_before", "loss_after", "accuracy_after")}
    checkpoints = tf.train.CheckpointManager(
        tf.train.Checkpoint(model=bank, optimizer=learner.optimizer, sharpness=learner.sharpness, **state, **looked),
        str(run.stage_folder("pooled") / "checkpoints"), max_to_keep=1)

    def look(done: int) -> None:
        """At what is held out; the best weights so far, or where nothing is the last, are kept."""
        seen = {what: float(value) for what, value in learner.look(held).items()} if held else {}
        improved = not held or seen["loss"] < float(state["best"])
        _fins.improve(bank, seen.get("loss", -done), state, best)
        for what, value in seen.items():
            for when, wanted in (("before", not done), ("after", improved)):
                if wanted:
                    looked[f"{what}_{when}"].assign(value)
        if seen:
            curves.add("validation", seen, done)
            log.info("pooled %d/%d: held-out loss %.4f, accuracy %.3f", done, options.episodes, seen["loss"],
                     seen["accuracy"])
        checkpoints.save()

    if not _fins.restored(checkpoints, "pooled"):
        training.fit_scales(bank, learner.drawn(0, False)[1])
        learner.sharpen([learner.drawn(i, False)[0] for i in range(8)])
        look(0)
    with training.progress("pooled", options.episodes) as bar:
        bar.on_train_begin()
        bar.step = first = int(state["episode"])
        for done in range(first + 1, options.episodes + 1):
            learnt = learner.step(done)
            bar.on_train_batch_end(done, learnt)
            if done % options.look_every == 0 or done == options.episodes:
                curves.add("train", learnt, done)
                state["episode"].assign(done)
                look(done)
    seen = {key: float(value) for key, value in looked.items()} if held else {}
    return {"episodes": options.episodes} | {
        when: {what: seen[f"{what}_{when}"] for what in ("loss", "accuracy") if seen} for when in ("before", "after")}


class Learner:
    """FINs, what draws their episodes, and a step of learning."""

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
        self._scores = tf.function(self._answers)
        self._step = tf.function(self._learn)

    def drawn(self, number: int, changed: bool = True) -> tuple[Episode, np.ndarray]:
        """Episode `number`, changed at random, and the true features (2 K W, C, F) of its windows."""
        rng = np.random.default_rng([self.run.recipe.seed, 0, number])
        episode = self.episodes.draw(rng)
        episode = augmented(episode, self.run.recipe.augment, rng) if changed else episode
        joined = np.concatenate([episode.solved, episode.decided])
        starts = np.arange(self.episodes.windows) * self.stride + len(joined[0]) * np.arange(len(joined))[:, None]
        return episode, catalogue.extract(joined.reshape(-1, joined.shape[2]), starts.ravel(), self.length,
                                          self.run.recipe.features.names, self.run.dataset.rate_hz)

    def step(self, number: int) -> dict[str, float]:
        """Learns from an episode."""
        options = self.run.recipe.pooled
        fall = 0.5 * (1 + math.cos(math.pi * (number - 1) / options.episodes))
        self.optimizer.learning_rate.assign(options.learning_rate * fall)
        episode, true = self.drawn(number)
        found = self._step(*_tensors(episode), tf.constant(true))
        return {name: float(value) for name, value in found.items()}

    def look(self, episodes: list[Episode]) -> dict[str, float]:
        """Mean cross-entropy and accuracy."""
        found = [self._told(*self._scores(*_tensors(episode))[:2]) for episode in episodes]
        return {name: float(np.mean([one[name] for one in found])) for name in found[0]}

    def sharpen(self, episodes: list[Episode]) -> None:
        """Chooses how sure the discriminant is, from episodes that train."""
        found = [self._scores(*_tensors(episode))[:2] for episode in episodes]

        def loss(by: float) -> float:
            return sum(float(tf.reduce_mean(_cross_entropy(by * logits, classes))) for logits, classes in found)

        self.sharpness.assign(min(SHARPNESS, key=loss))

    def _answers(self, solved: tf.Tensor, decided: tf.Tensor, same: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Logits (K W, K) and classes (K W, K) of the second repetition's windows; features (2 K, W, C, F)."""
        x = tf.concat([solved, decided], 0)
        features = self._features(x)
        rows = self.episodes.windows * tf.shape(solved)[0]
        seen = tf.reshape(self._log(features), (2 * rows, features.shape[2] * features.shape[3]))
        if self._describe:
            beside = tf.stop_gradient(self._describe(x))
            seen = tf.concat([seen, tf.reshape(beside, (2 * rows, beside.shape[2]))], 1)
        seen = tf.cast(seen, tf.float64)
        one, other = solving.z_scored(seen[:rows], seen[rows:], same)
        classes = tf.repeat(tf.eye(tf.shape(solved)[0], dtype=tf.float64), self.episodes.windows, axis=0)
        weights, bias = solving.discriminant(one, classes)
        return tf.cast(other @ weights + bias, tf.float32), tf.cast(classes, tf.float32), features

    def _told(self, logits: tf.Tensor, classes: tf.Tensor) -> dict[str, tf.Tensor]:
        right = tf.equal(tf.argmax(logits, 1), tf.argmax(classes, 1))
        return {"loss": tf.reduce_mean(_cross_entropy(self.sharpness * logits, classes)),
                "accuracy": tf.reduce_mean(tf.cast(right, tf.float32))}

    def _learn(self, solved: tf.Tensor, decided: tf.Tensor, same: tf.Tensor, true: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            logits, classes, features = self._answers(solved, decided, same)
            told = self._told(logits, classes)
            imitated = tf.reshape(features, (-1, *features.shape[2:]))
            told["imitation"] = tf.reduce_mean(self._imitation(true, imitated))
            loss = told["loss"] + self.run.recipe.pooled.imitation_weight * told["imitation"]
        self.optimizer.apply(tape.gradient(loss, self.variables), self.variables)
        return told


def _cross_entropy(logits: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    return tf.nn.softmax_cross_entropy_with_logits(classes, logits)


def _tensors(episode: Episode) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    return tf.constant(episode.solved), tf.constant(episode.decided), tf.constant(episode.same)


STAGE = Stage("pooled", (), pooled)
