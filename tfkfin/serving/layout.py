"""Folders as TF Serving wants them: <name>/<version>/, each version appearing whole, beside a models.config."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tfkfin.console import InputError, log
from tfkfin.files import write_text
from tfkfin.models import presets

PARTIAL = ".partial-"  # servers and `presets` look at folders named by a number only
LAST = ".last_version"  # the highest number ever given, so that a deleted version's number is not given again


def next_version(model: Path) -> int:
    """A number above every version that is, is being written, or ever was under `model`."""
    numbers = [int(v.name) for v in presets.versions(model)]
    numbers += [int(p.name.removeprefix(PARTIAL)) for p in model.glob(PARTIAL + "*")]
    if (model / LAST).is_file():
        numbers.append(int((model / LAST).read_text(encoding="utf-8")))
    return max(numbers, default=0) + 1


@contextmanager
def new_version(model: Path) -> Iterator[tuple[Path, int]]:
    """Yields a temporary folder to fill, and its version number; at the end it becomes <model>/<number> in one step.

    A server that polls `model` sees nothing or the whole version. If the block fails, nothing is left behind.

    Raises:
        InputError: `model` is a file or cannot be written.
    """
    try:
        model.mkdir(parents=True, exist_ok=True)
        partial, number = _reserve(model)
    except OSError as error:
        raise InputError(f"cannot write to {model}: {error.strerror}") from None
    try:
        yield partial, number
        write_text(model / LAST, f"{number}\n")
        os.rename(partial, model / str(number))
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _reserve(model: Path) -> tuple[Path, int]:
    while True:  # making the folder is what claims the number: two exports at a time get two numbers
        number = next_version(model)
        with suppress(FileExistsError):
            (model / f"{PARTIAL}{number}").mkdir()
            return model / f"{PARTIAL}{number}", number


def add_to_config(model: Path) -> None:
    """Names a model in the models.config beside it, for a server that has the folder at /models; entries stay.

    A server started with --model_config_file_poll_wait_seconds picks it up without a restart.
    """
    path = model.parent / "models.config"
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
