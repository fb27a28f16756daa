"""What an earlier version wrote is committed, and answers the same today; what ships is whole and is served."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import serving_cases as cases
from google.protobuf import text_format

from tfkfin import recipe as recipes
from tfkfin.base import machine
from tfkfin.base.errors import InputError
from tfkfin.nets import fins
from tfkfin.serving.engines import Exported
from tfkfin.store import folders, presets

STRANGER = """
import sys
sys.modules["tfkfin"] = None
import contextlib, io, json
import numpy as np, tensorflow as tf
from tensorflow.python.framework import kernels
from tensorflow.python.tools import saved_model_cli
golden = sys.argv[1]
known = dict(np.load(golden + "/answers.npz"))
worst, ops = 0.0, set()
def compare(folder, signature, emg, wanted):
    global worst
    loaded = tf.saved_model.load(folder).signatures[signature]
    answer = loaded(emg=tf.constant(emg))
    assert set(answer) == set(wanted), (set(answer), set(wanted))
    worst = max([worst] + [float(np.max(np.abs(answer[k].numpy() - wanted[k]))) for k in wanted])
    graph = loaded.graph.as_graph_def()
    ops.update(node.op for f in graph.library.function for node in f.node_def)
for version in "12":
    for signature, emg in (("serving_default", "emg"), ("stream", "stretch")):
        wanted = {k: known[f"{version}/{signature}/{k}"] for k in ("probabilities", "label", "features")}
        compare(f"{golden}/decoder/{version}", signature, known[emg], wanted)
compare(golden + "/fins/1", "features", known["standardised"], {"features": known["fins"]})
devices = {op: sorted({k.device_type for k in kernels.get_registered_kernels_for_op(op).kernel}) for op in ops}
said = io.StringIO()
sys.argv = ["saved_model_cli", "show", "--dir", golden + "/decoder/1", "--all"]
with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
    saved_model_cli.main()
json.dump({"worst": worst, "devices": devices, "cli": said.getvalue(), "tfkfin": sys.modules["tfkfin"] is not None},
          sys.stdout)
"""


def test_goldens_in_a_stranger_process(tmp_path):
    """No tfkfin; the same answers; stock operations only, with kernels for CPU and GPU; saved_model_cli reads it."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", STRANGER, str(cases.GOLDEN)], capture_output=True, text=True,
                          cwd=tmp_path, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["worst"] < cases.TOLERANCE and not found["tfkfin"]
    assert not [op for op in found["devices"] if "PyFunc" in op or "Cudnn" in op or "Xla" in op]
    for op, devices in found["devices"].items():
        assert "CPU" in devices or "DEFAULT" in devices, op
    if any("GPU" in devices for devices in found["devices"].values()):  # this TensorFlow was built with GPU kernels
        without = [op for op, devices in found["devices"].items() if not {"GPU", "DEFAULT"} & set(devices)]
        assert without == []
    for part in ("signature_def['serving_default']", "signature_def['stream']", "shape: (-1, 60, 4)", "inputs['emg']",
                 "outputs['label']"):
        assert part in found["cli"]


def test_golden_keras_file_answers_the_same():
    known = cases.answers()
    bank = presets.load(cases.GOLDEN / "fins")
    got = np.concatenate([bank(known["standardised"][:, :, c : c + 1]) for c in range(4)], axis=1)
    np.testing.assert_allclose(got, known["fins"], rtol=1e-5, atol=1e-5)
    assert [model.name for model in fins.fins_of(bank)] == ["fin_ent", "fin_rms"]
    assert folders.card(presets.find(cases.GOLDEN / "fins"))["rate_hz"] == 200


def names_in(config) -> list[str]:
    """Models of a models.config, read by the official parser."""
    from tensorflow_serving.config import model_server_config_pb2

    parsed = text_format.Parse(config.read_text(), model_server_config_pb2.ModelServerConfig())
    for model in parsed.model_config_list.config:
        assert model.base_path == f"/models/{model.name}"
    return sorted(model.name for model in parsed.model_config_list.config)


def test_shipped_config_serves_what_is_there():
    folder = recipes.shipped("savedmodels")
    assert names_in(folder / "models.config") == [m.name for m in folders.models(folder)]
    for model in folders.models(folder):
        assert not folders.changed(folders.newest(model))


def test_an_engine_waits_for_no_thread_of_another_process(monkeypatch):
    model = Exported(cases.GOLDEN / "decoder", "savedmodel")
    windows = np.zeros((2, model.length, model.channels), np.float32)
    assert model(windows)["label"].shape == (2,)
    monkeypatch.setattr(machine, "_computes", [1])  # the first of all processes: not this one
    for answer in (lambda: model(windows), lambda: model.stream(windows[0])):
        with pytest.raises(InputError, match="forked from one in which networks have computed"):
            answer()


def test_golden_config_serves_what_is_there():
    assert names_in(cases.GOLDEN / "models.config") == [m.name for m in folders.models(cases.GOLDEN)]


FRESH = """
import os, sys
import keras  # takes seconds, and none of it is tfkfin's
for name in sys.argv[1:]:
    if os.fork() == 0:
        code = 1
        try:
            from tfkfin.nets import fins
            from tfkfin.store import folders, presets
            print(name, [m.name for m in fins.fins_of(presets.load(name))], flush=True)
            code = 0
        finally:
            os._exit(code)
    print(name, "ended with", os.wait()[1], flush=True)
"""
FAMILIES = ("bilstm", "conv", "dense")


@pytest.fixture(scope="module")
def fresh():
    """What one process says whose forks load shipped FINs, each before anything else of the package."""
    return subprocess.run([sys.executable, "-c", FRESH, *FAMILIES], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", FAMILIES)
def test_shipped_fins_load_in_a_process_that_has_loaded_nothing_else(name, fresh):
    assert f"{name} ['fin_ent', 'fin_rms', 'fin_var', 'fin_ssi']\n" in fresh.stdout, fresh.stderr[-500:]
    assert fresh.returncode == 0 and f"{name} ended with 0\n" in fresh.stdout
