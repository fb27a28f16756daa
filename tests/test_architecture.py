"""The house: imports point down only and in no circles, rooms stay few, files stay readable, and the package small."""

import ast
import io
import subprocess
import sys
import tokenize
from collections import Counter
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tfkfin.recipe import Recipe

PACKAGE = Path("tfkfin")
FILES = sorted(PACKAGE.rglob("*.py"))
# A room is a folder or a single file right below the package. It imports from rooms on lower floors only.
FLOORS = (
    ("tfkfin",),  # __init__.py: the version, and what is loaded when first asked for
    ("base",),
    ("recipe", "features", "sessions"),
    ("recordings", "signal", "launch"),
    ("nets", "pipeline"),
    ("store",),
    ("decoder",),
    ("fit", "serving"),
    ("api", "scikit"),
    ("experiments", "live"),
    ("train", "evaluate", "tune", "calibrate", "export", "models", "client", "data"),  # commands: nobody imports them
    ("__main__",),
)
NEVER = {  # what a room must not even know of, although it lies below
    "nets": ("recordings", "pipeline"), "decoder": ("recordings", "pipeline"), "serving": ("pipeline", "fit"),
    "sessions": ("features", "recipe"), "features": ("recordings",),
}
ROOMS, PAIRS, CODE_LINES = 27, 127, 19_065  # 14,000 lines are the aim
LINES, FUNCTION_LINES = 450, 60
WAY, WAY_LINES = [Path("tfkfin", name) for name in (  # from volts to a decision
    "nets/layers.py", "nets/network.py", "nets/sliding.py", "nets/streaming.py", "nets/forward.py",
    "nets/heads/__init__.py", "decoder/decoder.py", "decoder/decision.py")], 1500


def module(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else name


@cache
def imports(path: Path) -> frozenset[str]:
    """Modules of the package that a file imports anywhere in it, lazily or for types alone too."""
    modules, found = {module(file) for file in FILES}, set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tfkfin":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in modules else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "tfkfin"}
    return frozenset(found)


def own_room(path: Path) -> str:
    """`__main__.py` of a room is a command: it may import what commands may."""
    return "__main__" if path.name == "__main__.py" else room(module(path))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_down(path):
    floor = {name: i for i, names in enumerate(FLOORS) for name in names}
    own = own_room(path)
    assert own in floor, f"{own} is a new room: give it its floor"
    for name in imports(path):
        other = room(name)
        assert other in (own, path.parts[1]) or floor[other] < floor[own], f"{path} imports {name}, no floor below it"
        assert other not in NEVER.get(own, ()), f"{path} imports {name}, which {own} must not know of"


def test_there_are_no_circles():
    """Lazy imports and those for types count: a circle of names is a circle of thought."""
    try:
        TopologicalSorter({module(path): imports(path) - {module(path)} for path in FILES}).prepare()
    except CycleError as error:
        pytest.fail(f"these import each other: {' -> '.join(error.args[1])}")


def test_no_public_class_has_two_homes():
    classes = Counter(node.name for path in FILES for node in ast.parse(path.read_text(encoding="utf-8")).body
                      if isinstance(node, ast.ClassDef) and not node.name.startswith("_"))
    assert not [name for name, count in classes.items() if count > 1]


def test_the_house_stays_small():
    rooms = {room(module(path)) for path in FILES} - {"tfkfin"}
    pairs = {(room(module(path)), room(name)) for path in FILES for name in imports(path)} - {(r, r) for r in rooms}
    lines = sum(map(code_lines, FILES))
    print(f"{len(rooms)} rooms, {len(pairs)} pairs of rooms, {lines} lines of code")
    assert len(rooms) <= ROOMS
    assert len(pairs) <= PAIRS
    assert lines <= CODE_LINES


def test_the_way_from_volts_to_a_decision_is_short():
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in WAY) <= WAY_LINES
    known = {room(name) for path in WAY for name in imports(path)}
    assert not known & {"fit", "serving", "recordings", "pipeline", "live", "experiments"}


def code_lines(path: Path) -> int:
    """Lines of a file that are code: no blanks, comments, docstrings."""
    text, lines = path.read_text(encoding="utf-8"), set()
    nothing = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in nothing:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(
                    first.value.value, str):
                lines -= set(range(first.lineno, first.end_lineno + 1))
    return len(lines)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_and_functions_stay_readable(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES, f"{path} has grown beyond {LINES} lines: it holds more than one concept"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < FUNCTION_LINES, (
                f"{path}: {node.name} has grown beyond {FUNCTION_LINES} lines")


def test_sessions_are_numpy_and_scipy_alone():
    for path in FILES:
        if own_room(path) == "sessions":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [
                    alias.name for alias in getattr(node, "names", ())] if isinstance(node, ast.Import) else []
                for name in names:
                    top = name.partition(".")[0]
                    assert top in {"tfkfin", "numpy", "scipy", *sys.stdlib_module_names}, f"{path} imports {name}"


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
