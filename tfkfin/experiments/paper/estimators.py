"""Estimators: the models that experiments fit and score, by name.

    svm, lda       classical, on exact features of the recipe; td_svm, td_lda: on the field's usual features
    cnn2           classifier of one subject on exact features (paper: CNN-II)
    cnn1           one classifier on exact features of all pre-training subjects (paper: CNN-I)
    fin            pre-trained FINs + that subject's cnn2, fine-tuned as a whole (paper: LSTM-FIN+CNN-II)
    scratch        the same network, nothing pre-trained (paper: LSTM+CNN-II)
    random         random FINs; the classifier is first trained on their outputs, as long as cnn2; then fine-tuned
    fin_frozen, random_frozen    as `fin` and `random`, but only the classifier is fine-tuned

All are fine-tuned with the same number of updates. `random` differs from `fin` in its FINs' weights alone, so that the
gain of `fin` over it is due to them; the gain over `scratch` is due to any head start. The output scale of random FINs
is set from true training features. They are trained on all training repetitions, as `fin`'s classifier is, even where
`fin` fine-tunes on fewer.

`protocol = "paper"`: how the authors' code scores a model, for comparison with the paper's figures only.

Test windows influence their own scores: the best test accuracy over the epochs is reported, test windows are
standardised by their own statistics, BatchNorm and dropout work as in training, and windows that do not fill a batch
are not counted. Scores by this protocol are marked optimistic.
Where the authors' code leaves it open: statistics are by channel over all test windows, and test windows come in a
shuffled order, since BatchNorm's statistics of a batch of one movement would erase that movement.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import keras
import numpy as np
import tensorflow as tf

from tfkfin.base.console import log
from tfkfin.experiments.evaluation import FULL, Evaluation, Examples, Fit, finish, scores
from tfkfin.fit import baselines, training
from tfkfin.fit.stages import imitate
from tfkfin.fit.trainers import HeadTrainer, JointTrainer, new_decoder, new_head
from tfkfin.nets import saving
from tfkfin.nets.lda import lda
from tfkfin.pipeline import batches
from tfkfin.store import presets

CLASSICAL = {"svm": (baselines.svm, ()), "lda": (lda, ()),  # model and features; (): the recipe's
             "td_svm": (baselines.svm, baselines.TIME_DOMAIN), "td_lda": (lda, baselines.TIME_DOMAIN)}

FEW = 16  # test windows whose decisions are timed to tell how long a fit takes

_AGAIN = "remove that model's folder, and the same command makes it again"


class BestOnTest(keras.callbacks.Callback):
    """Tests after every epoch, with the model as in training, and keeps the best accuracy.

    Attributes:
        best: epoch (from 1), accuracy, and the class indices predicted then; `chosen` (M,) are the windows counted.
    """

    def __init__(self, inputs: Callable[[np.ndarray], np.ndarray], labels: np.ndarray, batch_size: int, seed: int):
        """`inputs` gives a model's inputs for window indices; labels (N,) are their classes."""
        super().__init__()
        order = np.random.default_rng(seed).permutation(len(labels))
        size = min(batch_size, len(labels))
        self.chosen = order[: len(labels) // size * size]
        self.batches = np.split(self.chosen, len(self.chosen) // size)
        self.inputs, self.labels = inputs, labels[self.chosen]
        self.epoch, self.best = 0, (0, -1.0, np.empty(0, np.int64))

    def on_epoch_end(self, epoch, logs=None):
        self.epoch += 1
        before = training.Restart(self.model)  # BatchNorm must not keep test statistics
        parts = [self._probabilities(tf.convert_to_tensor(self.inputs(batch))) for batch in self.batches]
        before()
        predicted = np.concatenate(parts).argmax(axis=1)
        accuracy = float(np.mean(predicted == self.labels))
        if accuracy > self.best[1]:
            self.best = (self.epoch, accuracy, predicted)

    def _probabilities(self, x: tf.Tensor) -> np.ndarray:
        outputs = as_in_training(self.model)(x)
        return (outputs["probabilities"] if isinstance(outputs, dict) else outputs).numpy()


def as_in_training(model: keras.Model) -> Callable:
    """The model's outputs with BatchNorm on the batch and dropout on, as one graph."""
    if not hasattr(model, "_as_in_training"):
        model._as_in_training = tf.function(lambda x: model(x, training=True), reduce_retracing=True)
    return model._as_in_training


class Estimators:
    """Fits and scores models, and keeps compiled ones. Each model's method takes a fit and returns (scores, arrays)."""

    def __init__(self, evaluation: Evaluation):
        self.evaluation, self.run, self.recipe = evaluation, evaluation.run, evaluation.recipe
        self._trainers, self._starts = {}, {}

    def work(self, fit: Fit) -> tuple[dict, dict]:
        """Scores and arrays of a fit, by its model."""
        if fit.model in CLASSICAL:
            return self.classical(fit)
        return self.classifier(fit) if fit.model in ("cnn1", "cnn2") else self.joint(fit)

    def classical(self, fit: Fit) -> tuple[dict, dict]:
        make, names = CLASSICAL[fit.model]
        train, test = (self.evaluation.examples(fit, side, names) for side in ("train", "test"))
        return self._scored(fit, test, lambda: baselines.predict(make(), (train.features, train.labels), test.features))

    def classifier(self, fit: Fit) -> tuple[dict, dict]:
        """A classifier on exact features of the fit's subject, or of all subjects pooled, trained once a seed."""
        ledger, pooled = self.evaluation.ledger, fit.model == "cnn1"
        key = f"{fit.model}/{fit.setting.slug}/pooled-seed{fit.seed}" if pooled else fit.key
        test, trainer = self.evaluation.examples(fit, "test"), self._head(fit)
        clock, watch = _Clock(), self._watch(test, test.features, trainer.options.batch_size, fit)
        if watch or not pooled or ledger.get(key) is None:  # the paper's protocol tests each subject in training
            subjects = self.run.dataset.split.pretrain_subjects if pooled else (fit.subject,)
            parts = [self.evaluation.examples(replace(fit, subject=s), "train") for s in subjects]
            features, labels = (np.concatenate([getattr(one, name) for one in parts]) for name in
                                ("features", "labels"))
            trainer.fit(features, labels, fit.seed, key, 0 if pooled else self._epochs(fit, len(labels)),
                        [clock, *watch])
            saving.save_weights(trainer.model, ledger.path(key, ".weights.h5"))
            if pooled:
                ledger.put(key, {"seconds_by_epoch": clock.seconds})
        saving.load_weights(trainer.model, ledger.path(key, ".weights.h5"), _AGAIN)
        seconds = clock.seconds or ledger.of(key)["seconds_by_epoch"]
        return self._scored(fit, test, lambda: trainer.predict(test.features, 4096).argmax(axis=1), watch, seconds)

    def joint(self, fit: Fit) -> tuple[dict, dict]:
        """A network on raw windows, its FINs pre-trained or random, fine-tuned."""
        evaluation, options = self.evaluation, self.recipe.finetune
        frozen, pretrained = fit.model.endswith("_frozen"), fit.model.startswith("fin")
        side = "finetune" if pretrained else "train"
        train, test = evaluation.examples(fit, side), evaluation.examples(fit, "test", most=evaluation.max_test_windows)
        trainer = self._joint(fit, frozen)
        if pretrained:
            head = fit.of("cnn2")
            finish(evaluation.ledger, [head], self.classifier)
            saving.load_weights(trainer.fins, self._fin_weights(), _AGAIN)
            saving.load_weights(trainer.head.classifier, evaluation.ledger.path(head.key, ".weights.h5"), _AGAIN)
        else:
            training.fit_scales(trainer.fins, train.features)
            self._prepare_head(trainer, fit)
        trainer.standardise(train.part)
        clock, watch = _Clock(), self._watch(test, None, options.batch_size, fit)
        full = self._full(fit, side)
        trainer.fit(train.part, train.features, train.labels, fit.seed, min(full, options.windows_per_epoch or full),
                    [clock, *watch])
        return self._scored(fit, test, lambda: self._outputs(trainer, test)["probabilities"].argmax(axis=1), watch,
                            clock.seconds)

    def expected(self, fit: Fit) -> float:
        """About how many seconds a fit takes, by a few steps of its training, which leave no trace.

        Not counted: the stage `imitate`, which says its time itself, and a first fit's compiling.
        """
        if fit.model in CLASSICAL:
            return 0.0
        evaluation, seed = self.evaluation, fit.seed
        train, test = (evaluation.examples(fit, side, most=evaluation.max_test_windows * (side == "test"))
                       for side in ("train", "test"))
        head = self._head(fit)
        seconds = training.seconds_of(lambda calls: head.fit(
            train.features, train.labels, seed, fit.key, self._epochs(fit, len(train.labels)), calls))
        if fit.model in ("cnn1", "cnn2"):  # that of all people pooled is trained once
            people = len(self.run.dataset.split.pretrain_subjects) / len(evaluation.subjects)
            return seconds * (people if fit.model == "cnn1" else 1)
        trainer, options = self._joint(fit, fit.model.endswith("_frozen")), self.recipe.finetune
        full = self._full(fit, "finetune" if fit.model.startswith("fin") else "train")
        epoch = training.seconds_of(lambda calls: trainer.fit(
            train.part, train.features, train.labels, seed, min(full, options.windows_per_epoch or full), calls))
        few = replace(test, part=replace(test.part, windows=test.part.windows[:FEW]), features=test.features[:FEW],
                      labels=test.labels[:FEW])
        for _ in range(2):  # the first time compiles
            began = time.monotonic()
            self._outputs(trainer, few)
        tests = (time.monotonic() - began) / len(few.labels) * len(test.labels)
        return options.epochs * epoch + tests * (options.epochs if evaluation.optimistic else 1) + (
            seconds if fit.model.startswith("random") else 0.0)

    @cached_property
    def imitated(self) -> training.Predictor:
        """Standardised windows (N, L, C) -> features (N, C, F) by the FINs of the stage `imitate`."""
        bank = presets.new_bank(self.run.fin, self.evaluation.names, self.run.length, self.run.dataset.channels, False)
        saving.load_weights(bank, self._fin_weights(), _AGAIN)
        return training.Predictor(bank)

    def _fin_weights(self):
        """Weights of the FINs of the stage `imitate`, which runs first if it has not."""
        with self.run.ledger.lock("imitate/stage"):  # others may ask for them at the same time
            if self.run.done("imitate") is None:
                keras.utils.set_random_seed(self.recipe.seed)
                log.info("imitate: the stage has not run yet, it runs now")
                began = time.monotonic()
                self.run.finish("imitate", imitate.imitate(self.run) | {"seconds": time.monotonic() - began})
        return self.run.folder / "imitate" / "fins.weights.h5"

    def _prepare_head(self, trainer: JointTrainer, fit: Fit) -> None:
        """Gives random FINs a classifier trained on their outputs; for `scratch` sets only the scale of its inputs."""
        options = self.recipe.finetune
        train = self.evaluation.examples(fit, "train", most=options.epochs * options.windows_per_epoch)
        answers = self._outputs(trainer, train)["features"]
        if fit.model == "scratch":
            flat = answers.reshape(-1, answers.shape[-1])
            trainer.head.z_score.set(flat.mean(axis=0), flat.std(axis=0))
        else:
            head = self._head(fit)
            head.fit(answers, train.labels, fit.seed, fit.key, self._epochs(fit, len(train.labels)))
            trainer.head.classifier.set_weights(head.model.get_weights())

    def _outputs(self, trainer: JointTrainer, some: Examples) -> dict[str, np.ndarray]:
        return trainer.predict(batches.of_subject(some.part, some.features, some.labels, self.run.length, 64))

    def _full(self, fit: Fit, side: str) -> int:
        """How many training windows the fit has in the plain setting."""
        return len(self.evaluation.examples(replace(fit, setting=FULL, seed=None), side).labels)

    def _epochs(self, fit: Fit, count: int) -> int:
        """Epochs of a classifier on `count` windows, so that every setting has as many updates as the plain one."""
        size, full = self.recipe.classify.batch_size, self._full(fit, "train")
        return -(-self.recipe.classify.epochs * -(-full // size) // -(-count // size))

    # === One compiled model for many fits ===

    def _head(self, fit: Fit) -> HeadTrainer:
        classes = len(self.evaluation.classes(fit.setting))
        return self._started(("head", classes), fit.seed, lambda: HeadTrainer(self.run, classes),
                             lambda: new_head(self.run, classes), lambda trainer: [trainer.optimizer])

    def _joint(self, fit: Fit, frozen: bool) -> JointTrainer:
        classes, untrained = len(self.evaluation.classes(fit.setting)), fit.model == "scratch"
        trainer = self._started(("joint", classes, frozen, untrained), fit.seed,
                                lambda: JointTrainer(self.run, classes, frozen, untrained),
                                lambda: new_decoder(self.run, classes), lambda trainer: trainer.rates)
        trainer.restart()
        return trainer

    def _started(self, kind: tuple, seed: int, make: Callable, fresh: Callable[[], keras.Model],
                 optimizers: Callable[..., Sequence]):
        """A trainer, compiled once, whose `restart` sets the first weights that a `fresh` model has under a seed."""
        if kind not in self._trainers:
            self._trainers[kind] = make()
            self._starts[kind] = {None: self._trainers[kind].restart}
        trainer, starts = self._trainers[kind], self._starts[kind]
        keras.utils.set_random_seed(seed)
        if seed not in starts:
            starts[None]()  # optimisers without memory
            for mine, its in zip(trainer.network.variables, fresh().variables, strict=True):
                mine.assign(its)
            starts[seed] = training.Restart(trainer.model, *optimizers(trainer))
        trainer.restart = starts[seed]
        keras.utils.set_random_seed(seed)
        return trainer

    # === Scores ===

    def _watch(self, test: Examples, features: np.ndarray | None, batch_size: int, fit: Fit) -> list[BestOnTest]:
        """The paper's protocol: tests of `features` after each epoch, or of raw windows where these are None."""
        def inputs(chosen: np.ndarray) -> np.ndarray:
            return test.part.volts(self.run.length, chosen) if features is None else features[chosen]

        return [BestOnTest(inputs, test.labels, batch_size, fit.seed)] if self.evaluation.optimistic else []

    def _scored(self, fit: Fit, test: Examples, predict: Callable[[], np.ndarray], watch: Sequence[BestOnTest] = (),
                seconds: Sequence[float] = ()) -> tuple[dict, dict]:
        """Scores and arrays of a fit at the end of training or, by the paper's protocol, at its best epoch on test.

        Arrays, all (M,): `start` of the window in the subject's joined segments, its `own` movement, the `true` label
        and the `predicted` one, as in the files.

        Args:
            predict: gives the class indices of all test windows; not called where `watch` has some.
            seconds: of each epoch, if it was trained in epochs; the first traces the graph.
        """
        (epochs, _, predicted), chosen = (watch[0].best, watch[0].chosen) if watch else (
            (len(seconds), None, predict()), slice(None))
        classes, windows = np.asarray(self.evaluation.classes(fit.setting)), test.part.windows
        true, predicted = classes[test.labels[chosen]], classes[predicted]
        found = scores(true, predicted) | {"optimistic": self.evaluation.optimistic}
        if seconds:
            found |= {"epochs": epochs, "seconds_an_epoch": float(np.median(seconds[1:] or seconds))}
        return found, {"start": windows.starts[chosen], "own": windows.movements[chosen], "true": true,
                        "predicted": predicted}


class _Clock(keras.callbacks.Callback):
    """Seconds of each epoch of training, tests not counted."""

    def __init__(self):
        super().__init__()
        self.seconds, self._began = [], 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.monotonic() - self._began)
