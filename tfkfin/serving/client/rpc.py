"""TF Serving's gRPC interface, through the official stubs (extra `serve`)."""

import functools
import importlib
import threading
from dataclasses import dataclass
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np

from tfkfin.base.console import quiet_start
from tfkfin.base.errors import InputError
from tfkfin.serving.client.base import LEAST, RATIO, Client, ServingError

OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", 256 << 20),
           ("grpc.enable_retries", 0), ("grpc.initial_reconnect_backoff_ms", 100),
           ("grpc.min_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]
APIS = "tensorflow_serving.apis"
MODULES = {"grpc": "grpc", "json": "google.protobuf.json_format", "types": "tensorflow.core.framework.types_pb2",
           "apis": APIS, "metadata": f"{APIS}.get_model_metadata_pb2", "status": f"{APIS}.get_model_status_pb2",
           "models": f"{APIS}.model_service_pb2_grpc", "predict": f"{APIS}.predict_pb2",
           "prediction": f"{APIS}.prediction_service_pb2_grpc"}
_loading = threading.Lock()  # `quiet_start` redirects the process's stderr, which one thread at a time may do


def stubs() -> SimpleNamespace:
    """The official message and stub classes. They import TensorFlow, which takes some seconds the first time.

    Raises:
        InputError: tensorflow-serving-api is not installed.
    """
    with _loading:
        return _stubs()


@functools.cache
def _stubs() -> SimpleNamespace:
    try:
        with quiet_start():
            return SimpleNamespace(**{name: importlib.import_module(module) for name, module in MODULES.items()})
    except ImportError as error:
        raise InputError(f"grpc:// needs the official stubs: pip install 'tfkfin[serve]' ({error.name} is missing)") \
            from None


@dataclass
class GrpcClient(Client):
    """A client over gRPC, whose messages are several times smaller and faster to parse than JSON."""

    def __post_init__(self):
        self._api = stubs()
        self._channel = self._api.grpc.insecure_channel(self.target.address, OPTIONS)
        self._prediction = self._api.prediction.PredictionServiceStub(self._channel)
        self._models = self._api.models.ModelServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def _predict(self, emg: np.ndarray, signature: str, seconds: float) -> dict[str, np.ndarray]:
        request = self._address(self._api.predict.PredictRequest())
        request.model_spec.signature_name = signature
        tensor = request.inputs["emg"]
        tensor.dtype, tensor.tensor_content = self._api.types.DT_FLOAT, emg.tobytes()
        for size in emg.shape:
            tensor.tensor_shape.dim.add(size=size)
        answer = self._call(self._prediction.Predict, request, seconds)
        import tensorflow as tf  # the stubs have loaded it

        most = LEAST + RATIO * emg.size
        for name, value in answer.outputs.items():  # a short message may stand for a huge array
            if not 0 <= prod(dim.size for dim in value.tensor_shape.dim) <= most:
                raise ValueError(f"{name[:40]} has more than {most} numbers")
        return {name: tf.make_ndarray(value) for name, value in answer.outputs.items()}

    def _metadata(self, seconds: float) -> dict:
        request = self._address(self._api.metadata.GetModelMetadataRequest(metadata_field=["signature_def"]))
        answer = self._call(self._prediction.GetModelMetadata, request, seconds)
        signatures = self._api.metadata.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(signatures)
        return self._api.json.MessageToDict(signatures, preserving_proto_field_name=True)["signature_def"]

    def _status(self, seconds: float) -> list[dict[str, Any]]:
        request = self._address(self._api.status.GetModelStatusRequest())
        answer = self._call(self._models.GetModelStatus, request, seconds)
        return self._api.json.MessageToDict(answer, preserving_proto_field_name=True).get("model_version_status", [])

    def _address(self, request: Any) -> Any:
        """Fills in a request's model, version and label."""
        request.model_spec.name = self.target.model
        if self.target.version is not None:
            request.model_spec.version.value = self.target.version
        elif self.target.label:
            request.model_spec.version_label = self.target.label
        return request

    def _call(self, method, request, seconds: float):
        try:
            return method(request, timeout=seconds)
        except self._api.grpc.RpcError as error:
            raise ServingError(error.code().name, f"{self.target.described}: {error.details()}") from None
