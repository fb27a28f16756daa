"""One model on several replicas ends with the weights of one."""

import subprocess
import sys

import pytest

from tfkfin import train
from tfkfin.base import console
from tfkfin.base.errors import InputError

TINY = ["--set", "window.length_ms=100", "--set", "window.stride_ms=50", "--set", "features.names=RMS,VAR",
        "--set", "fin.units=4", "--set", "fin.layers=1", "--set", "fin.pretrained=", "--set", "imitate.epochs=4",
        "--set", "imitate.patience=4", "--set", "imitate.windows_per_epoch=64",
        "--set", "imitate.batch_size=15"]  # odd: of two replicas one gets a row of weight 0


@pytest.mark.slow
def test_replicas_in_one_process_end_with_the_weights_of_one():
    """Of a model that clips and decays, on batches that do not part evenly, against Keras' own `fit`."""
    code = """
import keras, numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0],
                                           [tf.config.LogicalDeviceConfiguration()] * 3)
from tfkfin.fit.device import Replicas
rng = np.random.default_rng(0)
x, y = (rng.normal(size=(31, n)).astype(np.float32) for n in (3, 1))
data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)

def made():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
    optimizer = keras.optimizers.Adam(1e-2, weight_decay=1e-2, global_clipnorm=0.01)
    optimizer.build(model.trainable_variables)
    return model, optimizer

one, optimizer = made()
one.compile(optimizer, "mse", jit_compile=False)
history = one.fit(data, shuffle=False, verbose=0, epochs=5).history["loss"]
strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(3)])
with strategy.scope():
    three, optimizer = made()
replicas = Replicas(strategy, three, optimizer, lambda true, made: tf.reduce_mean((true - made) ** 2, -1))
losses = [replicas.epoch(data) for _ in range(5)]
np.testing.assert_allclose(losses, history, rtol=1e-5)
assert abs(one.get_weights()[0] - made()[0].get_weights()[0]).max() > 0.01
for mine, its in zip(one.get_weights(), three.get_weights(), strict=True):
    np.testing.assert_allclose(mine, its, rtol=0, atol=1e-6)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(("arguments", "message"), [
    (["--stage", "finetune", "--strategy", "mirrored"], "--strategy shares the stage imitate"),
    (["--stage", "imitate", "--strategy", "mirrored", "--launcher", "local"], "--strategy shares the stage imitate")])
def test_what_cannot_be_shared_is_said(arguments, message, tiny_db2, tmp_path):
    with pytest.raises(console.InputError, match=message):
        train.main(["--data", str(tiny_db2), "--run", str(tmp_path / "run"), *TINY, *arguments])


def test_several_machines_are_the_launchers(capsys):
    with pytest.raises(SystemExit, match="2"):
        train.main(["--stage", "imitate", "--strategy", "multiworker"])
    assert "multiworker was removed" in (said := capsys.readouterr().err) and "--launcher" in said


@pytest.mark.parametrize("value", ["garbage{", "", '{"cluster": 3}', '{"cluster": {"worker": 3}}'])
def test_a_variable_that_tensorflow_cannot_read_is_one_line(value, monkeypatch):
    from tfkfin.fit import device

    monkeypatch.setenv("TF_CONFIG", value)
    device.started.cache_clear()
    try:
        with pytest.raises(InputError, match="TF_CONFIG .*: unset it"):
            device.started("mirrored")
            raise InputError("TF_CONFIG was read: unset it")  # some of these mean nothing to some versions
    finally:
        device.started.cache_clear()
