"""What one export holds: built from a run's weights, then saved, converted and described."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfkfin.fit.run import Run
from tfkfin.fit.stages import finetune
from tfkfin.models import fins as fin
from tfkfin.models import presets
from tfkfin.models.decoder import FILE
from tfkfin.serving import card, onnx_file, signatures, warmup


@dataclass(frozen=True)
class Bundle:
    """A model about to be exported.

    Attributes:
        save_graph: writes the SavedModel into a folder.
        warm: (signature, emg) requests that a server answers before it is ready.
        edge: the function and input that become ONNX.
        about: the card, but for name, version and format.
        model, kept_as: the Keras model, to start from or to run on another engine, and its file in the folder.
    """

    save_graph: Callable[[Path], None]
    warm: list[tuple[str, np.ndarray]]
    edge: tuple[Callable, tf.TensorSpec]
    about: dict
    model: keras.Model
    kept_as: Path

    def save(self, folder: Path, name: str) -> None:
        self.save_graph(folder)
        warmup.write(folder, name, self.warm)
        self.model.save(folder / self.kept_as)

    def save_onnx(self, path: Path) -> None:
        onnx_file.save(*self.edge, path)

    def describe(self, folder: Path, identity: dict) -> None:
        card.write(folder, identity | self.about)


def decoder(run: Run, subject: int) -> Bundle:
    """One subject's fine-tuned decoder, volts in."""
    loaded = finetune.load(run, subject)
    made = signatures.Signatures(loaded)
    noise = np.random.default_rng(0).standard_normal((1, loaded.length, loaded.channels))
    emg = (np.asarray(loaded.card["mean_v"]) + np.asarray(loaded.card["sd_v"]) * noise).astype(np.float32)
    spec = tf.TensorSpec((None, loaded.length, loaded.channels), tf.float32, name="emg")
    return Bundle(lambda folder: signatures.save_decoder(made, folder),
                  [(name, emg) for name in ("serving_default", "features", "stream")], (made.edge, spec),
                  card.of_decoder(run, loaded), loaded.model, Path("assets.extra", FILE))


def fins(run: Run) -> Bundle:
    """The FINs of the stage `imitate`, standardised windows in."""
    options = run.recipe.fin.model_copy(update={"pretrained": ""})
    bank = presets.new_bank(options, run.recipe.features.names, run.length, 1)
    bank.load_weights(run.folder / "imitate" / "fins.weights.h5")
    signatures.stock(bank)
    emg = np.random.default_rng(0).standard_normal((1, run.length, 12)).astype(np.float32)
    rate = run.recipe.window.rate_hz if run.recipe.source.kind == "signals" else run.dataset.rate_hz
    spec = tf.TensorSpec((None, run.length, None), tf.float32, name="emg")
    return Bundle(lambda folder: signatures.save_fins(bank, folder),
                  [(name, emg) for name in ("serving_default", "features")],
                  (lambda windows: {"features": _open(bank)(windows)}, spec),
                  card.of_fins(run, rate, bank.count_params()), bank, presets.KERAS_FILE)


def _open(bank: keras.Model) -> Callable:
    """A FIN bank on any number of channels, unchecked."""
    per_channel = [fin.PerChannel(model) for model in fin.fins_of(bank)]
    return lambda windows: tf.concat([layer(windows, training=False) for layer in per_channel], -1)
