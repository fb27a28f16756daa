"""What all commands have in common: --json, --quiet, NO_COLOR, help, interrupts, and nothing left of what failed."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from tfkfin.__main__ import COMMANDS
from tfkfin.base.answers import parsed
from tfkfin.base.console import PATIENCE, run
from tfkfin.base.files import PACKAGE

TINY = shlex.split("--set fin.units=4 --set fin.layers=1 --set fin.pretrained= --set window.length_ms=100 "
                   "--set window.stride_ms=50 --set window.train_stride_ms=0 --set imitate.epochs=1 "
                   "--set imitate.windows_per_epoch=32 --set classify.epochs=1 --set finetune.windows_per_epoch=32 "
                   "--set finetune.epochs=1 --set features.names=RMS --set classifier.kind=gaussian")
# One line a command, in a folder that holds `data`, and where `run` is given a trained run `run`.
LIGHT = ["data synthesize made --subjects 1 --movements 2 --repetitions 2 --channels 2 --hold 0.4 --rest 0.3",
         "data info data", "data verify data", "data plot data --subject 1 --movement 1 --to a.png", "data sheet own",
         "data bids data --to bids --subjects 1", "models list", "models show fin_conv"]
NO_FINS = "--set features.names="  # so little training leaves FINs poor, and whoever uses them is warned
HEAVY = [f"train --stage finetune --data data --subjects 1 --run run {shlex.join(TINY)} {NO_FINS}", "evaluate run",
         "export run --to models/one", "calibrate run --data data --subject 2 --to models/two",
         "evaluate models/one --data data --stream",
         "live --model models/one --source replay --data data --subject 1 --speed 0 --seconds 2",
         f"tune --data data --subjects 1 --run tuned --set tune.classify.epochs=[1] {shlex.join(TINY)}",
         f"experiments downstream --data data --subjects 1 --run lab --seeds 1 {shlex.join(TINY[:-2])}"]
FAILING = ["train --data nowhere", "train --data data --set split.test_repetitions=99", "train --set no=1",
           "train --data data --device gpu",
           "train --data data --folds 99", "evaluate nothing", "evaluate --fin fin_conv --data nowhere --json a/b.json",
           "export nothing --to x", "calibrate nothing --data data", "calibrate fin_conv --data data",
           "tune --data data --pipeline tune_head --held-out 99", "tune --data nowhere --pipeline tune_head",
           "experiments all --data nowhere", "experiments downstream --data data --set split.test_repetitions=99",
           "models show nothing", "models list nowhere", "client --url http://127.0.0.1:9 --model a",
           "client --url http://127.0.0.1:9 --model a --data nowhere.mat", "data info nowhere", "data verify nowhere",
           "data synthesize data", "data plot data --subject 9 --movement 1 --to b/a.png", "data sheet nowhere",
           "data bids broken --to a/bids", "data bids nowhere --to bids",
           "live --model nothing --source synthetic --jsonl c/d.jsonl"]


@pytest.fixture
def place(tmp_path, monkeypatch, tiny_db2, capsys):
    """A working folder with recordings; calls a command line there and returns (exit code, stdout, stderr)."""
    (tmp_path / "data").symlink_to(tiny_db2)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "s1_fist_1.csv").write_text("a,b\n" + "1e-5,2e-5\n-1e-5,2e-6\n" * 20)
    (tmp_path / "broken").mkdir()
    for subject in (1, 2):
        source = next(Path(tiny_db2).rglob(f"S{subject}_E1_A1.mat"))
        (tmp_path / "broken" / source.name).write_bytes(source.read_bytes()[: None if subject == 1 else 5000])
    monkeypatch.chdir(tmp_path)
    return caller(capsys)


def caller(capsys):
    def call(line: str, *more: str) -> tuple[int, str, str]:
        name, *words = [*shlex.split(line), *more]
        room = f"tfkfin.{name}.__main__" if (PACKAGE / name).is_dir() else f"tfkfin.{name}"
        with pytest.raises(SystemExit) as ended:
            run(import_module(room).main, words)
        return ended.value.code, *capsys.readouterr()
    return call


def there(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


def check_answers(call, line: str) -> None:
    """JSON alone on stdout, whatever else there is to say; then nothing on stderr with --quiet."""
    code, out, err = call(line, "--json")
    assert code == 0, err
    assert isinstance(json.loads(out), dict | list)
    again = line.replace("synthesize made", "synthesize more").replace("a.png", "b.png").replace("bids -", "again -")
    code, out, err = call(again.replace("--to bids", "--to again"), "--quiet")
    assert code == 0 and err == "", err
    assert "\x1b" not in out


@pytest.mark.parametrize("line", LIGHT, ids=lambda line: " ".join(line.split()[:2]))
def test_json_and_quiet(place, line):
    check_answers(place, line)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:currentThread:DeprecationWarning", "ignore:getName:DeprecationWarning")  # of Keras
def test_json_and_quiet_of_what_computes(place):
    for line in HEAVY:
        check_answers(place, line)


def test_every_command_is_tried():
    tried = {line.split()[0] for line in (*LIGHT, *HEAVY)}
    assert tried | {"client"} >= set(COMMANDS)  # the client needs a server: see tests/serving/test_client.py
    assert {line.split()[0] for line in FAILING} == set(COMMANDS)


@pytest.mark.parametrize("line", FAILING)
def test_what_fails_leaves_nothing(place, line, tmp_path):
    before = there(tmp_path)
    code, out, err = place(line)
    assert code == 2 and err.rstrip().splitlines()[-1].startswith("error: ") and "Traceback" not in err
    assert there(tmp_path) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_help_begins_with_the_commonest_use(command, capsys):
    """Which is a whole command line: it needs no option that the line does not show."""
    room = import_module(f"tfkfin.{command}.__main__" if (PACKAGE / command).is_dir() else f"tfkfin.{command}")
    with pytest.raises(SystemExit):
        room.main(["--help"])
    shown = capsys.readouterr().out
    first = re.sub(r"\s*\n\s+", " ", shown.partition("\n\n")[0])
    assert first.startswith(f"usage: python -m tfkfin.{command} ") and "..." not in first
    words = shlex.split(first.removeprefix(f"usage: python -m tfkfin.{command}").replace("[options]", ""))
    leaf = words if command not in ("data", "models") else [*words[:1], "--help"]
    with pytest.raises(SystemExit) if leaf != words else _nothing():
        if command in ("data", "models"):
            room.main(leaf)
        else:
            parsed(room.parser(), words)
    more = capsys.readouterr().out or shown
    assert "--json" in more and "--quiet" in more


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


def test_lists_fit_eighty_columns(place, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = place("models list")
    assert code == 0 and max(map(len, out.splitlines())) <= 80
    for name in ("fin_bilstm", "fin_conv", "fin_dense", "233,740", "R²"):
        assert name in out  # nothing is cut off


@pytest.mark.parametrize("line", ["models list", "data info data"])
def test_no_color(line, tiny_db2, tmp_path):
    """Even where colour is asked for."""
    (tmp_path / "data").symlink_to(tiny_db2)
    shown = {}
    for plain in ("", "1"):
        name, *words = shlex.split(line)
        shown[plain] = subprocess.run([sys.executable, "-m", f"tfkfin.{name}", *words], capture_output=True, text=True,
                                      cwd=tmp_path, env=os.environ | {"FORCE_COLOR": "1", "NO_COLOR": plain}).stdout
        colours = re.findall(r"\x1b\[(?:[\d;]*;)?(?:3\d|4\d|9\d|10\d)[;m]", shown[plain])
        assert not colours if plain else "\x1b" in shown[plain]


BUSY = """
import hashlib, sys
from pathlib import Path
from tfkfin.base.console import run, unfinished
def main(argv):
    Path("half").mkdir()
    unfinished.add(Path("half"))
    sys.stdout.write("busy\\n"), sys.stdout.flush()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # C code that hears of no signal
