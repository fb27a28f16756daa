"""Clients of TF Serving, over REST and over gRPC: addresses, errors, deadlines, retries, checks of answers.

REST: https://www.tensorflow.org/tfx/serving/api_rest. gRPC goes through the official stubs (extra `serve`).
"""

import abc
import functools
import importlib
import json
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from types import SimpleNamespace
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np

from tfkfin.base import samples
from tfkfin.base.axes import turned
from tfkfin.base.bounded import TooMuch, body, within
from tfkfin.base.console import quiet_start
from tfkfin.base.errors import InputError, refused_as
from tfkfin.serving import answers
from tfkfin.store import folders

__path__: list[str] = []  # modules that were in a package of this name are found by `base.moved`

LEAST, RATIO = 16 << 20, 16  # an answer may have LEAST bytes, or RATIO bytes for each byte of the request


class ServingError(InputError):
    """A server refused a request, or did not answer.

    Attributes:
        code: name of the gRPC status, such as INVALID_ARGUMENT, NOT_FOUND, UNAVAILABLE, DEADLINE_EXCEEDED.
    """

    def __init__(self, code: str, message: str):
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclass(frozen=True)
class Target:
    """A model on a server: `version` or `label` selects one of its versions; without both the newest answers."""

    scheme: str
    address: str  # host:port, and for REST the path before /v1 if there is one
    model: str
    version: int | None = None
    label: str | None = None

    @property
    def described(self) -> str:
        chosen = f" version {self.version}" if self.version is not None else f" {self.label!r}" if self.label else ""
        return f"{self.model}{chosen} at {self.scheme}://{self.address}"


def parse_url(url: str, model: str | None = None, version: int | None = None, label: str | None = None) -> Target:
    """A target from `http://host:8501`, `grpc://host:8500`, or either with /v1/models/NAME[/versions/N|/labels/L].

    Raises:
        InputError: no such scheme, no model named, or both a version and a label.
    """
    with refused_as(f"{url!r} is not the address of a server", ValueError):
        parts = urlsplit(url if "//" in url else f"//{url}")
        parts.port  # noqa: B018  raises ValueError where it is not valid
    if parts.scheme not in ("http", "https", "grpc") or not parts.netloc:
        raise InputError(f"a server is http://host:8501, https://host or grpc://host:8500. Received: {url!r}")
    found = re.fullmatch(r"(.*?)/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(?::predict)?/?", parts.path)
    before = found[1] if found else parts.path.rstrip("/")
    if found:
        model, label = model or found[2], label or found[4]
        version = version if version is not None else int(found[3]) if found[3] else None
    if not model:
        raise InputError(f"name the model: {url.rstrip('/')}/v1/models/NAME, or --model NAME")
    if version is not None and label is not None:
        raise InputError(f"give a version or a label, not both. Received: version={version}, label={label!r}")
    for name in (model, label):
        if name is not None:
            folders.checked_name(name)
    return Target(parts.scheme, parts.netloc + before, model, version, label)


