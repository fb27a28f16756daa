"""One model on several workers: they end with the weights of one, also when one of them was killed."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from tfkfin import train
from tfkfin.base import console

TINY = ["--set", "window.length_ms=100", "--set", "window.stride_ms=50", "--set", "features.names=RMS,VAR",
        "--set", "fin.units=4", "--set", "fin.layers=1", "--set", "fin.pretrained=", "--set", "imitate.epochs=4",
        "--set", "imitate.patience=4", "--set", "imitate.windows_per_epoch=64",
        "--set", "imitate.batch_size=15"]  # odd: of the two workers one gets a row that weighs nothing
ONE = {name: "1" for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")}


def start(folder: Path, data: Path, *more: str, **environment: str) -> subprocess.Popen:
    log = folder.parent / f"{folder.name}-{environment.get('NAME', 'one')}.log"
    with log.open("ab") as file:
        return subprocess.Popen([sys.executable, "-m", "tfkfin.train", "--stage", "imitate", "--data", str(data),
                                 "--run", str(folder), *TINY, *more], env=os.environ | ONE | environment,
                                stdout=file, stderr=file)


def both(folder: Path, data: Path) -> list[subprocess.Popen]:
    """Two workers of one cluster."""
    sockets = [socket.socket() for _ in range(2)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    cluster = {"worker": [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]}
    for one in sockets:
        one.close()
    return [start(folder, data, "--strategy", "multiworker", NAME=f"worker{i}", TF_CONFIG=json.dumps(
        {"cluster": cluster, "task": {"type": "worker", "index": i}})) for i in range(2)]


def weights(folder: Path) -> list[np.ndarray]:
    """Of the FINs; what an optimiser keeps beside them, where it does, is left out."""
    found = []
    with h5py.File(folder / "imitate" / "fins.weights.h5") as file:
        file.visititems(lambda name, one: found.append(np.array(one)) if isinstance(one, h5py.Dataset)
                        and not name.startswith("optimizer") else None)
    return found


def told(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.parent.glob(f"{folder.name}-*.log"))


@pytest.mark.slow
def test_two_workers_end_with_the_weights_of_one_and_go_on_when_one_was_killed(tiny_db2, tmp_path):
    alone = start(tmp_path / "one", tiny_db2)
    killed, began = both(tmp_path / "two", tiny_db2), time.monotonic()
    while not list((tmp_path / "two" / "imitate").glob("checkpoints/ckpt-*")):  # an epoch is over
        assert time.monotonic() - began < 240 and killed[0].poll() is None, told(tmp_path / "two")
        time.sleep(0.05)
    killed[1].kill()
    killed[1].wait()
    assert killed[0].wait(240) == 2 and "another worker has gone" in told(tmp_path / "two"), told(tmp_path / "two")
    assert not (tmp_path / "two" / "imitate" / "stage.json").exists()
    again = both(tmp_path / "two", tiny_db2)
    assert [worker.wait(240) for worker in again] == [0, 0], told(tmp_path / "two")
    assert alone.wait(240) == 0, told(tmp_path / "one")
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert len(one) == len(two) > 10
    for mine, its in zip(one, two, strict=True):
        np.testing.assert_allclose(mine, its, rtol=0, atol=1e-6)
    scores = [json.loads((tmp_path / name / "results.json").read_text())["fin"] for name in ("one", "two")]
    assert scores[0]["RMS"]["r2"] == pytest.approx(scores[1]["RMS"]["r2"], abs=1e-5)
    assert told(tmp_path / "two").count("epoch 4/4") == 2


@pytest.mark.slow
def test_replicas_in_one_process_end_with_the_weights_of_one():
    """Of a model that clips and decays, on batches that do not part evenly, against Keras' own `fit`."""
    code = """
import keras, numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0],
                                           [tf.config.LogicalDeviceConfiguration()] * 3)
from tfkfin.fit.strategy import Replicas
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


def test_a_cluster_without_a_name_is_said(monkeypatch):
    from tfkfin.fit import strategy

    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(console.InputError, match="TF_CONFIG names no cluster"):
        strategy.started("multiworker")
