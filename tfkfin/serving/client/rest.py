"""TF Serving's REST interface. Reference: https://www.tensorflow.org/tfx/serving/api_rest"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import requests

from tfkfin.serving.client.base import Client, ServingError

CODES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 408: "DEADLINE_EXCEEDED", 412: "FAILED_PRECONDITION",
         413: "RESOURCE_EXHAUSTED", 429: "RESOURCE_EXHAUSTED", 501: "UNIMPLEMENTED", 502: "UNAVAILABLE",
         503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}
DTYPES = {"float": np.float32, "double": np.float64, "int64": np.int64, "int32": np.int32, "string": np.str_}


@dataclass
class RestClient(Client):
    """Over HTTP, without TensorFlow."""

    def __post_init__(self):
        self._session = requests.Session()
        self._session.mount("http", requests.adapters.HTTPAdapter(pool_maxsize=64))
        t = self.target
        chosen = f"/versions/{t.version}" if t.version is not None else f"/labels/{t.label}" if t.label else ""
        self._url = f"{t.scheme}://{t.address}/v1/models/{t.model}{chosen}"

    def close(self) -> None:
        self._session.close()

    def _predict(self, emg: np.ndarray, signature: str, seconds: float) -> dict[str, np.ndarray]:
        body = json.dumps({"signature_name": signature, "inputs": {"emg": emg.tolist()}})
        outputs = self._call("POST", ":predict", seconds, body)["outputs"]
        kinds = self._signatures[signature]["outputs"]
        if not isinstance(outputs, dict):  # of a single output the server leaves the name out
            outputs = {next(iter(kinds)): outputs}
        return {name: np.asarray(values, DTYPES[kinds[name][0]]) for name, values in outputs.items()}

    def _metadata(self, seconds: float) -> dict:
        return self._call("GET", "/metadata", seconds)["metadata"]["signature_def"]["signature_def"]

    def _status(self, seconds: float) -> list[dict[str, Any]]:
        return self._call("GET", "", seconds)["model_version_status"]

    def _call(self, method: str, path: str, seconds: float, body: str | None = None) -> dict:
        where = f"{self.target.described}: "
        try:
            answer = self._session.request(method, self._url + path, data=body, timeout=seconds,
                                           headers={"Content-Type": "application/json"})
        except requests.Timeout:
            raise ServingError("DEADLINE_EXCEEDED", f"{where}no answer within {self.timeout_s:g} s") from None
        except requests.RequestException as error:
            raise ServingError("UNAVAILABLE", f"{where}no connection ({_cause(error)})") from None
        try:
            content = answer.json()
        except ValueError:
            content = {"error": f"{answer.reason}, and the answer is no JSON: {answer.text[:80]!r}"}
        if not answer.ok or "error" in content:
            code = CODES.get(answer.status_code, "INTERNAL")
            raise ServingError(code, where + str(content.get("error", answer.reason)))
        return content


def _cause(error: BaseException) -> str:
    """The innermost reason of a failed connection, without the library's wrapping."""
    text = str(getattr(error.args[0], "reason", error) if error.args else error)
    return text.rpartition(": ")[2].strip("\"')>( ") or type(error).__name__
