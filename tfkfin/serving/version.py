"""All files of a version folder: SavedModel, ONNX or LiteRT, the Keras model, warm-up requests and the card."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfkfin.base.answers import working
from tfkfin.decoder.decoder import FILE, BaseDecoder
from tfkfin.nets import fins
from tfkfin.serving import litert_file, onnx_file, signatures, warmup
from tfkfin.serving.engines import noise
from tfkfin.store import card as cards
from tfkfin.store import folders


def write_decoder(folder: Path, decoder: BaseDecoder, about: dict, windows: np.ndarray | None = None) -> None:
    """Fills a version folder with a decoder, which takes volts.

    Args:
        folder: empty.
        about: the card of the version, with its `name`, its `format` ("savedmodel", "onnx", "both" or, for decoders,
            "litert") and optionally its `precision`.
        windows: (N, L, C) volts that int8 measures its ranges on.
    """
    format, name, precision = about["format"], about["name"], about.get("precision", "float32")
    if format in ("savedmodel", "both"):
        with working(f"writing the SavedModel of {name}"):
            signatures.save_decoder(signatures.Signatures(decoder), folder)
        _add(folder, decoder.model, Path("assets.extra", FILE), name, noise(decoder, 1),
             ("serving_default", "features", "stream"))
    graph = signatures.Signatures(decoder, "keras") if format != "savedmodel" else None
    if format == "litert":
        with working(f"writing {folders.LITERT} of {name}"):
            litert_file.save(graph.answer, graph.window, folder / folders.LITERT)
    elif graph:
        with working(f"writing {folders.ONNX} of {name}"):
            onnx_file.save(graph.answer, graph.window, folder / folders.ONNX)
            if precision == "float32":
                onnx_file.save(graph.stream_at_once, graph.signal, folder / folders.ONNX_STREAM)
            else:  # without a graph of its own, a signal is cut into windows
                onnx_file.reduce_precision(folder / folders.ONNX, precision, windows)
    cards.write(folder, about)


def write_fins(folder: Path, bank: keras.Model, about: dict) -> None:
    """Fills a version folder with FINs alone: standardised windows of any number of channels; arguments as above."""
    length = bank.input_shape[1]
    if about["format"] != "onnx":
        with working(f"writing the SavedModel of {about['name']}"):
            signatures.save_fins(bank, folder)
        emg = np.random.default_rng(0).standard_normal((1, length, 12))
        _add(folder, bank, folders.FINS_FILE, about["name"], emg, ("serving_default", "features"))
    if about["format"] != "savedmodel":
        per_channel = [fins.PerChannel(model) for model in fins.fins_of(bank)]
        onnx_file.save(lambda emg: {"features": tf.concat([layer(emg, training=False) for layer in per_channel], -1)},
                       tf.TensorSpec((None, length, None), tf.float32, name="emg"), folder / folders.ONNX)
    cards.write(folder, about)


def _add(folder: Path, model: keras.Model, keras_file: Path, name: str, emg: np.ndarray,
         requested: tuple[str, ...]) -> None:
    """Adds the Keras model, and the requests that a server answers before it is ready: `emg` to each signature."""
    warmup.write(folder, name, [(signature, emg.astype(np.float32)) for signature in requested])
    model.save(folder / keras_file)


def publish(card: dict, network: keras.Model, model: Path, format: str, windows: np.ndarray | None = None,
            config: bool = True) -> Path:
    """Writes a decoder, or FINs, as a new version of a model folder; returns the version's folder.

    Args:
        card: of the decoder or the FINs; `network` is their Keras model.
        format, windows: as of `write_decoder`.
        config: whether models.config beside the model folder gets an entry for it, for servers.
    """
    with folders.new_version(model) as (folder, number):
        about = card | {"name": model.name, "version": number, "format": format}
        if about["kind"] == "decoder":
            write_decoder(folder, BaseDecoder(about, network), about, windows)
        else:
            write_fins(folder, network, about)
    if config and format in ("savedmodel", "both"):
        folders.add_to_config(model)
    return model / str(number)
