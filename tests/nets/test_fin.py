import keras
import numpy as np
import pytest

from tfkfin.base import registry
from tfkfin.nets import fins as fin
from tfkfin.nets.layers import FeatureScale

rng = np.random.default_rng(5)


def trainable(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def test_parameters_are_those_of_the_papers_text():
    # FACTS: 3 Bi-LSTM layers of 32 units on 1 input, one bias a gate, dense 64 -> 1. The 22,508 fits no reading.
    assert trainable(fin.fin("RMS", 600)) == 58_433


@pytest.mark.parametrize("family", registry.names("nets/fins"))
def test_every_channel_gets_the_same_network(family):
    one = fin.fin("VAR", 40, family, units=4, num_layers=2)
    bank = fin.bank([one], channels=3)
    x = rng.normal(size=(2, 40, 3)).astype("float32")
    expected = np.stack([one(x[:, :, c, None]).numpy() for c in range(3)], axis=1)  # (B, C, 1)
    np.testing.assert_allclose(bank(x), expected, rtol=1e-5)


@pytest.mark.parametrize("family", registry.names("nets/fins"))
def test_saved_and_loaded_a_bank_answers_the_same_on_other_channel_counts(family, tmp_path):
    bank = fin.bank([fin.fin(name, 30, family, units=4, num_layers=2) for name in ("ENT", "RMS")], None)
    bank.save(tmp_path / "bank.keras")
    loaded = keras.saving.load_model(tmp_path / "bank.keras")
    for channels in (1, 5):
        x = rng.normal(size=(2, 30, channels)).astype("float32")
        assert loaded(x).shape == (2, channels, 2)
        np.testing.assert_allclose(loaded(x), bank(x), rtol=1e-6)
    assert [m.name for m in fin.fins_of(loaded)] == ["fin_ent", "fin_rms"]


@pytest.mark.parametrize("family", registry.names("nets/fins"))
def test_a_fin_learns(family):
    keras.utils.set_random_seed(1)
    x = (rng.normal(size=(256, 32, 1)) * rng.uniform(0.2, 3, (256, 1, 1))).astype("float32")
    y = np.sqrt(np.mean(x**2, axis=1))
    model = fin.fin("RMS", 32, family, units=8, num_layers=2)
    model.get_layer("scale").fit(y)
    model.compile(keras.optimizers.Adam(1e-2), "mse", jit_compile=False)
    before, *_, after = model.fit(x, y, epochs=12, batch_size=32, verbose=0).history["loss"]
    assert after < 0.5 * before


def test_unknown_family():
    with pytest.raises(ValueError, match="`family` must be one of .* Received: 'cnn'"):
        fin.fin("RMS", 600, "cnn")


def test_long_memory_is_a_start_and_keras_another():
    keras.utils.set_random_seed(3)
    chrono, plain = fin.fin("RMS", 600), fin.fin("RMS", 600, start="keras")
    bias = chrono.get_layer("bilstm").pairs[1][0].get_weights()[2]
    memory = 1 + np.exp(bias[32:64])  # samples that a forget gate of sigmoid(log T) keeps: 1 / (1 - f) = 1 + T
    assert memory.min() > 10 and memory.max() < 1300
    np.testing.assert_allclose(bias[:32], -bias[32:64])
    assert (plain.get_layer("bilstm").pairs[1][0].get_weights()[2][32:64] == 1).all()
    with pytest.raises(ValueError, match="`start` must be one of .* Received: start='zero'"):
        fin.fin("RMS", 600, start="zero")


def test_saved_fins_are_loaded_whole_every_time(tmp_path):
    """Keras takes equal addresses for shared objects while it loads: nothing of a FIN may be mistaken so."""
    keras.utils.set_random_seed(0)
    bank = fin.bank([fin.fin(name, 30, units=2) for name in ("ENT", "RMS", "VAR", "SSI")], 1)
    bank.save(tmp_path / "fins.keras")
    x = np.random.default_rng(0).normal(size=(3, 30, 1)).astype("float32")
    answer = bank(x).numpy()
    for _ in range(10):
        np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "fins.keras")(x), answer)


def test_fins_of_several_features_that_earlier_versions_trained_still_load(tmp_path):
    """They were one network with an output for each feature."""
    inputs = keras.Input((30, 1))
    y = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling1D()(inputs))
    shared = keras.Model(inputs, FeatureScale(log=[False, True], name="scale")(y), name="fin_ent_rms")
    targets = np.abs(rng.normal(size=(50, 2, 2))) + 0.1
    shared.get_layer("scale").fit(targets)
    fin.bank([shared], 2).save(tmp_path / "bank.keras")
    x = rng.normal(size=(3, 30, 2)).astype("float32")
    kernel, bias = shared.layers[2].get_weights()
    y = x.mean(axis=1)[..., None] @ kernel + bias
    values = np.stack([targets[..., 0], np.log(targets[..., 1])], axis=2).reshape(-1, 2)
    y = values.mean(axis=0) + values.std(axis=0) * y
    wanted = np.stack([y[..., 0], np.exp(y[..., 1])], axis=2)
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "bank.keras")(x), wanted, rtol=1e-4)
