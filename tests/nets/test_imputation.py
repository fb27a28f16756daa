"""A lost electrode: descriptions without it against signals without it, and decisions that hardly change."""

import keras
import numpy as np
import pytest

import tfkfin
from tfkfin.base.errors import InputError
from tfkfin.live.stream import Stream
from tfkfin.nets import descriptions
from tfkfin.nets.imputation import Imputation
from tfkfin.nets.layers import found as layer_called
from tfkfin.recipe import Recipe
from tfkfin.serving.engines import Exported

rng = np.random.default_rng(3)
CHANNELS, LENGTH = 5, 120


def mixed(count, channels=CHANNELS):
    """Windows of channels that go together, differently in each window."""
    gains = rng.lognormal(0, 0.5, (count, 1, channels))
    return (gains * (rng.standard_normal((count, LENGTH, channels)) @ rng.standard_normal((channels, channels)))
            ).astype(np.float32)


def described_by(*kinds):
    options = Recipe.model_validate({"classifier": {"kind": "gaussian", "describe": kinds}}).classifier
    layer = descriptions.new(options, "describe")
    layer.build((None, LENGTH, CHANNELS))
    return layer


@pytest.mark.parametrize("kinds", [("log_covariance",), ("correlations", "log_covariance"), ("broad",)])
@pytest.mark.parametrize("electrode", [0, 3])
def test_without_an_electrode_is_as_if_its_signal_were_constant(kinds, electrode):
    layer, x = described_by(*kinds), mixed(20)
    of = (layer.layout(CHANNELS)[:, 1:] == electrode).any(axis=1)
    got = layer.without(np.asarray(layer(x)).astype(float), CHANNELS, electrode)
    x[:, :, electrode] = 0.7
    wanted = np.asarray(layer(x))
    np.testing.assert_allclose(got[:, ~of], wanted[:, ~of], atol=2e-3)


@pytest.mark.parametrize("kinds", [("log_covariance",), ("correlations", "log_covariance"), ("broad",)])
@pytest.mark.parametrize("streamed", [False, True])
def test_an_electrode_that_is_not_kept_counts_as_constant(kinds, streamed):
    """In the calls and in `stream`, window by window; the outputs that are its own are imputed whatever they are."""
    layer, x = described_by(*kinds), mixed(1)[0]
    rows = [x[start : start + 60] for start in range(0, 61, 20)]
    kept = np.ones((4, CHANNELS), np.float32)
    kept[1, 2] = kept[3, [0, 4]] = 0

    def described(windows, **kept):
        return np.asarray(layer(np.stack(windows), **kept))

    got = described(rows, kept=kept)
    if streamed:
        got = np.asarray(layer.stream(x[None], 60, 20, False, kept=kept[None]))[0]
    wanted = described([np.where(there, row, np.float32(0.7)) for there, row in zip(kept, rows, strict=True)])
    others = (kept[:, layer.layout(CHANNELS)[:, 1:]] > 0).all(axis=2)
    np.testing.assert_allclose(got[others], wanted[others], atol=2e-3)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(described(rows)[others], wanted[others], atol=2e-3)


def test_only_flat_electrodes_are_seen_as_lost():
    layer = described_by("correlations", "log_covariance")
    x = mixed(300)
    found = Imputation(CHANNELS)
    found.build((None, len(layer.layout(CHANNELS))))
    found.fit(np.asarray(layer(x)).astype(float), layer, 0)
    for flat, change in ((False, lambda x: x), (False, lambda x: 30 * x), (False, lambda x: 0.05 * x),
                         (True, lambda x: 0 * x + 4), (True, lambda x: 1e-3 * rng.standard_normal(x.shape))):
        y = mixed(40)
        y[:, :, 2] = change(y[:, :, 2])
        np.testing.assert_array_equal(np.asarray(found.lost(layer(y))), np.tile([0, 0, flat, 0, 0], (40, 1)) > 0)


