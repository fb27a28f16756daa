"""Models in folders: their versions, what their cards hold, and whether they are as they were written.

A model folder is laid out as TF Serving wants it: <name>/<version>/, versions counting up, each with a card that says
what the model is and the checksum of every file, and each appearing whole, beside a models.config. What ships lies in
savedmodels/ beside or inside the package; exports go to ./savedmodels by default.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tfkfin.base import reading
from tfkfin.base.console import log, unfinished
from tfkfin.base.errors import InputError, refused_as
from tfkfin.base.files import making, read_json, shipped, write_text
from tfkfin.recipe import Recipe
from tfkfin.store import schema

SAVED_MODEL, ONNX, ONNX_STREAM = "saved_model.pb", "model.onnx", "stream.onnx"  # files of a version folder
LITERT = "model.tflite"
_NAME = re.compile(r"\w[\w .+=@~-]{0,199}")
DIGEST = "card_sha256"  # key of a card
CARD, README = "model_card.json", "README.md"
FINS_FILE = Path("assets.extra", "fins.keras")  # servers pass assets.extra by
PARTIAL = ".partial-"  # servers and `presets` look at folders named by a number only
LAST = ".last_version"  # the highest number ever given, so that a deleted version's number is not given again


def versions(folder: Path) -> list[Path]:
    """Version folders of a model, oldest first."""
    numbered = [path for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()] if folder.is_dir() else []
    return sorted(numbered, key=lambda path: int(path.name))


def newest(folder: Path) -> Path | None:
    """The newest version of a model folder that holds a network in some format; a version folder is that itself."""
    held = [v for v in (*versions(folder), folder) if any((v / f).is_file() for f in (SAVED_MODEL, ONNX, LITERT))]
    return held[-1] if held else None


def models(folder: Path) -> list[Path]:
    """The model folders in a folder such as savedmodels/, by name."""
    return sorted(path for path in folder.iterdir() if versions(path) and newest(path)) if folder.is_dir() else []


def checked_name(name: str) -> str:
    """A model's name as servers and their lists of models can hold it.

    Raises:
        InputError: it has what would mean something else there, such as quotes, slashes or new lines.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{name[:80]!r} is no name of a model: take letters, digits, space and . _ + = @ ~ -, "
                         "beginning with a letter or a digit")
    return name


def card(version: Path) -> dict:
    """The content of a model's model_card.json.

    Raises:
        InputError: there is no card, so nothing tells which movement a label is; or what it says is impossible.
    """
    found = read_json(version / CARD, "export the model anew")
    if found is None:
        raise InputError(f"{version} has no {CARD}: export it with python -m tfkfin.export")
    return schema.checked(found, version / CARD)


def decoder_card(version: Path) -> dict:
    """The card of a version folder that holds a decoder.

    Raises:
        InputError: it holds something else.
    """
    found = card(version)
    if found.get("kind") != "decoder":
        raise InputError(f"{version} holds {found.get('kind', 'something else')}, no decoder: export a run of the "
                         "stage finetune")
    return found


def made_by(recipe: Recipe, length: int, rate_hz: float) -> dict:
    """What the cards of decoders and of FINs that a recipe makes have in common; windows of `length` samples."""
    return {"recipe_digest": recipe.digest, "protocol": recipe.protocol, "recipe": recipe.model_dump(mode="json"),
            "features": list(recipe.features.names), "family": recipe.fin.family, "length": length,
            "length_ms": recipe.window.length_ms, "rate_hz": rate_hz,
            **({"filter": recipe.filter.model_dump(mode="json")} if recipe.filter.active else {})}


def checksums(version: Path) -> dict[str, str]:
    """SHA-256 of every file but the card, of a README without front matter: relative path -> hex digest."""
    found = {}
    for path in sorted(p for p in version.rglob("*") if p.is_file() and p.name not in (CARD, ".gitattributes")):
        plain = path.name == README and hashlib.sha256(without_front_matter(reading.content(path))).hexdigest()
        found[path.relative_to(version).as_posix()] = plain or reading.sha256(path)
    return found


def without_front_matter(readme: bytes) -> bytes:
    """A README without what sites for sharing models put at its top."""
    return re.sub(rb"\A---\n.*?\n---\n+", b"", readme, flags=re.DOTALL)


def digest(card: dict) -> str:
    """SHA-256 of all that a card says but this."""
    text = json.dumps({key: value for key, value in card.items() if key != DIGEST}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(card: dict) -> dict:
    """A card with its digest."""
    card = json.loads(json.dumps(card))
    return card | {DIGEST: digest(card)}


def changed(version: Path) -> list[str]:
    """Files that are missing, new or not as they were written.

    An older tfkfin noted no digest of README and card themselves: these two are then taken as they are.
    """
    about = card(version)
    was, now = about.get("sha256", {}), checksums(version)
    if not isinstance(was, dict):
        return [CARD]
    if DIGEST not in about:
        now.pop(README, None)
    own = [CARD] if DIGEST in about and about[DIGEST] != digest(about) else []
    return sorted([*own, *(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))])


def verify(version: Path) -> None:
    """Makes sure, before a version is loaded, that what is there of it is as it was written.

    A file that is gone is missed by whoever needs it: ONNX alone, with its card, is enough for ONNX Runtime.
    Against damage, not against its maker: whoever changes a model can change its digests too (see SECURITY.md).

    Raises:
        InputError: it is not.
    """
    known = card(version).get("sha256", ())
    if altered := [name for name in changed(version) if name == CARD or name in known and (version / name).is_file()]:
        raise InputError(f"{version} is not as it was exported: {', '.join(altered[:5])}: export it anew, or fetch it "
                         "again")


def next_version(model: Path) -> int:
    """A number above every version that is, is being written, or ever was under `model`."""
    numbers = [int(v.name) for v in versions(model)]
    numbers += [int(number) for p in model.glob(PARTIAL + "*") if (number := p.name.removeprefix(PARTIAL)).isdecimal()]
    if (model / LAST).exists():
        last = reading.content(model / LAST)[:20].strip()
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
    checked_name(model.absolute().name)
    with ExitStack() as stack:
        with refused_as(f"cannot write to {model}", OSError):
            stack.enter_context(making(model))
            _sweep(model)
            partial, number, lock = _reserve(model)
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

    A monitoring.config, which the command in savedmodels/README.md names too, is written where there is none.

    A server started with --model_config_file_poll_wait_seconds picks it up without a restart.
    """
    checked_name(model.name)
    path = model.parent / "models.config"
    with FileLock(model.parent / ".models.config.lock"):
        if not (monitoring := model.parent / "monitoring.config").exists():
            write_text(monitoring, reading.text(shipped("savedmodels") / monitoring.name))
        text = reading.text(path) if path.exists() else "model_config_list {\n}\n"
        if re.search(rf'\bname:\s*["\']{re.escape(model.name)}["\']', text):
            return
        end = text.rstrip().rfind("}")
        if "model_config_list" not in text or end < 0:
            log.warning("warning: %s is no list of models: add %s to it by hand", path, model.name)
            return
        entry = (f'  config {{\n    name: "{model.name}"\n    base_path: "/models/{model.name}"\n'
                 '    model_platform: "tensorflow"\n  }\n')
        write_text(path, text[:end] + entry + text[end:])
