"""What the REST and the gRPC client of TF Serving share: addresses, errors, deadlines, retries, checks."""

import abc
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np

from tfkfin.console import InputError


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
    """A model on a server: `version` or `label` picks one of its versions, neither the newest."""

    scheme: str
    address: str  # host:port, and for REST a path before /v1 if there is one
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
    parts = urlsplit(url if "//" in url else f"//{url}")
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
    return Target(parts.scheme, parts.netloc + before, model, version, label)


@dataclass
class Client(abc.ABC):
    """A model on a TF Serving server. `tfkfin.client.connect` makes one; it may be used from several threads.

    Attributes:
        timeout_s: for a call as a whole, retries included.
        retries: further attempts after UNAVAILABLE.
        backoff_s: pause before the first of them; it doubles each time, less up to half at random.
    """

    target: Target
    timeout_s: float = 10.0
    retries: int = 5
    backoff_s: float = 0.1

    @abc.abstractmethod
    def _predict(self, emg: np.ndarray, signature: str, seconds: float) -> dict[str, np.ndarray]:
        """One attempt, given the seconds left."""

    @abc.abstractmethod
    def _metadata(self, seconds: float) -> dict:
        """The `signature_def` table in protocol-buffer JSON."""

    @abc.abstractmethod
    def _status(self, seconds: float) -> list[dict[str, Any]]:
        """The `model_version_status` list in protocol-buffer JSON."""

    @abc.abstractmethod
    def close(self) -> None:
        """Closes the connection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def predict(self, emg: np.ndarray, signature: str = "serving_default") -> dict[str, np.ndarray]:
        """Answers to windows (B, L, C) in volts; with `signature="stream"` to longer stretches (B, T, C).

        Returns:
            Arrays by output name: of a decoder `probabilities`, `label` and `features`.

        Raises:
            ValueError: `emg` has not three axes, is empty, or is not finite.
            ServingError: the server refused it, is not there, or was too slow.
        """
        emg = np.ascontiguousarray(emg, np.float32)
        if emg.ndim != 3 or not emg.size:
            raise ValueError(f"`emg` must be windows (B, L, C), at least one. Received: emg.shape={emg.shape}")
        if not np.isfinite(emg).all():
            raise ValueError("`emg` must be finite. Received: NaN or Inf")
        return self._retrying(lambda seconds: self._predict(emg, signature, seconds))

    def about(self) -> dict[str, np.ndarray] | None:
        """What the model says of itself: `rate_hz`, `length`, `stride`, `vote`, `reject`, `movements`, and
        `names` of these where they are known.

        And `filter`, second-order sections (S, 6), where windows have to have gone through one.

        None for a model that an older tfkfin exported, which says nothing.
        """
        return self._about

    @cached_property
    def _about(self) -> dict[str, np.ndarray] | None:
        nothing = np.zeros(1, np.float32)
        return self._retrying(lambda s: self._predict(nothing, "about", s)) if "about" in self._signatures else None

    @cached_property
    def _signatures(self) -> dict:
        return self.metadata()

    def metadata(self) -> dict[str, dict[str, dict[str, tuple]]]:
        """{signature: {"inputs": {name: (dtype, shape)}, "outputs": ...}}; an open axis is -1."""
        found = self._retrying(self._metadata)
        return {name: {kind: {key: _tensor(info) for key, info in sorted(signature.get(kind, {}).items())}
                       for kind in ("inputs", "outputs")}
                for name, signature in found.items() if not name.startswith("__")}

    def window_length(self) -> int:
        """Samples a window L, from the model's metadata."""
        return self._signatures["serving_default"]["inputs"]["emg"][1][1]

    def status(self) -> list[dict[str, Any]]:
        """[{"version": 1, "state": "AVAILABLE", "error": ""}], of every version the server knows or the chosen one."""
        return [{"version": int(s.get("version", 0)), "state": s.get("state", "UNKNOWN"),
                 "error": s.get("status", {}).get("error_message", "")} for s in self._retrying(self._status)]

    def _retrying(self, attempt: Callable[[float], Any]) -> Any:
        end = time.monotonic() + self.timeout_s
        for number in range(self.retries + 1):
            try:
                return attempt(max(1e-3, end - time.monotonic()))
            except ServingError as error:
                pause = self.backoff_s * 2**number * random.uniform(0.5, 1.0)
                last = number == self.retries or time.monotonic() + pause >= end
                if error.code != "UNAVAILABLE" or last:  # only that says that the request was not carried out
                    raise
            time.sleep(pause)


def _tensor(info: dict) -> tuple[str, tuple[int, ...] | None]:
    shape, kind = info.get("tensor_shape", {}), info["dtype"].removeprefix("DT_").lower()
    return kind, None if shape.get("unknown_rank") else tuple(int(d.get("size", 0)) for d in shape.get("dim", []))
