"""Trains the neural cells: classifiers on true features, and joint models on raw windows.

    cnn2           classifier of one subject on true features (paper: CNN-II)
    cnn1           one classifier on true features of all pre-training subjects (paper: CNN-I)
    fin            pre-trained FINs + that subject's cnn2, fine-tuned as a whole (paper: LSTM-FIN+CNN-II)
    scratch        the same network, nothing pre-trained (paper: LSTM+CNN-II)
    random         random FINs; the classifier is first trained on what they answer, as long as cnn2; then fine-tuned
    fin_frozen, random_frozen    as `fin` and `random`, but the FINs stay fixed: the classifier alone is fine-tuned

All are fine-tuned with the same number of updates. `random` lacks nothing that `fin` has but its FINs' weights; what
`fin` gains over it is due to them, what it gains over `scratch` is due to any head start. The output scale of random
FINs is set from true training features. They learn from all training repetitions, which `fin`'s classifier has seen
too, even where `fin` fine-tunes on fewer.
"""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from tfkfin.console import log
from tfkfin.experiments import statistics
from tfkfin.experiments.cells import Cell
from tfkfin.experiments.lab import Examples, Lab
from tfkfin.experiments.optimistic import BestOnTest
from tfkfin.files import write_json
from tfkfin.fit import training
from tfkfin.fit.stages import imitate as imitation
from tfkfin.fit.trainers import HeadTrainer, JointTrainer, new_decoder, new_head
from tfkfin.pipeline import batches

RAW = ("fin", "scratch", "random", "fin_frozen", "random_frozen")