run(main, [])
"""


def interrupted(command: list, folder: Path, wait) -> tuple[float, subprocess.Popen, str]:
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)
    wait(process)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    return time.monotonic() - began, process, said


def test_an_interrupt_is_heard_in_c_code_too(tmp_path):
    spent, process, said = interrupted([sys.executable, "-c", BUSY], tmp_path,
                                       lambda p: (p.stdout.readline(), time.sleep(0.5)))
    assert process.returncode == 130 and spent < 2 + 3  # of which a busy machine may take some
    assert said == "interrupted: the same command resumes where it stopped\n" and spent > PATIENCE
    assert not list(tmp_path.iterdir())


SWALLOWED = """
import signal, time, weakref
from tfkfin.base.console import run
def main(argv):
    class Module:
        pass
    module = Module()
    ref = weakref.ref(module, lambda _: signal.raise_signal(signal.%s))  # as importlib's locks have, heard in there
    del module
    time.sleep(20)
run(main, [])
"""


@pytest.mark.parametrize("name, code, word", [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")])
def test_a_signal_that_comes_where_nothing_can_be_raised_is_heard(name, code, word, tmp_path):
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", SWALLOWED % name], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (code, f"{word}: the same command resumes where it stopped\n")
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("seconds", [1.0, pytest.param(4.0, marks=pytest.mark.slow),
                                     pytest.param(15.0, marks=pytest.mark.slow),
                                     pytest.param(30.0, marks=pytest.mark.slow)])
def test_an_interrupted_training_ends_within_two_seconds(tmp_path, seconds):
    """While TensorFlow loads, compiles or trains."""
    command = [sys.executable, "-m", "tfkfin.train", "--stage", "finetune"]
    spent, process, said = interrupted(command, tmp_path, lambda process: time.sleep(seconds))
    # On a quiet machine within 2 s; a library that is being loaded lets nothing else run, however long that takes.
    assert process.returncode in (130, -signal.SIGINT) and spent < 15, (spent, said)
    assert "Traceback" not in said or seconds == 1.0  # Python itself may still be starting


@pytest.mark.parametrize("line", ["models list", "models show fin_conv", "data info data"])
def test_json_overwrites_nothing_but_its_own(place, line, tmp_path):
    for mine in ("mine", "", '{"mine": 1}', '[{"mine": 1}]', '"a"', "[[[", "3", "null", "[1]",
                 '{"path": 1, "name": 2}'):
        (tmp_path / "have.json").write_text(mine)
        code, out, err = place(line, "--json", "have.json")
        assert code == 2 and err.count("\n") == 1 and "have.json is there already" in err, (mine, err)
        assert (tmp_path / "have.json").read_text() == mine
    for _ in range(2):
        assert place(line, "--json", "new.json")[0] == 0 and json.loads((tmp_path / "new.json").read_text())


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-", "| true", "| head -c 1 >/dev/null"])
@pytest.mark.parametrize("line", ["models list", "models show fin_conv", "models list --json", "train --help"])
def test_streams_that_are_closed_are_no_error(line, closed):
    words = f"set -o pipefail; {shlex.quote(sys.executable)} -m tfkfin {line} {closed}"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
