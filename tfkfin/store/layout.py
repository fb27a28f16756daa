"""Folders as TF Serving wants them: <name>/<version>/, each version appearing whole, beside a models.config."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tfkfin.base.console import log, unfinished
from tfkfin.base.errors import InputError
from tfkfin.base.files import making, write_text
from tfkfin.store import folders

PARTIAL = ".partial-"  # servers and `presets` look at folders named by a number only
LAST = ".last_version"  # the highest number ever given, so that a deleted version's number is not given again


def next_version(model: Path) -> int:
    """A number above every version that is, is being written, or ever was under `model`."""
    numbers = [int(v.name) for v in folders.versions(model)]
    numbers += [int(number) for p in model.glob(PARTIAL + "*") if (number := p.name.removeprefix(PARTIAL)).isdecimal()]
    if (model / LAST).is_file():
        last = (model / LAST).read_bytes()[:20].strip()
        if not last.isdigit():
            raise InputError(f"{model / LAST} is damaged: write the highest version's number into it")
        numbers.append(int(last))
    return max(numbers, default=0) + 1


@contextmanager
def new_version(model: Path) -> Iterator[tuple[Path, int]]:
    """Yields a temporary folder to fill, and its version number; at the end it becomes <model>/<number> in one step.

    A server that polls `model` sees nothing or the whole version. If the block fails, nothing is left behind.

    Raises:
        InputError: `model` is a file, cannot be written, has no name that a model can have, or was removed meanwhile.
    """
    folders.checked_name(model.absolute().name)
    with ExitStack() as stack:
        try:
            stack.enter_context(making(model))
            _sweep(model)
            partial, number, lock = _reserve(model)
        except OSError as error:
            raise InputError(f"cannot write to {model}: {error.strerror}") from None
        try:
            unfinished.add(partial)
            yield partial, number
            if not Path(lock.lock_file).exists():  # what was written before is gone, and what came after made it anew
                raise InputError(f"{model} was removed while a version was written there: give the command again")
            write_text(model / LAST, f"{number}\n")
            os.rename(partial, model / str(number))
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        finally:
            unfinished.discard(partial)
            _let_go(lock)
            with suppress(OSError):  # there is a version in it, or another's
                model.rmdir()


def _reserve(model: Path) -> tuple[Path, int, FileLock]:
    """A folder of its own, its number, and a lock that tells others that somebody still writes there."""
    while True:  # making the folder is what claims the number: two exports at a time get two numbers
        number = next_version(model)
        lock = FileLock(model / f"{PARTIAL}{number}.lock")
        with suppress(FileExistsError, Timeout):
            lock.acquire(timeout=0)
            (model / f"{PARTIAL}{number}").mkdir()
            return model / f"{PARTIAL}{number}", number, lock


def _sweep(model: Path) -> None:
    """Removes what killed exports have left."""
    for partial in [p for p in model.glob(PARTIAL + "*") if p.is_dir()]:
        lock = FileLock(f"{partial}.lock")
        with suppress(Timeout):
            lock.acquire(timeout=0)
            shutil.rmtree(partial, ignore_errors=True)
            _let_go(lock)


def _let_go(lock: FileLock) -> None:
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def add_to_config(model: Path) -> None:
    """Names a model in the models.config beside it, for a server that has the folder at /models; entries stay.

    A server started with --model_config_file_poll_wait_seconds picks it up without a restart.
    """
    folders.checked_name(model.name)
    path = model.parent / "models.config"
    with FileLock(model.parent / ".models.config.lock"):
        _add_to_config(model, path)


def _add_to_config(model: Path, path: Path) -> None:
    text = path.read_text(encoding="utf-8") if path.is_file() else "model_config_list {\n}\n"
    if re.search(rf'\bname:\s*["\']{re.escape(model.name)}["\']', text):
        return
    end = text.rstrip().rfind("}")
    if "model_config_list" not in text or end < 0:
        log.warning("warning: %s is no list of models: add %s to it by hand", path, model.name)
        return
    entry = (f'  config {{\n    name: "{model.name}"\n    base_path: "/models/{model.name}"\n'
             '    model_platform: "tensorflow"\n  }\n')
    write_text(path, text[:end] + entry + text[end:])
