"""Files: written whole or not at all, found beside the package, cached for the user."""

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path to write to, which becomes `path` in one step at the end; if the block fails, nothing is left.

    A reader, or a run that is resumed, sees the old file or the whole new one.
    """
    partial = partial_of(path)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        put(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def partial_of(path: Path) -> Path:
    """A temporary name beside `path`, of this process on this machine.

    It has the suffix of `path`, which some writers look at, and a leading dot, so that nothing takes it for a file of
    its kind.
    """
    return Path(path).with_name(f".{os.getpid()}-{platform.node()}.partial.{Path(path).name}")


def put(partial: Path, path: Path) -> None:
    """Gives a finished file its name once its bytes are on the disk: not even a power cut leaves a half `path`."""
    with open(partial, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def sweep(path: Path) -> None:
    """Removes what killed runs have left of `replacing(path)`. Nobody else may be writing `path`."""
    for partial in path.parent.glob(f".[0-9]*.partial.{path.name}"):
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, allow_nan=True) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file, or None where there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def shipped(kind: str) -> Path:
    """The folder `pipelines` or `savedmodels`: beside the package in a checkout, inside it in a wheel."""
    inside = PACKAGE / kind
    return inside if inside.is_dir() else PACKAGE.parent / kind


def cache(kind: str = "") -> Path:
    """Where `kind` is cached for this user: below `$TFKFIN_CACHE`, else the platform's folder for caches."""
    own = os.environ.get("TFKFIN_CACHE")
    if own:
        return Path(own, kind)
    from platformdirs import user_cache_path

    return user_cache_path("tfkfin", appauthor=False) / kind
