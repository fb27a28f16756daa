"""Servers that lie, stall or send us elsewhere, models that were changed, names that are no names."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures
from contextlib import contextmanager

import numpy as np
import pytest

from tfkfin.base.errors import InputError
from tfkfin.base.files import shipped
from tfkfin.client import connect, replay
from tfkfin.serving.client import ServingError, parse_url
from tfkfin.store import folders, presets

WINDOWS = np.zeros((1, 8, 2), np.float32)
METADATA = {"metadata": {"signature_def": {"signature_def": {
    "serving_default": {
        "inputs": {"emg": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": s} for s in ("-1", "8", "2")]}}},
        "outputs": {"probabilities": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "2"}]}},
                    "label": {"dtype": "DT_INT64", "tensor_shape": {"dim": [{"size": "-1"}]}}}},
    "about": {"inputs": {"emg": {"dtype": "DT_FLOAT", "tensor_shape": {}}},
              "outputs": {name: {"dtype": kind, "tensor_shape": {}} for name, kind in (
                  ("rate_hz", "DT_FLOAT"), ("length", "DT_INT64"), ("stride", "DT_INT64"), ("vote", "DT_INT64"),
                  ("reject", "DT_FLOAT"), ("movements", "DT_INT64"), ("filter", "DT_DOUBLE"),
                  ("names", "DT_STRING"))}}}}}}
GOOD = {"outputs": {"probabilities": [[0.25, 0.75]], "label": [2]}}
ABOUT = {"rate_hz": 200.0, "length": 8, "stride": 4, "vote": 1, "reject": 0.0, "movements": [1, 2]}


def message(content, status: str = "200 OK", *headers: str) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(text)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + text


@contextmanager
def server(answer):
    """A server whose `answer(request line, link)` says or does anything; yields its URL and the requests."""
    listening, seen, closing = socket.create_server(("127.0.0.1", 0)), [], threading.Event()

    def serve(link):
        with link:
            link.settimeout(10)
            request = b""
            try:
                while b"\r\n\r\n" not in request:
                    request += link.recv(1 << 16) or b"\r\n\r\n"
                head, _, rest = request.partition(b"\r\n\r\n")
                length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if b"ontent-Length" in line), 0)
                while len(rest) < length:
                    rest += link.recv(1 << 16)
                seen.append((head.split(b"\r\n")[0].decode(), rest))
                answer(seen[-1][0], link, closing)
            except OSError:
                pass

    def accept():
        while True:
            try:
                link, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(link,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", seen
    finally:
        closing.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def says(predicted, metadata=METADATA, status="200 OK", *headers):
    def answer(line, link, closing):
        what = metadata if line.startswith("GET") else predicted
        what = what(line) if callable(what) else what
        link.sendall(what if isinstance(what, bytes) and what[:5] == b"HTTP/" else
                     message(what, "200 OK" if line.startswith("GET") else status, *headers))
    return answer


def with_(**changed) -> dict:
    return {"outputs": {name: value for name, value in (GOOD["outputs"] | changed).items() if value is not None}}


REPLIES = {
    "NaN": with_(probabilities=[[float("nan"), 1.0]]), "above one": with_(probabilities=[[0.5, 2.0]]),
    "below zero": with_(probabilities=[[-0.5, 1.5]]), "infinite": b'{"outputs": {"probabilities": [[1e999, 0]]}}',
    "label 2.7": with_(label=[2.7]), "label of text": with_(label=["2"]), "label of many digits": with_(label=[10**30]),
    "label null": with_(label=[None]), "two for one": with_(probabilities=[[0.5, 0.5]] * 2, label=[1, 2]),
    "labels for none": with_(label=[]), "label per probability": with_(label=[[1, 2]]),
    "another number of movements": with_(probabilities=[[1.0]]), "an output is missing": with_(label=None),
    "ragged": with_(probabilities=[[0.5], [0.5, 0.5]]), "scalar": with_(probabilities=0.5),
    "text": with_(probabilities=[["0.5", "0.5"]]), "true": with_(label=[True]), "unknown output": with_(extra=[[1.0]]),
    "a list": [1, 2], "text alone": '"outputs"', "null": "null", "number": "7", "nothing": {}, "outputs null":
    {"outputs": None}, "outputs number": {"outputs": 3}, "outputs text": {"outputs": "0.5"}, "no JSON": b"<html>",
    "no text": b"\xff\xfe\x00", "cut": b'{"outputs": {"prob', "deep": b"[" * 200_000, "deep table": b'{"a":' * 100_000,
    "many digits": b'{"outputs": ' + b"1" * 6000 + b"}", "error of a kind": {"error": {"a": [1]}}, "empty": b"",
}


@pytest.mark.parametrize("kind", REPLIES)
def test_a_malformed_answer_is_one_clear_error(kind):
    content = REPLIES[kind]
    content = content.encode() if isinstance(content, str) else content
    with server(says(content)) as (url, _), connect(url, "m", timeout_s=5) as client:
        with pytest.raises(ServingError) as told:
            client.predict(WINDOWS)
    assert told.value.code in ("INTERNAL", "INVALID_ARGUMENT") and "m at http" in str(told.value)
    assert len(str(told.value)) < 1000 and "\n" not in str(told.value)


def test_a_good_answer_is_taken():
    with server(says(GOOD)) as (url, _), connect(url, "m", timeout_s=5) as client:
        answer = client.predict(WINDOWS)
    assert answer["label"].tolist() == [2] and answer["label"].dtype == np.int64
    assert answer["probabilities"].dtype == np.float32


METAS = [[], {}, {"metadata": 3}, {"metadata": {"signature_def": []}}, b"{", METADATA | {"metadata": {"signature_def": {
    "signature_def": {"serving_default": 7}}}}, {"metadata": {"signature_def": {"signature_def": {"serving_default": {
        "inputs": {"emg": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "many"}]}}}}}}}},
    {"metadata": {"signature_def": {"signature_def": {"serving_default": {"inputs": {"emg": {
        "dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "9999999999"}, {"size": "2"}]}}}}}}}}]


@pytest.mark.parametrize("metadata", METAS, ids=range(len(METAS)))
def test_malformed_metadata_and_status_are_errors(metadata):
    with server(says(GOOD, metadata)) as (url, _), connect(url, "m", timeout_s=5) as client:
        with pytest.raises(InputError):
            client.window_length()
        with pytest.raises(InputError):
            client.status()


@pytest.mark.parametrize("changed", [{"rate_hz": float("nan")}, {"rate_hz": 1e300}, {"vote": 0}, {"vote": 10**9},
                                     {"reject": -1}, {"reject": 1.0},
                                     {"movements": []}, {"movements": [1, 1]}, {"movements": [[1, 2]]},
                                     {"movements": [1.5, 2]}, {"length": 0}, {"vote": [1, 2]},
                                     {"movements": [1, 2, 3]}, {"filter": [[1.0] * 5]}, {"filter": [1.0] * 6},
                                     {"filter": [[1.0] * 5 + [float("inf")]]}, {"filter": [[1.0] * 6] * 2000},
                                     {"filter": [[1.0, 0.0, 0.0, 1.0, -3.0, 0.0]], "stride": 1}, {"names": ["a"]},
                                     {"names": ["a", "b", "c"]}])
def test_what_a_model_says_of_itself_is_checked(changed):
    asked = iter([{"outputs": ABOUT | changed}, *[GOOD] * 9])
    with server(says(lambda line: next(asked))) as (url, _), connect(url, "m", timeout_s=5) as client:
        with pytest.raises(InputError):
            list(replay(client, np.ones((300, 2)), np.zeros(300), 200.0))


def trickle(line, link, closing):
    link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while not closing.wait(0.1):
        link.sendall(b" ")


def trickled_head(line, link, closing):
    link.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while not closing.wait(0.1):
        link.sendall(b"x")


@pytest.mark.parametrize("answer", [trickle, trickled_head, lambda line, link, closing: closing.wait(20)])
def test_the_deadline_is_of_the_whole_call(answer):
    with server(answer) as (url, _), connect(url, "m", timeout_s=0.5) as client:
        began = time.monotonic()
        with pytest.raises(ServingError, match="DEADLINE_EXCEEDED.*within 0.5 s"):
            client.predict(WINDOWS)
        assert time.monotonic() - began < 2


def endless(line, link, closing):
    link.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        link.sendall(b"100000\r\n" + b" " * (1 << 20) + b"\r\n")


def zipped(line, link, closing):
    import gzip

    link.sendall(message(gzip.compress(bytes(1 << 24)), "200 OK", "Content-Encoding: gzip"))


@pytest.mark.parametrize("answer", [endless, zipped])
def test_endless_and_packed_bodies_are_not_taken(answer):
    with server(answer) as (url, _), connect(url, "m", timeout_s=30) as client:
        with pytest.raises(ServingError, match="RESOURCE_EXHAUSTED"):
            client.predict(WINDOWS)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
def test_recordings_go_to_the_host_named_and_to_no_other(status):
    with server(says(GOOD)) as (other, taken):
        elsewhere = f"Location: {other}/v1/models/m:predict"
        with server(says({}, METADATA, status, elsewhere)) as (url, _), connect(url, "m", timeout_s=5) as client:
            with pytest.raises(ServingError, match=f"redirects to .{other}"):
                client.predict(WINDOWS)
        assert not taken


@contextmanager
def grpc_server(outputs, signatures=None):
    from google.protobuf import json_format

    from tfkfin.serving.client import stubs

    api = stubs()

    class Predictions(api.prediction_base):
        def Predict(self, request, context):
            answer = api.predict.PredictResponse()
            outputs(answer.outputs)
            return answer

        def GetModelMetadata(self, request, context):
            answer, found = api.metadata.GetModelMetadataResponse(), api.metadata.SignatureDefMap()
            if signatures is None:
                json_format.ParseDict(METADATA["metadata"]["signature_def"], found)
                answer.metadata["signature_def"].Pack(found)
            else:
                signatures(answer)
            return answer

    listening = api.grpc.server(futures.ThreadPoolExecutor(2))
    api.adder(Predictions(), listening)
    port = listening.add_insecure_port("127.0.0.1:0")
    listening.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        listening.stop(None)


@pytest.fixture(autouse=True, scope="module")
def servicers():
    """The official servicer classes, beside the stubs that the client has."""
    from tensorflow_serving.apis import prediction_service_pb2_grpc as made

    from tfkfin.serving.client import stubs

    stubs().prediction_base = made.PredictionServiceServicer
    stubs().adder = made.add_PredictionServiceServicer_to_server


def tensor(outputs, name: str, values, shape=None, kind=None):
    import tensorflow as tf

    outputs[name].CopyFrom(tf.make_tensor_proto(values))
    if shape:
        del outputs[name].tensor_shape.dim[:]
        for size in shape:
            outputs[name].tensor_shape.dim.add(size=size)
    if kind:
        outputs[name].dtype = kind


F = np.float32
RPC = {
    "NaN": lambda o: tensor(o, "probabilities", F([[np.nan, 1]])),
    "two for one": lambda o: tensor(o, "probabilities", F([[1, 0], [0, 1]])),
    "label 2.7": lambda o: tensor(o, "label", F([2.7])),
    "text": lambda o: tensor(o, "probabilities", [[b"0.5", b"0.5"]]),
    "a shape of 4 TB": lambda o: tensor(o, "probabilities", F([0.5]), (1, 10**12)),
    "a shape below zero": lambda o: tensor(o, "probabilities", F([0.5]), (1, -7)),
    "a shape that does not fit": lambda o: tensor(o, "probabilities", F([[0.5, 0.5]]), (1, 3)),
    "a type that is none": lambda o: tensor(o, "probabilities", F([[0.5, 0.5]]), None, 77),
    "label beside": lambda o: (tensor(o, "probabilities", F([[0, 1]])), tensor(o, "label", np.int64([[1]]))),
}


@pytest.mark.parametrize("kind", RPC)
def test_malformed_answers_over_grpc(kind):
    with grpc_server(RPC[kind]) as url, connect(url, "m", timeout_s=10) as client:
        with pytest.raises(ServingError, match="INTERNAL"):
            client.predict(WINDOWS)


@pytest.mark.parametrize("change", [lambda answer: None, lambda answer: answer.metadata["signature_def"].Pack(answer),
                                    lambda answer: setattr(answer.metadata["signature_def"], "value", b"\xff\xff")])
def test_malformed_metadata_over_grpc(change):
    with grpc_server(lambda o: None, change) as url, connect(url, "m", timeout_s=10) as client:
        with pytest.raises(InputError):
            client.window_length()


@pytest.mark.parametrize("name", ["../../x", "a/b", 'a"b', "a'b", "a\nb", "a?b", "a#b", "a%2e", ".hidden", "", "-x",
                                  "a\\b", "x" * 300, 'm" base_path: "/etc', "a:predict"])
def test_names_are_names(name, tmp_path):
    with pytest.raises(InputError):
        parse_url("http://h:1", name)
    with pytest.raises(InputError):
        folders.checked_name(name)
    if "/" not in name and name:
        for add in (folders.add_to_config, lambda model: folders.new_version(model).__enter__()):
            with pytest.raises(InputError, match="is no name of a model"):
                add(tmp_path / name)
        assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("url", ["http://[::1", "http://h:99999999/", "http://h:x/", "http://h/v1/models/..%2f"])
def test_addresses_that_are_none(url):
    with pytest.raises(InputError):
        parse_url(url, None if "models" in url else "m")


def test_models_added_at_once_are_all_listed(tmp_path):
    code = ("import sys; from pathlib import Path; from tfkfin.store import folders\n"
            "for i in range(6): folders.add_to_config(Path(sys.argv[1], f'm{sys.argv[2]}_{i}'))")
    processes = [subprocess.Popen([sys.executable, "-c", code, tmp_path, str(n)]) for n in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    text = (tmp_path / "models.config").read_text()
    assert all(f'name: "m{n}_{i}"' in text for n in range(4) for i in range(6)) and text.count("name:") == 24


def test_what_a_killed_export_left_is_swept_and_what_is_at_work_is_not(tmp_path):
    code = ("import os, sys; from pathlib import Path; from tfkfin.store import folders\n"
            "with folders.new_version(Path(sys.argv[1])) as (folder, n):\n    (folder / 'a').write_text('half')\n"
            "    sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.read() or os._exit(9)")
    one = subprocess.Popen([sys.executable, "-c", code, tmp_path / "m"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                           text=True)
    assert one.stdout.readline() == "ready\n"
    with folders.new_version(tmp_path / "m") as (_, number):
        assert number == 2 and (tmp_path / "m" / ".partial-1" / "a").is_file()
    one.stdin.close()
    one.stdout.close()
    assert one.wait(20) == 9 and (tmp_path / "m" / ".partial-1").is_dir()
    with folders.new_version(tmp_path / "m") as (_, number):
        assert number == 3
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [".last_version", "2", "3"]


@pytest.fixture
def model(tmp_path):
    import shutil

    shutil.copytree(shipped("savedmodels") / "fin_dense", tmp_path / "fin_dense")
    return tmp_path / "fin_dense" / "1"


def change_card(version, **what):
    path = version / folders.CARD
    path.write_text(json.dumps(json.loads(path.read_text()) | what))


CHANGES = {
    "README": (lambda v: (v / "README.md").write_text("trust me"), "README.md"),
    "card": (lambda v: change_card(v, rate_hz=1.0), folders.CARD),
    "digests": (lambda v: change_card(v, sha256={}), folders.CARD),
    "digests of another kind": (lambda v: change_card(v, sha256=[1]), folders.CARD),
    "weights": (lambda v: (v / folders.FINS_FILE).write_bytes(b"PK"), "fins.keras"),
    "a file gone": (lambda v: (v / "saved_model.pb").unlink(), "saved_model.pb"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_model_that_was_changed_is_not_loaded_and_shown_as_changed(kind, model):
    change, name = CHANGES[kind]
    assert not folders.changed(model)
    change(model)
    assert any(name in changed for changed in folders.changed(model))
    if kind == "a file gone":  # which is for its reader to miss
        return
    with pytest.raises(InputError, match=f"not as it was exported: .*{name}"):
        presets.load(model)


def test_an_older_card_is_taken_as_it_is(model):
    card = folders.card(model)
    del card[folders.DIGEST], card["sha256"]["README.md"]
    (model / folders.CARD).write_text(json.dumps(card))
    folders.verify(model)
    assert not folders.changed(model) and os.path.getsize(model / "README.md")


HOSTILE = {
    "a SavedModel of its own": {"module": "keras.layers", "class_name": "TFSMLayer",
                                "config": {"filepath": "{folder}/saved", "call_endpoint": "serve"}},
    "a function's bytes": {"module": "keras.layers", "class_name": "Lambda", "config": {"function": {
        "class_name": "__lambda__", "config": {"code": "4wAAAA==\n", "defaults": None, "closure": None}}}},
    "a call": {"module": "subprocess", "class_name": "Popen", "config": {"args": ["touch", "{folder}/ran"]}},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_code_of_a_keras_file_runs(kind, tmp_path, monkeypatch):
    import zipfile

    import keras

    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "good.keras")
    with zipfile.ZipFile(tmp_path / "good.keras") as good, \
            zipfile.ZipFile(tmp_path / folders.FINS_FILE.name, "w") as bad:
        for name in good.namelist():
            content = good.read(name)
            if name == "config.json":
                config = json.loads(content)
                text = json.dumps(HOSTILE[kind] | {"registered_name": None}).replace("{folder}", str(tmp_path))
                config["config"]["layers"][-1] = json.loads(text)
                content = json.dumps(config).encode()
            bad.writestr(name, content)
    (tmp_path / folders.CARD).write_text("{}")
    said = "could not be deserialized" if kind == "a call" else "arbitrary code"
    with pytest.raises(InputError, match=f"cannot be loaded: .*{said}"):
        presets.load(tmp_path)
    assert not (tmp_path / "ran").exists()
