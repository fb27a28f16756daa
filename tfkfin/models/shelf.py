"""Model folders in TF Serving's layout, <name>/<version>/, found by name and described by their cards."""

import hashlib
import json
from pathlib import Path

from tfkfin.console import InputError
from tfkfin.files import shipped

CARD = "model_card.json"
UNHASHED = {CARD, "README.md"}


def versions(folder: Path) -> list[Path]:
    """Version folders of a model, oldest first."""
    numbered = [path for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()] if folder.is_dir() else []
    return sorted(numbered, key=lambda path: int(path.name))


def saved(folder: Path) -> list[Path]:
    """Version folders that hold a model, SavedModel or ONNX, oldest first."""
    return [v for v in versions(folder) if any((v / name).is_file() for name in ("saved_model.pb", "model.onnx"))]


def models(shelf: Path) -> list[Path]:
    """The model folders on a shelf, such as savedmodels/, by name."""
    return sorted(path for path in shelf.iterdir() if saved(path)) if shelf.is_dir() else []


def find(name: str | Path) -> Path:
    """The newest version folder of a shipped FIN (`bilstm`), of a model folder, or a version folder itself.

    Raises:
        InputError: there is none.
    """
    candidates = [Path(name), shipped("savedmodels") / str(name), shipped("savedmodels") / f"fin_{name}"]
    for folder in candidates:
        if (folder / "saved_model.pb").is_file():
            return folder
        if found := [v for v in saved(folder) if (v / "saved_model.pb").is_file()]:
            return found[-1]
    known = ", ".join(path.name for path in models(shipped("savedmodels"))) or "the shipped ones (there are none)"
    raise InputError(f"no model {str(name)!r}: give a folder with a SavedModel or one of {known}")


def card(version: Path) -> dict:
    """What is said of a model in its model_card.json.

    Raises:
        InputError: there is no card, so nothing tells which movement a label is.
    """
    path = version / CARD
    if not path.is_file():
        raise InputError(f"{version} has no {CARD}: export it with python -m tfkfin.export")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from None


def checksums(version: Path) -> dict[str, str]:
    """SHA-256 of every file of a version but its card and README: relative path -> hex digest."""
    files = sorted(p for p in version.rglob("*") if p.is_file() and p.name not in UNHASHED)
    return {p.relative_to(version).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def changed(version: Path) -> list[str]:
    """Files that are missing, new or not as they were written."""
    was, now = card(version).get("sha256", {}), checksums(version)
    return sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
