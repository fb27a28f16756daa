"""Arms of the ablation: one network with different starts, trained by equal updates on the ladder's sessions.

    fin      shipped FINs and a random head, trained end to end
    random   the same network with random FINs, their output scale set from exact features
    frozen   shipped FINs that are not trained; the head is
    true     the same head on closed-form features

In all arms of a seed the head has the same first weights and the same training windows in the same batches, with the
number of steps and the learning rates of the recipe's `finetune`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache

import keras
import numpy as np
import tensorflow as tf

from tfkfin.decoder.decision import Decision
from tfkfin.experiments.ladder.rows import Answers, of_stream, updates
from tfkfin.experiments.ladder.rungs import Group, SessionPart, Trial, cut
from tfkfin.fit import training
from tfkfin.fit.run import Run
from tfkfin.fit.trainers import JointTrainer, new_decoder, new_head
from tfkfin.nets import heads
from tfkfin.nets.network import Parts, head_parts
from tfkfin.pipeline.subject import Subject
from tfkfin.pipeline.windows import Windows
from tfkfin.store import presets

AGAIN = 4  # calibration by a labelled repetition has 1/4 of the updates
PREPARED = 8  # batches that set the scale of the head's inputs


class Networks:
    """The network, and its head alone, compiled once for all arms, seeds and people of a run."""

    def __init__(self, run: Run, classes: tuple[int, ...]):
        keras.utils.set_random_seed(run.recipe.seed)
        self.run, self.recipe, self.classes, options = run, run.recipe, np.array(classes), run.recipe.finetune
        self.joint = JointTrainer(run, len(classes), untrained=True)
        self.shipped = presets.new_bank(run.fin, run.recipe.features.names, run.length,
                                        run.dataset.channels).get_weights()
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
        parts = Parts.of(new_decoder(self.run, len(self.classes)))
        return parts.bank.get_weights(), parts.classifier.get_weights()

    def prepare(self, head: keras.Model, features: np.ndarray) -> None:
        """Scales the head's inputs by features (N, C, F)."""
        heads.kind(self.recipe.classifier.kind)(head).prepare(features)

    def subject(self, parts: Sequence[SessionPart]) -> Subject:
        """The training windows of sessions, joined and standardised by their own statistics."""
        recordings = [recording for part in parts for recording in part.recordings]
        return Subject.of(recordings, self.recipe.window, self.recipe.filter)

    def labels(self, subject: Subject) -> np.ndarray:
        """Class indices (N,)."""
        return np.searchsorted(self.classes, subject.windows.movements)

    def true(self, subject: Subject) -> np.ndarray:
        """Closed-form features (N, C, F)."""
        return subject.features(self.recipe.features.names, self.run.length, self.run.dataset.rate_hz)

    def imitated(self, subject: Subject) -> np.ndarray:
        """The same features by shipped FINs."""
        self.joint.fins.set_weights(self.shipped)
        self.joint.standardise(subject)
        return self.joint.answers(subject, wanted=("features",))["features"]


