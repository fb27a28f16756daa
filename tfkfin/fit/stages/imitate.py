"""The stage `imitate`: FINs are trained to give closed-form features of raw windows; no labels, all channels pooled."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from tfkfin.base.console import log
from tfkfin.base.files import replacing, write_json
from tfkfin.features import catalogue
from tfkfin.fit import board, device, metrics, training
from tfkfin.fit.run import Run
from tfkfin.fit.stages import Stage
from tfkfin.fit.training import EarlyStopping
from tfkfin.nets import saving
from tfkfin.pipeline import batches, signals
from tfkfin.pipeline.windows import evenly
from tfkfin.store import folders, presets

AUTO_EPOCHS = 20  # at most, where `imitate.epochs` is "auto" and they do not


def imitate(run: Run) -> dict:
    names = run.recipe.features.names
    if not names:
        return {"fin": {}}  # there are no FINs
    with board.Summaries(run.board("imitate")) as shown:
        epochs = _epochs_needed(run)
        bank, predict = _train(run, shown, epochs)
        emg, true = sample(run, "test", run.recipe.imitate.test_windows)
        imitated = predict(emg)
        scores = metrics.imitation(true, imitated, names)
        shown.scalars({f"r2/{name}": s["r2"] for name, s in scores.items()}, epochs)
        figure = board.imitation_figure(true.reshape(-1, len(names)), imitated.reshape(-1, len(names)), names, scores)
        shown.figure("imitated against true", figure, epochs, run.folder / "plots" / "imitation.png")
    kinds = _by_kind(run, predict) if run.recipe.source.kind == "signals" else {}
    keep(run, bank, "imitate", scores, **({"kinds": kinds} if kinds else {}))
    return {"fin": scores}


def _by_kind(run: Run, predict: training.Predictor) -> dict[str, dict[str, float]]:
    """R² of each feature on each kind of signal that `tfkfin.pipeline.signals` makes."""
    names, recipe = run.recipe.features.names, run.recipe
    found = {}
    for kind in signals.KINDS:
        rng = np.random.default_rng([recipe.seed, 3])
        emg = signals.windows(rng, recipe.imitate.test_windows, run.length, recipe.window.rate_hz, kind)[..., None]
        scores = metrics.imitation(catalogue.direct(emg, names, recipe.window.rate_hz), predict(emg), names)
        found[kind] = {name: one["r2"] for name, one in scores.items()}
    return found


def _epochs_needed(run: Run) -> int:
    """The recipe's epochs; of "auto" none where the FINs hold on everybody's training windows."""
    if run.recipe.imitate.epochs != "auto":
        return run.recipe.imitate.epochs
    if run.recipe.source.kind == "signals" or not run.recipe.fin.pretrained:
        return AUTO_EPOCHS
    data, names = run.dataset, run.recipe.features.names
    predict = training.Predictor(presets.new_bank(run.fin, names, run.length, data.channels))
    side, lowest = data.part("pretrain"), {}
    for subject in data.subjects(data.split.pretrain_subjects):
        part = subject.select(side)
        emg = part.cut(run.length, evenly(len(part.windows), metrics.LOOKED_AT))
        lowest[part.number] = metrics.lowest_r2(catalogue.direct(emg, names, data.rate_hz), predict(emg), names)
    worst = min(lowest, key=lambda number: lowest[number][1])
    name, r2 = lowest[worst]
    if r2 >= metrics.HOLDS:
        log.info("imitate: the FINs hold on these recordings, R² %.3f or more on training windows: they stay", r2)
        return 0
    log.info("imitate: the FINs do not hold on these recordings (R² of %s is %.2f on training windows of S%d), and are "
             "trained on them for up to %d epochs", name, r2, worst, AUTO_EPOCHS)
    return AUTO_EPOCHS


def _train(run: Run, shown: board.Summaries, epochs: int) -> tuple[keras.Model, training.Predictor]:
    """The bank with its best weights, and its outputs."""
    options, shared = run.recipe.imitate, device.started(run.strategy)
    with shared.scope() if shared else nullcontext():
        channels = 1 if run.recipe.source.kind == "signals" else run.dataset.channels
        bank = presets.new_bank(run.fin, run.recipe.features.names, run.length, channels)
        if epochs or not run.recipe.fin.pretrained:
            validation = sample(run, "validation", options.validation_windows)
            training.fit_scales(bank, validation[1])
        optimizer = training.adam(options.learning_rate, options.weight_decay, options.clip_norm)
        optimizer.build(bank.trainable_variables)
    loss, predict = training.imitation_loss(bank), training.Predictor(bank)
    if shared:
        one_epoch = device.Replicas(shared, bank, optimizer, loss).epoch
    else:
        bank.compile(optimizer, loss, jit_compile=False)

        def one_epoch(data: tf.data.Dataset, calls: list) -> float:
            return bank.fit(data, verbose=0, shuffle=False, callbacks=calls).history["loss"][0]

    stopping = EarlyStopping(run.stage_folder("imitate"), bank, "epoch", optimizer=optimizer)

    def validate() -> float:
        value = float(np.mean(loss(validation[1], predict(validation[0]))))
        stopping.add(value)
        return value

    if not epochs:
        saving.save_weights(bank, stopping.weights)
    elif not stopping.restored():
        validate()
    steps, batches_of = _epochs(run, epochs)
    with training.Progress("imitate", epochs * steps) as bar:
        for epoch in range(int(stopping.done), epochs):
            if stopping.stale >= options.patience:
                log.info("imitate: the validation loss was not lowered for %d epochs, stopped", options.patience)
                break
            calls = [bar]
            if options.schedule == "cosine":
                optimizer.learning_rate.assign(options.learning_rate)
                calls.append(training.Cosine([optimizer], epochs * steps, epoch * steps))
            losses = {"train": one_epoch(batches_of(epoch), calls), "validation": validate()}
            log.info("imitate epoch %d/%d: loss %.4f, validation %.4f", epoch + 1, epochs, *losses.values())
            for side, value in losses.items():
                shown.scalars({"loss": value}, epoch, side)
            stopping.save(epoch + 1)
    stopping.load_best()
    return bank, predict


def keep(run: Run, bank: keras.Model, stage: str, scores: dict, labelled: Iterable[str] = (), **more: dict) -> None:
    """Writes a stage's FINs, to start other trainings from and to export, with their card.

    Args:
        labelled: repetitions whose labels they learnt from, by their digests.
        more: other scores.
    """
    folder = run.stage_folder(stage)
    with replacing(folder / folders.FINS_FILE.name) as path:
        on_one_channel(run, bank).save(path)
    write_json(folder / folders.CARD, run.card() | {
        "kind": "fins", "parameters": bank.count_params(), "scores": {"fin": scores} | more,
        "learnt_from": sorted({*presets.learnt_from(run.recipe), *labelled})})


def on_one_channel(run: Run, bank: keras.Model) -> keras.Model:
    """A bank's FINs on one channel, in float32 whatever they were trained in."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        one = presets.new_bank(run.fin, run.recipe.features.names, run.length, 1, started=False)
    finally:
        keras.config.set_dtype_policy(policy)
    one.set_weights(bank.get_weights())
    return one


