"""The documentation: every block of every page runs, notebooks run, every option and page has its place."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from docs_session import BLOCK, blocks

from tfkfin.recipe import fields

DOCS = Path("docs").resolve()
README = DOCS.parent / "README.md"
PAGES = sorted(DOCS.glob("*.md"))
RUN = [page for page in PAGES if any(blocks(page)) and page.stem != "extending"] + [README]  # see test_extension.py
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


def test_every_option_is_described(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import options

    rows = re.findall(r"^\| `([\w.]+)` \| (.*) \| (.*) \|$", options.text(), re.MULTILINE)
    assert [key for key, *_ in rows] and {key for key, *_ in rows} == set(fields())
    assert not [key for key, _, about in rows if len(re.sub("one of (`[^`]*`(, )?)*", "", about)) < 3]
    assert ("window.stride_ms", "`10.0`", "20 samples at 2 kHz") in rows
    assert ("fin.layers", "`0`", "0: the family's own: 3, conv 2") in rows


def test_every_page_is_in_the_contents_and_linked_from_the_first():
    text = (DOCS / "conf.py").read_text("utf-8")
    contents = ast.literal_eval(re.search(r"^CONTENTS = (\{.*?^\})", text, re.MULTILINE | re.DOTALL)[1])
    pages = {page.stem for page in PAGES} - {"index"} | {f"notebooks/{path.stem}" for path in NOTEBOOKS}
    assert len(NOTEBOOKS) == 3 and {page for part in contents.values() for page in part} == pages
    first = (DOCS / "index.md").read_text("utf-8")
    assert "{" not in first and not [page for page in pages if not re.search(rf"\]\({page}\.(md|ipynb)\)", first)]


@pytest.mark.parametrize("page", [*PAGES, README], ids=lambda page: page.stem)
def test_every_link_to_a_file_holds(page):
    for link in re.findall(r"\]\(([^)#\s]+)[^)\s]*\)", page.read_text("utf-8")):
        assert link.startswith("https://") or (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("page", [*PAGES, README], ids=lambda page: page.stem)
def test_code_is_not_cut_on_the_site(page):
    """123 characters fit into its column at 1280 pixels: docs/style/site.css."""
    code = re.findall(r"^```.+?\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert not [line for block in code for line in block.splitlines() if len(line) > 123]


# === README and pictures ===

def test_readme_answers_a_stranger_s_questions_in_order():
    text = README.read_text("utf-8")
    parts = (r"\*\*For\*\* people who", r"\*\*[\d.]+ % of windows right\*\* on eight people of BioPatRec",
             r"also used to develop tfkfin", r"!\[.+\]\(docs/images/results\.png\)", r"```bash install\npip install",
             r"```python\nimport tfkfin\n", r"```bash\npython -m tfkfin\.train .*--data MINE\n", r"```bash main\n",
             "## Ninapro", "## The paper's claims", "## Live", "## Serving", "## What it does not do", r"```bibtex\n")
    places = [re.search(part, text).start() for part in parts]
    assert places == sorted(places) and len(text.split()) <= 900
    python = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    assert len([line for line in python.splitlines() if line]) == 6


@pytest.mark.parametrize("line", sorted(set(re.findall(r"^python -m tfkfin\.(.*)$", README.read_text("utf-8"), re.M))))
def test_readme_s_commands_have_these_options(line):
    """Of commands that cannot run here too: servers, amplifiers, 18 GB."""
    words = line.partition("#")[0].split()
    names = [word for word in words if re.fullmatch("[a-z]+", word)][:1 + (words[0] in ("data", "experiments"))]
    shown = subprocess.run([sys.executable, "-m", "tfkfin", *names, "--help"], text=True, capture_output=True,
                           timeout=60)
    assert not shown.returncode, shown.stderr
    assert not [word for word in words if word.startswith("--") and word not in shown.stdout]


LIVE = [f"live_{name}.png" for name in ("page", "page_dark", "tablet", "tablet_dark")]


@pytest.mark.slow
def test_the_live_page_fits_its_screens_and_is_as_its_pictures(monkeypatch, tmp_path):
    """Every part is inside 1280 x 720 and 820 x 1180 without scrolling, none on another; in the dark it is dark."""
    import numpy as np
    from PIL import Image

    monkeypatch.syspath_prepend(str(DOCS))
    import live_page

    if not live_page.first_screen.chromium():
        pytest.skip("there is no Chromium: apt-get install chromium")
    for name, boxes in live_page.screenshots(tmp_path).items():
        width, height = live_page.SCREENS[name]
        taken = np.zeros((height, width), int)
        for box in boxes.values():
            left, top, across, down = (round(box[key]) for key in ("x", "y", "width", "height"))
            assert left >= 0 and top >= 0 and left + across <= width and top + down <= height
            taken[top : top + down, left : left + across] += 1
        assert taken.max() == 1 and boxes["cards"]["height"] > 200 and boxes["signals"]["height"] > 250
    means = {}
    for name in LIVE:
        there, here = (np.asarray(Image.open(folder / name).convert("L").resize((64, 36)), float)
                       for folder in (DOCS / "images", tmp_path))
        assert np.abs(there - here).mean() < 12, f"{name}: python docs/live_page.py takes it anew"
        means[name] = here.mean()
    assert min(means["live_page.png"], means["live_tablet.png"]) > 200
    assert max(means["live_page_dark.png"], means["live_tablet_dark.png"]) < 60


@pytest.fixture(scope="module")
def pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        import pictures
        yield pictures


def test_figures_shown_are_those_of_the_tables(pictures):
    """Cells of docs/results.md, written down here by hand."""
    first, day, *_, wrist = pictures.accuracies()
    assert first == {"usual features, LDA": 94.0, "usual + log-cov, LDA": 95.5, "best": 96.2, "best, adapting": 95.0}
    assert (day["best"], day["best, adapting"], wrist["best"]) == (77.9, 85.0, 19.3)
    text = README.read_text("utf-8")
    assert f"**{first['best']} % of windows right**" in text
    assert f"linear discriminant have {first['usual features, LDA']} %" in " ".join(text.split())
    assert f"({wrist['best']:.0f} % at the wrist" in text


def test_pictures_are_as_their_script_draws_them(pictures, tmp_path):
    import numpy as np
    from PIL import Image

    pictures.draw(tmp_path)
    drawn = {path.name for path in tmp_path.iterdir()}
    kept = {path.name: path for path in (DOCS / "images").iterdir()}
    assert set(kept) == drawn | {"first_screen.png", *LIVE}
    assert sum(path.stat().st_size for path in kept.values()) < 420_000
    for name in drawn:  # other versions of fonts and libraries may move edges by a pixel, and no more
        there, here = (Image.open(path).convert("L") for path in (kept[name], tmp_path / name))
        assert all(abs(a - b) <= 6 for a, b in zip(there.size, here.size, strict=True)), name
        coarse = [np.asarray(image.resize((160, 80)), float) for image in (there, here)]
        assert np.abs(coarse[0] - coarse[1]).mean() < 4, f"{name}: python docs/pictures.py draws it anew"


def test_readme_s_first_screen_holds_it_all(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(DOCS))
    import first_screen

    if not first_screen.chromium():
        pytest.skip("there is no Chromium: apt-get install chromium")
    ends = first_screen.screenshot(tmp_path / "screen.png")
    assert ends == sorted(ends) and ends[-1] <= first_screen.HEIGHT
