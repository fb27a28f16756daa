"""Requests that a server answers before it reports a version as ready, so that no client waits for the first one.

The file is a TFRecord of `tensorflow.serving.PredictionLog` messages. It needs three fields of three messages,
which are encoded here, so that exporting needs no tensorflow-serving-api. A test reads them with the official classes.
Reference: https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

FILE = Path("assets.extra", "tf_serving_warmup_requests")


def write(version: Path, name: str, requests: list[tuple[str, np.ndarray]]) -> None:
    """Writes one request for each (signature, emg) under a version folder."""
    path = version / FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, emg in requests:
            writer.write(prediction_log(name, signature, emg))


def prediction_log(name: str, signature: str, emg: np.ndarray) -> bytes:
    """A serialised PredictionLog{predict_log{request{model_spec, inputs{"emg"}}}}."""
    spec = _field(1, name.encode()) + _field(3, signature.encode())  # ModelSpec: name, signature_name
    tensor = tf.make_tensor_proto(emg).SerializeToString()
    entry = _field(1, b"emg") + _field(2, tensor)  # one entry of the map `inputs`
    request = _field(1, spec) + _field(2, entry)  # PredictRequest: model_spec, inputs
    return _field(6, _field(1, request))  # PredictionLog: predict_log; PredictLog: request


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of the protocol-buffer wire format."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes(encoded) + bytes([value])
