"""The stages `classify` and `finetune`: from features to movements, subject by subject."""

import time
from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from tfkfin import baselines, board, metrics, training
from tfkfin.console import InputError, log
from tfkfin.data import batches
from tfkfin.data.dataset import Subject
from tfkfin.models import zoo
from tfkfin.models.classifier import classifier
from tfkfin.models.joint import joint
from tfkfin.runs import Run


def new_head(run: Run) -> keras.Model:
    options, dataset = run.recipe.classifier, run.dataset
    return classifier(dataset.channels, len(run.recipe.features.names), len(dataset.movements), options.filters,
                      options.copies, options.noise, options.dropout)


def classify(run: Run) -> dict:
    options, dataset, names = run.recipe.classify, run.dataset, run.recipe.features.names
    head = new_head(run)
    optimizer = training.adam(options.learning_rate, options.weight_decay)
    optimizer.build(head.trainable_variables)
    head.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"], jit_compile=False)
    restart, predict = training.Restart(head, optimizer), training.Predictor(head)
    for subject in _unfinished(run, "classify"):
        restart()
        began = time.monotonic()
        parts = (subject.select(r) for r in (dataset.split.train_repetitions, dataset.split.test_repetitions))
        train, test = ((p.features(names, dataset.length, dataset.rate_hz), dataset.labels(p)) for p in parts)
        flat = train[0].reshape(-1, len(names))
        head.get_layer("z_score").set(flat.mean(axis=0, dtype=np.float64), flat.std(axis=0, dtype=np.float64))
        steps = options.epochs * -(-len(train[1]) // options.batch_size)
        data = batches.of_features(*train, options.batch_size, run.recipe.seed)
        with training.progress(f"classify S{subject.number}", steps) as bar:
            calls = [bar, *([training.Cosine([optimizer], steps)] if options.schedule == "cosine" else [])]
            history = head.fit(data, epochs=options.epochs, verbose=0, shuffle=False, callbacks=calls).history
        predicted = predict(test[0], 4096).argmax(axis=1)
        svm = baselines.accuracy(baselines.svm(), train, test)
        _save(head, run, "classify", subject)
        with board.Board(run.board(f"classify/S{subject.number}")) as shown:
            for epoch, (loss, accuracy) in enumerate(zip(history["loss"], history["accuracy"], strict=True)):
                shown.scalars({"loss/train": loss, "accuracy/train": accuracy}, epoch)
        _finish_subject(run, "classify", subject, test[1], predicted, {"svm": svm}, began)
    return _accuracies(run, "classify")


def new_joint(run: Run) -> keras.Model:
    """FINs and head of a recipe as one model, with random (or pretrained) weights."""
    options, names = run.recipe.fin.model_copy(update={"pretrained": ""}), run.recipe.features.names
    return joint(zoo.new_bank(options, names, run.length, run.dataset.channels), new_head(run))


class Finetuned:
    """The fine-tuned models of a run, one subject's weights at a time."""

    def __init__(self, run: Run):
        self.run, self.model = run, new_joint(run)
        self.predict = training.Predictor(self.model)

    def load(self, subject: int) -> keras.Model:
        """The joint model with a subject's weights.

        Raises:
            InputError: the run has not fine-tuned that subject.
        """
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


def finetune(run: Run) -> dict:
    options = run.recipe.finetune
    model = new_joint(run)
    fins, head = model.get_layer("fins"), model.get_layer("classifier")
    fins.load_weights(run.folder / "imitate" / "fins.weights.h5")
    rates = (training.adam(options.fin_learning_rate, options.fin_weight_decay) if options.fin_learning_rate else None,
             training.adam(options.head_learning_rate, options.head_weight_decay))
    model.set_optimizers(*rates)
    losses = {"probabilities": keras.losses.SparseCategoricalCrossentropy(), "features": training.imitation_loss(fins)}
    model.compile(rates[1], losses, loss_weights={"probabilities": 1.0, "features": options.imitation_weight},
                  metrics={"probabilities": ["accuracy"]}, jit_compile=False)
    restart, predict = training.Restart(model, *rates), training.Predictor(model)
    for subject in _unfinished(run, "finetune"):
        restart()
        head.load_weights(_weights(run, "classify", subject.number))
        _finetune_subject(run, model, predict, rates, subject)
    return _accuracies(run, "finetune")


def _finetune_subject(run: Run, model: keras.Model, predict: training.Predictor, rates: tuple,
                      subject: Subject) -> None:
    options, dataset, names = run.recipe.finetune, run.dataset, run.recipe.features.names
    began = time.monotonic()

    def data(part: Subject, size: int, order: np.ndarray | None = None):
        targets = part.features(names, dataset.length, dataset.rate_hz)
        return targets, batches.of_subject(part, targets, dataset.labels(part), dataset.length, size, order)

    train = subject.select(dataset.split.finetune_repetitions)
    count = min(len(train.windows), options.windows_per_epoch or len(train.windows))
    steps = -(-count // options.batch_size)
    cosine = [training.Cosine(rates, options.epochs * steps)] if options.schedule == "cosine" else []
    with (board.Board(run.board(f"finetune/S{subject.number}")) as shown,
          training.progress(f"finetune S{subject.number}", options.epochs * steps) as bar):
        for epoch in range(options.epochs):
            rng = np.random.default_rng([run.recipe.seed, subject.number, epoch])
            order = rng.permutation(len(train.windows))[:count]
            _, epoch_data = data(train, options.batch_size, order)
            if run.profile and epoch == 0:
                tf.profiler.experimental.start(run.board(f"finetune/S{subject.number}"))
            history = model.fit(epoch_data, verbose=0, shuffle=False, callbacks=[bar, *cosine]).history
            if run.profile and epoch == 0:
                tf.profiler.experimental.stop()
            shown.scalars({f"{name}/train": values[0] for name, values in history.items()}, epoch)
        test = subject.select(dataset.split.test_repetitions)
        true, test_data = data(test, 64)
        outputs = predict(test_data)
        scores = metrics.imitation(true, outputs["features"], names)
        shown.scalars({f"r2/{name}": s["r2"] for name, s in scores.items()}, options.epochs)
    _save(model, run, "finetune", subject)
    predicted = outputs["probabilities"].argmax(axis=1)
    _finish_subject(run, "finetune", subject, dataset.labels(test), predicted, {"fin_finetuned": scores}, began)


def _weights(run: Run, stage: str, subject: int):
    return run.stage_folder(stage) / f"S{subject}.weights.h5"


def _save(model: keras.Model, run: Run, stage: str, subject: Subject) -> None:
    """Weights and the input statistics they were trained with."""
    model.save_weights(_weights(run, stage, subject.number))
    np.savez(run.stage_folder(stage) / f"S{subject.number}.input.npz", mean=subject.mean, sd=subject.sd)


def _unfinished(run: Run, stage: str) -> Iterable[Subject]:
    """Subjects that the stage has not finished; the next is read while the caller trains on this one."""
    return run.dataset.subjects([s for s in run.dataset.split.subjects if run.done(stage, f"S{s}") is None])


def _finish_subject(run: Run, stage: str, subject: Subject, true: np.ndarray, predicted: np.ndarray, more: dict,
                    began: float) -> None:
    matrix = metrics.confusion(true, predicted, list(range(len(run.dataset.movements))))
    accuracy = float(np.mean(true == predicted))
    log.info("%s S%d: accuracy %.1f %%", stage, subject.number, 100 * accuracy)
    run.finish(stage, {"accuracy": accuracy, "confusion": matrix.tolist(), "seconds": time.monotonic() - began, **more},
               f"S{subject.number}")


def _accuracies(run: Run, stage: str) -> dict:
    """Scores over subjects, for results.json; the confusion matrix and hyperparameters go to TensorBoard."""
    every = {s: run.done(stage, f"S{s}") for s in run.dataset.split.subjects}
    matrix = np.sum([one["confusion"] for one in every.values()], axis=0)
    movements = list(run.dataset.movements)
    summary = {"accuracy": _spread({s: one["accuracy"] for s, one in every.items()})}
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