@dataclass
class Client(abc.ABC):
    """A model on a TF Serving server, as `tfkfin.client.connect` returns it. Several threads may share one client.

    Attributes:
        timeout_s: time limit of a call, its retries included.
        retries: attempts after the first one that ends with UNAVAILABLE.
        backoff_s: pause before the first retry. It doubles with each, and up to half of it is left out at random.
    """

    target: Target
    timeout_s: float = 10.0
    retries: int = 5
    backoff_s: float = 0.1
    _known: dict | None = field(default=None, init=False, repr=False, compare=False)  # as of `metadata`, asked once

    @abc.abstractmethod
    def _predict(self, emg: np.ndarray, signature: str, seconds: float) -> dict[str, np.ndarray]:
        """One attempt, in the seconds that are left."""

    @abc.abstractmethod
    def _metadata(self, seconds: float) -> dict:
        """The `signature_def` table in the JSON form of protocol buffers."""

    @abc.abstractmethod
    def _status(self, seconds: float) -> list[dict[str, Any]]:
        """The `model_version_status` list in the JSON form of protocol buffers."""

    @abc.abstractmethod
    def close(self) -> None:
        """Closes the connection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def predict(self, emg: np.ndarray, signature: str = "serving_default") -> dict[str, np.ndarray]:
        """Answers for windows (B, L, C) in volts; with `signature="stream"` for longer signals (B, T, C).

        Returns:
            Arrays by output name; a decoder has `probabilities`, `label` and `features`.

        Raises:
            ValueError: `emg` does not have three axes, is empty, or is not finite.
            ServingError: `emg` does not fit the model's signature, or the server refused the request, is not there, or
                was too slow.
        """
        emg = np.ascontiguousarray(emg, np.float32)
        if emg.ndim != 3 or not emg.size:
            raise ValueError(f"`emg` must be windows (B, L, C), at least one. Received: emg.shape={emg.shape}")
        samples.checked(emg)
        return self._retrying(lambda seconds: self._answers(emg, signature, time.monotonic() + seconds))

    def _answers(self, emg: np.ndarray, signature: str, end: float) -> dict[str, np.ndarray]:
        """One attempt, until the time `end`; request and answer are compared with the signature."""
        if self._known is None:
            self._known = answers.signatures(self._metadata(max(1e-3, end - time.monotonic())))
        wanted = self._known.get(signature, {"inputs": {}, "outputs": {}})  # the server says that it has none
        shape = wanted["inputs"].get("emg", ("", None))[1]
        if not answers.compatible(emg.shape, shape):
            hint = turned("emg", emg.shape, dict(zip("BLC", (max(0, size) for size in shape), strict=False)))
            raise ServingError("INVALID_ARGUMENT", f"{self.target.described}: `emg` has the shape {emg.shape}, not "
                                                   f"compatible with expected shape {shape} of {signature}{hint}")
        found = self._predict(emg, signature, max(1e-3, end - time.monotonic()))
        return answers.checked_answers(found, len(emg), wanted["outputs"])

    def about(self) -> dict[str, np.ndarray] | None:
        """How the model decides: `rate_hz`, `length`, `stride`, `vote`, `reject` and `movements`.

        Also `names` of the movements where the model has them, and `filter`, second-order sections (S, 6), where
        windows must come from a filtered signal. None for a model that an older tfkfin exported without all this.
        """
        return self._about

    @functools.cached_property
    def _about(self) -> dict[str, np.ndarray] | None:
        if "about" not in self._signatures:
            return None
        ignored = np.zeros(1, np.float32)
        return self._retrying(lambda seconds: answers.checked_about(self._predict(ignored, "about", seconds)))

    @property
    def _signatures(self) -> dict:
        if self._known is None:
            self._known = self.metadata()
        return self._known

    def metadata(self) -> dict[str, dict[str, dict[str, tuple]]]:
        """{signature: {"inputs": {name: (dtype, shape)}, "outputs": ...}}; an axis of any size is -1."""
        return self._retrying(lambda seconds: answers.signatures(self._metadata(seconds)))

    def window_length(self) -> int:
        """Samples L of a window, from the model's metadata."""
        shape = self._signatures.get("serving_default", {}).get("inputs", {}).get("emg", ("", None))[1]
        if shape is None or len(shape) != 3 or not 1 <= shape[1] <= answers.RANGES["length"][1]:
            raise InputError(f"{self.target.described} takes no windows (B, L, C): it is no decoder")
        return shape[1]

    def status(self) -> list[dict[str, Any]]:
        """[{"version": 1, "state": "AVAILABLE", "error": ""}] of every version on the server, or of the chosen one."""
        return self._retrying(lambda seconds: [
            {"version": int(s.get("version", 0)), "state": str(s.get("state", "UNKNOWN")),
             "error": str(s.get("status", {}).get("error_message", ""))[:500]} for s in self._status(seconds)])

    def _retrying(self, attempt: Callable[[float], Any]) -> Any:
        end = time.monotonic() + self.timeout_s
        for number in range(self.retries + 1):
            try:
                return attempt(max(1e-3, end - time.monotonic()))
            except ServingError as error:
                pause = self.backoff_s * 2**number * random.uniform(0.5, 1.0)
                last = number == self.retries or time.monotonic() + pause >= end
                if error.code != "UNAVAILABLE" or last:  # after any other error the server may have done the request
                    raise
            except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError,
                    MemoryError) as error:  # whatever a malformed answer makes its parser raise
                raise ServingError("INTERNAL", f"{self.target.described}: the answer is malformed: "
                                               f"{type(error).__name__} {str(error)[:200]}") from error
            time.sleep(pause)


CODES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 408: "DEADLINE_EXCEEDED", 412: "FAILED_PRECONDITION",
         413: "RESOURCE_EXHAUSTED", 429: "RESOURCE_EXHAUSTED", 501: "UNIMPLEMENTED", 502: "UNAVAILABLE",
         503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}



