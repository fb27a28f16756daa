"""A decoder answers the same on every engine, and says what it lacks."""

import os
import subprocess
import sys
from contextlib import nullcontext

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from tfkfin import recipe as recipes
from tfkfin.base import registry
from tfkfin.base.errors import InputError
from tfkfin.decoder.decision import Decision
from tfkfin.decoder.decoder import BATCH, BaseDecoder
from tfkfin.nets import heads
from tfkfin.nets.bilstm import native
from tfkfin.nets.forward import Forward
from tfkfin.nets.network import network as join
from tfkfin.pipeline.subject import Subject
from tfkfin.recordings import readers
from tfkfin.serving import signatures, version
from tfkfin.serving.engines import ENGINES, Exported
from tfkfin.store import card, folders, presets

NAMES, VOTE, REJECT = ("ENT", "RMS"), 3, 0.4


KINDS = [f"{family}-{head}" for family in registry.names("nets/fins") for head in registry.names("nets/heads")]
BESIDE = sorted({*registry.names("nets/descriptions")} - {"correlations"})  # which heads have anyway
LONG = dict.fromkeys(("log_covariance", "broad"), pytest.mark.slow)  # logarithms of matrices by products alone


@pytest.fixture(scope="module", params=KINDS + [
    pytest.param(f"conv-linear-{kind}", marks=LONG.get(kind, ())) for kind in BESIDE])
def model(request, tiny_db2, tmp_path_factory):
    """A version folder with SavedModel and ONNX of every family and head, and of every description: solved, or
    prepared, for a recording.
    """
    family, head, *kind = request.param.split("-")
    more = {"classifier.describe": kind} if kind else {}
    recipe = recipes.load(None, {
        "window.length_ms": 30, "window.stride_ms": 25, "fin.units": 3, "fin.layers": 2, "fin.pretrained": "",
        "fin.family": family, "features.names": "ENT,RMS", "classifier.kind": head, "classifier.vote": VOTE,
        "classifier.reject": REJECT} | more)
    keras.utils.set_random_seed(5)
    subject = Subject.of([readers.read(readers.find(tiny_db2)[0])], recipe.window)
    shape, rng = (60, subject.emg.shape[1]), np.random.default_rng(5)
    made = heads.new(recipe.classifier, NAMES, *shape, 3)
    network = join(presets.new_bank(recipe.fin, NAMES, *shape), made)
    forward = Forward(network)
    forward.parts.standardise.set(subject.mean, subject.sd)
    for variable in network.trainable_variables:  # no weight is as a layer begins
        variable.assign(variable + 0.05 * rng.standard_normal(variable.shape).astype(np.float32))
    some = np.arange(0, len(subject.windows), 3)
    inputs = forward.recording(subject.emg, subject.windows.starts[some], ("inputs",))["inputs"]
    labels, own = subject.windows.movements[some].astype(int) - 1, heads.kind(head).of(forward.parts)
    if own.solve:
        own.solve(inputs, labels, (0 * labels, subject.windows.repetitions[some]))
    else:
        own.prepare(inputs)
    about = card.of_fitted(card.about(recipe, subject.rate_hz, 60, 50, (1, 2, 3), subject.mean, subject.sd),
                           len(some), 1,
                           True, network.count_params())
    folder = tmp_path_factory.mktemp("models") / request.param
    with folders.new_version(folder) as (partial, number):
        about |= {"name": request.param, "version": number, "format": "both"}
        version.write_decoder(partial, BaseDecoder(about, network), about)
        made = signatures.Signatures(BaseDecoder(about, network), "keras")
        with pytest.raises(InputError, match=lacks[0]) if (lacks := without_litert(request.param)) else nullcontext():
            version.save_litert(made.answer, made.window, partial / folders.LITERT)
    return folder / "1"


def without_litert(name: str) -> list[str]:
    """Why LiteRT cannot hold a model, if it cannot."""
    return [why for part, why in (("bilstm", "without recurrence"), ("log_covariance", "cannot be converted to LiteRT"),
                              ("broad", "cannot be converted to LiteRT"))
            if part in name]


def volts(model, count: int) -> np.ndarray:
    card = folders.card(model)
    noise = np.random.default_rng(1).standard_normal((count, card["length"], card["channels"]))
    return (np.array(card["mean_v"]) + 2 * np.array(card["sd_v"]) * noise).astype(np.float32)


def there(model) -> list[str]:
    lacking = ("xla", "litert") if folders.card(model)["family"] == "bilstm" else ("litert",) if without_litert(
        folders.card(model)["name"]) else ()
    return [e for e in ENGINES if e not in lacking]


@pytest.fixture(scope="module")
def engines(model) -> dict[str, Exported]:
    """The model on every engine that can run it, loaded and traced once for all tests that only ask them."""
    return {engine: Exported(model, engine) for engine in there(model)}


@pytest.fixture(scope="module")
def graph(model):
    """The SavedModel's own signature, as TensorFlow loads it."""
    loaded = tf.saved_model.load(str(model))
    yield loaded.signatures["serving_default"]


@pytest.mark.parametrize("count", [1, 5])
def test_engines_answer_as_the_exported_graph(model, engines, graph, count):
    emg = volts(model, count)
    wanted = graph(emg=tf.constant(emg))
    for engine, decode in engines.items():
        answer = decode(emg)
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


def test_every_way_that_has_an_order_decides_alike(model, engines, alone, tiny_db2):
    """Vote and rejection are on: the Keras model, every engine, the SavedModel's and ONNX's own `stream`."""
    stretch = readers.read(readers.find(tiny_db2)[0]).emg[1000:5200]  # rest, a movement, rest, another movement
    decoder = BaseDecoder.load(model)
    assert decoder.decision == Decision(VOTE, REJECT)
    wanted = by_hand(decoder, stretch)
    assert len(wanted["label"]) == (len(stretch) - decoder.length) // decoder.stride + 1 > BATCH
    ways = {"keras": decoder.stream(stretch), "savedmodel alone": alone(model, stretch)}
    ways |= {engine: decode.stream(stretch) for engine, decode in engines.items()}
    session = onnxruntime.InferenceSession(str(model / folders.ONNX_STREAM))
    names = [output.name for output in session.get_outputs()]
    ways["stream.onnx"] = {n: v[0] for n, v in zip(names, session.run(None, {"emg": stretch[None]}), strict=True)}
    assert len(np.unique(wanted["label"])) > 1 or folders.card(model)["head"] == "conv"  # which has learnt nothing
    for way, answer in ways.items():
        assert set(answer) == set(wanted) and answer["label"].dtype == np.int64, way
        np.testing.assert_array_equal(answer["label"], wanted["label"], err_msg=way)
        for name in ("probabilities", "features"):
            np.testing.assert_allclose(answer[name], wanted[name], rtol=1e-5, atol=1e-5, err_msg=f"{way} {name}")


def test_onnx_streams_in_pieces_and_where_it_cannot_window_by_window(model):
    """Pieces bound the memory, so a long stretch takes several; another stride is not in the file."""
    decode, stretch = Exported(model, "onnx"), volts(model, 100).reshape(-1, folders.card(model)["channels"])
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
        for file in (folders.CARD, name):
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
    if folders.card(model)["family"] == "bilstm":
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


def test_unfit_windows_are_refused(model, engines):
    decode = engines["onnx"]
    emg = volts(model, 2)
    for bad, message in ((emg[:0], "shape"), (emg[:, 1:], "shape"), (emg[0], "shape"), (emg * np.nan, "NaN or Inf")):
        with pytest.raises(InputError, match=message):
            decode(bad)
