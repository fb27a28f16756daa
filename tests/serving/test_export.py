"""Export: the SavedModel answers as the run does, alone, from raw volts; ONNX the same; folders and cards."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partialmethod
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import scipy.io
import tensorflow as tf
from google.protobuf import text_format

from tfkfin import evaluate
from tfkfin import recipe as recipes
from tfkfin.base.errors import InputError
from tfkfin.base.files import shipped
from tfkfin.export import PRECISIONS, export
from tfkfin.fit.run import open_run
from tfkfin.fit.stages import run_stage
from tfkfin.serving import version
from tfkfin.serving.engines import Exported
from tfkfin.store import card as cards
from tfkfin.store import folders, presets

TINY = {"window.length_ms": 30, "window.stride_ms": 25, "fin.units": 3, "fin.layers": 1, "fin.pretrained": "",
        "imitate.windows_per_epoch": 32, "imitate.validation_windows": 16, "imitate.test_windows": 16,
        "classify.epochs": 1, "finetune.epochs": 1, "finetune.windows_per_epoch": 32, "features.names": "ENT,RMS"}


@pytest.fixture(scope="module")
def run(tiny_db2, tmp_path_factory):
    """A finished run of two subjects."""
    recipe = recipes.load(None, TINY | {"source.kind": "recordings", "source.data": str(tiny_db2)})
    opened = open_run(recipe, tmp_path_factory.mktemp("runs") / "tiny")
    run_stage(opened, "finetune")
    return opened


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """A version folder with SavedModel and ONNX, of subject 2."""
    return export(run.folder, 2, tmp_path_factory.mktemp("models") / "tiny_s2", "both")


@pytest.fixture(scope="module")
def fins(tmp_path_factory):
    """An exported run of the stage `imitate` alone, and its model folder's version."""
    recipe = recipes.load(None, TINY | {"source.kind": "signals", "fin.family": "conv"})
    opened = open_run(recipe, tmp_path_factory.mktemp("runs") / "fins")
    run_stage(opened, "imitate")
    return export(opened.folder, None, tmp_path_factory.mktemp("models") / "fin_tiny", "both")


