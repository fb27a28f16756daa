"""A stand-in for TF Serving: a process with the official servicer classes, and REST beside them. It is not the server.

    python tests/serving/standin.py --models tests/serving/golden --ready ports.json

It reads models.config with the official parser, polls the model folders, and runs graphs in a session as the server
does, so a request is checked by the graph alone. It knows nothing of tfkfin. POST /standin {"fail": 2, "delay_s": 0.5}
makes the next requests fail with UNAVAILABLE or answer late.
"""

import argparse
import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from standin_rest import Http, Refusal, Rest
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2


class Loaded:
    """One version in a session of its own, warmed up by its own requests."""

    def __init__(self, folder: Path):
        graph = tf.Graph()
        with graph.as_default():
            self.session = tf.compat.v1.Session(graph=graph)
            meta = tf.compat.v1.saved_model.load(self.session, ["serve"], str(folder))
        self.signatures = {name: s for name, s in meta.signature_def.items() if not name.startswith("__")}
        self.tensor = lambda name: graph.get_tensor_by_name(name)._as_tf_output()
        self.session._extend_graph()
        warmup = folder / "assets.extra" / "tf_serving_warmup_requests"
        if warmup.is_file():
            for record in tf.data.TFRecordDataset(str(warmup)):
                log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
                request = log.predict_log.request
                self.run(request.model_spec.signature_name,
                         {name: tf.make_ndarray(value) for name, value in request.inputs.items()})

    def run(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Feeds arrays as they came: `Session.run` would check shapes first, which the server does not."""
        known = self.signatures.get(signature or "serving_default")
        if known is None:
            raise Refusal("INVALID_ARGUMENT", f'Serving signature key "{signature}" not found.')
        if set(inputs) != set(known.inputs):
            raise Refusal("INVALID_ARGUMENT", f"inputs are {sorted(inputs)}, expected {sorted(known.inputs)}")
        feeds = {self.tensor(known.inputs[name].name): value for name, value in inputs.items()}
        names = sorted(known.outputs)
        try:
            values = self.session._call_tf_sessionrun(
                None, feeds, [self.tensor(known.outputs[name].name) for name in names], [], None)
        except tf.errors.OpError as error:
            said = [x for x in error.message.splitlines() if x and not x.startswith(("Graph", "Detected", "<stack"))]
            code = "INVALID_ARGUMENT" if isinstance(error, tf.errors.InvalidArgumentError) else "INTERNAL"
            raise Refusal(code, said[0] if said else str(error)) from None
        return dict(zip(names, values, strict=True))


class Shelf:
    """The models of a models.config, polled."""

    def __init__(self, folder: Path, config: Path):
        self.folder, self.lock = folder, threading.Lock()
        parsed = text_format.Parse(config.read_text(), model_server_config_pb2.ModelServerConfig())
        self.configs = {c.name: c for c in parsed.model_config_list.config}
        self.loaded: dict[str, dict[int, Loaded]] = {name: {} for name in self.configs}
        self.errors: list[str] = []
        self.fail = self.delay_s = 0

    def poll(self) -> None:
        for name, config in self.configs.items():
            base = self.folder / Path(config.base_path).relative_to("/models")
            there = sorted(int(p.name) for p in base.iterdir() if p.name.isdecimal()) if base.is_dir() else []
            wanted = [v for v in config.model_version_policy.specific.versions if v in there] or there[-1:]
            for version in set(wanted) - set(self.loaded[name]):
                try:
                    self.loaded[name][version] = Loaded(base / str(version))
                except Exception as error:  # what a server would log, a test reads
                    self.errors.append(f"{name}/{version}: {error}")
            for version in set(self.loaded[name]) - set(wanted):
                del self.loaded[name][version]

    def pick(self, name: str, version: int | None, label: str | None) -> tuple[int, Loaded]:
        if name not in self.loaded or not self.loaded[name]:
            raise Refusal("NOT_FOUND", f"Servable not found for request: Latest({name})")
        if label:
            labels = dict(self.configs[name].version_labels)
            if label not in labels:
                raise Refusal("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
            version = labels[label]
        version = max(self.loaded[name]) if version is None else version
        if version not in self.loaded[name]:
            raise Refusal("NOT_FOUND", f"Servable not found for request: Specific({name}, {version})")
        return version, self.loaded[name][version]

    def faults(self) -> None:
        """Does what POST /standin asked for."""
        time.sleep(self.delay_s)
        with self.lock:
            failing, self.fail = self.fail > 0, max(0, self.fail - 1)
        if failing:
            raise Refusal("UNAVAILABLE", "told to fail")

    def predict(self, name: str, version: int | None, label: str | None, signature: str, inputs: dict) -> tuple:
        self.faults()
        number, loaded = self.pick(name, version, label)
        return number, loaded, loaded.run(signature, inputs)

    def status(self, name: str, version: int | None, label: str | None) -> get_model_status_pb2.GetModelStatusResponse:
        chosen = [self.pick(name, version, label)[0]] if version or label else sorted(self.loaded.get(name, {}))
        if not chosen:
            raise Refusal("NOT_FOUND", f"Could not find any versions of model {name}")
        answer = get_model_status_pb2.GetModelStatusResponse()
        for number in chosen:
            answer.model_version_status.add(version=number, state="AVAILABLE")
        return answer

    def metadata(self, name: str, version: int | None, label: str | None):
        number, loaded = self.pick(name, version, label)
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        answer.model_spec.name, answer.model_spec.version.value = name, number
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for key, value in loaded.signatures.items():
            signatures.signature_def[key].CopyFrom(meta_graph_pb2.SignatureDef.FromString(value.SerializeToString()))
        answer.metadata["signature_def"].Pack(signatures)
        return answer


def address(spec) -> tuple[str, int | None, str | None]:
    return spec.name, spec.version.value if spec.HasField("version") else None, spec.version_label or None


class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, shelf: Shelf):
        self.shelf = shelf

    def Predict(self, request, context):
        spec = request.model_spec
        try:
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            number, _, outputs = self.shelf.predict(*address(spec), spec.signature_name, inputs)
        except Refusal as refusal:
            context.abort(grpc.StatusCode[refusal.code], str(refusal))
        except (ValueError, TypeError) as error:  # a tensor whose content does not fit its shape
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        answer = predict_pb2.PredictResponse(outputs={k: tf.make_tensor_proto(v) for k, v in outputs.items()})
        answer.model_spec.name, answer.model_spec.version.value = spec.name, number
        return answer

    def GetModelMetadata(self, request, context):
        try:
            return self.shelf.metadata(*address(request.model_spec))
        except Refusal as refusal:
            context.abort(grpc.StatusCode[refusal.code], str(refusal))


class Models(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, shelf: Shelf):
        self.shelf = shelf

    def GetModelStatus(self, request, context):
        try:
            return self.shelf.status(*address(request.model_spec))
        except Refusal as refusal:
            context.abort(grpc.StatusCode[refusal.code], str(refusal))


def main() -> None:
    sys.modules["tfkfin"] = None  # a stranger's server
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--models", type=Path, required=True, help="what a container has at /models")
    p.add_argument("--config", type=Path, help="default: models.config there")
    p.add_argument("--ready", type=Path, help="gets {rest, grpc, pid} as soon as all models answer")
    p.add_argument("--rest-port", type=int, default=0)
    p.add_argument("--grpc-port", type=int, default=0)
    p.add_argument("--limit", type=int, default=32 << 20, help="bytes of a request")
    p.add_argument("--poll-s", type=float, default=0.05)
    options = p.parse_args()
    shelf = Shelf(options.models, options.config or options.models / "models.config")
    shelf.poll()
    server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", options.limit)])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Prediction(shelf), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Models(shelf), server)
    grpc_port = server.add_insecure_port(f"127.0.0.1:{options.grpc_port}")
    server.start()
    Rest.shelf, Rest.limit = shelf, options.limit
    http = Http(("127.0.0.1", options.rest_port), Rest)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    ready = {"rest": f"http://127.0.0.1:{http.server_port}", "grpc": f"grpc://127.0.0.1:{grpc_port}",
             "pid": os.getpid()}
    if options.ready:
        options.ready.with_suffix(".partial").write_text(json.dumps(ready))
        os.replace(options.ready.with_suffix(".partial"), options.ready)
    while True:
        time.sleep(options.poll_s)
        shelf.poll()
        if shelf.errors:
            sys.exit("\n".join(shelf.errors))


if __name__ == "__main__":
    main()
