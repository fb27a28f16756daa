"""The stage `classify`: the head is trained on true features, subject by subject."""

from functools import partial

import keras

from tfkfin.fit import baselines, board, training
from tfkfin.fit.run import Run
from tfkfin.fit.stages import Stage, SubjectCache
from tfkfin.fit.trainers import HeadTrainer, SolvedHead
from tfkfin.nets import heads, saving
from tfkfin.pipeline.windows import evenly


def classify(run: Run):
    solved = heads.kind(run.recipe.classifier.kind).solve is not None
    return partial(_classify_subject, run, (SolvedHead if solved else HeadTrainer)(run))


def _classify_subject(run: Run, trainer: SolvedHead | HeadTrainer, subject: SubjectCache) -> dict:
    train = subject.features("train"), subject.labels("train")
    if isinstance(trainer, SolvedHead):
        trainer.fit(subject.part("train"), *train, subject.described("train", trainer.described))
        probabilities = trainer.predict(subject.features("context"), subject.described("context", trainer.described))
    else:
        _train(run, trainer, subject, train)
        probabilities = trainer.predict(subject.features("context"), 4096)
    svm = None
    if run.recipe.features.names:
        svm = baselines.accuracy(baselines.svm(), train, (subject.features("test"), subject.labels("test")))
    saving.save_weights(trainer.network, run.stage_folder("classify") / f"S{subject.number}.weights.h5")
    return subject.scores(probabilities) | {"svm": svm}


def _train(run: Run, trainer: HeadTrainer, subject: SubjectCache, train: tuple) -> None:
    """Trains the head; its curves go to TensorBoard."""
    chosen = evenly(len(subject.labels("test")), board.WATCHED)
    features, labels = subject.features("test")[chosen], subject.labels("test")[chosen]
    with board.Summaries(run.board(f"classify/S{subject.number}")) as shown:

        def after(epoch: int, logs: dict) -> None:
            shown.scalars({name: logs[name] for name in ("loss", "accuracy")}, epoch, "train")
            shown.scalars(board.loss_and_accuracy(trainer.predict(features, 4096), labels), epoch, "test")

        trainer.fit(*train, run.recipe.seed, f"classify S{subject.number}",
                    callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=after)])


def _expected(run: Run, trainer: SolvedHead | HeadTrainer, subject: SubjectCache) -> float:
    if isinstance(trainer, SolvedHead):
        return 0.0
    train = subject.features("train"), subject.labels("train")
    return training.seconds_of(lambda calls: trainer.fit(*train, run.recipe.seed, f"classify S{subject.number}",
                                                       callbacks=calls))


STAGE = Stage("classify", (), each=classify, expected=_expected)
