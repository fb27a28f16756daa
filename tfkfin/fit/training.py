"""Training, as stages share it: learning rates, progress, restart, batches of neighbours, losses, early stopping."""

import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfkfin.base.answers import margin, steps
from tfkfin.base.console import log
from tfkfin.base.errors import InputError
from tfkfin.nets import saving
from tfkfin.nets.fins import fins_of
from tfkfin.nets.forward import runs_of
from tfkfin.nets.layers import FeatureScale
from tfkfin.pipeline.subject import Subject

FIRST, TIMED = 1, 3  # steps before, and of, the time that a training is said to take


class Cosine(keras.callbacks.Callback):
    """Lowers the learning rates to zero along half a cosine, from step 0 to `total_steps`."""

    def __init__(self, optimizers: Iterable[keras.optimizers.Optimizer | None], total_steps: int, step: int = 0):
        super().__init__()
        self.optimizers = [o for o in optimizers if o is not None]
        self.base = [float(ops.convert_to_numpy(o.learning_rate)) for o in self.optimizers]
        self.total, self.step = total_steps, step

    def on_train_batch_begin(self, batch, logs=None):
        factor = 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / self.total)))
        for optimizer, base in zip(self.optimizers, self.base, strict=True):
            optimizer.learning_rate.assign(base * factor)
        self.step += 1


class Progress(keras.callbacks.Callback):
    """A bar on a terminal; elsewhere a line every quarter of a minute. A context manager."""

    def __init__(self, title: str, total_steps: int):
        super().__init__()
        self.title, self.total, self.step = title, total_steps, 0
        self.bar, self.logged, self.began = None, time.monotonic(), 0.0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        if self.bar is not None:
            self.bar.stop()

    def on_train_begin(self, logs=None):
        import rich.progress as rich

        console = margin()
        if self.bar is None and console.is_terminal and not console.quiet:
            self.bar = rich.Progress(
                rich.TextColumn("{task.description}"), rich.BarColumn(), rich.MofNCompleteColumn(), rich.TextColumn(
                    "loss {task.fields[loss]:.3f}"), rich.TimeRemainingColumn(), console=console, transient=True)
            self.task = self.bar.add_task(self.title, total=self.total, loss=float("nan"))
            self.bar.start()

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise InputError(f"{self.title}: the loss is {loss:g} after step {self.step}: lower the learning rates, "
                             "and check the recordings with python -m tfkfin.data info DIR")
        if self.step == FIRST:  # what comes before compiles
            self.began = time.monotonic()
        elif self.step == FIRST + TIMED:
            left = (time.monotonic() - self.began) / TIMED * (self.total - self.step)
            if left > 15:
                log.info("%s: %d steps, about %.0f s", self.title, self.total, left)
        if self.bar is not None:
            self.bar.update(self.task, completed=self.step, loss=loss)
        elif time.monotonic() - self.logged > 15:
            self.logged = time.monotonic()
            log.info("%s: step %d/%d, loss %.4f", self.title, self.step, self.total, loss)


class _Probe(keras.callbacks.Callback):
    """Ends a training after a few steps by raising `_Probed`, with the seconds that one call of `fit` would take."""

    def __init__(self):
        super().__init__()
        self.ends = []  # of steps, in several calls of `fit` where one has few

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(time.monotonic())
        if len(self.ends) == FIRST + TIMED - 1:  # before `Progress` says how long it takes
            step_s = (self.ends[-1] - self.ends[FIRST - 1]) / (TIMED - 1)
            raise _Probed(step_s * self.params["epochs"] * self.params["steps"])


class _Probed(Exception):
    pass


def seconds_of(fit: Callable[[list[keras.callbacks.Callback]], object]) -> float:
    """About how long a call of Keras's `fit` would take, of which a few steps are done; 0 if it has no more of them.

    Args:
        fit: does it with the callbacks that it is given.
    """
    try:
        fit([_Probe()])
    except _Probed as found:
        return found.args[0]
    return 0.0


class Restart:
    """Puts models and optimisers back to their first values, so that one compiled graph serves every subject."""

    def __init__(self, *parts: keras.Model | keras.optimizers.Optimizer | None):
        self.variables = [v for part in parts if part is not None for v in part.variables]
        self.values = [ops.convert_to_numpy(v.value) for v in self.variables]

    def __call__(self) -> None:
        for variable, value in zip(self.variables, self.values, strict=True):
            variable.assign(value)


NEIGHBOURS = 8  # windows side by side: more save little, and a batch would span fewer places of the recording


def neighbours(starts: np.ndarray, windows: int = NEIGHBOURS) -> list[np.ndarray]:
    """Indices of windows at `starts` (N,) in groups of neighbours at one stride; a segment's last may be smaller."""
    _, runs = runs_of(starts)
    return [np.arange(i, min(i + windows, high)) for low, high in runs for i in range(low, high, windows)]


