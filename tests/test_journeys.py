"""From files to a decoder that decides live, by the documentation's own commands and no others."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs_session import blocks
from test_docs import DOCS, environment

PAGE = DOCS / "recordings.md"
SHEETS = {"trials": "trials", "edf": "edf", "bids": "csv", "xdf": "xdf"}  # journey: whose recordings.toml it needs
DAYS = '''
for day in (1, 2):
    Path("days").mkdir(exist_ok=True)
    names = np.array(["rest", "fist", "open hand"])[movement]
    rows = [f"{t},{a:.6f},{b:.6f},{name}" for t, (a, b), name in zip(np.arange(8000) / 1000, day * emg, names)]
    Path(f"days/anna_day{day}.csv").write_text("\\n".join(["time (s),ch1 (mV),ch2 (mV),gesture", *rows]))
'''


def journey(kind: str) -> str:
    """The page's blocks that make a folder of this kind, and those of the whole way with this folder."""
    found = [(language, text) for language, _, text, _ in blocks(PAGE)]
    made = [("python", text) for language, text in found if language == "python" and "import tfkfin" not in text]
    sheet, = [one for one in found if one[1].startswith(f"cat > {SHEETS.get(kind, 'csv')}/recordings.toml")]
    way, = [text for _, text in found if text.startswith("MINE=")]
    first, = [text for _, text in found if "data sheet mine --write" in text]
    if kind == "days":  # one long file a day, with words: the draft does
        draft = next(line for line in first.splitlines() if "data sheet" in line).replace("mine", "days")
        made += [("python", DAYS), ("bash", f"{draft}\n")]
    else:
        made.append(sheet)
    if kind == "bids":
        made += [one for one in found if "data bids" in one[1]]
    way = re.sub(r"^MINE=\w+", f"MINE={kind}", way)
    return "\n".join(f"```{language}\n{text}```\n" for language, text in [*made, ("bash", way)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*SHEETS, "days"])
def test_the_way_from_files_to_live_decisions(kind, tmp_path):
    if kind == "xdf":
        pytest.importorskip("pyxdf")
    page = tmp_path / "page.md"
    page.write_text(journey(kind).replace("--speed 0\n", "--speed 0 --json live.json\n"), encoding="utf-8")
    done = subprocess.run([sys.executable, Path(__file__).with_name("docs_session.py"), page], cwd=tmp_path, text=True,
                          env=environment(tmp_path), capture_output=True, timeout=1800)
    assert not done.returncode, (done.stdout + done.stderr)[-4000:]
    scores = json.loads((tmp_path / "live.json").read_text())["scores"]
    assert scores["accuracy"] > 0.8, scores  # of windows inside one label; half of them were learnt from
    assert (tmp_path / "savedmodels" / "today" / "1" / "saved_model.pb").is_file()
