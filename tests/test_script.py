"""The script `tfkfin`: every command is listed with what it is for, answers `--help`, and loads nothing to say so."""

import subprocess
import sys

import pytest

from tfkfin import __version__
from tfkfin.__main__ import COMMANDS, summary
from tfkfin.base.files import PACKAGE


def tfkfin(*arguments):
    return subprocess.run([sys.executable, "-m", "tfkfin", *arguments], capture_output=True, text=True, timeout=60)


def test_every_command_line_is_there():
    own = {path.stem for path in PACKAGE.glob("*.py") if "def parser()" in path.read_text() or path.stem == "data"}
    rooms = {path.parent.name for path in PACKAGE.glob("*/__main__.py")}
    assert own | rooms == set(COMMANDS)
    listed = tfkfin()
    assert listed.returncode == 0 and all(summary(name) and summary(name) in listed.stdout for name in COMMANDS)
    assert max(map(len, listed.stdout.splitlines())) <= 110


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_light(command):
    code = (f"import atexit, sys; sys.argv = ['tfkfin', '{command}', '--help']\nfrom tfkfin.__main__ import script\n"
            "atexit.register(lambda: sys.stderr.write(str('tensorflow' in sys.modules)))\nscript()")
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0 and "usage:" in shown.stdout and shown.stderr == "False"


def test_version_and_unknown_commands():
    assert tfkfin("--version").stdout == f"tfkfin {__version__}\n"
    wrong = tfkfin("trian")
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and "there are train" in wrong.stderr
