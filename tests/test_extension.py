"""A package of somebody else adds kinds by entry points alone: docs/extending.md's, in an environment of its own."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from docs_session import blocks

import tfkfin

PAGE = Path("docs/extending.md").resolve()
BLOCKS = [(language, file, text) for language, file, text, _ in blocks(PAGE)]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A folder with the package of the page, and the environment that it is installed in."""
    folder = tmp_path_factory.mktemp("extension")
    (folder / "my_emg").mkdir()
    for _, file, text in BLOCKS:
        if file:
            (folder / file).write_text(text.lstrip(), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True, timeout=120)
    there = next((folder / "venv" / "lib").iterdir()) / "site-packages"
    # installed packages and this tfkfin are seen from there; what is installed there is not seen from here
    root = Path(tfkfin.__file__).parents[1]
    shared = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    (there / "shared.pth").write_text(shared + f"{root}\n", encoding="utf-8")
    own = os.environ | {"PATH": f"{folder / 'venv' / 'bin'}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": "-1",
                        "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([folder / "venv" / "bin" / "python", "-m", "pip", "install", "-q", "--no-deps", "--no-index",
                    "--no-build-isolation", "."], cwd=folder, env=own, check=True, timeout=300)
    return folder, own


def test_names_are_known_without_loading_anything(place):
    folder, own = place
    code = ("import sys; from tfkfin.base import registry; print([registry.names(room) for room in registry.OPEN]); "
            "sys.exit('tensorflow' in sys.modules or any(name.startswith('my_emg') for name in sys.modules))")
    done = subprocess.run(["python", "-c", code], cwd=folder, env=own, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for name in ("short", "nearest", "log_power", "lines", "semicolons", "hum"):
        assert f"'{name}'" in done.stdout


def test_a_name_of_tfkfin_s_own_cannot_be_taken(place, tmp_path, monkeypatch):
    from tfkfin.base import registry
    from tfkfin.base.errors import InputError

    (tmp_path / "taker-1.0.dist-info").mkdir()
    (tmp_path / "taker-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: taker\nVersion: 1.0\n")
    (tmp_path / "taker-1.0.dist-info" / "entry_points.txt").write_text("[tfkfin.fins]\nconv = taker:FAMILY\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry._installed.cache_clear()
    with pytest.raises(InputError, match="taker calls a kind of nets/fins 'conv'"):
        registry.names("nets/fins")
    monkeypatch.undo()
    registry._installed.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("number", [i for i, (kind, file, _) in enumerate(BLOCKS) if not file and kind != "python"])
def test_commands_use_what_the_package_adds(place, number):
    folder, own = place
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", BLOCKS[number][2]], cwd=folder, env=own, text=True,
                          capture_output=True, timeout=600)
    assert not done.returncode, (done.stdout + done.stderr)[-4000:]


def test_python_blocks_of_the_page_run():
    names: dict = {"__name__": "__main__"}
    from tfkfin.features import catalogue

    before = dict(catalogue.FEATURES)
    try:
        for language, file, text in BLOCKS:
            if language == "python" and not file:
                exec(compile(text, str(PAGE), "exec"), names)
    finally:
        catalogue.FEATURES.clear()
        catalogue.FEATURES.update(before)
