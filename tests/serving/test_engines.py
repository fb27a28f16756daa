"""A decoder answers the same on every engine, and says what it lacks."""

import numpy as np
import pytest
import tensorflow as tf

from tfkfin import recipe as recipes
from tfkfin import registry
from tfkfin.console import InputError
from tfkfin.export import export
from tfkfin.fit.run import open_run
from tfkfin.fit.stages import run_stage
from tfkfin.models import shelf
from tfkfin.models.bilstm import native
from tfkfin.models.decision import Decision
from tfkfin.models.decoder import Decoder
from tfkfin.serving.engines import ENGINES, Exported

TINY = {"window.length_ms": 30, "window.stride_ms": 25, "fin.units": 3, "fin.layers": 1, "fin.pretrained": "",
        "imitate.windows_per_epoch": 32, "imitate.validation_windows": 16, "imitate.test_windows": 16,
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
    return export(opened.folder, 1, tmp_path_factory.mktemp("shelf") / request.param, "both")


def volts(model, count: int) -> np.ndarray:
    card = shelf.card(model)
    noise = np.random.default_rng(1).standard_normal((count, card["length"], card["channels"]))
    return (np.array(card["mean_v"]) + 2 * np.array(card["sd_v"]) * noise).astype(np.float32)


def there(model) -> list[str]:
    recurrent = shelf.card(model)["family"] == "bilstm"
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


def test_every_way_that_has_an_order_decides_alike(model):
    """Vote and rejection are on: the Keras model, every engine, and the SavedModel's own `stream`."""
    stretch = volts(model, 12).reshape(-1, shelf.card(model)["channels"])
    decoder = Decoder.load(model)
    wanted, windows = decoder.stream(stretch), decoder.length
    assert wanted["label"].shape == ((len(stretch) - windows) // decoder.stride + 1,)
    alone = decoder(np.stack([stretch[s : s + windows] for s in range(0, len(stretch) - windows + 1, decoder.stride)]))
    assert decoder.decision == Decision(3, 0.4)
    np.testing.assert_array_equal(decoder.decision(alone["probabilities"], decoder.movements)[0], wanted["label"])
    served = tf.saved_model.load(str(model)).signatures["stream"](emg=tf.constant(stretch[None]))
    answers = {"stream": {name: value.numpy()[0] for name, value in served.items()}}
    answers |= {engine: Exported(model, engine).stream(stretch) for engine in there(model)}
    for way, answer in answers.items():
        np.testing.assert_array_equal(answer["label"], wanted["label"], err_msg=way)
        np.testing.assert_allclose(answer["probabilities"], wanted["probabilities"], atol=1e-5, err_msg=way)


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
        for file in (shelf.CARD, name):
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
    if shelf.card(model)["family"] == "bilstm":
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
