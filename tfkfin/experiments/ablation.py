"""One network from different starts, trained on streams with equal updates: what a FIN start earns.

    fin      shipped FINs and a random head, trained end to end
    random   the same network, its FINs random too, their output scale set from true features
    frozen   shipped FINs that stay as they are; the head is trained
    true     the same head on closed-form features

In every arm of a seed the head starts from the same weights and learns from the same windows in the same batches, with
as many steps and the same learning rates: the recipe's `finetune` has them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import keras
import numpy as np
import tensorflow as tf

from tfkfin.experiments.sessions import Session
from tfkfin.experiments.transfer import Known, Learnt
from tfkfin.experiments.transfer_fins import statistics
from tfkfin.fit import training
from tfkfin.fit.run import Run
from tfkfin.fit.trainers import JointTrainer, new_decoder, new_head
from tfkfin.nets import heads
from tfkfin.nets.network import Parts, head_parts
from tfkfin.recipe import Recipe
from tfkfin.store import presets

ARMS = ("fin", "random", "frozen", "true")
AGAIN = 4  # one in so many of the updates is made again when a network goes on learning from a labelled repetition
PREPARED = 8  # batches whose features the head is scaled by


def updates(recipe: Recipe) -> int:
    """Gradient steps of every arm."""
    options = recipe.finetune
    return options.epochs * -(-options.windows_per_epoch // options.batch_size)


@dataclass(frozen=True)
class Piece:
    """Neighbouring windows of a session, by index (P,), and those of them that are learnt from (n,)."""

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
        self.joint = JointTrainer(run, len(classes), untrained=True)
        self.shipped = presets.new_bank(run.recipe.fin, run.recipe.features.names, run.length,
                                        run.dataset.channels).get_weights()
        self.head = head_parts(new_head(run, len(classes)))[1]
        self.rate = training.adam(options.head_learning_rate, options.head_weight_decay)
        self.rate.build(self.head.trainable_variables)
        self.head.compile(self.rate, keras.losses.SparseCategoricalCrossentropy(), jit_compile=False)
        self.restart = training.Restart(self.head, self.rate)
        self.predict = training.Predictor(self.head)

    @cache  # noqa: B019  one object a run, and it lives as long
    def fresh(self, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Random weights of FINs and of the head that a seed gives."""
        keras.utils.set_random_seed(seed)
        network = new_decoder(self.run, len(self.classes))
        parts = Parts.of(network)
        return parts.bank.get_weights(), parts.classifier.get_weights()

    def prepare(self, head: keras.Model, features: np.ndarray) -> None:
        heads.kind(self.run.recipe.classifier.kind)(head).prepare(features)

    def true(self, session: Session, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
        """Closed-form features (N, C, F) of a session standardised by mean and sd (C,)."""
        def make() -> np.ndarray:
            subject, length = session.subject, session.length
            first, last = subject.windows.starts.min(), subject.windows.starts.max() + length  # of all that is read
            windows = replace(subject.windows, starts=subject.windows.starts - first)
            own = replace(subject, emg=subject.emg[first:last], windows=windows, mean=mean, sd=sd)
            return own.features(self.run.recipe.features.names, length, session.rate_hz)

        return session.kept(("true", mean.tobytes(), sd.tobytes()), make)

    def imitated(self, session: Session, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
        """The same as shipped FINs imitate them."""
        def make() -> np.ndarray:
            self.joint.fins.set_weights(self.shipped)
            self.joint.forward.parts.standardise.set(mean, sd)
            return self.joint.answers(session.subject, wanted=("features",))["features"]

        return session.kept(("imitated", mean.tobytes(), sd.tobytes()), make)


class Arm:
    """One arm and seed: `fit` and `decide` as of `tfkfin.experiments.transfer`. Kinds of arms say how they are trained.

    Attributes: `model` being trained, its optimisers' `rates`, and `restart`, which takes both back to their start.
    """

    model: keras.Model
    rates: Sequence[keras.optimizers.Optimizer | None]
    restart: Callable[[], None]

    def __init__(self, networks: Networks, seed: int):
        self.networks, self.seed, self.options = networks, seed, networks.run.recipe.finetune
        self.updates = updates(networks.run.recipe)

    def fit(self, learnt: Learnt, classes: tuple[int, ...]) -> "Arm":
        self.mean, self.sd = statistics(learnt)
        drawn = self._drawn(learnt, self.updates)
        self.restart()
        self.start([piece for pieces in drawn[:PREPARED] for piece in pieces])
        self._train(drawn)
        self._learnt, self._decided = self.model.get_weights(), (None, None)
        return self

    def decide(self, session: Session, known: Known | None) -> np.ndarray:
        """Probabilities (N, G). What is known without labels changes nothing, what has some is learnt from."""
        if known is not None and known.labelled:
            self.restart()
            self.model.set_weights(self._learnt)
            self._train(self._drawn([(session, known.windows)], max(1, self.updates // AGAIN)))
            return self.answers(session)
        if self._decided[0] is not session:
            self.model.set_weights(self._learnt)
            self._decided = session, self.answers(session)
        return self._decided[1]

    def _drawn(self, learnt: Learnt, steps: int) -> list[list[Piece]]:
        """The pieces of every batch: all there are in a random order, again and again."""
        pieces, rows = [], max(1, self.options.batch_size // training.NEIGHBOURS)
        for session, chosen in learnt:
            chosen, starts = chosen & np.isin(session.labels, self.networks.classes), session.subject.windows.starts
            edges = np.flatnonzero(np.diff(starts) != self.networks.run.dataset.stride) + 1
            for run in np.split(np.arange(len(starts)), edges):
                for i in range(0, len(run), training.NEIGHBOURS):
                    windows = run[i : i + training.NEIGHBOURS]
                    if chosen[windows].any():
                        pieces.append(Piece(session, windows, windows[chosen[windows]]))
        rng = np.random.default_rng(self.seed)
        order = np.concatenate([rng.permutation(len(pieces)) for _ in range(-(-steps * rows // len(pieces)))])
        return [[pieces[i] for i in order[step * rows : (step + 1) * rows]] for step in range(steps)]

    def _train(self, drawn: list[list[Piece]]) -> None:
        cosine = [training.Cosine(self.rates, len(drawn))] if self.options.schedule == "cosine" else []
        with training.progress(f"ablation seed {self.seed}", len(drawn)) as bar:
            self.model.fit(self.batches(drawn), verbose=0, shuffle=False, callbacks=[bar, *cosine])

    def start(self, pieces: list[Piece]) -> None:
        """Gives the model the arm's first weights, and scales its head by what it sees of the pieces."""
        raise NotImplementedError

    def batches(self, drawn: list[list[Piece]]) -> tf.data.Dataset:
        raise NotImplementedError

    def answers(self, session: Session) -> np.ndarray:
        """Probabilities (N, G) of a session's windows as the model is."""
        raise NotImplementedError

    def classes_of(self, pieces: list[Piece]) -> np.ndarray:
        return np.searchsorted(self.networks.classes, np.concatenate([piece.labels for piece in pieces]))


class OnFeatures(Arm):
    """The head alone, on features: `see(session, mean, sd)` -> (N, C, F)."""

    def __init__(self, networks: Networks, seed: int, see: Callable[..., np.ndarray]):
        super().__init__(networks, seed)
        self.model, self.rates, self.restart, self._see = networks.head, [networks.rate], networks.restart, see

    def start(self, pieces: list[Piece]) -> None:
        self.model.set_weights(self.networks.fresh(self.seed)[1])
        self.networks.prepare(self.model, self._features(pieces))

    def batches(self, drawn: list[list[Piece]]) -> tf.data.Dataset:
        def batch() -> Iterator[tuple]:
            for pieces in drawn:
                yield self._features(pieces), self.classes_of(pieces)

        shape = (None, *self.model.input_shape[1:])
        return _of(batch, len(drawn), (tf.TensorSpec(shape, tf.float32), tf.TensorSpec((None,), tf.int64)))

    def answers(self, session: Session) -> np.ndarray:
        return self.networks.predict(self._see(session, self.mean, self.sd), 4096)

    def _features(self, pieces: list[Piece]) -> np.ndarray:
        return np.concatenate([self._see(piece.session, self.mean, self.sd)[piece.learnt] for piece in pieces])


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
            training.fit_scales(self.joint.fins, self._true(pieces))
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
                    subject = piece.session.subject
                    start = subject.windows.starts[piece.windows[0]]
                    stretch = subject.emg[start : start + shape[1]]
                    emg[row, : len(stretch)] = stretch
                    wanted[row, : len(piece.windows)] = np.isin(piece.windows, piece.learnt)
                yield (emg, wanted), {"probabilities": self.classes_of(pieces), "features": self._true(pieces)}

        features = (None, data.channels, len(self.networks.run.recipe.features.names))
        return _of(batch, len(drawn), ((tf.TensorSpec(shape, tf.float32), tf.TensorSpec((rows, most), tf.bool)),
                                       {"probabilities": tf.TensorSpec((None,), tf.int64),
                                        "features": tf.TensorSpec(features, tf.float32)}))

    def answers(self, session: Session) -> np.ndarray:
        return self.joint.answers(session.subject)["probabilities"]

    def _true(self, pieces: list[Piece]) -> np.ndarray:
        return np.concatenate([self.networks.true(p.session, self.mean, self.sd)[p.learnt] for p in pieces])


def _of(batch: Callable[[], Iterator], steps: int, signature: tuple) -> tf.data.Dataset:
    data = tf.data.Dataset.from_generator(batch, output_signature=signature)
    return data.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(2)


def arm(networks: Networks, name: str, seed: int) -> Arm:
    """An arm by name."""
    if name in ("true", "frozen"):
        return OnFeatures(networks, seed, networks.true if name == "true" else networks.imitated)
    return EndToEnd(networks, seed, name == "fin")
