import keras
import numpy as np
import pytest

from tfkfin.base import registry
from tfkfin.fit import training
from tfkfin.nets import fins as fin

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
def test_one_trunk_of_several_features_answers_in_their_units_on_every_channel(family, tmp_path):
    shared = fin.fin(("ENT", "RMS", "VAR"), 30, family, units=4, num_layers=2)
    targets = np.abs(rng.normal(size=(50, 2, 3))) + 0.1
    bank = fin.bank([shared], 2)
    training.fit_scales(bank, targets)
    trunk = keras.Model(shared.input, shared.get_layer("linear").output)
    x = rng.normal(size=(3, 30, 2)).astype("float32")
    y = np.stack([trunk(x[:, :, c, None]) for c in range(2)], axis=1)  # (B, C, F)
    values = targets.reshape(-1, 3)
    ent = values[:, 0].mean() + values[:, 0].std() * y[..., 0]
    logs = np.log(values[:, 1:])
    others = np.exp(logs.mean(axis=0) + logs.std(axis=0) * y[..., 1:])
    np.testing.assert_allclose(bank(x), np.concatenate([ent[..., None], others], axis=2), rtol=1e-4)
    assert shared.name == "fin_ent_rms_var"
    bank.save(tmp_path / "bank.keras")
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "bank.keras")(x), bank(x), rtol=1e-6)


def test_the_loss_weighs_features_of_one_trunk_as_of_many_networks():
    true, said = np.abs(rng.normal(size=(2, 5, 3, 2))).astype("float32") + 0.1
    losses = []
    for fins in ([fin.fin("ENT", 20, "conv"), fin.fin("RMS", 20, "conv")], [fin.fin(("ENT", "RMS"), 20, "conv")]):
        bank = fin.bank(fins, 3)
        training.fit_scales(bank, true)
        losses.append(training.imitation_loss(bank)(true, said))
    np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.parametrize("family", registry.names("nets/fins"))
def test_a_fin_of_two_channels_is_run_on_every_two(family, tmp_path):
    one = fin.fin("COR", 30, family, units=4, num_layers=2)
    bank = fin.bank([one], 4)
    x = rng.normal(size=(3, 30, 4)).astype("float32")
    wanted = np.stack([one(x[:, :, [i, j]]) for i in range(4) for j in range(i + 1, 4)], axis=1)
    np.testing.assert_allclose(bank(x), wanted, rtol=1e-4, atol=1e-6)
    assert bank.output_shape == (None, 6, 1)
    bank.save(tmp_path / "bank.keras")
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "bank.keras")(x), bank(x), rtol=1e-5, atol=1e-6)


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
