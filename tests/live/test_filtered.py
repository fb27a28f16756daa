"""A decoder with a filter, wherever it is used: exported, in ONNX, by the client, and what its card tells."""

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from live_cases import sure

from tfkfin.client import replay
from tfkfin.serving.engines import Exported
from tfkfin.signal.filtering import sections
from tfkfin.store import folders


@pytest.fixture(scope="module")
def version(filtered, tmp_path_factory):
    return filtered.export(tmp_path_factory.mktemp("filtered") / "mine", "both")


@pytest.fixture(scope="module")
def expected(filtered, recording):
    return filtered.stream(recording.emg[2000:8000])


def test_every_exported_stream_filters(version, filtered, recording, expected):
    emg = recording.emg[2000:8000]
    answer = tf.saved_model.load(str(version)).signatures["stream"](emg=tf.constant(emg[None]))
    session = onnxruntime.InferenceSession(str(version / folders.ONNX_STREAM))
    names = [output.name for output in session.get_outputs()]
    onnx = dict(zip(names, session.run(None, {"emg": emg[None]}), strict=True))
    ways = {"savedmodel": answer["probabilities"][0], "stream.onnx": onnx["probabilities"][0],
            **{engine: Exported(version, engine).stream(emg)["probabilities"] for engine in ("onnx", "savedmodel")}}
    for way, probabilities in ways.items():
        np.testing.assert_allclose(probabilities, expected["probabilities"], atol=2e-4, err_msg=way)


class Served:
    """A client of the exported graph in this process."""

    def __init__(self, version):
        self._loaded = tf.saved_model.load(str(version))

    def about(self):
        return {name: value.numpy() for name, value in self._loaded.signatures["about"](emg=tf.zeros(1)).items()}

    def window_length(self):
        return int(self.about()["length"])

    def predict(self, emg):
        answer = self._loaded.signatures["serving_default"](emg=tf.constant(emg))
        return {name: value.numpy() for name, value in answer.items()}


def test_the_client_filters_as_the_model_tells(version, filtered, recording, expected):
    served = Served(version)
    np.testing.assert_array_equal(served.about()["filter"], sections(filtered.card["filter"], 2000))
    emg, labels = recording.emg[2000:8000], recording.labels[2000:8000]
    decided = np.array([one.label for one in replay(served, emg, labels, 2000.0, filtered.card["stride_ms"])])
    certain = sure(expected["probabilities"], filtered.decision.reject)
    assert (decided == expected["label"])[certain].all() and certain.mean() > 0.98
    assert len(decided) == len(expected["label"])


def test_the_card_names_the_filter(version, streaming):
    assert "high-pass 20 Hz (order 2), notches at 50 Hz (Q 30)" in (version / "README.md").read_text()
    assert folders.card(version)["filter"]["high_pass_hz"] == 20
    assert "filter" not in streaming.card and any("Nothing is filtered" in line for line in streaming.card["limits"])


def test_what_is_calibrated_is_filtered_too(filtered, recording):
    """An offset that a high-pass takes away changes nothing."""
    from dataclasses import replace

    one, other = (filtered.calibrate(replace(recording, emg=recording.emg + np.float32(shift)), repetitions=1)
                  for shift in (0, 2e-4))
    for a, b in zip(one.model.get_weights(), other.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-2, atol=2e-2)
    assert one.card["calibration"]["after"]["accuracy"] > 0.3
