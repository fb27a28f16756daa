"""The stage `finetune`: FINs and head, loaded from the stages before, are trained as a whole, subject by subject."""

import time

import keras
import tensorflow as tf

from tfkfin.console import InputError
from tfkfin.fit import board, metrics, training
from tfkfin.fit.run import Run
from tfkfin.fit.scores import decided
from tfkfin.fit.stages import Stage, _subjects
from tfkfin.fit.trainers import JointTrainer
from tfkfin.models import heads
from tfkfin.models.decoder import Decoder, about
from tfkfin.pipeline.subject import Subject


def finetune(run: Run) -> dict:
    trainer = JointTrainer(run)
    trainer.fins.load_weights(run.folder / "imitate" / "fins.weights.h5")
    trainer.restart = training.Restart(trainer.model, *trainer.rates)
    kind = heads.kind(run.recipe.classifier.kind)
    for subject in _subjects.unfinished(run, "finetune"):
        trainer.restart()
        trainer.standardise(subject)
        trainer.head.load_weights(run.stage_folder("classify") / f"S{subject.number}.weights.h5")
        _finetune_subject(run, trainer, subject, kind)
    return _subjects.accuracies(run, "finetune")


def _finetune_subject(run: Run, trainer: JointTrainer, subject: Subject, kind: heads.Head) -> None:
    dataset, names = run.dataset, run.recipe.features.names
    began = time.monotonic()

    def examples(side: str):
        part = subject.select(dataset.part(side))
        return part, part.features(names, dataset.length, dataset.rate_hz), dataset.labels(part)

    with board.Board(run.board(f"finetune/S{subject.number}")) as shown:

        def after(epoch: int, values: dict) -> None:
            shown.scalars({f"{name}/train": value for name, value in values.items()}, epoch)

        profiler = [_first_fit_profiled(shown.folder)] if run.profile else []
        train = examples("finetune")
        if kind.solve:  # the head meets imitated features now, so it is solved for these
            _solve(trainer, kind, train)
        trainer.fit(*train, run.recipe.seed, callbacks=profiler, after=after)
        if kind.adapt and run.recipe.finetune.epochs:  # it remembers what FINs say now
            _solve(trainer, kind, train)
        test, true, _ = examples("test")
        answers = trainer.answers(test)
        fin = metrics.imitation(true, answers["features"], names)
        shown.scalars({f"r2/{name}": s["r2"] for name, s in fin.items()}, run.recipe.finetune.epochs)
    labels, _ = decided(test, lambda part: (answers if part is test else trainer.answers(part))["probabilities"],
                        _subjects.decision(run), dataset.movements, dataset.stride)
    scores = _subjects.scores(run, test, labels) | {"fin_finetuned": fin}
    known = {name: scores[name] for name in ("accuracy", "execution", "false_per_minute")} | {"fin": fin}
    card = _card(run, subject) | {"parameters": trainer.network.count_params(), "scores": known}
    Decoder(card, trainer.network).save(_subjects.folder(run, "finetune", subject.number))
    _subjects.finish(run, "finetune", subject.number, scores, began)


def _solve(trainer: JointTrainer, kind: heads.Head, train: tuple) -> None:
    part, _, labels = train
    kind.solve(trainer.head.get_layer("classifier"), trainer.seen(part), labels, part.groups)


def _card(run: Run, subject: Subject) -> dict:
    data = run.dataset
    return about(run.recipe, data.rate_hz, run.length, data.stride, data.movements, subject.mean, subject.sd,
                 data.names) | {
        "subject": subject.number, "synthetic": data.synthetic}


def load(run: Run, subject: int) -> Decoder:
    """A subject's decoder, as the stage left it.

    Raises:
        InputError: the run has not fine-tuned that subject, or an older tfkfin did.
    """
    if run.done("finetune", f"S{subject}") is None:
        raise InputError(f"{run.folder} has no fine-tuned model of subject {subject}: run --stage finetune")
    return Decoder.load(run.folder / "finetune" / f"S{subject}")


def _first_fit_profiled(folder: str) -> keras.callbacks.Callback:
    calls = []

    def end(logs=None):
        if not calls:
            tf.profiler.experimental.stop()
        calls.append(1)

    return keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: None if calls else tf.profiler.experimental.start(folder), on_train_end=end)


STAGE = Stage("finetune", ("imitate", "classify"), finetune)