class Arm:
    """One arm and seed, a model of the ladder.

    Subclasses have `start(subject, chosen)`, which sets the first weights and scales the head's inputs by the windows
    of these indices; `batches(subject, neighbours)`, a tf.data.Dataset of windows by lists of neighbours; and
    `answers(subject)`, probabilities (N, G) by the model as it is.

    Attributes: the trained `model`, its optimisers' `rates`, and `restart`, which resets both.
    """

    model: keras.Model
    rates: Sequence[keras.optimizers.Optimizer | None]
    restart: Callable[[], None]

    def __init__(self, networks: Networks, seed: int):
        self.networks, self.seed, self.recipe = networks, seed, networks.recipe
        self.batch_size, self.updates = self.recipe.finetune.batch_size, updates(self.recipe)

    def decide(self, group: Group) -> Iterator[tuple[Trial, list[Answers]]]:
        """Calibration with labels trains the network further on these windows; without labels it changes nothing."""
        recipe = self.recipe
        self.fit(self.networks.subject(group.parts))
        for trial in group.trials:
            self.calibrate(self.networks.subject([trial.known]) if trial.known and trial.labelled else None)
            found = trial.stream.kept(("ablation", True), lambda part=trial.stream: cut(
                part.recordings, recipe.window, recipe.filter, True))
            none = np.zeros(len(found), np.int16)
            stream = replace(self.subject, emg=found.emg, windows=Windows(found.starts, none, none))
            yield trial, of_stream(trial, found, self.answers(stream), self.networks.classes,
                                   Decision(1, recipe.classifier.reject))

    def fit(self, subject: Subject) -> None:
        """Trains the arm; whatever it decides later is standardised by this subject's statistics."""
        self.subject = subject
        neighbours = self._drawn(subject, self.updates)
        self.restart()
        self.start(subject, np.unique(np.concatenate(neighbours[: PREPARED * self._rows(neighbours)])))
        self._train(subject, neighbours)
        self._fitted = self.model.get_weights()

    def calibrate(self, subject: Subject | None) -> None:
        """Starts from the weights of `fit`; with calibration windows trains them further by a share of the updates."""
        self.restart()
        self.model.set_weights(self._fitted)
        if subject:
            subject = replace(subject, mean=self.subject.mean, sd=self.subject.sd)
            self._train(subject, self._drawn(subject, max(1, self.updates // AGAIN)))

    def _drawn(self, subject: Subject, steps: int) -> list[np.ndarray]:
        """Indices of neighbouring windows for so many batches, in random order, each as often as needed."""
        edges = np.flatnonzero(np.diff(subject.windows.starts) != self.networks.run.dataset.stride) + 1
        neighbours = [run[i : i + training.NEIGHBOURS] for run in np.split(np.arange(len(subject.windows)), edges)
                  for i in range(0, len(run), training.NEIGHBOURS)]
        count = steps * self._rows(neighbours)
        rng = np.random.default_rng(self.seed)
        order = np.concatenate([rng.permutation(len(neighbours)) for _ in range(-(-count // len(neighbours)))])[:count]
        return [neighbours[i] for i in order]

    def _rows(self, neighbours: list[np.ndarray]) -> int:
        """How many segments of neighbouring windows make a batch."""
        return max(1, self.batch_size // max(map(len, neighbours)))

    def _train(self, subject: Subject, neighbours: list[np.ndarray]) -> None:
        data = self.batches(subject, neighbours)
        steps = int(data.cardinality())
        cosine = [training.Cosine(self.rates, steps)] if self.recipe.finetune.schedule == "cosine" else []
        with training.Progress(f"ablation seed {self.seed}", steps) as bar:
            self.model.fit(data, verbose=0, shuffle=False, callbacks=[bar, *cosine])


class OnFeatures(Arm):
    """The head alone, on features: `of` is `Networks.true` or `Networks.imitated`."""

    def __init__(self, networks: Networks, seed: int, of: Callable[[Subject], np.ndarray]):
        super().__init__(networks, seed)
        self.model, self.rates, self.restart, self._of = networks.head, [networks.rate], networks.restart, of

    def start(self, subject: Subject, chosen: np.ndarray) -> None:
        self.model.set_weights(self.networks.fresh(self.seed)[1])
        self.networks.prepare(self.model, self._of(replace(subject, windows=subject.windows[chosen])))

    def batches(self, subject: Subject, neighbours: list[np.ndarray]) -> tf.data.Dataset:
        features, labels, rows = self._of(subject), self.networks.labels(subject), self._rows(neighbours)
        chosen = [np.concatenate(neighbours[i : i + rows]) for i in range(0, len(neighbours), rows)]
        data = tf.data.Dataset.from_generator(lambda: ((features[i], labels[i]) for i in chosen), output_signature=(
            tf.TensorSpec((None, *features.shape[1:]), features.dtype), tf.TensorSpec((None,), labels.dtype)))
        return data.apply(tf.data.experimental.assert_cardinality(len(chosen))).prefetch(2)

    def answers(self, subject: Subject) -> np.ndarray:
        return self.networks.predict(self._of(subject), 4096)


class EndToEnd(Arm):
    """The whole network on volts, its FINs `shipped` ones or random."""

    def __init__(self, networks: Networks, seed: int, shipped: bool):
        super().__init__(networks, seed)
        self.joint, self._shipped = networks.joint, shipped
        self.model, self.rates, self.restart = self.joint.model, self.joint.rates, self.joint.restart

    def start(self, subject: Subject, chosen: np.ndarray) -> None:
        part = replace(subject, windows=subject.windows[chosen])
        fins, head = self.networks.fresh(self.seed)
        classifier = self.joint.head.classifier
        classifier.set_weights(head)
        self.joint.standardise(subject)
        self.joint.fins.set_weights(self.networks.shipped if self._shipped else fins)
        if not self._shipped:
            training.fit_scales(self.joint.fins, self.networks.true(part))
        self.networks.prepare(classifier, self.joint.answers(part, wanted=("features",))["features"])

    def batches(self, subject: Subject, neighbours: list[np.ndarray]) -> tf.data.Dataset:
        room = training.NEIGHBOURS, self.networks.run.dataset.stride  # always, so that one graph serves all
        return training.neighbour_batches(subject, self.networks.true(subject), self.networks.labels(subject),
                                          self.networks.run.length, self.batch_size, neighbours, room)

    def answers(self, subject: Subject) -> np.ndarray:
        return self.joint.answers(subject)["probabilities"]


def arm(networks: Networks, name: str, seed: int) -> Arm:
    """An arm by name."""
    if name in ("true", "frozen"):
        return OnFeatures(networks, seed, networks.true if name == "true" else networks.imitated)
    return EndToEnd(networks, seed, name == "fin")
