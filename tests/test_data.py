"""The command line of the data room, called as users do."""

import hashlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from tfkfin.base.console import run
from tfkfin.data import main
from tfkfin.recordings import doubts, health


def call(capsys, *argv) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        run(main, [str(word) for word in argv])
    said = capsys.readouterr()
    return stop.value.code, said.out, said.err


@pytest.mark.parametrize("command", [[], ["synthesize"], ["info"], ["verify"], ["plot"]])
def test_help_is_quick_and_loads_nothing_heavy(command):
    code = ("import sys; from tfkfin.base.console import run; from tfkfin.data import main\n"
            f"try: run(main, {[*command, '--help']!r})\n"
            "finally: sys.stderr.write(' '.join(m for m in ('tensorflow', 'keras', 'matplotlib', 'scipy') "
            "if m in sys.modules))")
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "usage: python -m tfkfin.data" in done.stdout and done.stderr == ""
    assert time.perf_counter() - begin < 5  # it takes 0.1 s; a busy machine is slower, TensorFlow slower still


def test_the_module_runs_as_documented(tmp_path):
    command = [sys.executable, "-m", "tfkfin.data", "synthesize", str(tmp_path / "made"), "--subjects", "1,4",
               "--movements", "2", "--repetitions", "2", "--channels", "3", "--hold", "0.5", "--rest", "0.4"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "wrote 2 synthetic recordings" in done.stderr
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2 and again.stderr.startswith("error: ") and again.stderr.count("\n") == 1
    assert "never overwritten" in again.stderr and "Traceback" not in again.stderr


def test_info_tells_what_is_there(capsys, tiny_db2):
    code, out, _ = call(capsys, "info", tiny_db2)
    assert code == 0 and out.count("1-3") == 2 and out.count("1-6") == 2 and "2000" in out
    assert out.count("nobody was recorded") == 2
    code, out, _ = call(capsys, "info", tiny_db2, "--subjects", "2")
    assert code == 0 and out.count("1-6") == 1


def test_verify_names_the_unfit_and_exits_2(capsys, tiny_db2, tmp_path):
    assert call(capsys, "verify", tiny_db2)[0] == 0
    shutil.copytree(tiny_db2, tmp_path / "data")
    path = tmp_path / "data" / "DB2_s2" / "S2_E1_A1.mat"
    path.write_bytes(path.read_bytes()[:5000])
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    code, out, err = call(capsys, "verify", tmp_path / "data")
    assert code == 2 and "cut short" in out and [line.split()[0] for line in out.splitlines()] == ["fit", "unfit"]
    assert "1 of 2 recordings" in err and "S2_E1_A1.mat" in err
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_plot_writes_a_picture_once(capsys, tiny_db2, tmp_path):
    to = tmp_path / "new" / "movement.png"
    words = "plot", tiny_db2, "--subject", 1, "--movement", 2, "--to"
    assert call(capsys, *words, to)[0] == 0
    assert to.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and to.stat().st_size > 20_000
    assert call(capsys, *words, to)[0] == 2
    for bad, message in (((*words[:5], 9, "--to", tmp_path / "x.png"), "no movement 9: it has 1-3"),
                         ((*words, tmp_path / "x.jpg"), "must end in .png"),
                         (("plot", tiny_db2, "--subject", 5, *words[4:], tmp_path / "x.png"), "no subject 5")):
        code, _, err = call(capsys, *bad)
        assert code == 2 and message in err


@pytest.mark.parametrize("words", [("info", "/nowhere"), ("info", ".", "--subjects", "x"), ("info",), ("no",), (),
                                   ("synthesize", "unmade", "--hold", "-3"),
                                   ("synthesize", "unmade", "--subjects", "0")])
def test_wrong_words_exit_2(capsys, words):
    assert call(capsys, *words)[0] == 2


def test_health_finds_what_was_put_in():
    rng, time_s = np.random.default_rng(0), np.arange(20_000) / 2000
    noise = rng.standard_normal(20_000).astype(np.float32)
    assert not health.is_clipped(noise) and health.is_clipped(np.clip(noise, -9, 1.0))
    hum = noise + 2 * np.sin(2 * np.pi * 60 * time_s)  # power 2 beside 1
    clean, loud = health.mains_share(np.column_stack([noise, noise]), 2000), health.mains_share(hum[:, None], 2000)
    assert max(clean) < 0.01 and abs(loud[1] - 2 / 3) < 0.03 and loud[0] < 0.01


def test_millivolts_taken_for_volts_are_seen():
    from pathlib import Path

    from tfkfin.recordings.recording import Recording, RecordingFile

    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 2000).astype(np.int16)

    def rms(size: float) -> float:
        emg = 3e-3 + size * rng.standard_normal((4000, 3)).astype(np.float32) * (1 + 9 * labels[:, None])
        return health.amplitude(Recording(RecordingFile(Path("x"), 1), emg, labels, labels, 1000.0))

    assert rms(3e-6) == pytest.approx(30e-6, rel=0.05) and doubts.about_amplitude(rms(3e-6)) == ""
    assert "volts millivolts?" in doubts.about_amplitude(rms(3e-3)) and "30 mV" in doubts.about_amplitude(0.03)
    assert "volts microvolts?" in doubts.about_amplitude(rms(3.0)) and "smaller" in doubts.about_amplitude(rms(3e-9))
    assert [health.volts(v) for v in (0.5, 2.5e-3, 2.31e-5)] == ["500 mV", "2.5 mV", "23.1 uV"]


