"""The staged fit: imitate -> classify -> finetune, three values of one `Stage`.

imitate   FINs learn the features from raw windows, without labels; channels and subjects pooled.
classify  the head learns movements from true features, subject by subject.
finetune  FINs and head, loaded from both, trained as a whole, subject by subject.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tfkfin import baselines, board, metrics, training
from tfkfin.console import log
from tfkfin.data import batches
from tfkfin.data.dataset import Subject
from tfkfin.models import zoo
from tfkfin.models.classifier import classifier
from tfkfin.models.joint import joint
from tfkfin.runs import Run


@dataclass(frozen=True)
class Stage:
    """One training stage: what must be finished before it, and the function that does it and returns its scores."""

    name: str
    needs: tuple[str, ...]
    run: Callable[[Run], dict]


def run_stage(run: Run, name: str) -> dict:
    """Runs a stage and whatever it needs that is not finished yet, as make does; returns results.json's content."""
    stage = STAGES[name]
    for needed in stage.needs:
        if run.done(needed) is None:
            run_stage(run, needed)
    scores = run.done(name)
    if scores is None:
        keras.utils.set_random_seed(run.recipe.seed)  # a stage gives the same alone as after another
        began = time.monotonic()
        scores = stage.run(run)
        run.seconds[name] = time.monotonic() - began
        run.finish(name, scores)
    return run.publish(name, scores)


def imitate(run: Run) -> dict:
    options, names = run.recipe.imitate, run.recipe.features.names
    source = _Windows(run)
    bank = zoo.new_bank(run.recipe.fin, names, run.length, source.channels)
    kept = source.sample("validation", options.validation_windows)
    training.fit_scales(bank, kept[1])
    loss = training.imitation_loss(bank)
    optimizer = training.adam(options.learning_rate, options.weight_decay, options.clip_norm)
    bank.compile(optimizer, loss, jit_compile=False)
    optimizer.build(bank.trainable_variables)
    folder = run.stage_folder("imitate")
    best = folder / "fins.weights.h5"
    state = {name: tf.Variable(value) for name, value in (("epoch", 0), ("best", np.inf), ("stale", 0))}
    checkpoints = tf.train.CheckpointManager(tf.train.Checkpoint(model=bank, optimizer=optimizer, **state),
                                             str(folder / "checkpoints"), max_to_keep=1)
    if checkpoints.restore_or_initialize() is None:
        _improve(bank, loss, kept, state, best)
    steps = source.steps_per_epoch(options.batch_size)
    with board.Board(run.board("imitate")) as shown, training.progress("imitate", options.epochs * steps) as bar:
        for epoch in range(int(state["epoch"]), options.epochs):
            if int(state["stale"]) >= options.patience:
                log.info("imitate: no better for %d epochs, stopped", options.patience)
                break
            calls = [bar]
            if options.schedule == "cosine":
                optimizer.learning_rate.assign(options.learning_rate)
                calls.append(training.Cosine([optimizer], options.epochs * steps, epoch * steps))
            history = bank.fit(source.epoch(epoch), verbose=0, shuffle=False, callbacks=calls)
            value = _improve(bank, loss, kept, state, best)
            shown.scalars({"loss/train": history.history["loss"][0], "loss/validation": value}, epoch)
            log.info("imitate epoch %d/%d: loss %.4f, validation %.4f", epoch + 1, options.epochs,
                     history.history["loss"][0], value)
            state["epoch"].assign(epoch + 1)
            checkpoints.save()
        bank.load_weights(best)
        emg, true = source.sample("test", options.test_windows)
        imitated = bank.predict(emg, batch_size=32, verbose=0)
        scores = metrics.imitation(true, imitated, names)
        shown.scalars({f"r2/{name}": s["r2"] for name, s in scores.items()}, options.epochs)
        figure = board.imitation_figure(true.reshape(-1, len(names)), imitated.reshape(-1, len(names)), names, scores)
        shown.figure("imitated against true", figure, options.epochs, run.folder / "plots" / "imitation.png")
    return {"fin": scores}


def _improve(bank: keras.Model, loss, kept: tuple, state: dict, best) -> float:
    """Validation loss now; the weights are kept if it is the best so far."""
    value = float(np.mean(loss(kept[1], bank.predict(kept[0], batch_size=32, verbose=0))))
    if value < float(state["best"]):
        partial = best.with_name("partial.weights.h5")
        bank.save_weights(partial)
        os.replace(partial, best)
        state["best"].assign(value)
        state["stale"].assign(0)
    else:
        state["stale"].assign_add(1)
    return value


