"""No version is admitted, or installed here, that is known to let in what SECURITY.md promises to keep out."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ADVISORIES = tomllib.loads(Path("tests/advisories.toml").read_text())
SAFE = {name: Version(fixed) for name, (fixed, _) in ADVISORIES["fixed"].items()}
OURS = {"io-test", "test", "docs", "bench"}  # extras for who works on tfkfin: tools, installed anew for it


def configuration() -> configparser.ConfigParser:
    told = configparser.ConfigParser(interpolation=None)
    told.read("setup.cfg")
    return told


def admitted(of_all: bool = True) -> dict[str, Requirement]:
    """Package -> what setup.cfg says of it, where that is first named; else of what is always installed."""
    told = configuration()
    parts = [told["options"]["install_requires"], *(told["options.extras_require"].values() if of_all else ())]
    lines = [line for part in parts for line in part.strip().splitlines() if "%(" not in line]
    return {(one := Requirement(line)).name.lower(): one for line in reversed(lines)}


def lowest(one: Requirement) -> Version | None:
    return max((Version(clause.version) for clause in one.specifier if clause.operator in (">=", "==")), default=None)


@pytest.mark.parametrize("name", sorted(SAFE.keys() & admitted()))
def test_lowest_versions_are_safe(name):
    assert lowest(admitted()[name]) >= SAFE[name]


@pytest.mark.parametrize("name", sorted(SAFE.keys() - {"setuptools", "wheel"}))  # which build packages alone
def test_what_is_installed_is_safe(name):
    try:
        assert Version(version(name)) >= SAFE[name]
    except PackageNotFoundError:
        pytest.skip(f"{name} is of an extra that is not installed here")


def resolved(requirements: list[str], folder: Path) -> dict[str, Version]:
    """The lowest versions that pip may choose for these and all that they bring along."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        pytest.skip("uv is not installed: pip install uv")
    (folder / "wanted.in").write_text("\n".join(requirements))
    done = subprocess.run([uv, "pip", "compile", "-q", "--resolution", "lowest", "--no-header", "--no-annotate",
                           "--python-version", "3.11", folder / "wanted.in"], capture_output=True, text=True)
    if done.returncode and re.search("error sending request|dns error|[Cc]onnect|offline|timed out", done.stderr):
        pytest.skip("no package index can be reached, which says what the requirements of requirements are")
    assert not done.returncode, done.stderr
    return {(name := line.partition("=="))[0]: Version(name[2].split(";")[0].strip())
            for line in done.stdout.splitlines() if "==" in line}


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["", *sorted(configuration()["options.extras_require"].keys() - OURS)])
def test_the_lowest_of_all_that_may_be_installed_is_safe(extra, tmp_path):
    """Others' requirements too: setup.cfg has a lower bound where these have none, or admit holes."""
    own, extras = configuration()["options"]["install_requires"], configuration()["options.extras_require"]
    wanted = [line for part in (own, extras[extra] if extra else "") for line in part.strip().splitlines()]
    wanted = [one for line in wanted for one in (extras["remote"].split("\n") if line == "%(remote)s" else [line])]
    found = resolved(wanted, tmp_path)
    assert {"tensorflow", "pillow", "werkzeug", "protobuf"} <= found.keys()
    low = {name: str(found[name]) for name in found.keys() & SAFE if found[name] < SAFE[name]}
    assert not low, f"below what tests/advisories.toml says: {low}"


def test_what_is_admitted_all_the_same_is_said():
    said = Path("SECURITY.md").read_text()
    assert all(number in said for number in ADVISORIES["admitted"])


def test_what_is_always_installed_has_a_lowest_version():
    """Which is the one that .ci/run installs, and runs these tests with TFKFIN_LOWEST set."""
    for name, one in admitted(of_all=False).items():
        least = lowest(one)
        assert least, f"{name} has none"
        assert Version(version(name)) == least or "TFKFIN_LOWEST" not in os.environ, (name, version(name))


def test_an_editable_install_is_a_path_that_type_checkers_follow(tmp_path):
    """Not an import hook, which they do not run: the wheel holds a .pth with the checkout."""
    root = Path(__file__).parents[1]
    build = f"from setuptools import build_meta; print(build_meta.build_editable({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", build], cwd=root, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        paths = [wheel.read(name).decode().strip() for name in wheel.namelist() if name.endswith(".pth")]
    assert [Path(path) for path in paths] == [root] and (root / "tfkfin" / "py.typed").is_file()
