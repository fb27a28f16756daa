"""The stage `imitate`: FINs learn closed-form features from raw windows without labels, all channels pooled."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfkfin.base.console import log
from tfkfin.fit import board, metrics, training
from tfkfin.fit import strategy as strategies
from tfkfin.fit.run import Run
from tfkfin.fit.stages import Stage, _fins
from tfkfin.nets import saving
from tfkfin.pipeline import batches
from tfkfin.pipeline.dataset import Dataset
from tfkfin.pipeline.memory import Spool
from tfkfin.recipe import Recipe
from tfkfin.store import presets

BEST = "fins.weights.h5"


def imitate(run: Run) -> dict:
    names, source, folder = run.recipe.features.names, _Examples(run), run.stage_folder("imitate")
    with board.Board(run.board("imitate")) as shown:
        with board.Curves(shown.folder) as curves:
            bank, predict = _trained(run, source, folder / BEST, curves)
        saving.load_weights(bank, folder / BEST, f"remove {folder}, and the same command makes it anew")
        emg, true = source.sample("test", run.recipe.imitate.test_windows)
        imitated = predict(emg)
        scores = metrics.imitation(true, imitated, names)
        shown.scalars({f"r2/{name}": s["r2"] for name, s in scores.items()}, run.recipe.imitate.epochs)
        figure = board.imitation_figure(true.reshape(-1, len(names)), imitated.reshape(-1, len(names)), names, scores)
        shown.figure("imitated against true", figure, run.recipe.imitate.epochs, run.folder / "plots" / "imitation.png")
    _fins.keep(run, bank, folder, {"fin": scores})
    return {"fin": scores}


def _trained(run: Run, source: "_Examples", best: Path, curves: board.Curves):
    """The bank after its last epoch, and its outputs; the best weights are at `best`."""
    options, shared = run.recipe.imitate, strategies.started(run.strategy)
    with shared.scope() if shared else nullcontext():
        bank = presets.new_bank(run.recipe.fin, run.recipe.features.names, run.length, source.channels)
        if options.epochs or not run.recipe.fin.pretrained:
            kept = source.sample("validation", options.validation_windows)
            training.fit_scales(bank, kept[1])
        optimizer = training.adam(options.learning_rate, options.weight_decay, options.clip_norm)
        optimizer.build(bank.trainable_variables)
    loss, predict = training.imitation_loss(bank), training.Predictor(bank)
    if shared:
        one_epoch = strategies.Replicas(shared, bank, optimizer, loss).epoch
    else:
        bank.compile(optimizer, loss, jit_compile=False)
        one_epoch = partial(_one_epoch, bank)
    state = {name: tf.Variable(value) for name, value in (("epoch", 0), ("best", np.inf), ("stale", 0))}
    checkpoints = tf.train.CheckpointManager(tf.train.Checkpoint(model=bank, optimizer=optimizer, **state),
                                             str(run.stage_folder("imitate") / "checkpoints"), max_to_keep=1)
    if not options.epochs:
        saving.save_weights(bank, best)
    elif not _fins.restored(checkpoints, "imitate"):
        _fins.improve(bank, _error(loss, predict, kept), state, best)
    steps = source.steps_per_epoch(options.batch_size)
    with training.progress("imitate", options.epochs * steps) as bar:
        for epoch in range(int(state["epoch"]), options.epochs):
            if int(state["stale"]) >= options.patience:
                log.info("imitate: no better for %d epochs, stopped", options.patience)
                break
            calls = [bar]
            if options.schedule == "cosine":
                optimizer.learning_rate.assign(options.learning_rate)
                calls.append(training.Cosine([optimizer], options.epochs * steps, epoch * steps))
            learnt = one_epoch(source.epoch(epoch), calls)
            value = _error(loss, predict, kept)
            _fins.improve(bank, value, state, best)
            log.info("imitate epoch %d/%d: loss %.4f, validation %.4f", epoch + 1, options.epochs, learnt, value)
            state["epoch"].assign(epoch + 1)
            curves.add("train", {"loss": learnt}, epoch)
            curves.add("validation", {"loss": value}, epoch)
            checkpoints.save()
    return bank, predict


def _one_epoch(bank: keras.Model, data: tf.data.Dataset, calls: list) -> float:
    return bank.fit(data, verbose=0, shuffle=False, callbacks=calls).history["loss"][0]


def _error(loss, predict, kept: tuple) -> float:
    return float(np.mean(loss(kept[1], predict(kept[0]))))


class _Examples:
    """Where `imitate` takes its windows from: a dataset's training repetitions, or synthetic signals of wide range.

    Validation windows are of the last pre-training repetition where there are more than one; test windows of the
    test repetitions.
    """

    def __init__(self, run: Run):
        self.run, self.recipe = run, run.recipe
        self.dataset = None if run.recipe.source.kind == "signals" else run.dataset
        self.channels = self.dataset.channels if self.dataset else 1
        self.training = self.dataset and self._without_validation()
        self.spool = Spool(run.stage_folder("imitate")) if self.recipe.imitate.epochs > 1 else None

    def _without_validation(self):
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
                              options.windows_per_epoch, recipe.batches.recordings_in_flight, recipe.batches.prefetch,
                              self.spool)

    def sample(self, part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        return sample(self.recipe, self.dataset, self.run.length, part, count)


def sample(recipe: Recipe, dataset: Dataset | None, length: int, part: str,
           count: int) -> tuple[np.ndarray, np.ndarray]:
    """About `count` windows (N, L, C) and targets (N, C, F) of "validation" or "test", the same ones each time.

    Args:
        dataset: None: synthetic signals of wide range, windows of `length` samples.
    """
    names = recipe.features.names
    if dataset is None:
        seed = recipe.seed + {"validation": 1, "test": 2}[part] * 1_000_003
        data = batches.of_signals(names, length, recipe.window.rate_hz, count, seed, 0, count)
        return tuple(array.numpy() for array in next(iter(data)))
    split, found = dataset.split, []
    subjects = split.pretrain_subjects if part == "validation" else split.subjects
    side = dataset.part("pretrain" if part == "validation" else "test")
    side = replace(side, repetitions=side.repetitions[-1:]) if part == "validation" else side
    for subject in dataset.subjects(subjects):
        subject = subject.select(side)
        chosen = np.unique(np.linspace(0, len(subject.windows) - 1, -(-count // len(subjects))).astype(int))
        targets = subject.features(names, dataset.length, dataset.rate_hz)
        found.append((subject.cut(dataset.length, chosen), targets[chosen]))
    return tuple(np.concatenate(arrays) for arrays in zip(*found, strict=True))


STAGE = Stage("imitate", (), imitate)
