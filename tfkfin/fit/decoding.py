"""The stages `classify` and `finetune`: from features to movements, subject by subject.

`HeadTrainer` and `JointTrainer` compile a model once and train it on one set of windows after another; the stages and
the experiments share them.
"""

import time
from collections.abc import Callable, Iterable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfkfin.console import InputError, log
from tfkfin.fit import baselines, board, linear, metrics, training
from tfkfin.fit.run import Run
from tfkfin.models import presets as zoo
from tfkfin.models.classifier import classifier
from tfkfin.models.joint import joint
from tfkfin.models.layers import SignalAugment
from tfkfin.pipeline import batches
from tfkfin.pipeline.dataset import Subject


def new_head(run: Run, num_classes: int = 0) -> keras.Model:
    """The classifier of a recipe with random weights, for `num_classes` (0: one a movement of the dataset)."""
    options, channels, names = run.recipe.classifier, run.dataset.channels, run.recipe.features.names
    num_classes = num_classes or len(run.dataset.movements)
    if options.kind == "linear":
        return linear.new_head(options, channels, names, num_classes)
    return classifier(channels, len(names), num_classes, options.filters, options.copies, options.noise,
                      options.dropout)


def new_joint(run: Run, num_classes: int = 0) -> keras.Model:
    """FINs and head of a recipe as one model, with random (or pretrained) weights."""
    options, names = run.recipe.fin.model_copy(update={"pretrained": ""}), run.recipe.features.names
    bank = zoo.new_bank(options, names, run.length, run.dataset.channels)
    changes = run.recipe.augment.model_dump()
    augment = SignalAugment(**changes, seed=run.recipe.seed, name="augment") if any(changes.values()) else None
    return joint(bank, new_head(run, num_classes), run.recipe.classifier.lags, augment)


