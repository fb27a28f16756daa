"""The documentation: every block of every page runs, notebooks run, every option and page has its place."""

import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
from docs_session import BLOCK, blocks

from tfkfin.recipe import fields

DOCS = Path("docs").resolve()
PAGES = sorted(DOCS.glob("*.md"))
RUN = [page for page in PAGES if any(blocks(page)) and page.stem != "extending"]  # see test_extension.py
CHEAP = {"fins"}  # pages that need seconds; the others train something
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def environment(folder: Path) -> dict[str, str]:
    """Of a reader who has this tfkfin and nothing else: the package is what lies in `folder`, if it does."""
    package = folder if (folder / "tfkfin").is_dir() else DOCS.parent
    return os.environ | {"PYTHONPATH": str(package), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                         "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "MPLBACKEND": "agg"}


@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem, marks=() if page.stem in CHEAP else pytest.mark.slow)
                                  for page in RUN])
def test_every_block_of_a_page_runs(page, tmp_path):
    if any(file for _, file, _, _ in blocks(page)):  # what it adds to tfkfin, it adds to a copy
        for name in ("tfkfin", "pipelines", "savedmodels"):
            shutil.copytree(DOCS.parent / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    session = Path(__file__).with_name("docs_session.py")
    done = subprocess.run([sys.executable, session, page], cwd=tmp_path, env=environment(tmp_path), text=True,
                          capture_output=True, timeout=600)
    assert not done.returncode, (done.stdout + done.stderr)[-4000:]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_runs(path, tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(path, 4)
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    assert sum(bool(cell.get("outputs")) for cell in notebook.cells) >= 3


def test_no_block_escapes():
    """Blocks of code are ours to run, or say that they are not: no fence of another kind."""
    for page in PAGES:
        fences = re.findall(r"^```(\S.*)$", page.read_text("utf-8"), re.MULTILINE)
        run = sum(language != "setup" for language, *_ in BLOCK.findall(page.read_text("utf-8")))
        assert run == sum(bool(re.match(r"(\{code-block\} )?(python|bash)\b", fence)) for fence in fences), page
        assert not [f for f in fences if re.match(r"(py|sh|shell|ipython)", f) and not f.startswith("python")], page


def test_every_option_has_a_row(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import options

    rows = re.findall(r"^\| `([\w.]+)` \| (.*) \| (.*) \|$", options.text(), re.MULTILINE)
    assert [key for key, *_ in rows] and {key for key, *_ in rows} == set(fields())
    assert ("window.stride_ms", "`10.0`", "20 samples at 2 kHz") in rows
    assert ("fin.layers", "`0`", "0: the family's own: 3, conv 2") in rows


def test_every_page_is_in_the_contents():
    contents = (DOCS / "index.md").read_text("utf-8")
    listed = [line for tree in re.findall(r"```{toctree}\n(.*?)```", contents, re.DOTALL) for line in tree.split()]
    pages = {page.stem for page in PAGES} - {"index"} | {f"notebooks/{path.stem}" for path in NOTEBOOKS}
    assert len(NOTEBOOKS) == 3 and not [page for page in pages if not any(fnmatch(page, entry) for entry in listed)]
