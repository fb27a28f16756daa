"""What one export holds: built from a run's weights, then saved, converted and described."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfkfin.fit import decoding
from tfkfin.fit.run import Run
from tfkfin.models import fins as fin
from tfkfin.models import presets as zoo
from tfkfin.serving import card, onnx_file, warmup
from tfkfin.serving import signatures as graph


@dataclass(frozen=True)
class Bundle:
    """A model about to be exported.

    Attributes:
        save_graph: writes the SavedModel into a folder.
        warm: (signature, emg) requests that a server answers before it is ready.
        edge: the function and input that become ONNX.
        about: the card, but for name, version and format.
        bank: FINs to keep as starting weights for recipes, or None.
    """

    save_graph: Callable[[Path], None]
    warm: list[tuple[str, np.ndarray]]
    edge: tuple[Callable, tf.TensorSpec]
    about: dict
    bank: keras.Model | None = None

    def save(self, folder: Path, name: str) -> None:
        self.save_graph(folder)
        warmup.write(folder, name, self.warm)
        if self.bank is not None:
            self.bank.save(folder / zoo.KERAS_FILE)

    def save_onnx(self, path: Path) -> None:
        onnx_file.save(*self.edge, path)

    def describe(self, folder: Path, identity: dict) -> None:
        card.write(folder, identity | self.about)


def decoder(run: Run, subject: int) -> Bundle:
    """One subject's fine-tuned model, volts in."""
    model = decoding.new_joint(run)
    model.load_weights(run.folder / "finetune" / f"S{subject}.weights.h5")
    with np.load(run.folder / "finetune" / f"S{subject}.input.npz") as scale:
        mean, sd = scale["mean"], scale["sd"]
    made = graph.Decoder(model, mean, sd, run.dataset.movements, run.dataset.stride)
    noise = np.random.default_rng(0).standard_normal((1, made.length, made.channels))
    emg = (mean + sd * noise).astype(np.float32)
    spec = tf.TensorSpec((None, made.length, made.channels), tf.float32, name="emg")
    return Bundle(lambda folder: graph.save_decoder(made, folder),
                  [(name, emg) for name in ("serving_default", "features", "stream")], (made.edge, spec),
                  card.of_decoder(run, subject, model.count_params(), mean, sd))


def fins(run: Run) -> Bundle:
    """The FINs of the stage `imitate`, standardised windows in."""
    options = run.recipe.fin.model_copy(update={"pretrained": ""})
    bank = zoo.new_bank(options, run.recipe.features.names, run.length, 1)
    bank.load_weights(run.folder / "imitate" / "fins.weights.h5")
    graph.stock(bank)
    emg = np.random.default_rng(0).standard_normal((1, run.length, 12)).astype(np.float32)
    rate = run.recipe.window.rate_hz if run.recipe.source.kind == "signals" else run.dataset.rate_hz
    spec = tf.TensorSpec((None, run.length, None), tf.float32, name="emg")
    return Bundle(lambda folder: graph.save_fins(bank, folder),
                  [(name, emg) for name in ("serving_default", "features")],
                  (lambda windows: {"features": _open(bank)(windows)}, spec),
                  card.of_fins(run, rate, bank.count_params()), bank)


def _open(bank: keras.Model) -> Callable:
    """A FIN bank on any number of channels, unchecked."""
    per_channel = [fin.PerChannel(model) for model in fin.fins_of(bank)]
    return lambda windows: tf.concat([layer(windows, training=False) for layer in per_channel], -1)
