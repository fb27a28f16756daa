"""The paper's job from end to end, as its user runs it: DB2-shaped files, three stages, a SavedModel that serves."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # full-size networks: a minute and a half on two cores

SMALL = ("window.stride_ms=200", "window.train_stride_ms=10", "split.pretrain_subjects=1", "imitate.epochs=1",
         "imitate.windows_per_epoch=32", "imitate.validation_windows=8", "imitate.test_windows=16",
         "classify.epochs=2", "finetune.epochs=1", "finetune.windows_per_epoch=16", "finetune.batch_size=8")
FIN_PARAMETERS = 58_433  # three bidirectional layers of 32 units and a dense layer from 64 states to one value
HEAD_PARAMETERS = 66_646  # 64 filters of 5 x 5, 32 of 5 x 5, 17 of 4 x 4, with BatchNorm and one-parameter PReLU


def command(name: str, *arguments) -> str:
    done = subprocess.run([sys.executable, "-m", f"tfkfin.{name}", *map(str, arguments)], capture_output=True,
                          text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of the recipe db2_within on one synthetic person: 12 electrodes at 2 kHz, 17 movements, 6 repetitions."""
    folder = tmp_path_factory.mktemp("main_job")
    command("data", "synthesize", folder / "DB2", "--subjects", "1", "--hold", "0.8", "--rest", "0.2")
    settings = [part for setting in SMALL for part in ("--set", setting)]
    command("train", "--stage", "finetune", "--pipeline", "db2_within", "--data", folder / "DB2", "--subjects", "1",
            "--run", folder / "run", *settings)
    return folder / "run"


@pytest.fixture(scope="module")
def network(run):
    import tfkfin

    return tfkfin.Decoder.from_preset(run / "finetune" / "S1").model


def layers_of(model) -> list:
    """Every layer of a model, those inside layers and models too."""
    found = []
    for layer in model.layers:
        inner = getattr(layer, "layer", layer)
        found += [layer, *(layers_of(inner) if hasattr(inner, "layers") else [inner])]
    return found


def test_results_are_of_the_paper_s_split(run):
    results = json.loads((run / "results.json").read_text())
    data = results["dataset"]
    assert (data["channels"], data["rate_hz"], data["movements"]) == (12, 2000, list(range(1, 18)))
    assert (data["train_repetitions"], data["test_repetitions"]) == ([1, 3, 4, 6], [2, 5])
    assert (data["pretrain_repetitions"], data["finetune_repetitions"]) == ([1, 3, 4], [6])
    assert set(results["fin"]) == {"ENT", "RMS", "VAR", "SSI"} and set(results["accuracy"]["per_subject"]) == {"1"}


def test_fins_are_bilstms_of_single_channels(network):
    fins = [layer.layer for layer in layers_of(network) if type(layer).__name__ == "PerChannel"]
    assert len(fins) == 4 and all(fin.input_shape == (None, 600, 1) for fin in fins)
    for fin in fins:
        assert any(type(layer).__name__ == "BiLSTM" for layer in fin.layers)
        assert sum(np.prod(weight.shape) for layer in fin.layers if type(layer).__name__ != "FeatureScale"
                   for weight in layer.trainable_weights) == FIN_PARAMETERS


def test_the_head_is_the_paper_s(network):
    classifier = next(layer for layer in layers_of(network) if layer.name == "classifier")
    kinds = [type(layer).__name__ for layer in classifier.layers]
    blocks = [kind for kind in kinds if kind in ("Conv2D", "BatchNormalization", "PReLU")]
    assert blocks == 3 * ["Conv2D", "BatchNormalization", "PReLU"]
    assert sum(np.prod(weight.shape) for layer in classifier.layers if type(layer).__name__ != "ZScore"
               for weight in layer.trainable_weights) == HEAD_PARAMETERS
    noise = next(layer for layer in classifier.layers if type(layer).__name__ == "GaussianNoise")
    assert noise.stddev == 0.01


def test_noise_and_dropout_are_off_at_inference(network):
    emg = 1e-4 * np.random.default_rng(0).standard_normal((4, 600, 12)).astype(np.float32)
    same = [np.asarray(network(emg, training=False)["probabilities"]) for _ in range(2)]
    weights = network.get_weights()
    other = [np.asarray(network(emg, training=True)["probabilities"]) for _ in range(2)]
    network.set_weights(weights)  # training has moved the BatchNorms' averages
    np.testing.assert_array_equal(*same)
    assert not np.array_equal(*other)


def test_joint_fine_tuning_moves_the_fins(run, network):
    import keras

    import tfkfin  # noqa: F401  registers the layers

    before = keras.models.load_model(run / "imitate" / "fins.keras", compile=False)
    before = [np.asarray(weight) for weight in before.trainable_weights]
    bank = next(layer for layer in network.layers if layer.name == "fins")
    after = [np.asarray(weight) for weight in bank.trainable_weights]
    assert [a.shape for a in after] == [b.shape for b in before]
    assert sum(not np.array_equal(a, b) for a, b in zip(after, before, strict=True)) > len(before) // 2


def test_tensorboard_has_scalars_of_every_stage(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for stage, wanted in (("imitate", "loss"), ("classify", "loss"), ("finetune", "loss")):
        tags = set()
        for path in (run / "tensorboard" / stage).rglob("events.*"):
            events = EventAccumulator(str(path))
            events.Reload()
            tags |= set(events.Tags()["tensors"]) | set(events.Tags()["scalars"])
        assert any(wanted in tag for tag in tags), f"{stage}: {sorted(tags)}"


def test_the_savedmodel_serves_without_tfkfin(run, network, tmp_path):
    command("export", run, "--to", tmp_path / "model")
    emg = 1e-4 * np.random.default_rng(1).standard_normal((3, 600, 12)).astype(np.float32)
    np.save(tmp_path / "emg.npy", emg)
    script = ("import sys; sys.modules['tfkfin'] = None\nimport numpy as np, tensorflow as tf\n"
              f"serve = tf.saved_model.load({str(tmp_path / 'model' / '1')!r}).signatures['serving_default']\n"
              f"answer = serve(emg=tf.constant(np.load({str(tmp_path / 'emg.npy')!r})))\n"
              f"np.savez({str(tmp_path / 'answer.npz')!r}, **{{name: part.numpy() for name, part in answer.items()}})")
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300, cwd=tmp_path)
    answer, expected = np.load(tmp_path / "answer.npz"), network(emg, training=False)
    np.testing.assert_allclose(answer["probabilities"], np.asarray(expected["probabilities"]), atol=1e-5)
    np.testing.assert_allclose(answer["features"], np.asarray(expected["features"]), rtol=1e-3, atol=1e-4)
    assert answer["label"].dtype == np.int64
    np.testing.assert_array_equal(answer["label"], 1 + answer["probabilities"].argmax(axis=1))
