"""The stage `finetune`: FINs and head, loaded from earlier stages, are trained end to end, subject by subject."""

import time
from collections.abc import Callable
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from tfkfin.base.answers import showing
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.fit import board, metrics, training
from tfkfin.fit.run import Run
from tfkfin.fit.scoring import THREE_NUMBERS
from tfkfin.fit.stages import Stage, SubjectCache
from tfkfin.fit.trainers import JointTrainer, virtual_inputs, where_fins_fail
from tfkfin.nets import quality, saving
from tfkfin.pipeline.subject import Subject
from tfkfin.pipeline.windows import evenly
from tfkfin.store import card

MANY = 16  # steps: a training of fewer is not worth a forecast; and windows whose scoring is timed for one
_AGAIN = "remove {}, and the same command makes it anew"


def finetune(run: Run):
    trainer = JointTrainer(run)
    imitate = run.folder / "imitate"
    if run.recipe.features.names:
        saving.load_weights(trainer.fins, imitate / "fins.weights.h5", _AGAIN.format(imitate))
    trainer.restart = training.Restart(trainer.model, *trainer.rates)
    return partial(_finetune_subject, run, trainer)


def _finetune_subject(run: Run, trainer: JointTrainer, subject: SubjectCache) -> dict:
    trainer.restart()
    trainer.standardise(subject.subject)
    weights = run.stage_folder("classify") / f"S{subject.number}.weights.h5"
    saving.load_weights(trainer.forward.parts.head, weights, _AGAIN.format(weights.parent))
    part, labels = subject.part("finetune"), subject.labels("finetune")
    poor = where_fins_fail(trainer.forward, part, run.recipe.features.names)

    def inputs(part: Subject, known: np.ndarray | None = None) -> np.ndarray:
        return trainer.answers(part, known, ("inputs",))["inputs"]

    def solve():  # for the features that the FINs imitate now
        virtual = [virtual_inputs(part, run.length, inputs)] if run.recipe.classifier.forces else []
        x = inputs(part, subject.described("finetune", trainer.described))
        trainer.head.solve(x, labels, part.groups, *virtual)
        if trainer.head.rest_statistics and (rest := part.resting()):
            trainer.head.rest_statistics(inputs(rest))

    with board.Summaries(run.board(f"finetune/S{subject.number}")) as shown:
        profiler = [_first_fit_profiled(shown.folder)] if run.profile else []
        after = _curves_after(trainer, shown, subject)
        if trainer.head.solve:
            solve()
        trainer.fit(part, subject.features("finetune"), labels, run.recipe.seed, callbacks=profiler, after=after)
        if trainer.head.calibrate and run.recipe.finetune.epochs:
            solve()
        decoder = _decoder(run, trainer, subject, poor)
        with showing(f"scoring S{subject.number}"):
            outputs = _answers(decoder, trainer, subject)
        fin = metrics.imitation(subject.features("test"), outputs["features"][subject.tested],
                                run.recipe.features.names)
        shown.scalars({f"r2/{name}": s["r2"] for name, s in fin.items()}, run.recipe.finetune.epochs)
    scores = subject.scores(outputs["probabilities"])
    decoder.card["scores"] = {name: scores[name] for name in THREE_NUMBERS} | {"fin": fin}
    decoder.save(run.stage_folder("finetune") / f"S{subject.number}")
    return scores | {"fin_finetuned": fin}


def _decoder(run: Run, trainer: JointTrainer, subject: SubjectCache, poor: dict) -> BaseDecoder:
    data, own = run.dataset, subject.subject
    shown = subject.part("finetune").some_windows(run.length, quality.MOST_WINDOWS)
    about = card.about(run.recipe, data.rate_hz, run.length, data.stride, data.movements, own.mean, own.sd, data.names,
                       data.recorded_hz)
    signal = quality.learnt(shown, own.mean, own.sd, data.rate_hz)
    more = {"subject": subject.number, "synthetic": data.synthetic, "parameters": trainer.network.count_params()}
    return BaseDecoder(about | more | {"signal": signal} | poor, trainer.network)


def _answers(decoder: BaseDecoder, trainer: JointTrainer, subject: SubjectCache) -> dict[str, np.ndarray]:
    """Features and probabilities of a subject's context, as the decoder gives them."""
    part = subject.part("context")
    if decoder.forward.limits is None:  # descriptions are known already
        return trainer.answers(part, subject.described("context", trainer.described))
    return decoder.forward.recording(part.emg, part.windows.starts, ("features", "probabilities"))


def _curves_after(trainer: JointTrainer, shown: board.Summaries, subject: SubjectCache) -> Callable[[int, dict], None]:
    """What goes to TensorBoard after each epoch: Keras's own values of training, and scores of some test windows."""
    count = trainer.run.recipe.finetune.windows_per_epoch or len(subject.labels("finetune"))
    most = board.WATCHED if trainer.forward.streams else min(48, -(-count // 8))  # Bi-LSTMs take their time
    chosen = evenly(len(subject.labels("test")), most)
    windows, labels = subject.part("test").volts(trainer.run.length, chosen), subject.labels("test")[chosen]

    def after(epoch: int, values: dict) -> None:
        shown.scalars({name.removeprefix("probabilities_"): value for name, value in values.items()}, epoch, "train")
        shown.scalars(board.loss_and_accuracy(trainer.predict(windows)["probabilities"], labels), epoch, "test")

    return after


def _first_fit_profiled(folder: str) -> keras.callbacks.Callback:
    calls = []

    def end(logs=None):
        if not calls:
            tf.profiler.experimental.stop()
        calls.append(1)

    return keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: None if calls else tf.profiler.experimental.start(folder), on_train_end=end)


def _expected(run: Run, trainer: JointTrainer, subject: SubjectCache) -> float:
    options, part, scored = run.recipe.finetune, subject.part("finetune"), subject.part("context")
    count = min(len(part.windows), options.windows_per_epoch or len(part.windows))
    if options.epochs * count < MANY * options.batch_size:
        return 0.0
    features, labels = subject.features("finetune"), subject.labels("finetune")
    seconds = training.seconds_of(lambda calls: trainer.fit(part, features, labels, run.recipe.seed, callbacks=calls))
    for _ in range(2):  # the first time compiles
        began, starts = time.monotonic(), scored.windows.starts[:MANY]
        trainer.forward.recording(scored.emg[: starts[-1] + run.length], starts, ("features", "probabilities"))
    return options.epochs * seconds + (time.monotonic() - began) * len(scored.windows) / len(starts)


STAGE = Stage("finetune", ("imitate", "classify"), each=finetune, expected=_expected)
