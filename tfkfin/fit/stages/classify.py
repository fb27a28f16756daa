"""The stage `classify`: the head learns movements from true features, subject by subject."""

import time

from tfkfin.files import replacing
from tfkfin.fit import baselines, board
from tfkfin.fit.run import Run
from tfkfin.fit.scores import decided
from tfkfin.fit.stages import Stage, _subjects
from tfkfin.fit.trainers import HeadTrainer, SolvedHead
from tfkfin.models import heads


def classify(run: Run) -> dict:
    dataset, names = run.dataset, run.recipe.features.names
    solved = heads.kind(run.recipe.classifier.kind).solve is not None
    trainer = SolvedHead(run) if solved else HeadTrainer(run)

    def true_features(part):
        return part.features(names, dataset.length, dataset.rate_hz)

    for subject in _subjects.unfinished(run, "classify"):
        began = time.monotonic()
        parts = [subject.select(dataset.part(side)) for side in ("train", "test")]
        train, test = ((true_features(part), dataset.labels(part)) for part in parts)
        if solved:
            trainer.fit(parts[0], *train)
            history = {"loss": [], "accuracy": []}
        else:
            history = trainer.fit(*train, run.recipe.seed, f"classify S{subject.number}")

        def probabilities(part):
            features = test[0] if part is parts[1] else true_features(part)
            return trainer.predict(part, features) if solved else trainer.predict(features, 4096)

        labels, _ = decided(parts[1], probabilities, _subjects.decision(run), dataset.movements, dataset.stride)
        svm = baselines.accuracy(baselines.svm(), train, test)
        with replacing(run.stage_folder("classify") / f"S{subject.number}.weights.h5") as partial:
            trainer.head.save_weights(partial)
        with board.Board(run.board(f"classify/S{subject.number}")) as shown:
            for epoch, (loss, accuracy) in enumerate(zip(history["loss"], history["accuracy"], strict=True)):
                shown.scalars({"loss/train": loss, "accuracy/train": accuracy}, epoch)
        _subjects.finish(run, "classify", subject.number, _subjects.scores(run, parts[1], labels) | {"svm": svm}, began)
    return _subjects.accuracies(run, "classify")


STAGE = Stage("classify", (), classify)
