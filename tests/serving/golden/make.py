"""Makes the golden models anew, only when the contract changes on purpose: `python tests/serving/golden/make.py`.

    decoder/1   Bi-LSTM FINs and head      decoder/2   conv FINs, other weights      fins/1   FINs with fins.keras

Every later version of tfkfin, TensorFlow and Keras must load them and answer what answers.npz holds.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfkfin import __version__
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.nets import fins as fin
from tfkfin.nets.heads import new
from tfkfin.nets.network import network
from tfkfin.recipe import Classifier
from tfkfin.serving import version

HERE = Path(__file__).parent
LENGTH, CHANNELS, STRIDE, MOVEMENTS, FEATURES = 60, 4, 10, (1, 2, 5), ("ENT", "RMS")
MEAN, SD = np.linspace(-1e-6, 1e-6, CHANNELS), np.linspace(1e-5, 3e-5, CHANNELS)


def bank(family: str) -> keras.Model:
    return fin.bank([fin.fin(name, LENGTH, family, units=3, num_layers=1) for name in FEATURES], CHANNELS)


def decoder(family: str, emg: np.ndarray, card: dict) -> BaseDecoder:
    """Random weights of a size that gives answers of every class, neither certain nor all alike."""
    fins = bank(family)
    whole = new(Classifier(filters=(6, 4), copies=4), FEATURES, LENGTH, CHANNELS, len(MOVEMENTS))
    head = whole.get_layer("classifier")
    flat = fins(emg).numpy().reshape(-1, len(FEATURES))
    head.get_layer("z_score").set(flat.mean(0), flat.std(0))
    head.get_layer("norm_3").set_weights([w + 0.5 * np.random.random(w.shape) for w in
                                          head.get_layer("norm_3").get_weights()])
    model = network(fins, whole)
    model.get_layer("standardise").set(MEAN, SD)
    return BaseDecoder(card, model)


def about(name: str, version: int, kind: str) -> dict:
    return {"name": name, "version": version, "format": "savedmodel", "kind": kind, "summary": "golden model of tests",
            "input": f"(B, {LENGTH}, {CHANNELS}) volts at 200 Hz", "score": "none", "created": "2026-01-01",
            "tfkfin": __version__, "run": "tests/serving/golden", "recipe_digest": "none", "licence": "Apache-2.0",
            "parameters": 0,
            "features": list(FEATURES), "movements": list(MOVEMENTS), "rate_hz": 200.0, "length": LENGTH,
            "channels": CHANNELS, "stride": STRIDE, "mean_v": MEAN.tolist(), "sd_v": SD.tolist(), "dataset": None,
            "scores": {"protocol": "none", "fin": {}}, "limits": ["Random weights."]}


def write(fill: Callable, model: BaseDecoder | keras.Model, card: dict) -> tf.types.experimental.GenericFunction:
    folder = HERE / card["name"] / str(card["version"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    fill(folder, model, card)
    return tf.saved_model.load(str(folder)).signatures


def main() -> None:
    keras.utils.set_random_seed(3)
    noise = np.random.standard_normal((6, LENGTH, CHANNELS)) * np.geomspace(0.2, 5, 6)[:, None, None]
    standardised, emg = noise.astype("f"), (MEAN + SD * noise).astype("f")
    swell = np.sin(np.linspace(0, 9, 3 * LENGTH + 7))[:, None]
    stretch = (MEAN + 2 * SD * swell * np.random.standard_normal((2, 3 * LENGTH + 7, CHANNELS))).astype("f")
    answers = {"emg": emg, "stretch": stretch}
    for number, family in ((1, "bilstm"), (2, "conv")):
        said = about("decoder", number, "decoder")
        served = write(version.write_decoder, decoder(family, standardised, said), said)
        for name, batch in (("serving_default", emg), ("stream", stretch)):
            for key, value in served[name](emg=tf.constant(batch)).items():
                answers[f"{number}/{name}/{key}"] = value.numpy()
    one = fin.bank(fin.fins_of(bank("bilstm")), 1)
    served = write(version.write_fins, one, about("fins", 1, "fins"))
    answers["standardised"] = standardised
    answers["fins"] = served["serving_default"](emg=tf.constant(standardised))["features"].numpy()
    np.savez_compressed(HERE / "answers.npz", **answers)


if __name__ == "__main__":
    main()
