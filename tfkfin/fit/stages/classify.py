"""The stage `classify`: the head learns movements from true features, subject by subject."""

from functools import partial

import keras

from tfkfin.fit import baselines, board
from tfkfin.fit.run import Run
from tfkfin.fit.scores import decided
from tfkfin.fit.stages import Stage, _subjects
from tfkfin.fit.trainers import HeadTrainer, SolvedHead
from tfkfin.nets import heads, saving


def classify(run: Run):
    solved = heads.kind(run.recipe.classifier.kind).solve is not None
    return partial(_classify_subject, run, (SolvedHead if solved else HeadTrainer)(run))


def _classify_subject(run: Run, trainer: SolvedHead | HeadTrainer, subject: _subjects.Views) -> dict:
    dataset, test = run.dataset, subject.part("test")
    train = subject.features("train"), subject.labels("train")
    if isinstance(trainer, SolvedHead):
        trainer.fit(subject.part("train"), *train, subject.described("train", trainer.described))
    else:
        _trained(run, trainer, subject, train)

    def probabilities(part):
        own = part is test
        features = subject.features("test") if own else _subjects.true_features(run, part)
        if not isinstance(trainer, SolvedHead):
            return trainer.predict(features, 4096)
        return trainer.predict(features, subject.described("test", trainer.described) if own else
                               trainer.described(part))

    labels, _ = decided(test, probabilities, _subjects.decision(run), dataset.movements, dataset.stride)
    svm = baselines.accuracy(baselines.svm(), train, (subject.features("test"), subject.labels("test")))
    saving.save_weights(trainer.network, run.stage_folder("classify") / f"S{subject.number}.weights.h5")
    return _subjects.scores(run, test, labels) | {"svm": svm}


def _trained(run: Run, trainer: HeadTrainer, subject: _subjects.Views, train: tuple) -> None:
    """Trains the head, and shows its curves."""
    chosen = _subjects.watched(len(subject.labels("test")))
    features, labels = subject.features("test")[chosen], subject.labels("test")[chosen]
    with board.Curves(run.board(f"classify/S{subject.number}")) as curves:

        def after(epoch: int, logs: dict) -> None:
            curves.add("train", {name: logs[name] for name in ("loss", "accuracy")}, epoch)
            curves.add("test", board.told(trainer.predict(features, 4096), labels), epoch)

        trainer.fit(*train, run.recipe.seed, f"classify S{subject.number}",
                    callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=after)])


STAGE = Stage("classify", (), each=classify)