def neighbour_batches(part: Subject, targets: np.ndarray, labels: np.ndarray, length: int, batch_size: int,
                      groups: list[np.ndarray], room: tuple[int, int] | None = None) -> tf.data.Dataset:
    """Batches of about `batch_size` windows as short signals, each of which holds a group of neighbouring windows.

    Samples that windows share are then filtered once.

    Args:
        groups: as of `neighbours`.
        room: how many windows every signal has room for, and their stride; None: as of the largest group.

    Yields:
        ((emg (B, T, C) volts, wanted (B, P): which of their P windows belong to the group), {"probabilities": labels
        (n,), "features": targets (n, C, F)}), of the n wanted windows.
    """
    largest, starts = max(map(len, groups)), part.windows.starts
    most, stride = room or (largest, runs_of(starts)[0])
    rows, samples = max(1, batch_size // largest), (most - 1) * stride + length

    def batch():
        for i in range(0, len(groups), rows):
            chosen = groups[i : i + rows]
            emg = np.zeros((rows, samples, part.emg.shape[1]), np.float32)
            wanted = np.zeros((rows, most), bool)
            for row, group in enumerate(chosen):
                signal = part.emg[starts[group[0]] : starts[group[0]] + samples]
                emg[row, : len(signal)], wanted[row, : len(group)] = signal, True
            index = np.concatenate(chosen)
            yield (emg, wanted), {"probabilities": labels[index], "features": targets[index]}

    signature = ((tf.TensorSpec((rows, samples, part.emg.shape[1]), tf.float32), tf.TensorSpec((rows, most), tf.bool)),
                 {"probabilities": tf.TensorSpec((None,), labels.dtype),
                  "features": tf.TensorSpec((None, *targets.shape[1:]), targets.dtype)})
    data = tf.data.Dataset.from_generator(batch, output_signature=signature)
    return data.apply(tf.data.experimental.assert_cardinality(-(-len(groups) // rows))).prefetch(2)


class Predictor:
    """A model's outputs over many windows, through one graph whatever the size of the last batch."""

    def __init__(self, model: keras.Model):
        signature = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, tf.float32), model._inputs_struct)
        self._call = tf.function(lambda x: model(x, training=False), input_signature=[signature])

    def __call__(self, data, batch_size: int = 64):
        """Outputs for an array (N, ...), or a dataset of (inputs, targets): arrays (N, ...)."""
        batches, count = (inputs for inputs, _ in data), None
        if isinstance(data, np.ndarray):
            count = -(-len(data) // batch_size)
            batches = (tf.convert_to_tensor(data[i * batch_size : (i + 1) * batch_size]) for i in range(max(1, count)))
        parts = [tf.nest.map_structure(lambda t: t.numpy(), self._call(batch)) for batch in steps(batches, count)]
        return tf.nest.map_structure(lambda *arrays: np.concatenate(arrays), *parts)


def adam(learning_rate: float, weight_decay: float, clip_norm: float | None = None) -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(learning_rate, weight_decay=weight_decay or None, global_clipnorm=clip_norm)


def imitation_loss(bank: keras.Model):
    """Mean squared error between FINs and true features, each on the scale its FIN works on (z-scored, maybe log).

    Returns a Keras loss: features (B, C, F) true and imitated, own units -> (B,).
    """
    def loss(true, imitated):
        errors = [ops.square(scale.inverse(true[..., which]) - scale.inverse(imitated[..., which]))
                  for scale, which in _scales(bank)]
        return ops.mean(ops.concatenate(errors, axis=-1), axis=(1, 2))

    return loss


def fit_scales(bank: keras.Model, targets: np.ndarray) -> None:
    """Sets the output scale of FINs that start from random weights, from targets (N, C, F) in own units."""
    for scale, which in _scales(bank):
        if np.all(ops.convert_to_numpy(scale.sd) == 1.0) and np.all(ops.convert_to_numpy(scale.mean) == 0.0):
            scale.fit(targets[..., which])


def _scales(bank: keras.Model) -> Iterator[tuple[FeatureScale, slice]]:
    """The output scale of each FIN, and which of the bank's features it is of."""
    for i, model in enumerate(fins_of(bank)):
        yield model.get_layer("scale"), slice(i, i + 1)


class EarlyStopping:
    """Keeps the weights with the lowest validation loss; a training that was killed goes on from its last checkpoint.

    Attributes:
        weights: the file of the weights with the lowest validation loss.
        done: variable: epochs, or whatever is counted, that are finished.
        stale: variable: how many times in succession the validation loss was not lower than the lowest.
    """

    def __init__(self, folder: Path, model: keras.Model, count: str, **more):
        """`count`: what `done` counts, such as "epoch"; `more`: what checkpoints hold besides. Checkpoints know all
        these by name.
        """
        self.folder, self.model, self.weights = folder, model, folder / "fins.weights.h5"
        self.done, self.stale, self._best = tf.Variable(0), tf.Variable(0), tf.Variable(np.inf)
        tracked = tf.train.Checkpoint(model=model, best=self._best, stale=self.stale, **{count: self.done}, **more)
        self._checkpoints = tf.train.CheckpointManager(tracked, str(folder / "checkpoints"), max_to_keep=1)

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
        self.stale.assign(0 if better else self.stale + 1)
        return better

    def save(self, done: int) -> None:
        """Writes a checkpoint."""
        self.done.assign(done)
        self._checkpoints.save()

    def load_best(self) -> None:
        """Puts the best weights into the model."""
        saving.load_weights(self.model, self.weights, f"remove {self.folder}, and the same command makes it anew")
