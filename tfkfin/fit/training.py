"""Training, as stages share it: learning-rate schedule, progress, restart, batches of neighbours, imitation loss."""

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfkfin.base.answers import margin, steps
from tfkfin.base.console import log
from tfkfin.base.errors import InputError
from tfkfin.nets.fins import fins_of
from tfkfin.nets.forward import runs_of
from tfkfin.nets.layers import FeatureScale
from tfkfin.pipeline.subject import Subject


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


class TrainingProgress(keras.callbacks.Callback):
    """A bar on a terminal; elsewhere a line every quarter of a minute."""

    def __init__(self, title: str, total_steps: int | None = None):
        super().__init__()
        self.title, self.total, self.step = title, total_steps, 0
        self.bar, self.logged = None, time.monotonic()

    def on_train_begin(self, logs=None):
        import rich.progress as rich

        console = margin()
        if self.bar is None and console.is_terminal and not console.quiet:
            self.bar = rich.Progress(
                rich.TextColumn("{task.description}"), rich.BarColumn(), rich.MofNCompleteColumn(),
                rich.TextColumn("loss {task.fields[loss]:.3f}"), rich.TimeRemainingColumn(), console=console,
                transient=True)
            self.task = self.bar.add_task(self.title, total=self.total, loss=float("nan"))
            self.bar.start()

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        loss = float((logs or {}).get("loss", float("nan")))
        if not math.isfinite(loss) and "loss" in (logs or {}):
            raise InputError(f"{self.title}: the loss is {loss:g} after step {self.step}: lower the learning rates, "
                             "and check the recordings with python -m tfkfin.data info DIR")
        if self.bar is not None:
            self.bar.update(self.task, completed=self.step, loss=loss)
        elif time.monotonic() - self.logged > 15:
            self.logged = time.monotonic()
            log.info("%s: step %d%s, loss %.4f", self.title, self.step, f"/{self.total}" if self.total else "", loss)

    def close(self):
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


@contextmanager
def progress(title: str, total_steps: int | None = None):
    shown = TrainingProgress(title, total_steps)
    try:
        yield shown
    finally:
        shown.close()


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

    def spec(shape, like):
        return tf.TensorSpec(shape, like.dtype)

    signature = ((tf.TensorSpec((rows, samples, part.emg.shape[1]), tf.float32), tf.TensorSpec((rows, most), tf.bool)),
                 {"probabilities": spec((None,), labels), "features": spec((None, *targets.shape[1:]), targets)})
    data = tf.data.Dataset.from_generator(batch, output_signature=signature)
    return data.apply(tf.data.experimental.assert_cardinality(-(-len(groups) // rows))).prefetch(2)


class Predictor:
    """A model's outputs over many windows, through one graph whatever the size of the last batch."""

    def __init__(self, model: keras.Model):
        signature = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, tf.float32), model._inputs_struct)
        self._call = tf.function(lambda x: model(x, training=False), input_signature=[signature])

    def __call__(self, data, batch_size: int = 64):
        """Outputs for an array (N, ...), a list of them, or a dataset of (inputs, targets): arrays (N, ...)."""
        if isinstance(data, np.ndarray | list):
            count = len(data[0]) if isinstance(data, list) else len(data)
            batches = (tf.nest.map_structure(lambda a: a[i : i + batch_size], data)
                       for i in range(0, max(1, count), batch_size))
        else:
            batches, count = (batch[0] if isinstance(batch, tuple) else batch for batch in data), 0
        tensors = (tf.nest.map_structure(tf.convert_to_tensor, batch) for batch in
                   steps(batches, -(-count // batch_size) or None))
        parts = [tf.nest.map_structure(lambda t: t.numpy(), self._call(batch)) for batch in tensors]
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
