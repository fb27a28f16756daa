"""Bad requests by kind, sent between good ones: each must get a clear error, each good one its exact answer."""

import collections
import json
import random
import socket
import threading
from urllib.parse import urlsplit

import numpy as np
import requests
from serving_cases import LIMIT, TOLERANCE, answers

from tfkfin.client import connect
from tfkfin.serving.client import stubs


def rest_bodies(emg: np.ndarray) -> dict[str, tuple[str, object]]:
    """Bad REST requests by kind: (path after /v1/models/, body)."""
    windows = emg[:2].tolist()
    kinds = {
        "length": emg[:, :50], "channels": emg[:, :, :3], "one channel": emg[:, :, :1], "axes": emg[0],
        "nan": emg * np.nan, "inf": emg + np.inf, "empty batch": emg[:0],
    }
    bodies = {kind: ("decoder:predict", json.dumps({"inputs": {"emg": value.tolist()}}))
              for kind, value in kinds.items()}
    good = json.dumps({"inputs": {"emg": windows}})
    ragged = [windows[0], windows[1][:3]]
    return bodies | {
        "text": ("decoder:predict", json.dumps({"inputs": {"emg": [["a", "b"]]}})),
        "ragged": ("decoder:predict", json.dumps({"inputs": {"emg": ragged}})),
        "truncated JSON": ("decoder:predict", good[: len(good) // 2]),
        "no JSON": ("decoder:predict", b"\xff\xfe\x00"),
        "no inputs": ("decoder:predict", "{}"),
        "other input": ("decoder:predict", json.dumps({"inputs": {"volts": windows}})),
        "signature": ("decoder:predict", json.dumps({"signature_name": "no_such", "inputs": {"emg": windows}})),
        "version": ("decoder/versions/77:predict", good),
        "label": ("decoder/labels/no_such:predict", good),
        "model": ("no_such:predict", good),
        "path": ("decoder:classify_not", good),
        "short stretch": ("decoder:predict", json.dumps({"signature_name": "stream", "inputs": {"emg": windows}})
                          .replace(json.dumps(windows), json.dumps(emg[:2, :20].tolist()))),
    }


def send_rest(url: str, path: str, body) -> str:
    """The error of a bad REST request; its code is the HTTP status."""
    answer = requests.post(f"{url}/v1/models/{path}", data=body, timeout=30)
    message = answer.json().get("error", "")
    if answer.ok or not message:
        raise AssertionError(f"{answer.status_code} {answer.text[:200]}")
    return str(answer.status_code)


def send_cut_short(url: str, path: str, body: str, claim: int) -> str:
    """Sends a body shorter than its Content-Length says, and no more."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as link:
        link.sendall(f"POST /v1/models/{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                     f"Content-Length: {claim}\r\n\r\n".encode() + body.encode())
        link.shutdown(socket.SHUT_WR)
        status = link.makefile("rb").readline().decode()
    if status and " 4" not in status:  # a server may also just close the connection
        raise AssertionError(status)
    return status.split()[1] if status else "closed"


def grpc_requests(api, emg: np.ndarray) -> dict[str, object]:
    """Bad gRPC requests by kind."""
    import tensorflow as tf

    def request(value, name="emg", signature="serving_default", model="decoder", version=None, label=None):
        made = api.predict.PredictRequest()
        made.model_spec.name, made.model_spec.signature_name = model, signature
        if version:
            made.model_spec.version.value = version
        if label:
            made.model_spec.version_label = label
        made.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        return made

    short = request(emg)
    short.inputs["emg"].tensor_content = short.inputs["emg"].tensor_content[:100]
    return {
        "length": request(emg[:, :50]), "channels": request(emg[:, :, :3]), "one channel": request(emg[:, :, :1]),
        "axes": request(emg[0]), "nan": request(emg * np.nan), "inf": request(emg + np.float32(np.inf)),
        "empty batch": request(emg[:0]), "double": request(emg.astype(np.float64)), "text": request(np.array(["a"])),
        "short content": short, "other input": request(emg, "volts"), "signature": request(emg, signature="no_such"),
        "version": request(emg, version=77), "label": request(emg, label="no_such"),
        "model": request(emg, model="no_such"), "short stretch": request(emg[:2, :20], signature="stream"),
        "no inputs": api.predict.PredictRequest(model_spec=request(emg).model_spec),
    }


class Storm:
    """Good and bad requests, mixed at random: every good one must get its exact answer, every bad one a clear error."""

    def __init__(self, rest: str, grpc: str, limit: int | None = LIMIT):
        self.known, self.rest, self.limit = answers(), rest, limit
        self.api = stubs()
        self.channel = self.api.grpc.insecure_channel(urlsplit(grpc).netloc, [("grpc.max_send_message_length", -1)])
        self.bodies = rest_bodies(self.known["emg"])
        self.messages = grpc_requests(self.api, self.known["emg"])
        self.good = [connect(url, "decoder", version=v, timeout_s=60) for url in (rest, grpc) for v in (1, 2)]
        self.counts, self.errors, self.lock = collections.Counter(), [], threading.Lock()

    def bad(self, rng: random.Random) -> tuple[str, str]:
        """Sends one bad request: (its kind, the error's code)."""
        choice = rng.random()
        if choice < 0.02:
            return "rest cut short", send_cut_short(self.rest, *self.bodies["truncated JSON"], 10**5)
        if choice < 0.025 and self.limit:
            return "rest huge", send_cut_short(self.rest, "decoder:predict", "{}", self.limit + 1)
        if choice < 0.05:
            return self._raw(rng)
        if choice < 0.5:
            kind = rng.choice(sorted(self.bodies))
            return f"rest {kind}", send_rest(self.rest, *self.bodies[kind])
        kind = rng.choice(sorted(self.messages))
        return f"grpc {kind}", self._send(self.messages[kind].SerializeToString())

    def _raw(self, rng: random.Random) -> tuple[str, str]:
        whole = self.messages["double"].SerializeToString()
        if self.limit and rng.random() < 0.1:
            return "grpc huge", self._send(bytes(self.limit + 1))
        return "grpc cut short", self._send(whole[: rng.randrange(10, len(whole) - 10)])

    def _send(self, content: bytes) -> str:
        call = self.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        try:
            call(content, timeout=30)
        except self.api.grpc.RpcError as error:
            if not error.details() or error.code().name in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                raise
            return error.code().name
        raise AssertionError("a bad request was answered")

    def check_good(self, rng: random.Random) -> None:
        client = rng.choice(self.good)
        chosen = sorted(rng.sample(range(len(self.known["emg"])), rng.randint(1, 3)))
        got = client.predict(self.known["emg"][chosen])
        for name, value in got.items():
            wanted = self.known[f"{client.target.version}/serving_default/{name}"][chosen]
            np.testing.assert_allclose(value, wanted, rtol=TOLERANCE, atol=TOLERANCE)

    def _work(self, count: int, seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(count):
            try:
                kind, code = self.bad(rng)
                self.check_good(rng)
            except Exception as error:  # gathered: the test shows the first
                self.errors.append(error)
                continue
            with self.lock:
                self.counts[kind, code] += 1
                self.counts["good", "OK"] += 1

    def run(self, bad: int, threads: int = 4, seed: int = 0) -> dict:
        """Sends `bad` bad requests and as many good ones; {(kind, code): count}. The first error is raised."""
        workers = [threading.Thread(target=self._work, args=(bad // threads, threads * seed + i))
                   for i in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for client in self.good:
            client.close()
        self.channel.close()
        if self.errors:
            raise self.errors[0]
        return dict(self.counts)
