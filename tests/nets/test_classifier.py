import keras
import numpy as np
import pytest

from tfkfin.nets.heads.conv import classifier, kernel_sizes
from tfkfin.nets.layers import FeatureScale, ZScore


def parameters(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def test_the_authors_network_has_its_parameters():
    model = classifier(12, 4, 17)
    assert parameters(model) == 66_646  # FACTS: the authors' code, single-parameter PReLUs
    assert [layer.kernel_size for layer in model.layers if isinstance(layer, keras.layers.Conv2D)] == [
        (5, 5), (5, 5), (4, 4)]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7, 10, 12, 16, 64])
def test_any_channel_count_ends_in_one_value_a_class(channels):
    kernels = kernel_sizes(channels)
    assert sum(k - 1 for k in kernels) == channels - 1 and max(kernels) - min(kernels) <= 1
    model = classifier(channels, 3, 5)
    outputs = model(np.ones((2, channels, 3), np.float32))
    np.testing.assert_allclose(np.sum(outputs, axis=1), 1, rtol=1e-5)


def test_noise_is_in_the_shadows_and_off_at_inference():
    model = classifier(4, 2, 3, noise=0.5, dropout=0.0)
    replicate = keras.Model(model.input, model.get_layer("replicate").output)
    x = np.random.default_rng(0).normal(size=(3, 4, 2)).astype("float32")
    still, noisy = replicate(x).numpy(), replicate(x, training=True).numpy()
    assert still.shape == (3, 4, 12, 2)
    np.testing.assert_allclose(still, np.repeat(x[:, :, None], 12, axis=2), atol=1e-6)
    np.testing.assert_array_equal(noisy[:, :, 0], still[:, :, 0])
    assert np.std(noisy[:, :, 1:] - still[:, :, 1:]) == pytest.approx(0.5, rel=0.15)  # 264 draws, seeded below


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def test_saved_and_loaded_it_answers_the_same(tmp_path):
    model = classifier(4, 2, 3)
    model.get_layer("z_score").set(np.array([1.0, 2.0]), np.array([0.0, 3.0]))
    model.save(tmp_path / "head.keras")
    x = np.random.default_rng(1).normal(size=(5, 4, 2)).astype("float32")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "head.keras")(x), model(x))


def test_z_score_is_the_formula_and_counts_sd_0_as_1():
    layer = ZScore()
    layer.build((None, 2))
    layer.set(np.array([1.0, 2.0]), np.array([4.0, 0.0]))
    np.testing.assert_allclose(layer(np.array([[3.0, 5.0]])), [[0.5, 3.0]])


@pytest.mark.parametrize("log", [False, True])
def test_feature_scale_and_its_inverse(log):
    layer = FeatureScale(log=log)
    layer.build((None, 1))
    values = np.array([0.5, 1.0, 4.0, 9.0])
    layer.fit(values)
    y = np.asarray(layer.inverse(keras.ops.convert_to_tensor(values.astype("float32"))))
    reference = np.log(values) if log else values
    np.testing.assert_allclose(y, (reference - reference.mean()) / reference.std(), rtol=1e-5)
    np.testing.assert_allclose(layer(y), values, rtol=1e-5)