class HeadTrainer:
    """The classifier compiled once, trained on true features again and again, each time from the same start.

    Attributes: `model`; `predict` gives its outputs; `restart` puts it back to the start: replace it for another one.
    """

    def __init__(self, run: Run, num_classes: int = 0):
        self.options, options = run.recipe.classify, run.recipe.classify
        self.model = new_head(run, num_classes)
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
        flat = features.reshape(-1, features.shape[-1])
        self.model.get_layer("z_score").set(flat.mean(axis=0, dtype=np.float64), flat.std(axis=0, dtype=np.float64))
        steps = epochs * -(-len(labels) // options.batch_size)
        data = batches.of_features(features, labels, options.batch_size, seed)
        cosine = [training.Cosine([self.optimizer], steps)] if options.schedule == "cosine" else []
        with training.progress(title, steps) as bar:
            calls = [bar, *cosine, *callbacks]
            return self.model.fit(data, epochs=epochs, verbose=0, shuffle=False, callbacks=calls).history


class LinearTrainer:
    """The linear head in place of `HeadTrainer`: solved, not trained."""

    def __init__(self, run: Run):
        self.model = new_head(run)
        self.correlate = linear.Correlator(run.recipe.classifier.lags, run.length, run.dataset.channels)
        self._predict = training.Predictor(self.model)

    def fit(self, part: Subject, features: np.ndarray, labels: np.ndarray) -> None:
        """Solves for a subject's windows, their features (N, C, F), true or imitated, and class indices (N,)."""
        linear.solve(self.model, features, self.correlate(part), labels)

    def predict(self, part: Subject, features: np.ndarray) -> np.ndarray:
        return self._predict([features, self.correlate(part)], 4096)


class JointTrainer:
    """FINs and classifier compiled as one model, trained on windows again and again, each time from the same start.

    Attributes: `model` and its parts `fins` and `head`; `predict` and `restart` as of `HeadTrainer`.
    """

    def __init__(self, run: Run, num_classes: int = 0, frozen: bool = False, untrained: bool = False):
        """`frozen` keeps the FINs as they are, whatever the recipe says; `untrained` says that the head has learnt
        nothing yet, so that its BatchNorms must.
        """
        options = run.recipe.finetune
        self.run, self.model = run, new_joint(run, num_classes)
        self.fins, self.head = self.model.get_layer("fins"), self.model.get_layer("classifier")
        for layer in self.head.layers:
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

    def fit(self, part: Subject, targets: np.ndarray, labels: np.ndarray, seed: int, count: int = 0,
            callbacks: Sequence = (), after: Callable[[int, dict], None] = lambda epoch, values: None) -> None:
        """Trains from where the model is, on a subject's windows, their true features (N, C, F) and classes (N,).

        Args:
            seed: with the subject's number and the epoch it decides the order of windows.
            count: windows an epoch, some of them more than once if there are fewer; 0 takes as the recipe says.
            after: called with the epoch and its {name: value} when it is done.
        """
        options, there = self.run.recipe.finetune, len(part.windows)
        count = count or min(there, options.windows_per_epoch or there)
        steps = options.epochs * -(-count // options.batch_size)
        cosine = [training.Cosine(self.rates, steps)] if options.schedule == "cosine" else []
        with training.progress(f"finetune S{part.number}", steps) as bar:
            for epoch in range(options.epochs):
                rng = np.random.default_rng([seed, part.number, epoch])
                order = np.concatenate([rng.permutation(there) for _ in range(-(-count // there))])[:count]
                data = batches.of_subject(part, targets, labels, self.run.length, options.batch_size, order,
                                          self.run.recipe.batches.prefetch)
                history = self.model.fit(data, verbose=0, shuffle=False, callbacks=[bar, *cosine, *callbacks]).history
                after(epoch, {name: values[0] for name, values in history.items()})


class Finetuned:
    """The fine-tuned models of a run, one subject's weights at a time."""

    def __init__(self, run: Run):
        self.run, self.model = run, new_joint(run)
        self.predict = training.Predictor(self.model)

    def load(self, subject: int) -> keras.Model:
        """The joint model with a subject's weights; InputError if the run has not fine-tuned that subject."""
        path = _weights(self.run, "finetune", subject)
        if not path.is_file():
            raise InputError(f"{self.run.folder} has no fine-tuned model of subject {subject}: run --stage finetune")
        self.model.load_weights(path)
        return self.model

    def test(self, subject: Subject) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """True features (N, C, F), class indices (N,) and outputs for a subject's test windows."""
        self.load(subject.number)
        dataset, names = self.run.dataset, self.run.recipe.features.names
        part = subject.select(dataset.split.test_repetitions)
        targets, labels = part.features(names, dataset.length, dataset.rate_hz), dataset.labels(part)
        return targets, labels, self.predict(batches.of_subject(part, targets, labels, dataset.length, 64))


def classify(run: Run) -> dict:
    dataset, names, solved = run.dataset, run.recipe.features.names, run.recipe.classifier.kind == "linear"
    trainer = LinearTrainer(run) if solved else HeadTrainer(run)
    for subject in _unfinished(run, "classify"):
        began = time.monotonic()
        parts = [subject.select(r) for r in (dataset.split.train_repetitions, dataset.split.test_repetitions)]
        train, test = ((p.features(names, dataset.length, dataset.rate_hz), dataset.labels(p)) for p in parts)
        if solved:
            trainer.fit(parts[0], *train)
            history, probabilities = {"loss": [], "accuracy": []}, trainer.predict(parts[1], test[0])
        else:
            history = trainer.fit(*train, run.recipe.seed, f"classify S{subject.number}")
            probabilities = trainer.predict(test[0], 4096)
        svm = baselines.accuracy(baselines.svm(), train, test)
        _save(trainer.model, run, "classify", subject)
        with board.Board(run.board(f"classify/S{subject.number}")) as shown:
            for epoch, (loss, accuracy) in enumerate(zip(history["loss"], history["accuracy"], strict=True)):
                shown.scalars({"loss/train": loss, "accuracy/train": accuracy}, epoch)
        _finish_subject(run, "classify", parts[1], test[1], probabilities, {"svm": svm}, began)
    return _accuracies(run, "classify")


def finetune(run: Run) -> dict:
    trainer = JointTrainer(run)
    trainer.fins.load_weights(run.folder / "imitate" / "fins.weights.h5")
    trainer.restart = training.Restart(trainer.model, *trainer.rates)
    solver = LinearTrainer(run) if run.recipe.classifier.kind == "linear" else None
    for subject in _unfinished(run, "finetune"):
        trainer.restart()
        trainer.head.load_weights(_weights(run, "classify", subject.number))
        _finetune_subject(run, trainer, subject, solver)
    return _accuracies(run, "finetune")


def _finetune_subject(run: Run, trainer: JointTrainer, subject: Subject, solver: LinearTrainer | None) -> None:
    dataset, names = run.dataset, run.recipe.features.names
    began = time.monotonic()

    def examples(repetitions: Iterable[int]):
        part = subject.select(repetitions)
        return part, part.features(names, dataset.length, dataset.rate_hz), dataset.labels(part)

    with board.Board(run.board(f"finetune/S{subject.number}")) as shown:

        def after(epoch: int, values: dict) -> None:
            shown.scalars({f"{name}/train": value for name, value in values.items()}, epoch)

        profiler = [_first_fit_profiled(shown.folder)] if run.profile else []
        train = examples(dataset.split.finetune_repetitions)
        if solver is not None:  # the head meets imitated features now, so it is solved for these
            seen = trainer.predict(batches.of_subject(train[0], *train[1:], dataset.length, 64))["features"]
            solver.fit(train[0], seen, train[2])
            trainer.head.set_weights(solver.model.get_weights())
        trainer.fit(*train, run.recipe.seed, callbacks=profiler, after=after)
        test, true, labels = examples(dataset.split.test_repetitions)
        outputs = trainer.predict(batches.of_subject(test, true, labels, dataset.length, 64))
        scores = metrics.imitation(true, outputs["features"], names)
        shown.scalars({f"r2/{name}": s["r2"] for name, s in scores.items()}, run.recipe.finetune.epochs)
    _save(trainer.model, run, "finetune", subject)
    _finish_subject(run, "finetune", test, labels, outputs["probabilities"], {"fin_finetuned": scores}, began)


def _first_fit_profiled(folder: str) -> keras.callbacks.Callback:
    calls = []

    def end(logs=None):
        if not calls:
            tf.profiler.experimental.stop()
        calls.append(1)

    return keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: None if calls else tf.profiler.experimental.start(folder), on_train_end=end)


def _weights(run: Run, stage: str, subject: int):
    return run.stage_folder(stage) / f"S{subject}.weights.h5"


def _save(model: keras.Model, run: Run, stage: str, subject: Subject) -> None:
    """Weights and the input statistics they were trained with."""
    model.save_weights(_weights(run, stage, subject.number))
    np.savez(run.stage_folder(stage) / f"S{subject.number}.input.npz", mean=subject.mean, sd=subject.sd)


def _unfinished(run: Run, stage: str) -> Iterable[Subject]:
    """Subjects that the stage has not finished; the next is read while the caller trains on this one."""
    return run.dataset.subjects([s for s in run.dataset.split.subjects if run.done(stage, f"S{s}") is None])


def _finish_subject(run: Run, stage: str, test: Subject, true: np.ndarray, probabilities: np.ndarray, more: dict,
                    began: float) -> None:
    """Keeps a subject's scores: classes `true` (N,) against probabilities (N, G) of its test windows."""
    options = run.recipe.classifier
    probabilities = metrics.vote(probabilities, test.windows, options.vote)
    predicted = probabilities.argmax(axis=1)
    matrix = metrics.confusion(true, predicted, list(range(len(run.dataset.movements))))
    accuracy = float(np.mean(true == predicted))
    if options.reject:
        more["rejection"] = metrics.rejection(true, probabilities, options.reject)
    log.info("%s S%d: accuracy %.1f %%", stage, test.number, 100 * accuracy)
    run.finish(stage, {"accuracy": accuracy, "confusion": matrix.tolist(), "seconds": time.monotonic() - began, **more},
               f"S{test.number}")


def _accuracies(run: Run, stage: str) -> dict:
    """Scores over subjects, for results.json; the confusion matrix and hyperparameters go to TensorBoard."""
    every = {s: run.done(stage, f"S{s}") for s in run.dataset.split.subjects}
    matrix = np.sum([one["confusion"] for one in every.values()], axis=0)
    movements = list(run.dataset.movements)
    summary = {"accuracy": _spread({s: one["accuracy"] for s, one in every.items()})}
    if run.recipe.classifier.reject:
        summary["rejection"] = {str(s): one["rejection"] for s, one in every.items()}
    if stage == "classify":
        summary["classifier"] = summary["accuracy"]
        summary["svm"] = _spread({s: one["svm"] for s, one in every.items()})
    else:
        names = run.recipe.features.names
        summary["fin_finetuned"] = {n: {k: float(np.mean([one["fin_finetuned"][n][k] for one in every.values()]))
                                        for k in ("r2", "paper_r2", "paper_map")} for n in names}
    with board.Board(run.board(stage)) as shown:
        what = "synthetic recordings" if run.dataset.synthetic else f"{len(every)} subjects"
        figure = board.confusion_figure(matrix, movements, f"{stage}, {what}, all test windows")
        shown.figure("confusion matrix", figure, 0, run.folder / "plots" / f"confusion_{stage}.png")
        shown.hparams(run.recipe, {"accuracy": summary["accuracy"]["mean"]})
    return summary | {"confusion": {"movements": movements, "counts": matrix.tolist()}}


def _spread(values: dict[int, float]) -> dict:
    return {"mean": float(np.mean(list(values.values()))), "std": float(np.std(list(values.values()))),
            "per_subject": {str(s): v for s, v in values.items()}}
