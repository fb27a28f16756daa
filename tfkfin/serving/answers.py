"""Signatures of a served model, and checks of what is sent to it and of what it answers."""

from typing import Any

import numpy as np

RANGES = {"rate_hz": (1, 1e6), "length": (1, 1e7), "stride": (1, 1e7), "vote": (1, 1e4), "reject": (0, 1 - 1e-9)}
DTYPES = {"float": np.float32, "double": np.float64, "int64": np.int64, "int32": np.int32, "string": np.str_}


def checked_answers(found: dict[str, np.ndarray], count: int, outputs: dict[str, tuple]) -> dict[str, np.ndarray]:
    """Answers for `count` windows or signals, whose signature has these `outputs`.

    Raises:
        ValueError: there are not so many, one is missing or of another type or shape than the signature's, or the
            values are not probabilities or integer labels.
    """
    for name, (kind, shape) in outputs.items():
        if name not in found:
            raise ValueError(f"{name} is missing")
        own = np.dtype(DTYPES[kind]).kind if kind in DTYPES else found[name].dtype.kind
        if not compatible(found[name].shape, shape) or own != "U" and own != found[name].dtype.kind:
            raise ValueError(f"{name} has the shape {found[name].shape} and the type {found[name].dtype}, not {shape} "
                             f"and {kind} as in the signature")
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


def checked_about(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the signature `about` answers.

    Raises:
        ValueError, KeyError, TypeError: a value is missing or impossible.
    """
    for name, (low, high) in RANGES.items():
        if not low <= float(found[name]) <= high:
            raise ValueError(f"{name} is {float(found[name]):g}")
    movements = found["movements"]
    if movements.dtype.kind not in "iu" or movements.ndim != 1 or not 1 <= len(movements) == len(np.unique(movements)):
        raise ValueError("movements is not a list of different integers")
    sections, names = found.get("filter", np.empty((0, 6))), found.get("names", movements)
    if sections.ndim != 2 or sections.shape[1] != 6 or len(sections) > 1000 or not np.isfinite(sections).all():
        raise ValueError("filter is not second-order sections")
    a0, a1, a2 = sections.T[3:]
    if not ((np.abs(a2) < a0) & (np.abs(a1) < a0 + a2)).all():
        raise ValueError("filter is not stable")
    if names.size != len(movements):
        raise ValueError(f"names has {names.size} names of {len(movements)} movements")
    return found


def compatible(shape: tuple[int, ...], wanted: tuple[int, ...] | None) -> bool:
    return wanted is None or len(shape) == len(wanted) and all(w in (-1, s) for s, w in zip(shape, wanted, strict=True))


def signatures(table: dict) -> dict[str, dict[str, dict[str, tuple]]]:
    """As `Client.metadata`, from the table in the JSON form of protocol buffers."""
    return {name: {kind: {key: tensor(info) for key, info in sorted(signature.get(kind, {}).items())}
                   for kind in ("inputs", "outputs")}
            for name, signature in table.items() if not name.startswith("__")}


def tensor(info: dict) -> tuple[str, tuple[int, ...] | None]:
    shape, kind = info.get("tensor_shape", {}), info["dtype"].removeprefix("DT_").lower()
    return kind, None if shape.get("unknown_rank") else tuple(int(d.get("size", 0)) for d in shape.get("dim", []))


def array(values: Any, kind: type) -> np.ndarray:
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
