"""The commands of tfkfin: `tfkfin COMMAND ...` is `python -m tfkfin.COMMAND ...`."""

import ast
import importlib
import sys

import tfkfin
from tfkfin import __version__
from tfkfin.base.console import run
from tfkfin.base.errors import InputError
from tfkfin.base.files import PACKAGE

COMMANDS = ("train", "evaluate", "experiments", "tune", "calibrate", "export", "models", "client", "live", "data")


def summary(command: str) -> str:
    """What a command is for: the first line of its module, read without importing it."""
    path = next(p for p in (PACKAGE / f"{command}.py", PACKAGE / command / "__main__.py") if p.is_file())
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).partition("\n")[0]
    return text.partition(": ")[2]


def listed() -> str:
    lines = (f"  {name:12} {summary(name)}" for name in COMMANDS)
    return "\n".join([f"tfkfin {__version__}: feature imitation networks for surface EMG", "",
                      "usage: tfkfin COMMAND [--help] ...", "", *lines, "",
                      "  tfkfin train --stage finetune     the main job, on an embedded synthetic DB2"])


def main(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(listed() + "\n")
    elif argv[0] in ("-V", "--version"):
        sys.stdout.write(f"tfkfin {__version__}\n")
    elif argv[0] in COMMANDS:
        room = f"tfkfin.{argv[0]}"
        module = importlib.import_module(f"{room}.__main__" if (PACKAGE / argv[0]).is_dir() else room)
        module.main(argv[1:])
    else:
        raise InputError(f"no command {argv[0]!r}: there are {', '.join(COMMANDS)}")


def script() -> None:
    sys.excepthook = tfkfin._say_interrupted
    run(main)


if __name__ == "__main__":
    script()
