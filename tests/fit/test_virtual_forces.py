"""Windows at other forces against their formula, and a decoder in closed form from fit to export."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tfkfin
from tfkfin.fit.trainers import virtual_inputs
from tfkfin.pipeline.subject import Subject
from tfkfin.pipeline.windows import Windows
from tfkfin.recordings.recording import Recording, RecordingFile
from tfkfin.serving.engines import Exported
from tfkfin.sessions.prior import VIRTUAL_GAINS

rng = np.random.default_rng(3)


def subject(movements, rest):
    emg = rng.normal(0.2, 1, size=(100, 2)).astype(np.float32)
    starts = np.arange(len(movements)) * 10
    return Subject(1, emg, Windows(starts, np.array(movements), np.ones(len(movements), np.int16)),
                   np.array([0.2, 0.1]), np.ones(2), np.zeros((1, 3), np.int64), rest)


@pytest.mark.parametrize("movements", [[1, 2, 1], [0, 1, 2]])
def test_windows_keep_the_offset_and_the_noise_of_rest(movements):
    """Rest is one constant window, so that it does not matter which is drawn."""
    constant = np.full((1, 10, 2), 0.5, np.float32)
    part = subject(movements, constant if 0 not in movements else None)
    if 0 in movements:
        part.emg[:10] = 0.5
    volts = part.volts(10)
    found = virtual_inputs(part, 10, lambda p: p.volts(10))
    assert len(found) == len(VIRTUAL_GAINS)
    for gain, windows in zip(VIRTUAL_GAINS, found, strict=True):
        np.testing.assert_allclose(windows, gain * (volts - part.mean) + 0.5, atol=1e-6)
    alone = virtual_inputs(replace(part, rest=constant[:0]), 10, lambda p: p.volts(10))
    np.testing.assert_allclose(alone[0], part.mean + VIRTUAL_GAINS[0] * (volts - part.mean), atol=1e-6)


@pytest.fixture(scope="module")
def recording():
    """Six repetitions of three movements, 2 s each after 1 s of rest, at 500 Hz: noise of other gains and colours."""
    rng = np.random.default_rng(8)
    gains = np.array([[0.1, 0.1, 0.1], [2, 1, 0.5], [0.5, 2, 1], [1, 0.5, 2]])  # of rest and of movements 1 to 3
    labels = np.tile(np.repeat([0, 1, 0, 2, 0, 3], [500, 1000] * 3), 6).astype(np.int16)
    noise = rng.normal(size=(len(labels) + 1, 3))
    colour = np.array([0, 0.3, -0.3, 0])[labels, None]
    emg = 2e-5 * gains[labels] * (noise[1:] + colour * noise[:-1]) + 1e-5
    return Recording(RecordingFile(Path("array"), 1), emg.astype(np.float32), labels,
                     np.repeat(np.arange(1, 7), 4500).astype(np.int16), 500.0)


@pytest.fixture(scope="module")
def decoder(recording):
    return tfkfin.Decoder.from_preset("closed_form").fit(recording.select([1, 3, 5]))


def held(recording, answers, decoder):
    """The share of windows inside a movement that are decided right."""
    starts = np.arange(len(answers["label"])) * decoder.stride
    inside = np.array([len(set(recording.labels[s : s + decoder.length])) == 1 for s in starts])
    true = recording.labels[starts]
    return np.mean(answers["label"][inside & (true > 0)] == true[inside & (true > 0)])


def test_it_decides_streams_adapts_and_is_the_same_after_loading(decoder, recording, tmp_path):
    test = recording.select([2, 4])
    streamed = decoder.stream(test)
    assert streamed["features"].shape[2] == 0 and held(test, streamed, decoder) > 0.9
    windows = np.stack([test.emg[i : i + decoder.length] for i in range(0, 40 * decoder.stride, decoder.stride)])
    np.testing.assert_allclose(decoder(windows)["probabilities"], streamed["probabilities"][:40], atol=2e-4)
    session = decoder.session()
    assert held(test, session.stream(test), decoder) > 0.9
    assert session.carried().card["carried"] == 1
    decoder.save(tmp_path / "saved")
    loaded = tfkfin.Decoder.from_preset(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.stream(test)["probabilities"], streamed["probabilities"])


def test_it_is_calibrated_and_updated_alike(decoder, recording):
    test, one, other = recording.select([4]), recording.select([2]), recording.select([6])
    both = decoder.calibrate(recording.select([2, 6]), repetitions=None)
    after = decoder.calibrate(one, repetitions=None)
    assert held(test, after.stream(test), after) > 0.9
    for movement in (1, 2, 3):
        edges = np.flatnonzero(np.diff(np.r_[0, other.labels == movement, 0]))
        after.update(other.emg[edges[0] : edges[1]], movement, rate_hz=other.rate_hz)
    np.testing.assert_allclose(after.stream(test)["probabilities"], both.stream(test)["probabilities"], atol=1e-4)


@pytest.mark.parametrize("format", ["savedmodel", "onnx"])
def test_exported_it_decides_alike(decoder, recording, format, tmp_path):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    folder = decoder.export(tmp_path / "model", format)
    test = recording.select([2])
    windows = np.stack([test.emg[i : i + decoder.length] for i in range(0, len(test.emg) - decoder.length, 25)])
    exported, own = Exported(folder)(windows), decoder(windows)
    assert np.mean(exported["label"] == own["label"]) >= 0.999
    np.testing.assert_allclose(exported["probabilities"], own["probabilities"], atol=1e-3)
