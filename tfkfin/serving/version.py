"""Everything of one version folder: SavedModel, ONNX or LiteRT, the Keras model to start from, requests, the card."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfkfin.base.answers import working
from tfkfin.decoder.decoder import FILE, BaseDecoder
from tfkfin.serving import litert_file, onnx_file, signatures, smaller, warmup
from tfkfin.serving.engines import noise
from tfkfin.store import card as cards
from tfkfin.store import layout, presets


def write_decoder(folder: Path, decoder: BaseDecoder, about: dict, windows: np.ndarray | None = None) -> None:
    """Fills a version folder with a decoder, volts in.

    Args:
        folder: empty.
        about: the version's card, with its `name`, `format` ("savedmodel", "onnx", "both" or, for decoders, "litert")
            and maybe `precision`.
        windows: (N, L, C) volts that int8 measures its ranges on.
    """
    if about["format"] in ("savedmodel", "both"):
        with working(f"writing the SavedModel of {about['name']}"):
            signatures.save_decoder(signatures.Signatures(decoder), folder)
        _add(folder, decoder.model, Path("assets.extra", FILE), about["name"], noise(decoder, 1),
             ("serving_default", "features", "stream"))
    if about["format"] == "litert":
        made = signatures.Signatures(decoder, "keras")
        with working(f"writing {presets.LITERT} of {about['name']}"):
            litert_file.save(made.answer, made.window, folder / presets.LITERT)
    if about["format"] in ("onnx", "both"):
        made = signatures.Signatures(decoder, "keras")
        with working(f"writing {presets.ONNX} of {about['name']}"):
            onnx_file.save(made.answer, made.window, folder / presets.ONNX)
        precision = about.get("precision", "float32")
        with working(f"writing {presets.ONNX_STREAM}" if precision == "float32" else f"making it {precision}"):
            if precision == "float32":
                onnx_file.save(made.stream_at_once, made.signal, folder / presets.ONNX_STREAM)
            else:  # stretches are then cut into windows
                smaller.make(folder / presets.ONNX, precision, windows)
    cards.write(folder, about)


def write_fins(folder: Path, bank: keras.Model, about: dict) -> None:
    """Fills a version folder with FINs alone, standardised windows of any channels in; arguments as above."""
    length = bank.input_shape[1]
    if about["format"] != "onnx":
        with working(f"writing the SavedModel of {about['name']}"):
            signatures.save_fins(bank, folder)
        emg = np.random.default_rng(0).standard_normal((1, length, 12))
        _add(folder, bank, presets.FINS_FILE, about["name"], emg, ("serving_default", "features"))
    if about["format"] != "savedmodel":
        onnx_file.save(signatures.any_channels(bank), tf.TensorSpec((None, length, None), tf.float32, name="emg"),
                       folder / presets.ONNX)
    cards.write(folder, about)


def _add(folder: Path, model: keras.Model, kept_as: Path, name: str, emg: np.ndarray, asked: tuple[str, ...]) -> None:
    """Adds the Keras model, and what a server asks each signature before it is ready."""
    warmup.write(folder, name, [(signature, emg.astype(np.float32)) for signature in asked])
    model.save(folder / kept_as)


def publish(card: dict, network: keras.Model, model: Path, format: str, windows: np.ndarray | None = None,
            config: bool = True) -> Path:
    """Writes a decoder, or FINs, as a new version of a model folder; returns the version's folder.

    Args:
        card: of the decoder or the FINs, whose Keras model `network` is.
        format, windows: as of `write_decoder`.
        config: names the model in the models.config beside it too, for servers.
    """
    with layout.new_version(model) as (folder, number):
        about = card | {"name": model.name, "version": number, "format": format}
        if about["kind"] == "decoder":
            write_decoder(folder, BaseDecoder(about, network), about, windows)
        else:
            write_fins(folder, network, about)
    if config and format in ("savedmodel", "both"):
        layout.add_to_config(model)
    return model / str(number)
