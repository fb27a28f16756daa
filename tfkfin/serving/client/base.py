"""What the REST and the gRPC client of TF Serving share: addresses, errors, deadlines, retries, checks of answers."""

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

from tfkfin.base.errors import InputError
from tfkfin.store import folders

LEAST, RATIO = 16 << 20, 16  # an answer may have LEAST bytes, or RATIO bytes for each byte of the request
_RANGES = {"rate_hz": (1, 1e6), "length": (1, 1e7), "stride": (1, 1e7), "vote": (1, 1e4), "reject": (0, 1 - 1e-9)}


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
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        parts.port  # noqa: B018  raises ValueError where it is not valid
    except ValueError as error:
        raise InputError(f"{url!r} is not the address of a server: {error}") from None
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
            ServingError: the server refused the request, is not there, or was too slow.
        """
        emg = np.ascontiguousarray(emg, np.float32)
        if emg.ndim != 3 or not emg.size:
            raise ValueError(f"`emg` must be windows (B, L, C), at least one. Received: emg.shape={emg.shape}")
        if not np.isfinite(emg).all():
            raise ValueError("`emg` must be finite. Received: NaN or Inf")
        return self._retrying(lambda seconds: _checked_answers(self._predict(emg, signature, seconds), len(emg)))

    def about(self) -> dict[str, np.ndarray] | None:
        """How the model decides: `rate_hz`, `length`, `stride`, `vote`, `reject` and `movements`.

        Also `names` of the movements where the model has them, and `filter`, second-order sections (S, 6), where
        windows must come from a filtered signal. None for a model that an older tfkfin exported without all this.
        """
        return self._about

    @cached_property
    def _about(self) -> dict[str, np.ndarray] | None:
        if "about" not in self._signatures:
            return None
        ignored = np.zeros(1, np.float32)
        return self._retrying(lambda seconds: _checked_about(self._predict(ignored, "about", seconds)))

    @cached_property
    def _signatures(self) -> dict:
        return self.metadata()

    def metadata(self) -> dict[str, dict[str, dict[str, tuple]]]:
        """{signature: {"inputs": {name: (dtype, shape)}, "outputs": ...}}; an axis of any size is -1."""
        return self._retrying(lambda seconds: {
            name: {kind: {key: _tensor(info) for key, info in sorted(signature.get(kind, {}).items())}
                   for kind in ("inputs", "outputs")}
            for name, signature in self._metadata(seconds).items() if not name.startswith("__")})

    def window_length(self) -> int:
        """Samples L of a window, from the model's metadata."""
        shape = self._signatures.get("serving_default", {}).get("inputs", {}).get("emg", ("", None))[1]
        if shape is None or len(shape) != 3 or not 1 <= shape[1] <= _RANGES["length"][1]:
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


def _checked_answers(found: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Answers for `count` windows or signals.

    Raises:
        ValueError: there are not so many, or the values are not probabilities or integer labels.
    """
    for name, values in found.items():
        if values.ndim < 1 or len(values) != count:
            raise ValueError(f"{name} has the shape {values.shape} for {count} windows")
    probabilities, label = found.get("probabilities"), found.get("label")
    if probabilities is not None and (probabilities.dtype.kind != "f" or probabilities.ndim not in (2, 3)
                                      or not ((probabilities >= -1e-3) & (probabilities <= 1.001)).all()):
        raise ValueError("probabilities are not numbers from 0 to 1")
    if label is not None and (label.dtype.kind not in "iu"
                              or probabilities is not None and label.shape != probabilities.shape[:-1]):
        raise ValueError(f"label has the shape {label.shape} and the type {label.dtype}")
    return found


def _checked_about(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the signature `about` answers.

    Raises:
        ValueError, KeyError, TypeError: a value is missing or impossible.
    """
    for name, (low, high) in _RANGES.items():
        if not low <= float(found[name]) <= high:
            raise ValueError(f"{name} is {float(found[name]):g}")
    movements = found["movements"]
    if movements.dtype.kind not in "iu" or movements.ndim != 1 or not 1 <= len(movements) == len(np.unique(movements)):
        raise ValueError("movements is not a list of different integers")
    return found


def _tensor(info: dict) -> tuple[str, tuple[int, ...] | None]:
    shape, kind = info.get("tensor_shape", {}), info["dtype"].removeprefix("DT_").lower()
    return kind, None if shape.get("unknown_rank") else tuple(int(d.get("size", 0)) for d in shape.get("dim", []))
