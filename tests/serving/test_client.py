"""The client over real sockets, against the stand-in or, with TFKFIN_SERVING_URL, a real tensorflow_model_server.

A real one serves tests/serving/golden:  docker run --rm -p 8500:8500 -p 8501:8501 \
    -v "$PWD/tests/serving/golden:/models" tensorflow/serving --model_config_file=/models/models.config \
    --allow_version_labels_for_unavailable_models
and then:  TFKFIN_SERVING_URL=http://localhost:8501 pytest tests/serving/test_client.py
(gRPC at port 8500 of the same host, or TFKFIN_SERVING_GRPC=grpc://host:port.)
"""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import keras
import numpy as np
import pytest
import requests
import serving_cases as cases
from bad_requests import Storm

from tfkfin.base.errors import InputError
from tfkfin.client import connect, replay
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.nets import fins, heads
from tfkfin.nets.network import network
from tfkfin.recipe import Classifier
from tfkfin.serving import client as clients
from tfkfin.serving import signatures
from tfkfin.serving.client import ServingError, parse_url
from tfkfin.store import folders

REAL = os.environ.get("TFKFIN_SERVING_URL")
needs_standin = pytest.mark.skipif(REAL is not None, reason="a real server makes no faults on demand")


@pytest.fixture(scope="module")
def known():
    return cases.answers()


@pytest.fixture(scope="module")
def voting() -> BaseDecoder:
    """A decoder that votes and rejects."""
    card = {"movements": [1, 2, 5], "length": 60, "channels": 4, "stride": 10, "rate_hz": 200.0,
            "decision": {"vote": 3, "reject": 0.36}, "names": {"1": "fist", "5": "open hand"}}
    keras.utils.set_random_seed(5)
    bank = fins.bank([fins.fin("RMS", 60, "conv", units=3)], 4)
    model = network(bank, heads.new(Classifier(kind="linear"), ("RMS",), 60, 4, 3))
    model.get_layer("standardise").set(np.zeros(4), np.full(4, 1e-5))
    return BaseDecoder(card, model)


@pytest.fixture(scope="module")
def server(tmp_path_factory, voting):
    if REAL:
        rpc = os.environ.get("TFKFIN_SERVING_GRPC", f"grpc://{urlsplit(REAL).hostname}:8500")
        yield {"rest": REAL.rstrip("/"), "grpc": rpc, "pid": None}
        return
    models = tmp_path_factory.mktemp("standin")
    shutil.copytree(cases.GOLDEN, models, dirs_exist_ok=True)
    signatures.save_decoder(signatures.Signatures(voting), models / "voting" / "1")
    folders.add_to_config(models / "voting")
    with cases.standin(models, models / "ready.json") as started:
        yield started


@pytest.fixture(params=["rest", "grpc"])
def url(server, request):
    return server[request.param]


@pytest.mark.parametrize(("choice", "version"), [({"version": 1}, 1), ({}, 2), ({"label": "stable"}, 1),
                                                 ({"label": "canary"}, 2)], ids=str)
def test_versions_and_labels_answer_exactly(url, known, choice, version):
    with connect(url, "decoder", **choice) as client:
        for signature, batch in (("serving_default", known["emg"]), ("stream", known["stretch"])):
            answer = client.predict(batch, signature)
            assert set(answer) == {"probabilities", "label", "features"}
            assert answer["label"].dtype == np.int64 and answer["probabilities"].dtype == np.float32
            for name, value in answer.items():
                wanted = known[f"{version}/{signature}/{name}"]
                np.testing.assert_allclose(value, wanted, rtol=cases.TOLERANCE, atol=cases.TOLERANCE)


def test_features_alone_and_fins_of_any_channels(url, known):
    with connect(f"{url}/v1/models/decoder/versions/1") as client:
        features = client.predict(known["emg"], "features")
        assert list(features) == ["features"]
        np.testing.assert_allclose(features["features"], known["1/serving_default/features"], atol=cases.TOLERANCE)
    with connect(url, "fins") as client:
        for channels in (1, 4):
            got = client.predict(known["standardised"][:, :, :channels])["features"]
            np.testing.assert_allclose(got, known["fins"][:, :channels], atol=cases.TOLERANCE)


def test_metadata_and_status(url):
    with connect(url, "decoder") as client:
        default = client.metadata()["serving_default"]
        assert default["inputs"] == {"emg": ("float", (-1, 60, 4))}
        assert default["outputs"]["label"] == ("int64", (-1,))
        assert set(client.metadata()) == {"serving_default", "features", "stream"}
        assert client.window_length() == 60
        states = {s["version"]: s["state"] for s in client.status()}
        assert states == {1: "AVAILABLE", 2: "AVAILABLE"}
    with connect(url, "decoder", label="canary") as client:
        assert [s["version"] for s in client.status()] == [2]