def test_an_electrode_that_is_often_flat_is_not_missed():
    """Envelopes rest at the converter's lowest step, in movements too."""
    layer, x = described_by("correlations", "log_covariance"), mixed(300)
    x[::20, :, 2] = 0.5
    found = Imputation(CHANNELS)
    found.build((None, len(layer.layout(CHANNELS))))
    found.fit(np.asarray(layer(x)).astype(float), layer, 0)
    y = mixed(40)
    y[:, :, [1, 2]] = 0.5
    np.testing.assert_array_equal(np.asarray(found.lost(layer(y)))[0], np.arange(CHANNELS) == 1)


def test_what_electrodes_have_in_common_is_imputed():
    """Electrode 1 is the sum of its neighbours: nothing is lost with it."""
    def windows(count):
        x = mixed(count)
        x[:, :, 1] = x[:, :, 0] + x[:, :, 2] + 0.05 * x[:, :, 1]
        return x

    layer = described_by("log_covariance")
    found = Imputation(CHANNELS)
    found.build((None, len(layer.layout(CHANNELS))))
    x = windows(2000)
    found.fit(np.asarray(layer(x)).astype(float), layer, 0)
    y = windows(200)
    true = np.asarray(layer(y))
    np.testing.assert_array_equal(found(true), true)
    y[:, :, 1] = -2.0
    error = np.asarray(found(layer(y))) - true
    assert (error.var(axis=0) < 0.5 * true.var(axis=0)).mean() > 0.7
    assert (error**2).mean() < 0.25 * ((np.asarray(layer(y)) - true) ** 2).mean()


@pytest.fixture(scope="module")
def people(tiny_db2):
    return tfkfin.read(tiny_db2)


def constant(signal):
    return np.full_like(signal, 1e-4)


def humming(signal):
    """One that has come off: the mains, five times as large as the signal was."""
    tone = np.sin(2 * np.pi * 50 * np.arange(len(signal)) / 2000)
    return (signal.mean() + 7 * signal.std() * tone).astype(np.float32)


def offset(signal):
    return signal + 3 * signal.std()


def test_a_decoder_goes_on_with_an_offset(people, tmp_path):
    """Of all electrodes, from Python, live and exported; decisions are nearly those without it."""
    options = {"window.length_ms": 60, "window.stride_ms": 20}
    emg = people[0].emg[:20000]
    spoilt = np.stack([offset(signal) for signal in emg.T], axis=1)
    now, before = (tfkfin.Decoder.from_preset("best", **options | {"classifier.lost_electrode": lost}).fit(people[0])
                   for lost in (True, False))
    wanted = now.stream(spoilt)["probabilities"]
    assert np.mean(now.stream(spoilt)["label"] == now.stream(emg)["label"]) > 0.95
    assert np.mean(before.stream(spoilt)["label"] == before.stream(emg)["label"]) < 0.8
    live = Stream(now)
    made = [found for part in np.split(spoilt, range(777, len(spoilt), 777)) if (found := live(part)) is not None]
    np.testing.assert_allclose(np.concatenate([one.probabilities for one in made]), wanted, atol=1e-3)
    version = now.export(tmp_path / "model", "both")
    for other in (Exported(version, "savedmodel"), Exported(version, "onnx")):
        np.testing.assert_allclose(other.stream(spoilt)["probabilities"], wanted, atol=1e-3)