def volts(run, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Windows of subject 2: raw (N, L, C) in volts, and standardised as the run trains on them."""
    subject = run.dataset.load(2)
    windows = subject.cut(run.length, np.arange(count) * 3)
    return (windows * subject.sd + subject.mean).astype(np.float32), windows


def onnx_answers(path: Path, emg: np.ndarray) -> dict[str, np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, {"emg": emg}), strict=True))


def test_savedmodel_answers_as_the_run(run, exported):

    raw, _ = volts(run)
    model = run.decoder(2).model
    wanted = {name: value.numpy() for name, value in model(raw, training=False).items()}
    serve = tf.saved_model.load(str(exported)).signatures
    assert set(serve) == {"serving_default", "features", "stream", "about"}
    told = serve["about"](emg=tf.zeros(1))
    assert (float(told["rate_hz"]), int(told["vote"]), told["movements"].numpy().tolist()) == (2000.0, 1, [1, 2, 3])
    answer = serve["serving_default"](emg=tf.constant(raw))
    np.testing.assert_allclose(answer["probabilities"], wanted["probabilities"], atol=1e-5)
    np.testing.assert_allclose(answer["features"], wanted["features"], rtol=1e-4, atol=1e-4)
    movements = np.array(run.dataset.movements)[wanted["probabilities"].argmax(-1)]
    np.testing.assert_array_equal(answer["label"], movements)
    assert answer["label"].dtype == tf.int64
    alone = serve["features"](emg=tf.constant(raw))
    np.testing.assert_array_equal(alone["features"], answer["features"])


def test_stream_answers_as_its_windows(run, exported):
    serve = tf.saved_model.load(str(exported)).signatures
    stride, length = run.dataset.stride, run.length
    raw = volts(run, 120)[0].reshape(2, -1, 4)[:, : length + 70 * stride + 7]  # more windows than a block
    answer = serve["stream"](emg=tf.constant(raw))
    assert answer["probabilities"].shape == (2, 71, 3)
    for w in (0, 1, 40, 70):
        window = raw[:, w * stride : w * stride + length]
        for name, value in serve["serving_default"](emg=tf.constant(window)).items():
            np.testing.assert_allclose(answer[name][:, w], value, rtol=1e-5, atol=1e-6)


def test_onnx_answers_as_the_savedmodel(run, exported):
    raw, _ = volts(run)
    serve = tf.saved_model.load(str(exported)).signatures["serving_default"]
    wanted = serve(emg=tf.constant(raw))
    got = onnx_answers(exported / "model.onnx", raw)
    assert set(got) == set(wanted)
    for name, value in wanted.items():
        assert got[name].dtype == value.numpy().dtype
        np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_smaller_file_answers_nearly_the_same(run, exported, tmp_path, precision):
    """Labels differ only where float32 itself is undecided; the card says what the file is."""
    version = export(run.folder, 2, tmp_path / "small", "onnx", precision)
    emg, _ = volts(run)
    exact, small = (Exported(v, "onnx")(emg) for v in (exported, version))
    apart = np.abs(exact["probabilities"] - small["probabilities"])
    assert apart.max() <= {"float32": 0, "float16": 5e-3, "int8": 0.1}[precision]
    clear = np.ptp(np.sort(exact["probabilities"], axis=1)[:, -2:], axis=1) > 2 * apart.max()
    np.testing.assert_array_equal(exact["label"][clear], small["label"][clear])
    np.testing.assert_allclose(small["features"], exact["features"], rtol=5e-3, atol=1e-2)
    assert folders.card(version)["precision"] == precision
    types = {w.data_type for w in onnx.load(version / folders.ONNX).graph.initializer}
    kind = {"float16": onnx.TensorProto.FLOAT16, "int8": onnx.TensorProto.INT8}.get(precision)
    assert (kind in types) if kind else types <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64,
                                                  onnx.TensorProto.INT32}
    stretch = run.dataset.load(2).emg[: 20 * run.dataset.stride + run.length]
    assert len(Exported(version, "onnx").stream(stretch)["label"]) == 21
    assert (version / folders.ONNX_STREAM).exists() == (precision == "float32")
    assert ("stream.onnx" in (version / "README.md").read_text()) == (precision == "float32")


def test_what_litert_cannot_is_said(run, tmp_path):
    for precision, message in (("float16", "unless the format is onnx"), ("float32", "without recurrence")):
        with pytest.raises(InputError, match=message):
            export(run.folder, 2, tmp_path / "small", "litert", precision)
    assert not (tmp_path / "small").exists()


def test_fins_take_any_channels_and_start_recipes(fins):
    serve = tf.saved_model.load(str(fins)).signatures
    assert set(serve) == {"serving_default", "features"}
    bank = presets.load(fins.parent)
    length = bank.input_shape[1]
    emg = np.random.default_rng(0).standard_normal((3, length, 7)).astype(np.float32)
    features = serve["serving_default"](emg=tf.constant(emg))["features"].numpy()
    assert features.shape == (3, 7, 2)
    for c in (0, 6):
        np.testing.assert_allclose(bank(emg[:, :, c : c + 1])[:, 0], features[:, c], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(onnx_answers(fins / "model.onnx", emg)["features"], features, rtol=1e-5, atol=1e-5)
    options = recipes.load(None, TINY | {"fin.family": "conv", "fin.pretrained": str(fins.parent)}).fin
    started = presets.new_bank(options, ("RMS",), length, 7)
    np.testing.assert_allclose(started(emg)[..., 0], features[..., 1], rtol=1e-5, atol=1e-5)


def test_card_and_readme_tell_what_it_is(run, exported, fins):
    card = folders.card(exported)
    assert (card["name"], card["version"], card["subject"], card["kind"]) == ("tiny_s2", 1, 2, "decoder")
    assert card["movements"] == [1, 2, 3] and card["features"] == ["ENT", "RMS"] and card["rate_hz"] == 2000
    assert card["recipe_digest"] == run.recipe.digest and card["licence"] == "Apache-2.0"
    assert card["scores"]["accuracy"] == run.done("finetune", "S2")["accuracy"]
    assert recipes.Recipe.model_validate(card["recipe"]).digest == run.recipe.digest
    subject = run.dataset.load(2)
    np.testing.assert_allclose(card["mean_v"], subject.mean)
    np.testing.assert_allclose(card["sd_v"], subject.sd)
    text = (exported / "README.md").read_text()
    for part in ("synthetic", "honest", card["recipe_digest"], "## Limits", "knows no rest", f"{card['parameters']:,}"):
        assert part in text
    assert folders.card(fins)["dataset"] is None and "no recording" in (fins / "README.md").read_text()


def test_warmup_requests_are_official_messages(exported):
    from tensorflow_serving.apis import prediction_log_pb2

    records = list(tf.data.TFRecordDataset(str(exported / version.WARMUP)).as_numpy_iterator())
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    requests = [log.predict_log.request for log in logs]
    assert [r.model_spec.signature_name for r in requests] == ["serving_default", "features", "stream"]
    assert {r.model_spec.name for r in requests} == {"tiny_s2"}
    assert tf.make_ndarray(requests[0].inputs["emg"]).shape == (1, 60, 4)


def test_versions_only_grow(run, exported):
    before = folders.checksums(exported)
    second = export(run.folder, 2, exported.parent)
    assert second.name == "2" and folders.card(second)["version"] == 2
    shutil.rmtree(second)
    assert folders.next_version(exported.parent) == 3
    assert folders.checksums(exported) == before and not folders.changed(exported)
    assert sorted(p.name for p in exported.parent.iterdir()) == [".last_version", "1"]


def test_a_failed_export_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), folders.new_version(tmp_path / "m") as (folder, number):
        (folder / "saved_model.pb").write_text("half")
        assert number == 1 and folders.versions(tmp_path / "m") == []
        assert folders.next_version(tmp_path / "m") == 2  # a second export meanwhile takes the next number
        raise RuntimeError
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("gone", ["", "m"])
def test_a_model_that_is_removed_while_it_is_written_becomes_no_version(gone, tmp_path):
    """What writes on makes the folder anew, without what was there before."""
    model = tmp_path / "models" / "m"
    with pytest.raises(InputError, match="was removed while"), folders.new_version(model) as (folder, _):
        (folder / "saved_model.pb").write_text("whole")
        shutil.rmtree(tmp_path / "models" / gone)
        cards.write(folder, folders.card(shipped("savedmodels") / "fin_dense" / "1"))
    assert not model.exists()


def test_models_config_names_each_model_once(exported, fins, tmp_path):
    from tensorflow_serving.config import model_server_config_pb2

    for name in ("a", "b", "a"):
        folders.add_to_config(tmp_path / name)
    parsed = text_format.Parse((tmp_path / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    assert [c.name for c in parsed.model_config_list.config] == ["a", "b"]
    assert {c.base_path for c in parsed.model_config_list.config} == {"/models/a", "/models/b"}
    assert "tiny_s2" in (exported.parents[1] / "models.config").read_text()
    texts = [path.read_text(encoding="utf-8") for path in (Path("README.md"), Path("savedmodels", "README.md"))]
    named = {name for text in texts for name in re.findall(r"--\w+_config_file=/models/(\S+)", text)}
    assert named == {"models.config", "monitoring.config"}  # what docker run names
    for folder in (tmp_path, exported.parents[1]):
        assert named <= {path.name for path in folder.iterdir()}
    (tmp_path / "monitoring.config").write_text("mine")
    folders.add_to_config(tmp_path / "c")
    assert (tmp_path / "monitoring.config").read_text() == "mine"


@pytest.mark.parametrize(("arguments", "message"), [
    ({"run_folder": "no_such"}, "no run folder"), ({"subject": 9}, "subject 9: it has 1, 2"),
    ({"format": "pickle"}, "savedmodel"), ({"precision": "int8"}, "unless the format is onnx"),
    ({"format": "onnx", "precision": "int4"}, "float16")])
def test_unfit_exports_are_refused(run, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        export(**({"run_folder": run.folder, "to": tmp_path / "m"} | arguments))
    assert not (tmp_path / "m").exists()


def test_exporting_needs_neither_recordings_nor_the_stages(run, tmp_path):
    """What a run folder holds is enough, wherever it lies; nothing of training is imported."""
    folder = tmp_path / "elsewhere"
    for name in ("recipe.toml", "results.json", "imitate/stage.json", "imitate/fins.keras", "imitate/model_card.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(run.folder / name, folder / name)
    code = f"import sys; from tfkfin.export import export; export({str(folder)!r}, None, {str(tmp_path / 'm')!r}); " \
           "print(sorted(m for m in sys.modules if m.startswith(('tfkfin.fit', 'tfkfin.pipeline'))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    light = "['tfkfin.fit', 'tfkfin.fit.run_folder']\n"
    assert done.returncode == 0 and done.stdout == light, done.stdout + done.stderr[-2000:]
    card = folders.card(tmp_path / "m" / "1")
    assert (card["kind"], card["run"], card["recipe_digest"]) == ("fins", "elsewhere", run.recipe.digest)
    assert card["scores"]["fin"] == run.done("imitate")["fin"] and "training repetitions" in card["scores"]["protocol"]
    weights = [presets.load(tmp_path / "m").get_weights(), keras.saving.load_model(
        run.folder / "imitate" / "fins.keras").get_weights()]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_fins_are_kept_in_float32_whatever_they_are_trained_in(run):
    from tfkfin.fit.stages import imitate
    from tfkfin.nets.fins import fins_of

    keras.config.set_dtype_policy("mixed_float16")
    try:
        bank = presets.new_bank(run.recipe.fin, run.recipe.features.names, run.length, 4)
        kept = imitate.on_one_channel(run, bank)
        assert keras.config.dtype_policy().name == "mixed_float16"
    finally:
        keras.config.set_dtype_policy("float32")
    dtypes = [{layer.compute_dtype for model in fins_of(one) for layer in model.layers} for one in (bank, kept)]
    assert "float16" in dtypes[0] and dtypes[1] == {"float32"}
    for one, other in zip(bank.get_weights(), kept.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("stage", "subject"), [("imitate", None), ("finetune", 1)])
def test_runs_of_an_older_version_say_what_to_do(run, tmp_path, stage, subject):
    folder = tmp_path / "old"
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("*.keras", "tensorboard", "checkpoints"))
    for card in folder.rglob(folders.CARD):
        card.write_text('{"kind": "decoder"}')
    if subject is None:
        shutil.rmtree(folder / "finetune")
    with pytest.raises(InputError, match=f"made by an older tfkfin: remove .*{stage}.* once more"):
        export(folder, subject, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def in_movements(path: Path, stride: int) -> tuple[np.ndarray, ...]:
    """Windows of 60 samples inside one movement, (N, 60, C) volts, with (N,) label and repetition, read by hand."""
    file = scipy.io.loadmat(path)
    labels, repetitions = file["restimulus"][:, 0].astype(int), file["rerepetition"][:, 0]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], labels, [0]])))
    starts = [s for a, b in zip(edges, edges[1:], strict=False) if labels[a] for s in range(a, b - 59, stride)]
    return np.stack([file["emg"][s : s + 60] for s in starts]), labels[starts], repetitions[starts]


def test_evaluate_scores_an_export_on_whole_recordings(exported, fins, tiny_db2, tmp_path, capsys):
    arguments = [str(exported), "--data", str(tiny_db2), "--repetitions", "2", "--stride-ms", "150"]
    evaluate.main([*arguments, "--json", str(tmp_path / "a" / "scores.json")])
    scores = json.loads((tmp_path / "a" / "scores.json").read_text())
    serve = tf.saved_model.load(str(exported)).signatures["serving_default"]
    paths = sorted(tiny_db2.rglob("*.mat"))
    for number, path in enumerate(paths, 1):
        emg, labels, repetitions = in_movements(path, 300)
        decided = serve(emg=tf.constant(emg[repetitions == 2], tf.float32))["label"].numpy()
        assert scores["accuracy"]["per_subject"][str(number)] == np.mean(decided == labels[repetitions == 2])
    assert scores["synthetic"] and scores["trained_on"] == [] and "No person was recorded" in capsys.readouterr().out
    assert (tmp_path / "a" / "scores_confusion.png").stat().st_size > 1000
    evaluate.main([*arguments[:3], "--repetitions", "1,2", "--subjects", "2", "--plots", str(tmp_path / "b")])
    assert "learnt from repetitions 1:" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["1_confusion.png"]
    evaluate.main(["--fin", str(fins), "--data", str(tiny_db2), "--windows", "20", "--json", str(tmp_path / "f.json")])
    scores = json.loads((tmp_path / "f.json").read_text())
    assert scores["windows"] == 20 * 4 and scores["synthetic"] and set(scores["subjects"]) == {"1", "2"}
    windows, file = in_movements(paths[0], 100)[0], scipy.io.loadmat(paths[0])
    moving = file["emg"][file["restimulus"][:, 0] > 0].astype(float)
    emg = (windows[np.linspace(0, len(windows) - 1, 10).astype(int)] - moving.mean(0)) / moving.std(0)
    imitated = tf.saved_model.load(str(fins)).signatures["features"](emg=tf.constant(emg, tf.float32))["features"]
    rms = np.sqrt((emg**2).mean(1))
    r2 = 1 - ((imitated[..., 1] - rms) ** 2).numpy().sum() / ((rms - rms.mean()) ** 2).sum()
    assert scores["subjects"]["1"]["RMS"] == pytest.approx(r2, rel=1e-5)


@pytest.mark.parametrize(("arguments", "message"), [
    (["runs/nope"], "runs/nope is not there"), (["--fin", "nope", "--data", "."], "no model in nope"),
    ([], "give either"), (["RUN", "--fin", "conv"], "give either"), (["MODEL"], "--data DIR"),
    (["MODEL", "--data", "DATA", "--repetitions", "9"], "no window of repetitions 9"),
    (["RUN", "--subjects", "1-3"], "knows subjects 1, 2, not 3"), (["FINS"], "fine-tuned nobody")])
def test_what_cannot_be_scored_is_named(run, exported, tiny_db2, tmp_path, arguments, message):
    (tmp_path / "recipe.toml").write_bytes((run.folder / "recipe.toml").read_bytes())
    given = {"RUN": run.folder, "MODEL": exported, "DATA": tiny_db2, "FINS": tmp_path}
    with pytest.raises(InputError, match=message):
        evaluate.main([str(given.get(argument, argument)) for argument in arguments])


def test_models_are_found_by_path_or_name(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(exported.parent, tmp_path / "savedmodels" / "mine")
    shutil.copytree(exported.parent, tmp_path / "savedmodels" / "fin_conv")
    assert presets.find("mine") == presets.find("savedmodels/mine/1") == Path("savedmodels/mine/1")
    for name in ("conv", "fin_conv"):  # what ships is not shadowed, so that recipes start from the same anywhere
        assert presets.find(name) == presets.shipped("savedmodels") / "fin_conv" / "2"
    (tmp_path / "savedmodels" / "mine" / "10").mkdir()
    assert presets.find("mine").name == "1"  # nothing is in 10 yet
    (tmp_path / "savedmodels" / "mine" / "10" / folders.ONNX).touch()
    assert presets.find("mine").name == "10"
    with pytest.raises(InputError, match="no model in yours.*fin_bilstm, fin_conv"):
        presets.find("yours")


def test_onnx_alone_stays_out_of_served_folders(run, exported):
    with pytest.raises(InputError, match="--format both"):
        export(run.folder, 2, exported.parent, "onnx")


WITHOUT_TENSORFLOW = """
import sys
sys.modules.update(tensorflow=None, keras=None, tfkfin=None)
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
known = dict(np.load(sys.argv[2]))
got = session.run(None, {"emg": known.pop("emg")})
for output, value in zip(session.get_outputs(), got):
    np.testing.assert_allclose(value, known[output.name], rtol=1e-5, atol=1e-5)
print("equal")
"""


@pytest.mark.parametrize("environment", ["blocked", pytest.param("new", marks=pytest.mark.slow)])
def test_onnx_runs_without_tensorflow(run, exported, tmp_path, environment):
    """`blocked`: imports of TensorFlow fail; `new`: an environment that has onnxruntime alone."""
    raw, _ = volts(run)
    serve = tf.saved_model.load(str(exported)).signatures["serving_default"]
    np.savez(tmp_path / "known.npz", emg=raw, **{k: v.numpy() for k, v in serve(emg=tf.constant(raw)).items()})
    python = sys.executable
    if environment == "new":
        subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
        python = str(tmp_path / "venv" / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "-q", "onnxruntime", "numpy"], check=True, timeout=600)
        lacking = subprocess.run([python, "-c", "import tensorflow"], capture_output=True)
        assert lacking.returncode == 1
    done = subprocess.run([python, "-c", WITHOUT_TENSORFLOW, str(exported / "model.onnx"), str(tmp_path / "known.npz")],
                          capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.stdout == "equal\n", done.stderr[-2000:]


def command(*arguments, **options):
    return subprocess.run([sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True, timeout=120,
                          **options)


def test_command_line_exports_below_the_current_folder(run, tmp_path):
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    done = command("tfkfin.export", run.folder, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert "subject 1 of 1, 2 (choose with --subject)" in done.stderr
    assert done.stderr.splitlines()[-1] == "savedmodels/tiny_s1/1"
    assert (tmp_path / "savedmodels" / "tiny_s1" / "1" / "saved_model.pb").is_file()
    listed = command("tfkfin.models", "list", "savedmodels", cwd=tmp_path, env=environment)
    assert listed.returncode == 0 and "tiny_s1" in listed.stdout
    shown = command("tfkfin.models", "show", "tiny_s1", cwd=tmp_path, env=environment)
    assert shown.returncode == 0 and "every file is as it was exported" in shown.stdout.replace("\n", " ")
    with (tmp_path / "savedmodels" / "tiny_s1" / "1" / "saved_model.pb").open("ab") as file:
        file.write(b"x")
    shown = command("tfkfin.models", "show", "tiny_s1", cwd=tmp_path, env=environment)
    assert shown.returncode == 2 and "not as it was exported: saved_model.pb" in shown.stderr


@pytest.mark.parametrize("module", ["export", "client", "models"])
def test_help_is_quick_and_loads_no_tensorflow(module):
    script = f"import sys, runpy; sys.argv = ['x', '--help']; sys.modules.update(tensorflow=None, keras=None); " \
             f"runpy.run_module('tfkfin.{module}', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "examples:" in done.stdout


def test_bad_run_is_one_line(tmp_path):
    done = command("tfkfin.export", tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_onnx_names_the_extra_that_is_missing(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(InputError, match=r"tfkfin\[edge\]"):
        export(run.folder, 1, tmp_path / "m", "onnx")
    assert not (tmp_path / "m").exists()


def test_what_onnx_lacks_is_refused(tmp_path):
    from tfkfin.serving.version import save_onnx

    with pytest.raises(InputError, match="cannot be converted to ONNX.*Igamma"):
        save_onnx(lambda x: {"y": tf.math.igamma(x, x)}, tf.TensorSpec((None,), tf.float32, name="x"),
                  tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_cudnn_stays_out_whatever_the_machine():
    from tfkfin.nets import fins as fin
    from tfkfin.serving import signatures

    bank = fin.bank([fin.fin("RMS", 20, units=2, num_layers=2)], 3)
    signatures.stock(bank)
    halves = fin.fins_of(bank)[0].get_layer("bilstm").stack
    assert len(halves) == 4 and all(half.use_cudnn is False for half in halves)


def test_each_graph_is_traced_once_and_what_trains_is_there(run, tmp_path, monkeypatch):
    """Tracing takes most of the time that an export takes."""
    from tfkfin.serving.signatures import Signatures, save_decoder

    def counted(made, traced, real, emg):
        traced.append(real.__name__)
        return real(made, emg)

    names, traced = ("serve", "features", "stream", "about"), []
    for name in names:
        monkeypatch.setattr(Signatures, name, partialmethod(counted, traced, getattr(Signatures, name)))
    decoder = run.decoder(2)
    save_decoder(Signatures(decoder), tmp_path / "m")
    assert sorted(traced) == sorted(names)
    loaded = tf.saved_model.load(str(tmp_path / "m"))
    for name in ("variables", "trainable_variables", "non_trainable_variables"):
        held, wanted = getattr(loaded, name), getattr(decoder.model, name)
        assert len(held) == len(wanted) and all(np.array_equal(a, b) for a, b in zip(held, wanted, strict=True))
    emg = np.random.default_rng(0).normal(0, 1e-5, (3, decoder.length, decoder.channels)).astype(np.float32)
    wanted = decoder.model(emg, training=False)["probabilities"]
    for answer in (loaded.serving_default(tf.constant(emg)), loaded.signatures["serving_default"](emg=emg)):
        np.testing.assert_allclose(answer["probabilities"], wanted, atol=1e-5)