@pytest.mark.parametrize(("target", "signature", "cut", "code", "message"), [
    ({"model": "no_such"}, "serving_default", 60, "NOT_FOUND", "no_such"),
    ({"model": "decoder", "version": 77}, "serving_default", 60, "NOT_FOUND", "77"),
    ({"model": "decoder"}, "serving_default", 50, "INVALID_ARGUMENT", "not compatible with expected shape"),
    ({"model": "decoder"}, "stream", 50, "INVALID_ARGUMENT", "at least 60 samples"),
    ({"model": "decoder"}, "no_such", 60, None, "no_such"),
])
def test_errors_name_what_is_wrong(url, known, target, signature, cut, code, message):
    with connect(url, **target) as client, pytest.raises(ServingError, match=message) as raised:
        client.predict(known["emg"][:, :cut], signature)
    assert code is None or raised.value.code == code


@pytest.mark.parametrize(("emg", "message"), [
    (np.zeros((60, 4)), "windows"), (np.zeros((0, 60, 4)), "at least one"), (np.full((1, 60, 4), np.nan), "finite")])
def test_unfit_arrays_are_not_sent(url, emg, message):
    with connect(url, "decoder") as client, pytest.raises(ValueError, match=message):
        client.predict(emg)


@pytest.mark.parametrize("signature", ["serving_default", "stream"])
def test_swapped_axes_are_said_and_not_sent(url, known, signature):
    right = known["emg" if signature == "serving_default" else "stretch"]
    with connect(url, "decoder") as client:
        with pytest.raises(ServingError, match=r"turn it with np\.moveaxis\(emg, 1, 2\)"):
            client.predict(np.moveaxis(right, 1, 2), signature)
        with pytest.raises(ServingError, match="not compatible"):
            client.predict(right[:, :, :3], signature)


@needs_standin
def test_retries_while_unavailable(server, url, known):
    with connect(url, "decoder", version=1, backoff_s=0.01) as client:
        requests.post(f"{server['rest']}/standin", json={"fail": 3}, timeout=10)
        np.testing.assert_allclose(client.predict(known["emg"])["probabilities"],
                                   known["1/serving_default/probabilities"], atol=cases.TOLERANCE)
    with connect(url, "decoder", retries=1, backoff_s=0.01) as client:
        requests.post(f"{server['rest']}/standin", json={"fail": 2}, timeout=10)
        with pytest.raises(ServingError, match="UNAVAILABLE"):
            client.predict(known["emg"])


@needs_standin
def test_deadline_covers_the_whole_call(server, url, known):
    requests.post(f"{server['rest']}/standin", json={"delay_s": 1.0}, timeout=10)
    try:
        with connect(url, "decoder", timeout_s=0.2) as client, pytest.raises(ServingError) as raised:
            client.predict(known["emg"])
        assert raised.value.code == "DEADLINE_EXCEEDED"
    finally:
        requests.post(f"{server['rest']}/standin", json={"delay_s": 0}, timeout=10)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_no_server(scheme):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    with connect(f"{scheme}://127.0.0.1:{port}", "decoder", timeout_s=5, retries=2, backoff_s=0.01) as client, \
            pytest.raises(ServingError, match="UNAVAILABLE.*127.0.0.1"):
        client.status()
    assert time.monotonic() - began < 4


def test_grpc_names_the_extra_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.raises(InputError, match=r"tfkfin\[serve\]"):
        clients._stubs.__wrapped__()


@pytest.mark.parametrize(("url", "options", "message"), [
    ("localhost:8501", {}, "http://host:8501"), ("http://localhost:8501", {}, "name the model"),
    ("http://localhost/v1/models/a", {"version": 1, "label": "b"}, "not both")])
def test_bad_addresses(url, options, message):
    with pytest.raises(InputError, match=message):
        parse_url(url, **options)


def test_addresses():
    target = parse_url("https://host/proxy/v1/models/a/versions/3:predict")
    assert (target.address, target.model, target.version) == ("host/proxy", "a", 3)
    assert parse_url("grpc://h:8500/v1/models/a/labels/canary").label == "canary"


