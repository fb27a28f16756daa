"""The REST side of the stand-in: https://www.tensorflow.org/tfx/serving/api_rest"""

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2

HTTP = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "FAILED_PRECONDITION": 412, "RESOURCE_EXHAUSTED": 413,
        "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504, "INTERNAL": 500}


class Refusal(Exception):
    """A request that is answered with an error: a gRPC status by name, and a sentence."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


class Rest(BaseHTTPRequestHandler):
    """`shelf` and `limit`, bytes of a body, are set before the server starts."""

    protocol_version, disable_nagle_algorithm, timeout = "HTTP/1.1", True, 60
    shelf, limit = None, 0
    PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(/metadata|:predict)?")

    def do_GET(self):
        self.answer(lambda: self.described(*self.target()))

    def do_POST(self):
        self.answer(self.posted)

    def log_message(self, *_):
        """Quiet."""

    def target(self) -> tuple:
        found = self.PATH.fullmatch(self.path)
        if not found:
            raise Refusal("INVALID_ARGUMENT", f"Malformed request: {self.command} {self.path}")
        return found[1], int(found[2]) if found[2] else None, found[3], found[4]

    def described(self, name, version, label, what):
        if what == ":predict":
            raise Refusal("INVALID_ARGUMENT", f"Malformed request: GET {self.path}")
        if not what:
            return as_json(self.shelf.status(name, version, label))
        answer = self.shelf.metadata(name, version, label)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(signatures)
        spec = {"name": name, "signature_name": "", "version": str(answer.model_spec.version.value)}
        return {"model_spec": spec, "metadata": {"signature_def": as_json(signatures)}}

    def posted(self):
        length = int(self.headers.get("Content-Length", 0))
        if length > self.limit:
            self.close_connection = True
            raise Refusal("RESOURCE_EXHAUSTED", f"the body has {length} bytes, the limit is {self.limit}")
        body = self.rfile.read(length)
        if self.path == "/standin":
            vars(self.shelf).update(json.loads(body))
            return {}
        name, version, label, what = self.target()
        if what != ":predict":
            raise Refusal("INVALID_ARGUMENT", f"Malformed request: POST {self.path}")
        try:
            request = json.loads(body)
        except ValueError as error:
            raise Refusal("INVALID_ARGUMENT", f"JSON Parse error: {error}") from None
        if not isinstance(request, dict) or not {"inputs", "instances"} & set(request):
            raise Refusal("INVALID_ARGUMENT", 'Missing "inputs" or "instances" key')
        return self.predicted(request, name, version, label)

    def predicted(self, request: dict, name, version, label) -> dict:
        signature = request.get("signature_name") or "serving_default"
        rows = "instances" in request
        given = request["instances"] if rows else request["inputs"]
        _, loaded = self.shelf.pick(name, version, label)
        only = sorted(loaded.signatures[signature].inputs)[0] if signature in loaded.signatures else "emg"
        if rows and given and isinstance(given[0], dict):
            given = {key: [row.get(key) for row in given] for key in given[0]}
        inputs = given if isinstance(given, dict) else {only: given}
        try:
            arrays = {key: np.asarray(value, np.float32) for key, value in inputs.items()}
        except (ValueError, TypeError) as error:
            raise Refusal("INVALID_ARGUMENT", f"JSON Value: not a float tensor: {error}") from None
        _, _, outputs = self.shelf.predict(name, version, label, signature, arrays)
        listed = {key: (np.char.decode(value.astype(bytes)) if value.dtype.kind in "OS" else value).tolist()
                  for key, value in outputs.items()}
        if rows:
            one = len(listed) == 1
            return {"predictions": next(iter(listed.values())) if one else
                    [dict(zip(listed, row, strict=True)) for row in zip(*listed.values(), strict=True)]}
        return {"outputs": next(iter(listed.values())) if len(listed) == 1 else listed}

    def answer(self, make) -> None:
        try:
            status, content = 200, make()
        except Refusal as refusal:
            status, content = HTTP[refusal.code], {"error": str(refusal)}
        body = json.dumps(content).encode()
        kept = "close" if self.close_connection else "keep-alive"
        head = (f"HTTP/1.1 {status} {self.responses[status][0]}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: {kept}\r\n\r\n")
        self.wfile.write(head.encode() + body)  # in one piece: two would wait for each other's acknowledgement


def as_json(message) -> dict:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


class Http(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 128