@pytest.mark.parametrize("fault", [constant, humming])
def test_a_decoder_goes_on_without_an_electrode(people, tmp_path, fault):
    """From Python, live, saved, exported, calibrated and adapting; one that was not lost changes nothing."""
    options = {"window.length_ms": 60, "window.stride_ms": 20}
    before = tfkfin.Decoder.from_preset("best", **options | {"classifier.lost_electrode": False}).fit(people[0])
    now = tfkfin.Decoder.from_preset("best", **options).fit(people[0])
    emg, spoilt = people[0].emg[:20000], people[0].emg[:20000].copy()
    spoilt[:, 2] = fault(emg[:, 2])
    apart = np.abs(now.stream(emg)["probabilities"] - before.stream(emg)["probabilities"])
    assert np.mean(apart > 1e-5) < 0.01 and apart.max() < 0.1  # a window in 200 lies outside of training's ranges
    clean = now.stream(emg)["label"]

    def agreement(decoder, **more):
        return np.mean(decoder.stream(spoilt, **more)["label"] == clean)

    assert agreement(now) > agreement(before) + 0.1 and agreement(now) > 0.7
    assert agreement(now, adapt=True) > 0.6
    calibrated = now.calibrate(people[1], repetitions=1)
    np.testing.assert_array_equal(calibrated.forward.limits, now.forward.limits)
    assert np.mean(calibrated.stream(spoilt)["label"] == calibrated.stream(emg)["label"]) > 0.6
    version = now.export(tmp_path / "model", "both")
    now.save(tmp_path / "saved")
    wanted = now.stream(spoilt)["probabilities"]
    windows = np.stack([spoilt[start : start + now.length] for start in range(0, 4000, now.stride)])
    np.testing.assert_allclose(now(windows)["probabilities"], wanted[: len(windows)], atol=1e-4)
    live = Stream(now)
    made = [found for part in np.split(spoilt, range(777, len(spoilt), 777)) if (found := live(part)) is not None]
    np.testing.assert_allclose(np.concatenate([one.probabilities for one in made]), wanted, atol=1e-4)
    for other in (tfkfin.Decoder.load(tmp_path / "saved"), Exported(version, "savedmodel"), Exported(version, "onnx")):
        np.testing.assert_allclose(other.stream(spoilt)["probabilities"], wanted, atol=1e-4)


def test_an_electrode_that_is_never_left_out_is_not_corrected_either(people):
    """One that was flat in training, as envelopes are at rest: what looks like a fault may be more force."""
    options = {"window.length_ms": 60, "window.stride_ms": 20}
    now, before = (tfkfin.Decoder.from_preset("best", **options | {"classifier.lost_electrode": lost}).fit(people[0])
                   for lost in (True, False))
    layer_called(now.forward.parts.classifier, "imputation").parts["known"].assign([1, 1, 0, 1])
    emg = people[0].emg[:20000].copy()
    for fault in (offset, humming):
        emg[:, 2] = fault(people[0].emg[:20000, 2])
        apart = np.abs(now.stream(emg)["probabilities"] - before.stream(emg)["probabilities"])
        assert np.mean(apart > 1e-5) < 0.01


def test_electrodes_are_left_out_by_hand(people, tmp_path):
    """Whatever such an electrode says changes no decision, in Python and exported; and they are taken in again."""
    decoder = tfkfin.Decoder.from_preset("best", **{"window.length_ms": 60, "window.stride_ms": 20}).fit(people[0])
    emg, spoilt = people[0].emg[:20000], people[0].emg[:20000].copy()
    spoilt[:, 2] += 5e-5 * rng.standard_normal(len(spoilt))
    left = decoder.without(3)
    wanted = left.stream(emg)["probabilities"]
    left.save(tmp_path / "saved")
    for one in (left, tfkfin.Decoder.load(tmp_path / "saved"), Exported(left.export(tmp_path / "model"), "savedmodel")):
        np.testing.assert_allclose(one.stream(spoilt)["probabilities"], wanted, atol=1e-4)
    assert np.abs(decoder.stream(spoilt)["probabilities"] - wanted).max() > 0.1
    np.testing.assert_array_equal(left.without().stream(emg)["probabilities"], decoder.stream(emg)["probabilities"])
    assert np.mean(left.stream(emg)["label"] == decoder.stream(emg)["label"]) > 0.7
    for unfit in ((0,), (5,), (1, 2)):
        with pytest.raises(InputError, match="fewer than half"):
            decoder.without(*unfit)
    with pytest.raises(InputError, match="cannot do without electrode 1"):
        tfkfin.Decoder.from_preset("best_fins", **{"window.length_ms": 60, "window.stride_ms": 20}).fit(
            people[0]).without(1)


def test_keras_knows_the_layer(tmp_path):
    inputs = keras.Input((8,))
    model = keras.Model(inputs, Imputation(3)(inputs))
    model.save(tmp_path / "model.keras")
    x = rng.standard_normal((4, 8)).astype(np.float32)
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(x), x)
