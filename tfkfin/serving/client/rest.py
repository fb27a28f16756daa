"""TF Serving's REST interface. Reference: https://www.tensorflow.org/tfx/serving/api_rest"""

import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import requests
from urllib3.exceptions import HTTPError, ReadTimeoutError

from tfkfin.base.bounded import TooMuch, body, within
from tfkfin.serving.client.base import LEAST, RATIO, Client, ServingError

CODES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 408: "DEADLINE_EXCEEDED", 412: "FAILED_PRECONDITION",
         413: "RESOURCE_EXHAUSTED", 429: "RESOURCE_EXHAUSTED", 501: "UNIMPLEMENTED", 502: "UNAVAILABLE",
         503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}
DTYPES = {"float": np.float32, "double": np.float64, "int64": np.int64, "int32": np.int32, "string": np.str_}


@dataclass
class RestClient(Client):
    """A client over HTTP, which needs no TensorFlow."""

    def __post_init__(self):
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
        return {name: _array(values, DTYPES[kinds[name][0]]) for name, values in outputs.items()}

    def _metadata(self, seconds: float) -> dict:
        return self._call("GET", "/metadata", seconds)["metadata"]["signature_def"]["signature_def"]

    def _status(self, seconds: float) -> list[dict[str, Any]]:
        return self._call("GET", "", seconds)["model_version_status"]

    def _call(self, method: str, path: str, seconds: float, sent: str | None = None) -> dict:
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


def _array(values: Any, kind: type) -> np.ndarray:
    """Numbers or strings from JSON as an array of the type that the signature has.

    Raises:
        ValueError: the values are of another type.
    """
    found = np.asarray(values)
    if np.dtype(kind).kind in "OSU" and found.dtype.kind == "U":
        return found
    if found.dtype.kind not in "if" or found.dtype.kind == "f" and np.dtype(kind).kind == "i":
        raise ValueError(f"{str(values)[:40]} where {np.dtype(kind).name} is expected")
    with np.errstate(over="ignore"):  # too large values become Inf, which is refused
        return found.astype(kind)


def _cause(error: BaseException) -> str:
    """The reason of a failed connection, without what the libraries wrap around it."""
    text = str(getattr(error.args[0], "reason", error) if error.args else error)
    return text.rpartition(": ")[2].strip("\"')>( ") or type(error).__name__
