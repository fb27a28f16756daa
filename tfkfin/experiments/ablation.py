"""Arms of the ablation: one network with different starts, trained by equal updates on the ladder's sessions.

    fin      shipped FINs and a random head, trained end to end
    random   the same network with random FINs, their output scale set from true features
    frozen   shipped FINs that are not trained; the head is
    true     the same head on closed-form features

In all arms of a seed the head has the same first weights and the same training windows in the same batches, with the
number of steps and the learning rates of the recipe's `finetune`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import keras
import numpy as np
import tensorflow as tf

from tfkfin.decoder.decision import Decision
from tfkfin.experiments.ladder.adapter import Answers, of_stream
from tfkfin.experiments.ladder.rungs import Group, Part, Trial
from tfkfin.experiments.ladder.windows import Cut, cut
from tfkfin.fit import training
from tfkfin.fit.run import Run
from tfkfin.fit.trainers import JointTrainer, new_decoder, new_head
from tfkfin.nets import heads
from tfkfin.nets.network import Parts, head_parts
from tfkfin.pipeline.splits import Moments
from tfkfin.pipeline.subject import Subject
from tfkfin.pipeline.windows import Windows
from tfkfin.recipe import Recipe
from tfkfin.store import presets

ARMS = ("fin", "random", "frozen", "true")
CHUNK = 2048  # windows whose statistics are taken at a time
AGAIN = 4  # calibration by a labelled repetition has 1/4 of the updates
PREPARED = 8  # batches that set the scale of the head's inputs


def updates(recipe: Recipe) -> int:
    """Gradient steps of every arm."""
    options = recipe.finetune
    return options.epochs * -(-options.windows_per_epoch // options.batch_size)


@dataclass(frozen=True, eq=False)
class Session:
    """A part's windows in volts at the networks' rate, and what was computed of them."""

    part: Part
    windows: Cut
    subject: Subject
    computed: dict = field(default_factory=dict)

    @property
    def labels(self) -> np.ndarray:
        return self.windows.content.labels

    def kept(self, key: object, make: Callable[[], np.ndarray]) -> np.ndarray:
        """What `make()` returns; of one key alone, the last."""
        if key not in self.computed:
            self.computed.clear()
            self.computed[key] = make()
        return self.computed[key]


def session(part: Part, recipe: Recipe, stream: bool) -> Session:
    """`stream`: as of `cut`."""
    def make() -> Session:
        found = cut(part.recordings, recipe.window, recipe.filter, stream)
        inside, count, channels = found.content, len(found), found.emg.shape[1]
        windows = Windows(found.starts, inside.labels.astype(np.int16), inside.repetitions.astype(np.int16),
                          np.full(count, part.session, np.int16), inside.segments)
        subject = Subject(part.person, found.emg, windows, np.zeros(channels), np.ones(channels),
                          np.zeros((1, 3), np.int64))
        return Session(part, found, subject)

    return part.kept(("ablation", stream), make)


def statistics(sessions: Sequence[Session]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of each channel (C,) over the movements' windows."""
    total = Moments(0, 0.0, 0.0)
    for one in sessions:
        rows = np.flatnonzero(one.labels > 0)
        for i in range(0, len(rows), CHUNK):
            x = one.windows.volts(rows[i : i + CHUNK])
            x = x.reshape(-1, x.shape[2])
            mean = x.mean(axis=0, dtype=np.float64)
            total += Moments(len(x), mean, ((x - mean) ** 2).sum(axis=0))
    return total.statistics()


@dataclass(frozen=True)
class Piece:
    """Neighbouring windows of a session, by index (P,), and the training windows among them (n,)."""

    session: Session
    windows: np.ndarray
    learnt: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        return self.session.labels[self.learnt]


