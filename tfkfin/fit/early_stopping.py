"""Early stopping of the stages that train FINs: the weights with the lowest validation loss are kept, and a training
that was killed goes on from its last checkpoint.
"""

import shutil
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfkfin.base.errors import InputError
from tfkfin.nets import saving

WEIGHTS = "fins.weights.h5"


class EarlyStopping:
    """A training's state on disk.

    Attributes:
        weights: the file of the weights with the lowest validation loss.
    """

    def __init__(self, folder: Path, model: keras.Model, count: str, **more):
        """`count`: what `done` counts, such as "epoch"; `more`: what checkpoints hold besides. Checkpoints know all
        these by name.
        """
        self.folder, self.model, self.weights = folder, model, folder / WEIGHTS
        self._done, self._best, self._stale = tf.Variable(0), tf.Variable(np.inf), tf.Variable(0)
        tracked = tf.train.Checkpoint(model=model, best=self._best, stale=self._stale, **{count: self._done}, **more)
        self._checkpoints = tf.train.CheckpointManager(tracked, str(folder / "checkpoints"), max_to_keep=1)

    @property
    def done(self) -> int:
        """Epochs, or whatever is counted, that are finished."""
        return int(self._done)

    @property
    def stale(self) -> int:
        """How many times in succession the validation loss was not lower than the lowest."""
        return int(self._stale)

    def restored(self) -> bool:
        """Whether there was a checkpoint to go on from.

        Raises:
            InputError: there was one, and it is damaged.
        """
        for half in Path(self._checkpoints.directory).glob("*_temp"):  # of a process that was killed as it wrote
            shutil.rmtree(half, ignore_errors=True)
        try:
            return self._checkpoints.restore_or_initialize() is not None
        except Exception as error:  # TensorFlow's own errors, or those of a parser
            raise InputError(f"{self._checkpoints.directory} is damaged: remove it, and the same command begins the "
                             f"stage {self.folder.name} anew") from error

    def add(self, loss: float) -> bool:
        """Notes a validation loss, and keeps the weights where it is the lowest so far; whether it is."""
        better = loss < float(self._best)
        if better:
            saving.save_weights(self.model, self.weights)
            self._best.assign(loss)
        self._stale.assign(0 if better else self._stale + 1)
        return better

    def save(self, done: int) -> None:
        """Writes a checkpoint."""
        self._done.assign(done)
        self._checkpoints.save()

    def load_best(self) -> None:
        """Puts the best weights into the model."""
        saving.load_weights(self.model, self.weights, f"remove {self.folder}, and the same command makes it anew")
