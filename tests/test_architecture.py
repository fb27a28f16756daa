"""Imports point down only; what must stay light stays light; files stay readable."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tfkfin.recipe import Recipe

PACKAGE = Path("tfkfin")
FILES = sorted(PACKAGE.rglob("*.py"))
# Lower rooms first. A module may import from its own room and from lower ones.
ROOMS = {
    "base": 0, "bounded": 0, "answers": 0, "console": 0, "files": 0, "machine": 0, "registry": 0,
    "recipe": 1,
    "recordings": 2, "features": 2, "filtering": 2,
    "models": 3, "pipeline": 4,
    "fit": 5,
    "launch": 6, "serving": 6, "experiments": 6,
    "data": 7, "train": 7, "evaluate": 7, "export": 7, "tune": 7, "client": 7, "calibrate": 7, "live": 7,
    "api": 8, "scikit": 8, "verify": 9,
}


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "base"


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tfkfin":
            found |= {f"{node.module}.{alias.name}" if node.module == "tfkfin" else node.module for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "tfkfin"}
    return found


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_down(path):
    own = "verify" if path.name == "__main__.py" else room(".".join(path.with_suffix("").parts))  # a command line
    own = "base" if own == "__init__" else "train" if path == PACKAGE / "__main__.py" else own
    assert own in ROOMS, f"{own} is a new room: give it its place"
    for module in imports(path):
        other = room(module)
        if own in ("models", "features") and other == "recordings" or {own, other} == {"pipeline", "models"}:
            pytest.fail(f"{path} imports {module}: models know of no recordings, the pipeline of no models")
        if own == "serving" and other in ("pipeline", "fit"):
            pytest.fail(f"{path} imports {module}: what is served knows nothing of how it was trained")
        assert other == "__version__" or ROOMS[other] <= ROOMS[own], f"{path} imports {module}, which lies above it"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_and_functions_stay_readable(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300, f"{path} has grown beyond 300 lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{path}: {node.name} has grown beyond 60 lines"


def test_import_is_light():
    code = "import sys, tfkfin; sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras', 'numpy', 'scipy')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_every_option_is_read_somewhere():
    """An option that nothing reads would be accepted and do nothing."""
    read = set()
    for path in FILES:
        if path.name != "options.py":
            nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
            called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
            read |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and id(node) not in called}
    sections = {name: field.annotation for name, field in Recipe.model_fields.items()}
    options = [(section, name) for section, kind in sections.items() for name in getattr(kind, "model_fields", ())]
    assert len(options) > 50 and not [option for option in options if option[1] not in read]