def test_a_sheet_is_drafted_once_and_what_it_describes_is_shown(capsys, tmp_path):
    rng = np.random.default_rng(0)
    for person in (1, 2):
        for name in ("fist", "open"):
            for trial in (1, 2):
                np.savetxt(tmp_path / f"s{person}_{name}_{trial}.csv", 40 * rng.standard_normal((500, 2)),
                           delimiter=",", header="ch1,ch2", comments="")
    code, _, err = call(capsys, "info", tmp_path)
    assert code == 2 and "data sheet" in err
    code, out, _ = call(capsys, "sheet", tmp_path)
    assert code == 0 and 'files = "s{subject}_{label}_{repetition}.csv"' in out and '2 = "open"' in out
    assert 'unit = "uV"' in out and not (tmp_path / "recordings.toml").exists()
    assert call(capsys, "sheet", tmp_path, "--write")[0] == 0
    sheet = tmp_path / "recordings.toml"
    code, _, err = call(capsys, "sheet", tmp_path, "--write")
    assert code == 2 and "is there already" in err
    code, out, err = call(capsys, "info", tmp_path)
    assert code == 2 and "does not say its rate" in " ".join(out.split()) and "is fit" in err
    sheet.write_text(sheet.read_text().replace("# rate_hz = 2000", "rate_hz = 1000"))
    code, out, _ = call(capsys, "info", tmp_path)
    assert code == 0 and "movements: 1 fist, 2 open" in out and "40" in out and "uV" in out
    sheet.write_text(sheet.read_text().replace('unit = "uV"', 'unit = "mV"'))
    code, out, _ = call(capsys, "info", tmp_path)
    assert code == 0 and "are these volts millivolts?" in " ".join(out.split())


def test_recordings_become_bids_and_read_back(capsys, tiny_db2, tmp_path):
    from tfkfin.recordings import readers

    assert call(capsys, "bids", tiny_db2, "--subjects", 2, "--to", tmp_path / "bids")[0] == 0
    (old,), (new,) = (readers.find(folder, (2,)) for folder in (tiny_db2, tmp_path / "bids"))
    before, after = readers.read(old), readers.read(new)
    assert np.abs(before.emg - after.emg).max() <= np.ptp(before.emg, axis=0).max() / 2**24 + 1e-11
    np.testing.assert_array_equal(before.labels, after.labels)
    np.testing.assert_array_equal(before.repetitions, after.repetitions)  # of rest too, as Ninapro numbers it
    assert (after.rate_hz, after.synthetic, after.names) == (before.rate_hz, True, {})
    assert call(capsys, "bids", tiny_db2, "--to", tmp_path / "bids")[0] == 2
