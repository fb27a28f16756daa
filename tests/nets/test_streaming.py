"""Streams against the same networks on windows cut one by one, and their gradients against float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkfin import recipe
from tfkfin.base import registry
from tfkfin.decoder import decoder
from tfkfin.nets import fins, heads, streaming
from tfkfin.nets.descriptions.correlations import Correlations
from tfkfin.nets.forward import ALL, Forward, runs_of
from tfkfin.nets.network import network as join
from tfkfin.nets.sliding import cut, over_signal
from tfkfin.serving.signatures import Signatures

rng = np.random.default_rng(17)
LENGTH, CHANNELS = 48, 3


def windows(x, stride):
    """(B, T, C) -> (B, W, L, C), in plain NumPy."""
    starts = range(0, x.shape[1] - LENGTH + 1, stride)
    return np.stack([x[:, s : s + LENGTH] for s in starts], axis=1)


def cut_one_by_one(function, x, stride):
    cut = windows(x, stride)
    y = np.asarray(function(cut.reshape(-1, LENGTH, x.shape[2])))
    return y.reshape(*cut.shape[:2], *y.shape[1:])


def signal(batch, samples, channels=CHANNELS):
    loud = rng.uniform(0.3, 2, (batch, samples, 1)) + rng.normal(size=(batch, samples, 1))
    return (loud * rng.normal(size=(batch, samples, channels)) + loud).astype("float32")


def bank_of(family, num_layers=0, names=("ENT", "RMS"), channels=CHANNELS, version=2):
    keras.utils.set_random_seed(2)
    made = [fins.fin(name, LENGTH, family, units=8, num_layers=num_layers, version=version) for name in names]
    for model in made:  # not the zeros that biases begin with, so that edges count
        model.set_weights([w + rng.normal(scale=0.05, size=w.shape) for w in model.get_weights()])
        scale = model.get_layer("scale")
        if scale.most is not None:  # near its greatest value, as entropy is
            scale.mean.assign(-3.0)
            scale.sd.assign(0.1)
    return fins.bank(made, channels)


@pytest.mark.parametrize("family", registry.names("nets/fins"))
def test_a_family_streams_if_it_says_so(family):
    assert streaming.streams(bank_of(family)) is registry.load("nets/fins", family, "FAMILY").streams


@pytest.mark.parametrize("stride", [5, 12, 70])
@pytest.mark.parametrize("family", registry.names("nets/fins"))
def test_every_family_answers_as_on_windows(family, stride):
    bank, x = bank_of(family), signal(2, 48 + 3 * 70)
    expected = cut_one_by_one(bank, x, stride)
    np.testing.assert_allclose(streaming.stream_bank(bank, stride)(x), expected, rtol=1e-5)


@pytest.mark.parametrize("compiled", [True, False])
def test_more_filters_of_different_shapes_stream_together(compiled):
    mixed = [*fins.fins_of(bank_of("conv", 3, ("ENT", "VAR"))), *fins.fins_of(bank_of("conv", 2, ("RMS",)))]
    bank = fins.bank([mixed[0], mixed[2], mixed[1]], CHANNELS)
    assert streaming.streams(bank)
    x = signal(1, 140)
    expected = cut_one_by_one(bank, x, 7)
    np.testing.assert_allclose(streaming.stream_bank(bank, 7, compiled)(x), expected, rtol=1e-5)


@pytest.mark.parametrize("width", [1, 2, 4, 7])
def test_filters_of_any_width_see_zeros_beyond_the_window(width):
    inputs = keras.Input((LENGTH, 1))
    y = keras.layers.Conv1D(5, width, padding="same", activation="gelu")(inputs)
    fin = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.GlobalAveragePooling1D()(y)), name="fin_any")
    bank, x = fins.bank([fin], CHANNELS), signal(2, 100)
    np.testing.assert_allclose(streaming.stream_bank(bank, 12)(x), cut_one_by_one(bank, x, 12), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("version, offset", [(1, 100), (2, 5)])
def test_a_long_stretch_stays_exact(version, offset):
    """A running sum of float32 would have lost its digits after so many samples with an offset.

    Version 2 takes standard deviations, of which a mean of 100 times theirs costs digits in a single window, too.
    """
    bank, x = bank_of("conv", version=version), signal(1, 60_000, 1) + offset
    last = np.asarray(bank(x[:, -LENGTH:]))
    np.testing.assert_allclose(streaming.stream_bank(bank, 12)(x)[:, -1], last, rtol=1e-5)


@pytest.mark.parametrize("stride", [5, 12, 70])
@pytest.mark.parametrize("num_layers", [2, 3])
def test_gradients_are_those_of_windows(num_layers, stride):
    """Windows in float64: in float32 their own gradient of the filters' biases is off by up to 1e-4."""
    bank, x = bank_of("conv", num_layers), 3 * signal(2, 220)  # so that no filter hardly ever answers
    assert streaming.streams(bank)
    cut = tf.constant(windows(x, stride).reshape(-1, LENGTH, CHANNELS), tf.float64)
    weight = rng.normal(size=(2, len(cut) // 2, CHANNELS, 2))
    weights = [tf.cast(w, tf.float64) for model in fins.fins_of(bank) for w in model.get_weights()]
    with tf.GradientTape() as tape:
        tape.watch(weights)
        features = _in_float64(bank, weights, cut)
        loss = tf.reduce_sum(features * weight.reshape(features.shape))
    expected = [g for g in tape.gradient(loss, weights) if g is not None]
    for compiled in (True, False):
        with tf.GradientTape() as tape:
            answer = streaming.stream_bank(bank, stride, compiled)(x)
            loss = tf.reduce_sum(answer * weight.astype("float32"))
        got = tape.gradient(loss, [v.value for v in bank.trainable_variables])
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


def _in_float64(bank, weights, cut):
    """The FINs' formula, straight down: means and sds of filters, logarithms, dense layers, own units. Scales stay."""
    x, outputs = tf.reshape(tf.transpose(cut, (0, 2, 1)), (-1, LENGTH, 1)), []
    for fin in fins.fins_of(bank):
        count = len(fin.get_weights())
        own, weights = list(weights[:count]), weights[count:]
        y = tf.pad(x, [[0, 0], [1, 1], [0, 0]])
        for layer in fin.layers:
            if layer.name.startswith("conv"):
                y = tf.nn.relu(tf.nn.conv1d(y, own.pop(0), 1, "VALID") + own.pop(0))
        mean, square = tf.reduce_mean(y, axis=1), tf.reduce_mean(y * y, axis=1)
        variance = tf.maximum(square - mean**2, 1e-6)
        y = tf.concat([tf.math.log(tf.maximum(mean, 1e-4)), tf.math.log(variance) / 2], axis=1)
        y = tf.nn.gelu(y @ own.pop(0) + own.pop(0))
        y = tf.nn.gelu(y @ own.pop(0) + own.pop(0)) @ own.pop(0) + own.pop(0)
        scaled = tf.stop_gradient(own.pop(0)) + tf.stop_gradient(own.pop(0)) * y
        scale = fin.get_layer("scale")
        y = tf.exp(scaled) if scale.log else scaled
        outputs.append(tf.reshape(y if scale.most is None else scale.most - y, (-1, CHANNELS, 1)))
    return tf.concat(outputs, axis=-1)


@pytest.mark.parametrize(("channels", "lags"), [(1, (1, 3)), (3, (1, 2, 5)), (4, ())])
@pytest.mark.parametrize("stride", [7, 48, 60])
def test_correlations_are_those_of_windows(stride, channels, lags):
    layer, x = Correlations(lags), signal(2, 48 + 2 * 60, channels)
    for compiled in (True, False):
        np.testing.assert_allclose(layer.stream(x, LENGTH, stride, compiled), cut_one_by_one(layer, x, stride),
                                   atol=1e-5)
    windows = cut(tf.constant(x), LENGTH, stride)
    offset = rng.normal(size=(2, windows.shape[1], channels)).astype("float32")
    expected = layer(tf.reshape(windows, (-1, LENGTH, channels)), offset=tf.reshape(offset, (-1, channels)))
    for compiled in (True, False):
        np.testing.assert_allclose(np.reshape(layer.stream(x, LENGTH, stride, compiled, offset=offset), expected.shape),
                                   expected, atol=1e-5)


@pytest.mark.parametrize(("length", "stride"), [(6, 2), (7, 3), (4, 4), (3, 5)])
def test_window_sums_by_hand(length, stride):
    x = rng.integers(0, 9, (2, 23, 3)).astype("float32")
    count = (23 - length) // stride + 1
    expected = np.stack([x[:, w * stride : w * stride + length].sum(axis=1) for w in range(count)], axis=1)
    np.testing.assert_array_equal(over_signal(lambda _, x: tf.identity(x), tf.constant(x), length, stride), expected)


def network(kind, family):
    bank = bank_of(family)
    options = recipe.Classifier(kind=kind, copies=3, filters=(8, 8))
    keras.utils.set_random_seed(4)
    head = heads.new(options, ("ENT", "RMS"), LENGTH, CHANNELS, 5)
    made = join(bank, head)
    Forward(made).parts.standardise.set(np.array([1e-6, 0, 2e-6]), np.array([2e-5, 1e-5, 3e-5]))
    return made


def card():
    return {"length": LENGTH, "channels": CHANNELS, "stride": 6, "movements": [1, 2, 3, 4, 5],
            "decision": {"vote": 3, "reject": 0.3}}


@pytest.mark.parametrize("family", registry.names("nets/fins"))
@pytest.mark.parametrize("kind", registry.names("nets/heads"))
def test_windows_anywhere_in_a_recording(kind, family):
    """Runs at one stride, long and short, single windows, and windows that go back in time."""
    made = network(kind, family)
    emg = 2e-5 * signal(1, 3000)[0]
    runs = [np.arange(0, 1800, 6), np.arange(1900, 2300, 6), [5, 2952, 2400], np.arange(2500, 2900, 6)]
    starts = np.concatenate(runs)
    expected = made(emg[starts[:, None] + np.arange(LENGTH)], training=False)
    over = Forward(made).recording
    for chosen in (slice(None), slice(366, 369), rng.permutation(len(starts))):
        got = over(emg, starts[chosen])
        assert set(got) == set(ALL)
        for name in expected:
            np.testing.assert_allclose(got[name], np.asarray(expected[name])[chosen], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got["features"], np.asarray(expected["features"])[chosen], rtol=1e-5)


def test_a_decoder_streams_as_it_answers_for_windows():
    made = network("linear", "conv")
    decode, emg = decoder.BaseDecoder(card(), made), 2e-5 * signal(1, 1000)[0]
    streamed = decode.stream(emg)
    one_by_one = decoder.BaseDecoder(card(), made, lambda x: {n: np.asarray(v) for n, v in made(x).items()}).stream(emg)
    assert decode.forward.streams
    np.testing.assert_array_equal(streamed["label"], one_by_one["label"])
    np.testing.assert_allclose(streamed["features"], one_by_one["features"], rtol=1e-5)
    np.testing.assert_allclose(streamed["probabilities"], one_by_one["probabilities"], atol=1e-5)
    emg[500] = np.nan
    with pytest.raises(ValueError, match="NaN or Inf"):
        decode.stream(emg)


def test_runs_go_by_the_commonest_stride():
    assert runs_of(np.array([0, 5, 10, 40, 45, 47, 52])) == (5, [(0, 3), (3, 5), (5, 7)])
    assert runs_of(np.array([7])) == (1, [(0, 1)])
    assert runs_of(np.array([9, 3])) == (1, [(0, 1), (1, 2)])


@pytest.mark.parametrize(("kind", "stride"), [("linear", 12), ("linear", 7), ("conv", 12), ("linear", 60)])
def test_a_live_signal_gets_the_answers_of_its_recording(kind, stride):
    """In portions as they come, and again from the start after a restart."""
    made, emg = network(kind, "conv"), 2e-5 * signal(1, 420)[0]
    expected = Forward(made).signal(stride)(emg[None])
    live = Forward(made).live(stride, ALL)
    for _ in range(2):
        parts = [live(part) for part in np.split(emg, [10, 47, 48, 49, 70, 130, 137])]
        assert parts[0] is None and len(parts[2]["features"]) == 1
        for name in expected:
            got = np.concatenate([part[name] for part in parts if part is not None])
            np.testing.assert_allclose(got, expected[name][0], rtol=1e-5, atol=1e-5)
        live.restart()


def test_live_sums_do_not_drift():
    made = network("linear", "conv")
    live, emg = Forward(made).live(12), 2e-5 * signal(1, 12_000)[0]
    live(100 * emg)
    got = live(emg)
    expected = made(emg[None, -LENGTH:], training=False)
    np.testing.assert_allclose(got["features"][-1:], expected["features"], rtol=1e-5)


def test_only_what_streams_is_live():
    with pytest.raises(ValueError, match="FINs that stream. Received"):
        Forward(network("conv", "dense")).live(12)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_exported_graphs_work_on_pieces_of_a_signal(kind):
    decode = decoder.BaseDecoder(card() | {"rate_hz": 2000.0}, network(kind, "conv"))
    made = Signatures(decode)
    stream, answer = tf.function(made.stream, input_signature=[made.signal]), decode.forward.signal(6)
    for batch, samples in ((3, 500), (1, 48), (100, 63)):
        emg = 2e-5 * signal(batch, samples)
        got, expected = stream(emg), answer(tf.constant(emg))
        np.testing.assert_allclose(got["features"], expected["features"], rtol=1e-5, atol=1e-6)
        for one, own in zip(got["probabilities"], expected["probabilities"], strict=True):
            np.testing.assert_allclose(one, decode.decision(np.asarray(own), decode.movements)[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", ["conv", "dense"])
def test_what_is_asked_for_is_what_all_would_hold(family):
    """Alone or with others, over windows, a recording and a signal."""
    forward, emg = Forward(network("linear", family)), 2e-5 * signal(1, 800)[0]
    starts = np.arange(0, 752, 6)
    cut = emg[starts[:, None] + np.arange(LENGTH)]
    for run in (lambda wanted: forward.windows(cut, wanted), lambda wanted: forward.recording(emg, starts, wanted),
                lambda wanted: {name: value[0] for name, value in forward.signal(6, wanted)(emg[None]).items()}):
        every = run(ALL)
        for name in ALL:
            (only, value), = run((name,)).items()
            assert only == name
            np.testing.assert_array_equal(value, every[name])
            np.testing.assert_allclose(value, forward.windows(cut)[name], rtol=1e-4, atol=1e-5)


def test_networks_of_one_bank_share_what_is_compiled():
    """Another head, or the same with other weights, traces nothing; other FINs do."""
    one = Forward(network("linear", "conv"))
    emg, starts = 2e-5 * signal(1, 800)[0], np.arange(0, 752, 6)
    one.recording(emg, starts)
    before = dict(one.trunk._functions)
    copied = Forward(one.parts.with_classifier(one.head.copy().classifier))
    fresh = heads.new(recipe.Classifier(kind="linear"), ("ENT", "RMS"), LENGTH, CHANNELS, 7)
    other = Forward(join(one.parts.bank, fresh))
    other.parts.standardise.set(np.ones(CHANNELS), np.ones(CHANNELS))
    for forward in (copied, other):
        forward.recording(emg, starts)
        assert forward.trunk is one.trunk and forward.trunk._functions == before
    assert all(function.experimental_get_tracing_count() == 1 for function in before.values())
    np.testing.assert_array_equal(copied.recording(emg, starts)["inputs"], one.recording(emg, starts)["inputs"])
    assert np.abs(other.recording(emg, starts)["features"] - one.recording(emg, starts)["features"]).max() > 0.1
    assert Forward(network("linear", "conv")).trunk is not one.trunk
