"""No version is admitted, or installed here, that is known to let in what SECURITY.md promises to keep out."""

import configparser
import os
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

# The first version without the advisories that SECURITY.md lists.
SAFE = {"keras": "3.15.1", "urllib3": "2.7.0", "requests": "2.33.0", "filelock": "3.20.3", "jinja2": "3.1.6",
        "scikit-learn": "1.5.0", "pyarrow": "23.0.1", "bokeh": "3.8.2", "ray": "2.55.0"}


def admitted(of_all: bool = True) -> dict[str, Requirement]:
    """Package -> what setup.cfg says of it, where that is first named; else of what is always installed."""
    told = configparser.ConfigParser(interpolation=None)
    told.read("setup.cfg")
    parts = [told["options"]["install_requires"], *(told["options.extras_require"].values() if of_all else ())]
    lines = [line for part in parts for line in part.strip().splitlines() if "%(" not in line]
    return {(one := Requirement(line)).name.lower(): one for line in reversed(lines)}


def lowest(one: Requirement) -> Version | None:
    return max((Version(clause.version) for clause in one.specifier if clause.operator in (">=", "==")), default=None)


@pytest.mark.parametrize("name", SAFE)
def test_lowest_versions_are_safe(name):
    assert lowest(admitted()[name]) >= Version(SAFE[name])
    try:
        assert Version(version(name)) >= Version(SAFE[name])
    except PackageNotFoundError:
        pytest.skip(f"{name} is of an extra that is not installed here")


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