def _epochs(run: Run, epochs: int) -> tuple[int, Callable[[int], tf.data.Dataset]]:
    """How many batches an epoch has; and what gives an epoch's, by its number.

    Windows are of a dataset's pre-training repetitions, or synthetic signals of wide range. Where there are several
    repetitions the last is for validation alone.
    """
    recipe, options, names = run.recipe, run.recipe.imitate, run.recipe.features.names
    size, count = options.batch_size, options.windows_per_epoch
    if recipe.source.kind == "signals":
        return max(1, -(-count // size)), lambda epoch: batches.of_signals(
            names, run.length, recipe.window.rate_hz, size, recipe.seed, epoch, count)
    *first, last = run.dataset.split.pretrain_repetitions
    split = run.dataset.split.model_copy(update={"pretrain_repetitions": tuple(first) or (last,)})
    data, spool = replace(run.dataset, split=split), batches.Spool(run.stage_folder("imitate"))
    return max(1, -(-sum(batches.shares(data, count).values()) // size)), lambda epoch: batches.pooled(
        data, names, size, recipe.seed, epoch, count, recipe.batches.recordings_in_flight, recipe.batches.prefetch,
        spool if epochs > 1 else None)


def sample(run: Run, part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """About `count` windows (N, L, C) and targets (N, C, F) for "validation" or "test", the same ones each time.

    Validation windows are of the last pre-training repetition, test windows of the test repetitions.
    """
    recipe, names = run.recipe, run.recipe.features.names
    if recipe.source.kind == "signals":
        seed = recipe.seed + {"validation": 1, "test": 2}[part] * 1_000_003
        data = batches.of_signals(names, run.length, recipe.window.rate_hz, count, seed, 0, count)
        return tuple(array.numpy() for array in next(iter(data)))
    dataset, split, found = run.dataset, run.dataset.split, []
    subjects = split.pretrain_subjects if part == "validation" else split.subjects
    side = dataset.part("pretrain" if part == "validation" else "test")
    side = replace(side, repetitions=side.repetitions[-1:]) if part == "validation" else side
    for subject in dataset.subjects(subjects):
        subject = subject.select(side)
        chosen = evenly(len(subject.windows), -(-count // len(subjects)))
        targets = subject.features(names, dataset.length, dataset.rate_hz)
        found.append((subject.cut(dataset.length, chosen), targets[chosen]))
    return tuple(np.concatenate(arrays) for arrays in zip(*found, strict=True))


STAGE = Stage("imitate", (), imitate)