class _Windows:
    """Where `imitate` takes its windows from: a dataset's training repetitions, or synthetic signals of wide range.

    Validation windows are of the last pre-training repetition where there are more than one; test windows of the
    test repetitions.
    """

    def __init__(self, run: Run):
        self.run, self.recipe = run, run.recipe
        self.dataset = None if run.recipe.source.kind == "signals" else run.dataset
        self.channels = self.dataset.channels if self.dataset else 1
        self.training = self.dataset and self._without_validation()

    def _without_validation(self):
        from dataclasses import replace

        *first, last = self.dataset.split.pretrain_repetitions
        kept = tuple(first) or (last,)
        return replace(self.dataset, split=self.dataset.split.model_copy(update={"pretrain_repetitions": kept}))

    def steps_per_epoch(self, batch_size: int) -> int:
        count = self.recipe.imitate.windows_per_epoch
        if self.dataset:
            count = sum(batches.shares(self.training, count).values())
        return max(1, -(-count // batch_size))

    def epoch(self, epoch: int) -> tf.data.Dataset:
        options, recipe = self.recipe.imitate, self.recipe
        if self.dataset is None:
            return batches.of_signals(recipe.features.names, self.run.length, recipe.window.rate_hz,
                                      options.batch_size, recipe.seed, epoch, options.windows_per_epoch)
        return batches.pooled(self.training, recipe.features.names, options.batch_size, recipe.seed, epoch,
                              options.windows_per_epoch, recipe.batches.recordings_in_flight)

    def sample(self, part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        """About `count` windows (N, L, C) and targets (N, C, F) of "validation" or "test"."""
        names = self.recipe.features.names
        if self.dataset is None:
            seed = self.recipe.seed + {"validation": 1, "test": 2}[part] * 1_000_003
            data = batches.of_signals(names, self.run.length, self.recipe.window.rate_hz, count, seed, 0, count)
            return tuple(array.numpy() for array in next(iter(data)))
        split, found = self.dataset.split, []
        subjects = split.pretrain_subjects if part == "validation" else split.subjects
        repetitions = split.pretrain_repetitions[-1:] if part == "validation" else split.test_repetitions
        for subject in self.dataset.subjects(subjects):
            subject = subject.select(repetitions)
            chosen = np.unique(np.linspace(0, len(subject.windows) - 1, -(-count // len(subjects))).astype(int))
            targets = subject.features(names, self.dataset.length, self.dataset.rate_hz)
            found.append((subject.cut(self.dataset.length, chosen), targets[chosen]))
        return tuple(np.concatenate(arrays) for arrays in zip(*found, strict=True))


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
    restart = training.Restart(head, optimizer)
    for subject in _unfinished(run, "classify"):
        restart()
        began = time.monotonic()
        train, test = ((part.features(names, dataset.length, dataset.rate_hz), dataset.labels(part)) for part in
                       (subject.select(dataset.split.train_repetitions), subject.select(dataset.split.test_repetitions)))
        flat = train[0].reshape(-1, len(names))
        head.get_layer("z_score").set(flat.mean(axis=0, dtype=np.float64), flat.std(axis=0, dtype=np.float64))
        steps = options.epochs * -(-len(train[1]) // options.batch_size)
        data = batches.of_features(*train, options.batch_size, run.recipe.seed)
        with training.progress(f"classify S{subject.number}", steps) as bar:
            calls = [bar, *([training.Cosine([optimizer], steps)] if options.schedule == "cosine" else [])]
            history = head.fit(data, epochs=options.epochs, verbose=0, shuffle=False, callbacks=calls).history
        predicted = head.predict(test[0], batch_size=4096, verbose=0).argmax(axis=1)
        svm = baselines.accuracy(baselines.svm(), train, test)
        _save(head, run, "classify", subject)
        with board.Board(run.board(f"classify/S{subject.number}")) as shown:
            for epoch, (loss, accuracy) in enumerate(zip(history["loss"], history["accuracy"], strict=True)):
                shown.scalars({"loss/train": loss, "accuracy/train": accuracy}, epoch)
        _finish_subject(run, "classify", subject, test[1], predicted, {"svm": svm}, began)
    return _accuracies(run, "classify")


def finetune(run: Run) -> dict:
    options, dataset = run.recipe.finetune, run.dataset
    fins, head = zoo.new_bank(run.recipe.fin, run.recipe.features.names, run.length, dataset.channels), new_head(run)
    fins.load_weights(run.folder / "imitate" / "fins.weights.h5")
    model = joint(fins, head)
    rates = (training.adam(options.fin_learning_rate, options.fin_weight_decay) if options.fin_learning_rate else None,
             training.adam(options.head_learning_rate, options.head_weight_decay))
    model.set_optimizers(*rates)
    losses = {"probabilities": keras.losses.SparseCategoricalCrossentropy(), "features": training.imitation_loss(fins)}
    model.compile(rates[1], losses, loss_weights={"probabilities": 1.0, "features": options.imitation_weight},
                  metrics={"probabilities": ["accuracy"]}, jit_compile=False)
    restart = training.Restart(model, *rates)
    for subject in _unfinished(run, "finetune"):
        restart()
        head.load_weights(_weights(run, "classify", subject.number))
        _finetune_subject(run, model, rates, subject)
    return _accuracies(run, "finetune")


def _finetune_subject(run: Run, model: keras.Model, rates: tuple, subject: Subject) -> None:
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
        outputs = model.predict(test_data, verbose=0)
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
        summary = {"classifier": summary["accuracy"], "svm": _spread({s: one["svm"] for s, one in every.items()})} | summary
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


STAGES = {
    "imitate": Stage("imitate", (), imitate),
    "classify": Stage("classify", (), classify),
    "finetune": Stage("finetune", ("imitate", "classify"), finetune),
}
