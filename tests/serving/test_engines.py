"""A decoder answers the same on every engine, and says what it lacks."""

import os
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from tfkfin import recipe as recipes
from tfkfin import registry
from tfkfin.console import InputError
from tfkfin.export import export
from tfkfin.fit.run import open_run
from tfkfin.fit.stages import run_stage
from tfkfin.models import presets
from tfkfin.models.bilstm import native
from tfkfin.models.decision import Decision
from tfkfin.models.decoder import BATCH, Decoder
from tfkfin.serving.engines import ENGINES, Exported

TINY = {"window.length_ms": 30, "window.stride_ms": 25, "fin.units": 3, "fin.layers": 1, "fin.pretrained": "",
        "imitate.epochs": 0, "imitate.test_windows": 16,  # fine-tuning alone leaves no weight as it began
        "classify.epochs": 1, "finetune.epochs": 1, "finetune.windows_per_epoch": 32, "features.names": "ENT,RMS",
        "split.subjects": "1", "classifier.vote": 3, "classifier.reject": 0.4}


@pytest.fixture(scope="module", params=[f"{family}-{head}" for family in registry.names("models/fins")
                                        for head in registry.names("models/heads")])
def model(request, tiny_db2, tmp_path_factory):
    """A version folder with SavedModel and ONNX, of weights that have been trained a little: every family and head."""
    family, head = request.param.split("-")
    recipe = recipes.load(None, TINY | {"source.kind": "recordings", "source.data": str(tiny_db2),
                                        "fin.family": family, "fin.layers": 2, "classifier.kind": head})
    opened = open_run(recipe, tmp_path_factory.mktemp("runs") / request.param)
    run_stage(opened, "finetune")
    return export(opened.folder, 1, tmp_path_factory.mktemp("models") / request.param, "both")


def volts(model, count: int) -> np.ndarray:
    card = presets.card(model)
    noise = np.random.default_rng(1).standard_normal((count, card["length"], card["channels"]))
    return (np.array(card["mean_v"]) + 2 * np.array(card["sd_v"]) * noise).astype(np.float32)


def there(model) -> list[str]:
    recurrent = presets.card(model)["family"] == "bilstm"
    return [e for e in ENGINES if e != "xla" or not recurrent]


@pytest.mark.parametrize("count", [1, 5])
def test_engines_answer_as_the_exported_graph(model, count):
    emg = volts(model, count)
    wanted = tf.saved_model.load(str(model)).signatures["serving_default"](emg=tf.constant(emg))
    for engine in there(model):
        answer = Exported(model, engine)(emg)
        assert set(answer) == set(wanted)
        for name, value in wanted.items():
            assert answer[name].dtype == value.numpy().dtype, (engine, name)
            np.testing.assert_allclose(answer[name], value, rtol=1e-5, atol=1e-5, err_msg=f"{engine} {name}")