class Decoders:
    """Work for `Book.finish`: each method takes a cell and returns (scores, arrays). Compiled models are kept."""

    def __init__(self, lab: Lab):
        self.lab, self.run = lab, lab.run
        self._trainers, self._starts = {}, {}

    def cnn2(self, cell: Cell) -> tuple[dict, dict]:
        train, test = self.lab.examples(cell, "train"), self.lab.examples(cell, "test")
        trainer = self._head(cell)
        clock, watch = _Clock(), self._watch(test, test.features, trainer.options.batch_size, cell)
        epochs = self._epochs(cell, len(train.labels))
        trainer.fit(train.features, train.labels, cell.seed, str(cell), epochs, [clock, *watch])
        self._keep(trainer.model, cell)
        predicted = None if watch else trainer.predict(test.features, 4096).argmax(axis=1)
        return self._judged(cell, test, predicted, watch, clock)

    def cnn1(self, cell: Cell) -> tuple[dict, dict]:
        """Trains one classifier a seed, when first asked; judges it on the cell's subject."""
        test, trainer, path = self.lab.examples(cell, "test"), self._head(cell), self._pooled_path(cell)
        clock, watch = _Clock(), self._watch(test, test.features, trainer.options.batch_size, cell)
        if watch or not path.is_file():  # the paper's protocol chooses the epoch by each subject's own test windows
            pooled = [self.lab.examples(Cell(s, "cnn1"), "train") for s in self.lab.dataset.split.pretrain_subjects]
            features, labels = (np.concatenate([getattr(one, name) for one in pooled]) for name in
                                ("features", "labels"))
            trainer.fit(features, labels, cell.seed, f"CNN-I seed {cell.seed}", callbacks=[clock, *watch])
            write_json(_made(path.with_suffix(".clock.json")), clock.seconds)
            self._keep(trainer.model, cell, path)
        trainer.model.load_weights(path)
        clock.seconds = clock.seconds or json.loads(path.with_suffix(".clock.json").read_text("utf-8"))
        predicted = None if watch else trainer.predict(test.features, 4096).argmax(axis=1)
        return self._judged(cell, test, predicted, watch, clock)

    def joint(self, cell: Cell) -> tuple[dict, dict]:
        """Any of `RAW`."""
        frozen, pretrained = cell.model.endswith("_frozen"), cell.model.startswith("fin")
        side = "finetune" if pretrained else "train"
        train, test = self.lab.examples(cell, side), self.lab.examples(cell, "test", most=self.lab.max_test_windows)
        options, full = self.lab.recipe.finetune, len(self._plain(cell, side).labels)
        trainer = self._joint(cell, frozen)
        if pretrained:
            self.lab.book.finish([cell.of("cnn2")], self.cnn2)
            trainer.fins.load_weights(self.fins())
            trainer.head.get_layer("classifier").load_weights(self.lab.book.path(cell.of("cnn2"), ".weights.h5"))
        else:
            training.fit_scales(trainer.fins, train.features)
            self._prepare_head(trainer, cell)
        trainer.standardise(train.part)
        clock, watch = _Clock(), self._watch(test, None, options.batch_size, cell)
        trainer.fit(train.part, train.features, train.labels, cell.seed,
                    min(full, options.windows_per_epoch or full), [clock, *watch])
        predicted = None
        if not watch:
            data = batches.of_subject(test.part, test.features, test.labels, self.run.length, 64)
            predicted = trainer.predict(data)["probabilities"].argmax(axis=1)
        return self._judged(cell, test, predicted, watch, clock)

    def _prepare_head(self, trainer: JointTrainer, cell: Cell) -> None:
        """Gives random FINs a classifier trained on what they answer; `scratch` gets its input scale alone."""
        options = self.lab.recipe.finetune
        train = self.lab.examples(cell, "train", most=options.epochs * options.windows_per_epoch)
        data = batches.of_subject(train.part, train.features, train.labels, self.run.length, 64)
        answers = trainer.predict(data)["features"]
        if cell.model == "scratch":
            flat = answers.reshape(-1, answers.shape[-1])
            trainer.head.get_layer("classifier").get_layer("z_score").set(flat.mean(axis=0), flat.std(axis=0))
        else:
            head = self._head(cell)
            head.fit(answers, train.labels, cell.seed, str(cell), self._epochs(cell, len(train.labels)))
            trainer.head.set_weights(head.head.get_weights())

    def _epochs(self, cell: Cell, count: int) -> int:
        """Epochs of a classifier on `count` windows: as many updates as on all, whatever the setting."""
        options, full = self.lab.recipe.classify, len(self._plain(cell, "train").labels)
        return -(-options.epochs * -(-full // options.batch_size) // -(-count // options.batch_size))

    def fins(self):
        """Weights of the FINs: those of the stage `imitate`, which runs when it has not."""
        path = self.run.folder / "imitate" / "fins.weights.h5"
        if self.run.done("imitate") is None:
            keras.utils.set_random_seed(self.lab.recipe.seed)
            log.info("imitate: the stage has not run yet, it runs now")
            began = time.monotonic()
            self.run.finish("imitate", imitation.imitate(self.run) | {"seconds": time.monotonic() - began})
        return path

    def work(self, cell: Cell) -> tuple[dict, dict]:
        """The method for a cell's model."""
        return {"cnn1": self.cnn1, "cnn2": self.cnn2}.get(cell.model, self.joint)(cell)

    def _plain(self, cell: Cell, side: str) -> Examples:
        return self.lab.examples(Cell(cell.subject, cell.model), side)

    def _head(self, cell: Cell) -> HeadTrainer:
        classes = len(self.lab.classes(cell.setting))
        trainer = self._trainer(("head", classes), lambda: HeadTrainer(self.run, classes))
        self._start(trainer, ("head", classes), cell.seed, lambda: new_head(self.run, classes), [trainer.optimizer])
        return trainer

    def _joint(self, cell: Cell, frozen: bool) -> JointTrainer:
        classes = len(self.lab.classes(cell.setting))
        key = "joint", classes, frozen, cell.model == "scratch"
        trainer = self._trainer(key, lambda: JointTrainer(self.run, *key[1:]))
        self._start(trainer, key, cell.seed, lambda: new_decoder(self.run, classes), trainer.rates)
        trainer.restart()
        return trainer

    def _trainer(self, key: tuple, make):
        """A compiled model of this kind."""
        if key not in self._trainers:
            self._trainers[key] = make()
            self._starts[key] = {None: self._trainers[key].restart}
        return self._trainers[key]

    def _start(self, trainer, key: tuple, seed: int, fresh, optimizers: Sequence) -> None:
        """Lets `trainer.restart` begin from what a new model would be under a seed: one graph serves every seed."""
        keras.utils.set_random_seed(seed)
        starts = self._starts[key]
        if seed not in starts:
            starts[None]()  # optimisers without memory
            for mine, its in zip(trainer.network.variables, fresh().variables, strict=True):
                mine.assign(its)
            starts[seed] = training.Restart(trainer.model, *optimizers)
        trainer.restart = starts[seed]
        keras.utils.set_random_seed(seed)

    def _watch(self, test: Examples, features: np.ndarray | None, batch_size: int, cell: Cell) -> list[BestOnTest]:
        if not self.lab.optimistic:
            return []

        def inputs(chosen: np.ndarray) -> np.ndarray:
            return test.part.volts(self.run.length, chosen) if features is None else features[chosen]

        return [BestOnTest(inputs, test.labels, batch_size, cell.seed)]

    def _judged(self, cell: Cell, test: Examples, predicted: np.ndarray | None, watch: list[BestOnTest],
                clock: "_Clock") -> tuple[dict, dict]:
        epochs, chosen = len(clock.seconds), np.arange(len(test.labels))
        if watch:
            (epochs, _, predicted), chosen = watch[0].best, watch[0].chosen
        more = {"epochs": epochs, "seconds_an_epoch": clock.typical}
        return judged(self.lab, cell, test, predicted, chosen, more)

    def _keep(self, model: keras.Model, cell: Cell, path=None) -> None:
        path = _made(path or self.lab.book.path(cell, ".weights.h5"))
        partial = path.with_name("partial.weights.h5")
        model.save_weights(partial)
        os.replace(partial, path)

    def _pooled_path(self, cell: Cell):
        return self.lab.book.path(cell, "").with_name(f"pooled-seed{cell.seed}.weights.h5")


def judged(lab: Lab, cell: Cell, test: Examples, predicted: np.ndarray, chosen: np.ndarray | None = None,
           more: dict | None = None) -> tuple[dict, dict]:
    """Scores and arrays of a cell from class indices predicted for (the chosen of) its test windows.

    Arrays, all (M,): `start` of the window in the subject's joined segments, its `own` movement, the `true` label asked
    for and the `predicted` one, as in the files.
    """
    classes = np.asarray(lab.classes(cell.setting))
    chosen = np.arange(len(test.labels)) if chosen is None else chosen
    true, predicted = classes[test.labels[chosen]], classes[predicted]
    arrays = {"start": test.part.windows.starts[chosen], "own": test.part.windows.movements[chosen], "true": true,
              "predicted": predicted}
    return statistics.scores(true, predicted) | {"optimistic": lab.optimistic} | (more or {}), arrays


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


class _Clock(keras.callbacks.Callback):
    """Seconds of each epoch of training, tests not counted."""

    def __init__(self):
        super().__init__()
        self.seconds, self._began = [], 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.monotonic() - self._began)

    @property
    def typical(self) -> float:
        """The median epoch; the first, which traces the graph, is not counted if there are others."""
        return float(np.median(self.seconds[1:] or self.seconds or [float("nan")]))
