"""docs/recordings.md: every example runs as it stands there."""

import re
import shlex
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from tfkfin.base.console import run
from tfkfin.base.files import PACKAGE
from tfkfin.recordings import readers

PAGE = PACKAGE.parent / "docs" / "recordings.md"
FORMATS = ("mine", "csv", "trials", "apart", "numpy", "parquet", "matlab", "edf", "bids")


def blocks(kind: str = "") -> list[tuple[str, str]]:
    found = re.findall(r"^```(\w+)([^\n]*)\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [(language + more, text) for language, more, text in found if kind in ("", language)]


def shell(text: str, capsys) -> list[tuple[int, str, str]]:
    """Every command of a block in this process: exit code, stdout, stderr."""
    ended = []
    lines = text.replace("\\\n", " ").splitlines()
    name, _, value = lines[0].partition("=")
    for line in lines[name.isidentifier():]:  # a first line NAME=value, which the others use
        words = shlex.split(line.replace(f"${name}", value), comments=True)
        assert words[:2] == ["python", "-m"], line
        command = import_module(words[2])
        with pytest.raises(SystemExit) as stop:
            run(getattr(command, "main", None) or import_module(f"{words[2]}.__main__").main, words[3:])
        ended.append((stop.value.code, *capsys.readouterr()))
    return ended


def test_every_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    shown, names = "", {}
    for kind, text in blocks():
        if kind == "python":
            exec(compile(text, str(PAGE), "exec"), names)
        elif kind == "bash" and text.startswith("cat > "):
            assert not subprocess.run(["bash", "-eu", "-c", text]).returncode
        elif kind == "bash":
            for code, out, err in shell(text, capsys):
                assert code == 0, err
                shown += out
    assert "movements: 1 fist, 2 open hand" in shown and "100.0" in shown  # loudness alone tells these two apart
    decoder, person = names["decoder"], names["person"]
    assert set(decoder.named(decoder.predict(person.emg[:600])).tolist()) == {"fist"}
    for name in FORMATS:  # all tell of the same person
        recording = readers.read(readers.find(name)[0])
        assert recording.rate_hz == 1000 and recording.num_channels == 2
        assert sorted(set(recording.labels[recording.labels > 0].tolist())) == [1, 2]
        assert sorted(set(recording.repetitions[recording.labels > 0].tolist())) == [1, 2]


def test_the_error_that_is_shown_is_the_one_that_comes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    names = {}
    exec(blocks("python")[0][1], names)
    exec(next(text for _, text in blocks("python") if "edfio" in text), names)
    (console,) = (text for _, text in blocks("console") if "unfit" in text)
    _, notes, error = console.strip().splitlines()
    Path("edf/recordings.toml").write_text('unit = "uV"\nfiles = "p{subject}.edf"\n')
    ((code, out, err),) = shell("python -m tfkfin.data info edf", capsys)
    assert code == 2 and " ".join(out.split()).endswith(notes) and err.strip() == error


def test_every_key_of_the_sheet_is_told_on_the_page():
    from tfkfin.recordings.sheet import Sheet

    page = PAGE.read_text("utf-8")
    missing = [key for key in Sheet.model_fields if not re.search(rf"\b{key} = |\[{key}\]", page)]
    assert not missing