ALONE = """
import sys
sys.modules["tfkfin"] = None
import numpy as np, tensorflow as tf
for version in sys.stdin:
    stream = tf.saved_model.load(version.rstrip()).signatures["stream"]
    np.savez("answers.npz", **stream(emg=tf.constant(np.load("stretch.npy")[None])))
    print("answered", flush=True)
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """alone(version folder, stretch) -> what its `stream` answers in a process without tfkfin, one for all models."""
    folder = tmp_path_factory.mktemp("alone")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"TF_CPP_MIN_LOG_LEVEL": "3"}

    def answers(model, stretch) -> dict[str, np.ndarray]:
        np.save(folder / "stretch.npy", stretch)
        print(model, file=process.stdin, flush=True)
        assert process.stdout.readline() == "answered\n", (folder / "log").read_text()[-2000:]
        with np.load(folder / "answers.npz") as file:
            return {name: value[0] for name, value in file.items()}

    with (folder / "log").open("w") as log, subprocess.Popen(
            [sys.executable, "-c", ALONE], cwd=folder, env=environment, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=log) as process:
        yield answers


def by_hand(decoder, stretch) -> dict[str, np.ndarray]:
    """The definition: every window for itself, the mean of the last three, the most probable if probable enough."""
    starts = range(0, len(stretch) - decoder.length + 1, decoder.stride)
    answers = decoder(np.stack([stretch[s : s + decoder.length] for s in starts]))
    voted = np.stack([answers["probabilities"][max(0, w - 2) : w + 1].mean(0) for w in range(len(starts))])
    best = decoder.movements[voted.argmax(1)]
    return answers | {"probabilities": voted, "label": np.where(voted.max(1) >= 0.4, best, -1)}


def test_every_way_that_has_an_order_decides_alike(model, alone):
    """Vote and rejection are on: the Keras model, every engine, the SavedModel's and ONNX's own `stream`."""
    stretch = volts(model, 70).reshape(-1, presets.card(model)["channels"])
    decoder = Decoder.load(model)
    assert decoder.decision == Decision(3, 0.4)
    wanted = by_hand(decoder, stretch)
    assert len(wanted["label"]) == (len(stretch) - decoder.length) // decoder.stride + 1 > BATCH
    ways = {"keras": decoder.stream(stretch), "savedmodel alone": alone(model, stretch)}
    ways |= {engine: Exported(model, engine).stream(stretch) for engine in there(model)}
    session = onnxruntime.InferenceSession(str(model / presets.ONNX_STREAM))
    names = [output.name for output in session.get_outputs()]
    ways["stream.onnx"] = {n: v[0] for n, v in zip(names, session.run(None, {"emg": stretch[None]}), strict=True)}
    for way, answer in ways.items():
        assert set(answer) == set(wanted) and answer["label"].dtype == np.int64, way
        np.testing.assert_array_equal(answer["label"], wanted["label"], err_msg=way)
        for name in ("probabilities", "features"):
            np.testing.assert_allclose(answer[name], wanted[name], rtol=1e-5, atol=1e-5, err_msg=f"{way} {name}")


def test_onnx_streams_in_pieces_and_where_it_cannot_window_by_window(model):
    """Pieces bound the memory, so a long stretch takes several; another stride is not in the file."""
    decode, stretch = Exported(model, "onnx"), volts(model, 100).reshape(-1, presets.card(model)["channels"])
    asked = []
    decode._stream = lambda emg, real=decode._stream: (asked.append(emg.shape[1]), real(emg))[1]
    wanted = by_hand(decode, stretch)
    np.testing.assert_array_equal(decode.stream(stretch)["label"], wanted["label"])
    windows = [BATCH, 119 - BATCH + decode.decision.memory]  # the second piece begins with two that lead to its own
    assert len(wanted["label"]) == 119 and asked == [(n - 1) * decode.stride + decode.length for n in windows]
    asked.clear()
    other = decode.stream(stretch, 2 * decode.stride)
    np.testing.assert_allclose(other["features"], wanted["features"][::2], rtol=1e-5, atol=1e-5)
    for unfit, message in ((stretch[: decode.length - 1], "one window"), (stretch[:, :-1], "must be"),
                           (stretch * np.nan, "NaN or Inf")):
        with pytest.raises(InputError, match=message):
            decode.stream(unfit)
    assert not asked


def test_auto_keeps_the_fastest_of_those_there(model):
    decode = Exported(model.parent)
    assert set(decode.milliseconds) == set(there(model))
    assert decode.engine == min(decode.milliseconds, key=decode.milliseconds.get)
    assert decode(volts(model, 2))["label"].shape == (2,)


def test_an_engine_that_differs_is_not_used(model, monkeypatch, caplog):
    from tfkfin.serving import engines as decoder

    right = decoder._LOADERS["native"]

    def wrong(version, card):
        answer = right(version, card)
        return lambda emg: {**answer(emg), "probabilities": answer(emg)["probabilities"] + 0.01}

    monkeypatch.setitem(decoder._LOADERS, "native", wrong)
    monkeypatch.setattr(decoder.log, "propagate", True)
    assert "native" not in Exported(model).milliseconds
    assert "engine native differs" in caplog.text


def test_what_is_missing_is_named(model, tmp_path, monkeypatch):
    for name in ("saved_model.pb", "model.onnx"):
        folder = tmp_path / name
        folder.mkdir()
        for file in (presets.CARD, name):
            (folder / file).write_bytes((model / file).read_bytes())
    onnx_alone, graph_alone = tmp_path / "model.onnx", tmp_path / "saved_model.pb"
    assert Exported(onnx_alone).engine == "onnx"
    for engine in ("native", "savedmodel"):
        with pytest.raises(InputError, match="ONNX alone"):
            Exported(onnx_alone, engine)
    with pytest.raises(InputError, match="--format both"):
        Exported(graph_alone, "onnx")
    with pytest.raises(InputError, match="no model in"):
        Exported(tmp_path / "nowhere")
    with pytest.raises(InputError, match="must be one of"):
        Exported(model, "fast")
    if presets.card(model)["family"] == "bilstm":
        with pytest.raises(InputError, match="without recurrence"):
            Exported(model, "xla")

        def unavailable():
            raise native.NativeUnavailable("no compiler")

        monkeypatch.setattr(native, "load", unavailable)
        with pytest.raises(InputError, match="no compiler"):
            Exported(model, "native")


def test_fins_alone_are_no_decoder():
    with pytest.raises(InputError, match="no decoder"):
        Exported("tests/serving/golden/fins/1")


def test_unfit_windows_are_refused(model):
    decode = Exported(model, "onnx")
    emg = volts(model, 2)
    for bad, message in ((emg[:0], "shape"), (emg[:, 1:], "shape"), (emg[0], "shape"), (emg * np.nan, "NaN or Inf")):
        with pytest.raises(InputError, match=message):
            decode(bad)