class Networks:
    """The network, and its head alone, compiled once for all arms, seeds and people of a run."""

    def __init__(self, run: Run, classes: tuple[int, ...]):
        keras.utils.set_random_seed(run.recipe.seed)
        self.run, self.classes, options = run, classes, run.recipe.finetune
        self.names = run.recipe.features.names
        self.joint = JointTrainer(run, len(classes), untrained=True)
        self.shipped = presets.new_bank(run.recipe.fin, self.names, run.length, run.dataset.channels).get_weights()
        self.head = head_parts(new_head(run, len(classes)))[1]
        self.rate = training.adam(options.head_learning_rate, options.head_weight_decay)
        self.rate.build(self.head.trainable_variables)
        self.head.compile(self.rate, keras.losses.SparseCategoricalCrossentropy(), jit_compile=False)
        self.restart = training.Restart(self.head, self.rate)
        self.predict = training.Predictor(self.head)

    @cache  # noqa: B019  one object a run, and it lives as long
    def fresh(self, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Random weights of FINs and of the head for a seed."""
        keras.utils.set_random_seed(seed)
        network = new_decoder(self.run, len(self.classes))
        parts = Parts.of(network)
        return parts.bank.get_weights(), parts.classifier.get_weights()

    def prepare(self, head: keras.Model, features: np.ndarray) -> None:
        heads.kind(self.run.recipe.classifier.kind)(head).prepare(features)

    def true(self, session: Session, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
        """Closed-form features (N, C, F) of a session standardised by mean and sd (C,)."""
        def make() -> np.ndarray:
            own, windows = replace(session.subject, mean=mean, sd=sd), session.windows
            return own.features(self.names, windows.length, windows.rate_hz)

        return session.kept(("true", mean.tobytes(), sd.tobytes()), make)

    def imitated(self, session: Session, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
        """The same features by shipped FINs."""
        def make() -> np.ndarray:
            self.joint.fins.set_weights(self.shipped)
            self.joint.forward.parts.standardise.set(mean, sd)
            return self.joint.answers(session.subject, wanted=("features",))["features"]

        return session.kept(("imitated", mean.tobytes(), sd.tobytes()), make)


class Arm:
    """One arm and seed, a model of the ladder.

    Subclasses have `start(pieces)`, which sets the first weights and scales the head's inputs by these pieces;
    `batches(drawn)`, a tf.data.Dataset; and `answers(session)`, probabilities (N, G) by the model as it is.

    Attributes: the trained `model`, its optimisers' `rates`, and `restart`, which resets both.
    """

    model: keras.Model
    rates: Sequence[keras.optimizers.Optimizer | None]
    restart: Callable[[], None]

    def __init__(self, networks: Networks, seed: int):
        self.networks, self.seed, self.options = networks, seed, networks.run.recipe.finetune
        self.updates = updates(networks.run.recipe)

    def decide(self, group: Group) -> Iterator[tuple[Trial, list[Answers]]]:
        """Calibration with labels trains the network further on these windows; without labels it changes nothing."""
        recipe, classes = self.networks.run.recipe, np.array(self.networks.classes)
        self.fit([session(part, recipe, False) for part in group.parts])
        for trial in group.trials:
            self.calibrate([session(trial.known, recipe, False)] if trial.known and trial.labelled else [])
            stream = session(trial.stream, recipe, True)
            yield trial, of_stream(trial, stream.windows, self.answers(stream), classes,
                                   Decision(1, recipe.classifier.reject))

    def fit(self, sessions: Sequence[Session]) -> None:
        self.mean, self.sd = statistics(sessions)
        drawn = self._drawn(sessions, self.updates)
        self.restart()
        self.start([piece for pieces in drawn[:PREPARED] for piece in pieces])
        self._train(drawn)
        self._fitted = self.model.get_weights()

    def calibrate(self, known: Sequence[Session]) -> None:
        """Starts from the weights of `fit` and trains them on the known sessions, if any, by a share of the updates."""
        self.restart()
        self.model.set_weights(self._fitted)
        if known:
            self._train(self._drawn(known, max(1, self.updates // AGAIN)))

    def _drawn(self, sessions: Sequence[Session], steps: int) -> list[list[Piece]]:
        """The pieces of every batch: all pieces in random order, as often as `steps` need."""
        pieces, rows = [], max(1, self.options.batch_size // training.NEIGHBOURS)
        for one in sessions:
            chosen, starts = np.isin(one.labels, self.networks.classes), one.windows.starts
            edges = np.flatnonzero(np.diff(starts) != one.windows.stride) + 1
            for run in np.split(np.arange(len(starts)), edges):
                for i in range(0, len(run), training.NEIGHBOURS):
                    windows = run[i : i + training.NEIGHBOURS]
                    if chosen[windows].any():
                        pieces.append(Piece(one, windows, windows[chosen[windows]]))
        rng = np.random.default_rng(self.seed)
        order = np.concatenate([rng.permutation(len(pieces)) for _ in range(-(-steps * rows // len(pieces)))])
        return [[pieces[i] for i in order[step * rows : (step + 1) * rows]] for step in range(steps)]

    def _train(self, drawn: list[list[Piece]]) -> None:
        cosine = [training.Cosine(self.rates, len(drawn))] if self.options.schedule == "cosine" else []
        with training.progress(f"ablation seed {self.seed}", len(drawn)) as bar:
            self.model.fit(self.batches(drawn), verbose=0, shuffle=False, callbacks=[bar, *cosine])

    def classes_of(self, pieces: list[Piece]) -> np.ndarray:
        return np.searchsorted(self.networks.classes, np.concatenate([piece.labels for piece in pieces]))

    def features(self, pieces: list[Piece], of: Callable[..., np.ndarray]) -> np.ndarray:
        """Features (n, C, F) of the training windows; `of` is `Networks.true` or `Networks.imitated`."""
        return np.concatenate([of(piece.session, self.mean, self.sd)[piece.learnt] for piece in pieces])


class OnFeatures(Arm):
    """The head alone, on features: `see(session, mean, sd)` -> (N, C, F)."""

    def __init__(self, networks: Networks, seed: int, see: Callable[..., np.ndarray]):
        super().__init__(networks, seed)
        self.model, self.rates, self.restart, self._see = networks.head, [networks.rate], networks.restart, see

    def start(self, pieces: list[Piece]) -> None:
        self.model.set_weights(self.networks.fresh(self.seed)[1])
        self.networks.prepare(self.model, self.features(pieces, self._see))

    def batches(self, drawn: list[list[Piece]]) -> tf.data.Dataset:
        spec = tf.TensorSpec((None, *self.model.input_shape[1:]), tf.float32), tf.TensorSpec((None,), tf.int64)
        return _of(lambda: ((self.features(pieces, self._see), self.classes_of(pieces)) for pieces in drawn),
                   len(drawn), spec)

    def answers(self, session: Session) -> np.ndarray:
        return self.networks.predict(self._see(session, self.mean, self.sd), 4096)


class EndToEnd(Arm):
    """The whole network on volts, its FINs `shipped` ones or random."""

    def __init__(self, networks: Networks, seed: int, shipped: bool):
        super().__init__(networks, seed)
        self.joint, self._shipped = networks.joint, shipped
        self.model, self.rates, self.restart = self.joint.model, self.joint.rates, self.joint.restart

    def start(self, pieces: list[Piece]) -> None:
        fins, head = self.networks.fresh(self.seed)
        classifier = self.joint.head.classifier
        classifier.set_weights(head)
        self.joint.forward.parts.standardise.set(self.mean, self.sd)
        self.joint.fins.set_weights(self.networks.shipped if self._shipped else fins)
        if not self._shipped:
            training.fit_scales(self.joint.fins, self.features(pieces, self.networks.true))
        seen = []
        for session in {id(piece.session): piece.session for piece in pieces}.values():
            rows = np.concatenate([piece.learnt for piece in pieces if piece.session is session])
            windows = session.subject.windows[np.sort(rows)]
            answers = self.joint.answers(replace(session.subject, windows=windows), wanted=("features",))
            seen.append(answers["features"])
        self.networks.prepare(classifier, np.concatenate(seen))

    def batches(self, drawn: list[list[Piece]]) -> tf.data.Dataset:
        data, rows, most = self.networks.run.dataset, len(drawn[0]), training.NEIGHBOURS
        shape = rows, (most - 1) * data.stride + data.length, data.channels

        def batch() -> Iterator[tuple]:
            for pieces in drawn:
                emg, wanted = np.zeros(shape, np.float32), np.zeros((rows, most), bool)
                for row, piece in enumerate(pieces):
                    start = piece.session.subject.windows.starts[piece.windows[0]]
                    segment = piece.session.subject.emg[start : start + shape[1]]
                    emg[row, : len(segment)] = segment
                    wanted[row, : len(piece.windows)] = np.isin(piece.windows, piece.learnt)
                yield (emg, wanted), {"probabilities": self.classes_of(pieces),
                                      "features": self.features(pieces, self.networks.true)}

        features = tf.TensorSpec((None, data.channels, len(self.networks.names)), tf.float32)
        return _of(batch, len(drawn), ((tf.TensorSpec(shape, tf.float32), tf.TensorSpec((rows, most), tf.bool)),
                                       {"probabilities": tf.TensorSpec((None,), tf.int64), "features": features}))

    def answers(self, session: Session) -> np.ndarray:
        return self.joint.answers(session.subject)["probabilities"]


def _of(batch: Callable[[], Iterator], steps: int, signature: tuple) -> tf.data.Dataset:
    data = tf.data.Dataset.from_generator(batch, output_signature=signature)
    return data.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(2)


def arm(networks: Networks, name: str, seed: int) -> Arm:
    """An arm by name."""
    if name in ("true", "frozen"):
        return OnFeatures(networks, seed, networks.true if name == "true" else networks.imitated)
    return EndToEnd(networks, seed, name == "fin")