@dataclass
class RestClient(Client):
    """A client over HTTP, which needs no TensorFlow."""

    def __post_init__(self) -> None:
        import requests

        self._session = requests.Session()
        self._session.mount("http", requests.adapters.HTTPAdapter(pool_maxsize=64))
        t = self.target
        chosen = f"/versions/{t.version}" if t.version is not None else f"/labels/{t.label}" if t.label else ""
        self._url = f"{t.scheme}://{t.address}/v1/models/{t.model}{chosen}"

    def close(self) -> None:
        self._session.close()

    def _predict(self, emg: np.ndarray, signature: str, seconds: float) -> dict[str, np.ndarray]:
        sent = json.dumps({"signature_name": signature, "inputs": {"emg": emg.tolist()}})
        outputs = self._call("POST", ":predict", seconds, sent)["outputs"]
        kinds = self._signatures[signature]["outputs"]
        if not isinstance(outputs, dict):  # the server leaves out the name of a single output
            outputs = {next(iter(kinds)): outputs}
        return {name: answers.array(values, answers.DTYPES[kinds[name][0]]) for name, values in outputs.items()}

    def _metadata(self, seconds: float) -> dict:
        return self._call("GET", "/metadata", seconds)["metadata"]["signature_def"]["signature_def"]

    def _status(self, seconds: float) -> list[dict[str, Any]]:
        return self._call("GET", "", seconds)["model_version_status"]

    def _call(self, method: str, path: str, seconds: float, sent: str | None = None) -> dict:
        import requests
        from urllib3.exceptions import HTTPError, ReadTimeoutError

        where = f"{self.target.described}: "
        try:
            status, reason, text = within(seconds, lambda: self._fetched(method, path, seconds, sent))
        except (requests.Timeout, TimeoutError, ReadTimeoutError):
            raise ServingError("DEADLINE_EXCEEDED", f"{where}no answer within {self.timeout_s:g} s") from None
        except (requests.RequestException, HTTPError) as error:
            raise ServingError("UNAVAILABLE", f"{where}no connection ({_cause(error)})") from None
        except TooMuch as error:
            raise ServingError("RESOURCE_EXHAUSTED", f"{where}the answer is refused: {error}") from None
        if 300 <= status < 400:
            raise ServingError("FAILED_PRECONDITION", f"{where}it redirects to {text[:200].decode('latin-1')!r}: give "
                                                      "that address if you trust it, recordings follow no redirect")
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            content = {"error": f"{reason}, and the answer is not JSON: {text[:80].decode('utf-8', 'replace')!r}"}
        if not isinstance(content, dict):
            content = {"error": "the answer is not a JSON object"}
        if not 200 <= status < 300 or "error" in content:
            raise ServingError(CODES.get(status, "INTERNAL"), where + str(content.get("error", reason))[:500])
        return content

    def _fetched(self, method: str, path: str, seconds: float, sent: str | None) -> tuple[int, str, bytes]:
        """Status, reason and body of an answer; in place of the body of a redirect, its address."""
        end, most = time.monotonic() + seconds, LEAST + RATIO * len(sent or "")
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        with self._session.request(method, self._url + path, data=sent, timeout=seconds, headers=headers, stream=True,
                                   allow_redirects=False) as answer:
            if 300 <= answer.status_code < 400:
                return answer.status_code, answer.reason, answer.headers.get("Location", "").encode()
            return answer.status_code, answer.reason, body(answer, most, end)


def _cause(error: BaseException) -> str:
    """The reason of a failed connection, without what the libraries wrap around it."""
    text = str(getattr(error.args[0], "reason", error) if error.args else error)
    return text.rpartition(": ")[2].strip("\"')>( ") or type(error).__name__


OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", 256 << 20),
           ("grpc.enable_retries", 0), ("grpc.initial_reconnect_backoff_ms", 100),
           ("grpc.min_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]
APIS = "tensorflow_serving.apis"
MODULES = {"grpc": "grpc", "json": "google.protobuf.json_format", "apis": APIS,
           "metadata": f"{APIS}.get_model_metadata_pb2", "status": f"{APIS}.get_model_status_pb2",
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

    def __post_init__(self) -> None:
        self._api = stubs()
        self._channel = self._api.grpc.insecure_channel(self.target.address, OPTIONS)
        self._prediction = self._api.prediction.PredictionServiceStub(self._channel)
        self._models = self._api.models.ModelServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def _predict(self, emg: np.ndarray, signature: str, seconds: float) -> dict[str, np.ndarray]:
        import tensorflow as tf  # the stubs have loaded it

        request = self._address(self._api.predict.PredictRequest())
        request.model_spec.signature_name = signature
        request.inputs["emg"].CopyFrom(tf.make_tensor_proto(emg))
        answer = self._call(self._prediction.Predict, request, seconds)
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

    def _call(self, method: Callable, request: Any, seconds: float) -> Any:
        try:
            return method(request, timeout=seconds)
        except self._api.grpc.RpcError as error:
            raise ServingError(error.code().name, f"{self.target.described}: {error.details()}") from None


def connect(url: str, model: str | None = None, version: int | None = None, label: str | None = None,
            timeout_s: float = 10.0, **retry: Any) -> Client:
    """A client of one model on a TF Serving server.

    Args:
        url: `http://host:8501`, `https://host`, `grpc://host:8500`, or one of these with /v1/models/NAME.
        model: name of the model on the server, if the URL does not contain it.
        version, label: which version answers; without both the newest.
        timeout_s: time limit of a call, its retries included.
        retry: `retries` and `backoff_s` of `Client`.

    Raises:
        InputError: the URL is not valid, or gRPC is used without the extra `serve`.
    """
    target = parse_url(url, model, version, label)
    return (GrpcClient if target.scheme == "grpc" else RestClient)(target, timeout_s, **retry)