def test_command_line_replays_without_tensorflow(server, tiny_db2):
    file = next(tiny_db2.rglob("S1_E1_A1.mat"))
    script = "import sys; sys.modules.update(tensorflow=None, keras=None); from tfkfin import client; " \
             "from tfkfin.base.console import run; run(client.main)"
    done = subprocess.run([sys.executable, "-c", script, "--url", server["rest"], "--model", "decoder", "--data",
                           str(file), "--seconds", "3", "--repetitions", "2"],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("decided") == 30
    assert "repetitions 2: 30 decisions, accuracy" in done.stdout and "p99" in done.stdout
    done = subprocess.run([sys.executable, "-m", "tfkfin.client", "--url", server["rest"], "--model", "no_such"],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("error: NOT_FOUND") and done.stderr.count("\n") == 1


def test_replay_knows_true_labels(url, known):
    emg = np.concatenate(list(known["stretch"]))
    labels = np.repeat([0, 5], len(emg) // 2)
    with connect(url, "decoder", version=1) as client:
        decisions = list(replay(client, emg, labels, rate_hz=200, stride_ms=50))
    assert [d.true for d in decisions[:13]] == [0] * 13 and {d.true for d in decisions[13:19]} == {None}
    assert [d.label for d in decisions[:13]] == known["1/stream/label"][0].tolist()
    assert decisions[0].time_s == pytest.approx(0.3)


def test_bad_requests_between_good_ones(server):
    counts = Storm(server["rest"], server["grpc"], None if REAL else cases.LIMIT).run(bad=300)
    assert counts["good", "OK"] == 300


@pytest.mark.long
@pytest.mark.slow
def test_ten_thousand_bad_requests(server):
    counts = Storm(server["rest"], server["grpc"], None if REAL else cases.LIMIT).run(bad=10_000)
    assert counts["good", "OK"] == 10_000


@pytest.mark.long
@pytest.mark.slow
def test_load_for_a_minute(server):
    result = cases.load(server["rest"], server["grpc"], server["pid"], seconds=60)
    for kind in ("REST", "gRPC"):
        assert result[kind]["errors"] == result[kind]["wrong"] == 0
    memory = result["memory_mb"]
    assert not memory or max(memory[-10:]) < 1.05 * max(memory[10:20])


def test_polling_server_never_sees_half_a_model(tmp_path, known):
    models = tmp_path / "models"
    shutil.copytree(cases.GOLDEN / "decoder" / "1", models / "decoder" / "1")
    folders.add_to_config(models / "decoder")
    with cases.standin(models, tmp_path / "ready.json") as started:
        with connect(started["rest"], "decoder") as client, folders.new_version(models / "decoder") as (folder, number):
            assert number == 2
            for file in sorted((cases.GOLDEN / "decoder" / "2").rglob("*")):
                (folder / file.relative_to(cases.GOLDEN / "decoder" / "2")).parent.mkdir(exist_ok=True, parents=True)
                if file.is_file():
                    shutil.copy(file, folder / file.relative_to(cases.GOLDEN / "decoder" / "2"))
                    time.sleep(0.1)
                    assert [s["version"] for s in client.status()] == [1]
        with connect(started["rest"], "decoder", version=2, timeout_s=30) as client:
            end = time.monotonic() + 30
            while [s["version"] for s in _status(client)] != [2] and time.monotonic() < end:
                time.sleep(0.1)
            np.testing.assert_allclose(client.predict(known["emg"])["probabilities"],
                                       known["2/serving_default/probabilities"], atol=cases.TOLERANCE)
        assert started["process"].poll() is None


def _status(client):
    try:
        return client.status()
    except ServingError:
        return []


def test_client_from_several_threads(url, known):
    wrong = []
    with connect(url, "decoder", version=1) as client:
        def work(i):
            got = client.predict(known["emg"][i : i + 1])["features"]
            wrong.append(np.abs(got - known["1/serving_default/features"][i : i + 1]).max() > cases.TOLERANCE)
        threads = [threading.Thread(target=work, args=(i % 6,)) for i in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == [False] * 24


@needs_standin
def test_a_replay_decides_as_the_decoders_own_stream(voting, url):
    emg = (1e-5 * np.random.default_rng(2).standard_normal((400, 4))).astype(np.float32)
    wanted = voting.stream(emg)
    assert -1 in wanted["label"] and len(set(wanted["label"])) > 2
    with connect(url, "voting") as client:
        answered = list(replay(client, emg, np.zeros(len(emg), int), 200.0, stride_ms=50))
        called = {1: "fist", 2: "2", 5: "open hand", -1: ""}  # as the model says; a rejection is none
        assert [answer.name for answer in answered] == [called[answer.label] for answer in answered]
        assert voting.named(np.array([[1, -1], [2, 5]])).tolist() == [["fist", "rejected"], ["2", "open hand"]]
        assert [one.label for one in answered] == wanted["label"].tolist()
        np.testing.assert_allclose([one.probability for one in answered], wanted["probabilities"].max(1), atol=1e-5)
        with pytest.raises(InputError, match="expects 200 Hz, the recording has 100 Hz"):
            list(replay(client, emg, np.zeros(len(emg), int), 100.0))
