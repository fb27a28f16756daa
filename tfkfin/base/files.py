"""Files: written whole or not at all, found beside the package, cached for the user."""

import glob
import json
import os
import platform
import re
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfkfin.base import reading
from tfkfin.base.errors import InputError, refused_as

if TYPE_CHECKING:
    from pydantic import BaseModel

PACKAGE = Path(__file__).resolve().parents[1]
_LARGEST_TOML = 1 << 18  # bytes: a hundred times what recipes and sheets have


@contextmanager
def making(folder: Path) -> Iterator[None]:
    """Makes a folder, with those above it; where the block fails, those of them that are empty go again."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for path in new:
            with suppress(OSError):
                path.rmdir()
        raise


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Holds the lock file `path`, which is gone afterwards, and makes its folder.

    Raises:
        InputError: another process holds it; the message begins with `what`.
    """
    from filelock import FileLock, Timeout

    with making(path.parent):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(f"{what}: wait for it, or choose another folder") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            lock.release()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path to write to, which becomes `path` in one step at the end; if the block fails, nothing is left.

    A reader, or a run that is resumed, sees the old file or the whole new one. The file to write to is there already,
    empty: nobody can have put a link in its place.

    Raises:
        OSError: it cannot be written; `filename` is there, whoever raised it.
    """
    path = Path(path)
    partial = partial_of(path)
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        bury(path)
        partial.unlink(missing_ok=True)
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield partial
        put(partial, path)
    except OSError as error:
        if error.filename in (None, str(partial)) and error.errno:
            raise type(error)(error.errno, error.strerror or os.strerror(error.errno), str(path)) from error
        raise
    finally:
        with suppress(OSError):
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


def is_dead(partial: Path) -> bool:
    """Whether the process that made a `partial_of` was one of this machine and has ended."""
    made = re.fullmatch(r"\.(\d+)-(.+)\.partial\..+", partial.name)
    if made is None or made[2] != platform.node() or os.name != "posix":
        return False
    try:
        os.kill(int(made[1]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # somebody else's
        pass
    return False


def bury(path: Path) -> None:
    """Removes what processes of this machine that were killed have left of a file or folder, `path`."""
    for partial in path.parent.glob(f".[0-9]*.partial.{glob.escape(path.name)}"):
        if is_dead(partial):
            shutil.rmtree(partial, ignore_errors=True) if partial.is_dir() else partial.unlink(missing_ok=True)


def sweep(path: Path) -> None:
    """Removes what killed runs have left of `replacing(path)`. Nobody else may be writing `path`."""
    for partial in path.parent.glob(f".[0-9]*.partial.{path.name}"):
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, allow_nan=True) + "\n")


def read_json(path: Path, remedy: str = "repair or remove it", kind: "type[BaseModel] | None" = None
              ) -> dict[str, Any] | None:
    """The table in a JSON file, or None where there is no file.

    Args:
        kind: what has to be in it.

    Raises:
        InputError: it is none, or not of its kind; the message ends with `remedy`.
    """
    try:
        value = json.loads(reading.text(path))
        if kind is not None:
            kind.model_validate(value)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except InputError:
        raise
    except (ValueError, RecursionError):  # no JSON, no text at all, nested thousands deep, or of another kind
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged: {remedy}")
    return value


def read_toml(path: Path, what: str = "TOML") -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        InputError: it is none, or no regular file.
    """
    with refused_as(f"{path} is not {what}", ValueError, RecursionError):
        return tomllib.loads(reading.text(path, _LARGEST_TOML))


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

    try:
        return user_cache_path("tfkfin", appauthor=False) / kind
    except RuntimeError:  # a user whom the system does not know, as in a container
        raise InputError("there is no home folder to cache files in: name one with TFKFIN_CACHE") from None
