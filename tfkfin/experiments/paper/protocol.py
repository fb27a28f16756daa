"""`protocol = "paper"`: how the authors' code scores a model, for comparison with the paper's figures only.

Test windows influence their own scores: the best test accuracy over the epochs is reported, test windows are
standardised by their own statistics, BatchNorm and dropout work as in training, and windows that do not fill a batch
are not counted. Scores by this protocol are marked optimistic.
Where the authors' code leaves it open: statistics are by channel over all test windows, and test windows come in a
shuffled order, since BatchNorm's statistics of a batch of one movement would erase that movement.
"""

from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from tfkfin.fit import training
from tfkfin.pipeline.subject import Subject


def standardised_by_itself(subject: Subject, repetitions: tuple[int, ...], length: int) -> Subject:
    """The subject with volts such that the samples under the windows of these repetitions have mean 0 and sd 1
    by channel once they are standardised.
    """
    starts = subject.select(repetitions).windows.starts
    edges = np.zeros(len(subject.emg) + 1, np.int64)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + length, -1)
    covered = subject.emg[np.cumsum(edges)[:-1] > 0]
    mean, sd = covered.mean(axis=0, dtype=np.float64), covered.std(axis=0, dtype=np.float64)
    own = (subject.emg - mean) / np.where(sd > 0, sd, 1.0)
    return replace(subject, emg=(own * subject.sd + subject.mean).astype(np.float32))


class BestOnTest(keras.callbacks.Callback):
    """Tests after every epoch, with the model as in training, and keeps the best accuracy.

    Attributes:
        best: epoch (from 1), accuracy, and the class indices predicted then; `chosen` (M,) are the windows counted.
    """

    def __init__(self, inputs: Callable[[np.ndarray], np.ndarray], labels: np.ndarray, batch_size: int, seed: int):
        """`inputs` gives a model's inputs for window indices; labels (N,) are their classes."""
        super().__init__()
        order = np.random.default_rng(seed).permutation(len(labels))
        size = min(batch_size, len(labels))
        self.chosen = order[: len(labels) // size * size]
        self.batches = np.split(self.chosen, len(self.chosen) // size)
        self.inputs, self.labels = inputs, labels[self.chosen]
        self.epoch, self.best = 0, (0, -1.0, np.empty(0, np.int64))

    def on_epoch_end(self, epoch, logs=None):
        self.epoch += 1
        before = training.Restart(self.model)  # BatchNorm must not keep test statistics
        parts = [self._probabilities(tf.convert_to_tensor(self.inputs(batch))) for batch in self.batches]
        before()
        predicted = np.concatenate(parts).argmax(axis=1)
        accuracy = float(np.mean(predicted == self.labels))
        if accuracy > self.best[1]:
            self.best = (self.epoch, accuracy, predicted)

    def _probabilities(self, x: tf.Tensor) -> np.ndarray:
        outputs = as_in_training(self.model)(x)
        return (outputs["probabilities"] if isinstance(outputs, dict) else outputs).numpy()


def as_in_training(model: keras.Model) -> Callable:
    """The model's outputs with BatchNorm on the batch and dropout on, as one graph."""
    if not hasattr(model, "_as_in_training"):
        model._as_in_training = tf.function(lambda x: model(x, training=True), reduce_retracing=True)
    return model._as_in_training
