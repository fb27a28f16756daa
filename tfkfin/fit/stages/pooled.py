"""The stage `pooled`: FINs are trained further over people and sessions, by episodes.

An episode is two training repetitions of one person. On the first a linear discriminant of the imitated features, and
of the head's descriptions, is solved in closed form. The loss is its cross-entropy on the second repetition, and the
gradient goes through the solution into the FINs; a second term is the imitation loss. The FINs depend on no person,
movement or number of channels: `fin.pretrained` takes the stage's folder as it takes shipped FINs.

Only training repetitions are drawn. The last repetition of each session with three or more is held out for validation;
where there is no such session, the last of two or more people is.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tfkfin.base.console import log
from tfkfin.base.errors import InputError
from tfkfin.features import catalogue
from tfkfin.fit import board, metrics, training
from tfkfin.fit.run import Run
from tfkfin.fit.stages import Stage, imitate
from tfkfin.fit.training import EarlyStopping
from tfkfin.nets import descriptions, solving, streaming
from tfkfin.nets.layers import LogScale
from tfkfin.pipeline.subject import Subject
from tfkfin.pipeline.windows import samples
from tfkfin.recipe.options import Augment, Pooled
from tfkfin.store import presets

SHARPNESS = np.geomspace(0.01, 1, 13)  # factors of logits, for the discriminant treats windows as independent
SHORT = 0.1  # share of segments that are too short to be drawn, so that the others need not be cut as short
Key = tuple[int, int]  # session, repetition
Spans = dict[int, list[tuple[int, int]]]  # movement -> where it is made: (start, stop) in the signal


def pooled(run: Run) -> dict:
    if run.recipe.source.kind == "signals":
        raise InputError("the stage pooled is trained on recordings: source.kind = 'signals' has none")
    data, names = run.dataset, run.recipe.features.names
    bank = presets.new_bank(run.fin, names, run.length, data.channels)
    predict, (emg, true) = training.Predictor(bank), imitate.sample(run, "test", run.recipe.imitate.test_windows)
    before = metrics.imitation(true, predict(emg), names)
    with board.Summaries(run.board("pooled")) as shown:
        learner = Learner(run, bank)
        held_out = _train(run, learner, shown)
        scores = metrics.imitation(true, predict(emg), names)
        shown.scalars({f"r2/{name}": s["r2"] for name, s in scores.items()}, run.recipe.pooled.episodes)
    imitate.keep(run, bank, "pooled", scores, learner.episodes.labelled)
    log.info("pooled: held-out %s; R² of imitation %s", ", ".join(
        f"{what} {held_out['before'][what]:.3f} -> {held_out['after'][what]:.3f}" for what in held_out["before"])
        or "nothing",
        ", ".join(f"{name} {before[name]['r2']:.3f} -> {scores[name]['r2']:.3f}" for name in names))
    return {"fin": scores, "fin_before": before, "pooled": held_out}


def _train(run: Run, learner: "Learner", shown: board.Summaries) -> dict:
    """Trains the bank and puts its best weights back. Returns scores of held-out episodes, before and after."""
    options, seed, bank = run.recipe.pooled, run.recipe.seed, learner.bank
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
            shown.scalars(scores, done, "validation")
            log.info("pooled %d/%d: held-out loss %.4f, accuracy %.3f", done, options.episodes, scores["loss"],
                     scores["accuracy"])
        stopping.save(done)

    if not stopping.restored():
        training.fit_scales(bank, learner.drawn(0, False)[1])
        learner.sharpen([learner.drawn(i, False)[0] for i in range(8)])
        validate(0)
    with training.Progress("pooled", options.episodes) as bar:
        bar.on_train_begin()
        bar.step = int(stopping.done)
        for done in range(bar.step + 1, options.episodes + 1):
            values = learner.step(done)
            bar.on_train_batch_end(done, values)
            if done % options.look_every == 0 or done == options.episodes:
                shown.scalars(values, done, "train")
                validate(done)
    stopping.load_best()
    return {"episodes": options.episodes} | {
        when: {name: float(kept[f"{name}_{when}"]) for name in ("loss", "accuracy") if held_out}
        for when in ("before", "after")}


@dataclass(frozen=True)
class Episode:
    """Standardised segments of K movements, the same movements in both repetitions.

    Attributes:
        solved, decided: (K, T, C) float32, of the repetition that the head is solved on, and of the other.
        same: whether both are of one session.
    """

    solved: np.ndarray
    decided: np.ndarray
    same: bool


class Episodes:
    """Draws episodes from people's training repetitions.

    Args:
        people: with their training windows of movements.
        length, stride: of windows, samples.
        most: samples of a segment, at most; its windows fill it.

    Attributes:
        labelled: digests of the repetitions that are drawn from.

    Raises:
        InputError: nobody has two repetitions of two movements.
    """

    def __init__(self, people: Iterable[Subject], length: int, stride: int, most: int, options: Pooled):
        self._signals, every, digests = zip(*((person.standardised(), _spans(person, length), set(
            person.repetition_digests.tolist())) for person in people), strict=True)
        self.labelled = set().union(*digests) - {""}
        sizes = [stop - start for keys in every for spans in keys.values() for of in spans.values()
                 for start, stop in of]
        room = min(most, int(np.quantile(sizes, SHORT))) if sizes else length
        self.samples = length + max(0, (room - length) // stride) * stride
        self.windows = (self.samples - length) // stride + 1
        self._options = options
        self._people = [{key: kept for key, spans in keys.items() if len(kept := self._long(spans)) > 1}
                        for keys in every]
        self._held_out = [_last(keys) for keys in self._people]
        drawn = [i for i, keys in enumerate(self._people) if len(keys) > 1]
        self._whole = drawn[-1:] if not any(self._held_out) and len(drawn) > 1 else []  # the person held out
        self._pairs = {held_out: {i: pairs for i in drawn if any(pairs := self._possible(i, held_out))}
                       for held_out in (False, True)}
        if not self._pairs[False]:
            raise InputError("the stage pooled needs two training repetitions of two movements or more of somebody: "
                             "choose with --set split.pretrain_repetitions=1,3")

    @property
    def holds_out(self) -> bool:
        """Whether anything is held out."""
        return bool(self._pairs[True])

    def draw(self, rng: np.random.Generator, held_out: bool = False) -> Episode:
        """An episode to train on, or one whose second repetition is held out."""
        person = int(rng.choice(list(self._pairs[held_out])))
        same, other = self._pairs[held_out][person]
        among = other if not same or other and rng.random() < self._options.between else same
        pair = among[rng.integers(len(among))]
        spans = [self._people[person][key] for key in pair]
        both = sorted(set(spans[0]) & set(spans[1]))
        chosen = rng.choice(both, min(len(both), self._options.movements), replace=False)
        solved, decided = (np.stack([self._segment(rng, person, one[m]) for m in chosen]) for one in spans)
        return Episode(solved, decided, pair[0][0] == pair[1][0])

    def _long(self, spans: Spans) -> Spans:
        kept = {m: [one for one in of if one[1] - one[0] >= self.samples] for m, of in spans.items()}
        return {m: of for m, of in kept.items() if of}

    def _possible(self, person: int, held_out: bool) -> tuple[list, list]:
        """Ordered pairs of repetitions that share two movements: those of one session, those of two."""
        keys, out = self._people[person], self._held_out[person]
        if self._whole and (person in self._whole) != held_out:
            return [], []
        decided = out if held_out and not self._whole else [key for key in keys if key not in out]
        pairs = [(one, two) for one in keys if one not in out for two in decided
                 if one != two and len(set(keys[one]) & set(keys[two])) > 1]
        return [p for p in pairs if p[0][0] == p[1][0]], [p for p in pairs if p[0][0] != p[1][0]]

    def _segment(self, rng: np.random.Generator, person: int, spans: list[tuple[int, int]]) -> np.ndarray:
        start, stop = spans[rng.integers(len(spans))]
        at = rng.integers(start, stop - self.samples, endpoint=True)
        return self._signals[person][at : at + self.samples]


def augmented(episode: Episode, options: Augment, rng: np.random.Generator) -> Episode:
    """The episode with random changes, as of `tfkfin.nets.augment.SignalAugment`.

    Gains and electrode shifts are drawn for each session, a lost electrode for both repetitions, noise and pace for
    each movement.
    """
    channels = episode.solved.shape[2]
    lost = rng.integers(channels) if rng.random() < options.dropout and channels > 1 else None
    first, other = ((np.exp(options.gain * rng.standard_normal(channels)), options.shift * rng.uniform(-1, 1))
                    for _ in range(2))
    sides = [_changed(x, options, *place, lost, rng) for x, place in
             ((episode.solved, first), (episode.decided, first if episode.same else other))]
    return Episode(*sides, episode.same)


def _changed(x: np.ndarray, options: Augment, gain: np.ndarray, shift: float, lost: int | None,
             rng: np.random.Generator) -> np.ndarray:
    if options.warp:
        x = np.stack([_warped(row, 1 + options.warp * rng.uniform(-1, 1)) for row in x])
    x = ((1 - abs(shift)) * x + abs(shift) * np.roll(x, 1 if shift > 0 else -1, axis=2)) * gain
    if options.noise:
        sd = options.noise * rng.random((len(x), 1, 1))
        x = x + sd * rng.standard_normal(x.shape, dtype=np.float32)
    if lost is not None:
        x[:, :, lost] = 0
    return x.astype(np.float32)


def _warped(x: np.ndarray, speed: float) -> np.ndarray:
    """(T, C) with its time axis scaled by `speed` about the middle; beyond the edges the edge sample is repeated."""
    middle = (len(x) - 1) / 2
    times = np.clip((np.arange(len(x)) - middle) * speed + middle, 0, len(x) - 1)
    low = np.minimum(times.astype(int), len(x) - 2)
    part = (times - low)[:, None]
    return (1 - part) * x[low] + part * x[low + 1]


def _spans(person: Subject, length: int) -> dict[Key, Spans]:
    """Where each movement is made in each repetition."""
    found: dict[Key, Spans] = {}
    windows = person.windows
    for segment in np.unique(windows.segments):
        of = windows[windows.segments == segment]
        extent = int(of.starts.min()), int(of.starts.max()) + length
        spans = found.setdefault((int(of.sessions[0]), int(of.repetitions[0])), {})
        spans.setdefault(int(of.movements[0]), []).append(extent)
    return found


def _last(keys: Iterable[Key]) -> set[Key]:
    """The last repetition of each session that has three or more."""
    by_session: dict[int, list[Key]] = {}
    for key in sorted(keys):
        by_session.setdefault(key[0], []).append(key)
    return {of[-1] for of in by_session.values() if len(of) > 2}


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
