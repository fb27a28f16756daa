"""Own recordings: each kind of file written by plain means, read back in volts."""

import numpy as np
import pytest

from tfkfin.base.errors import InputError
from tfkfin.recordings import readers
from tfkfin.recordings.recording import (
    Recording,
    RecordingFile,
    count_repetitions,
    from_samples,
    joined,
    owners,
    to_samples,
)

SHEET = 'rate_hz = 1000\nunit = "mV"\nfiles = "sub{subject}_*.%s"\nchannels = %s\nlabel = %s\n'


def signal():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 0, 2, 0, 1], 100)
    return np.round(rng.standard_normal((600, 3)), 6), labels, np.repeat([0, 1, 0, 1, 0, 2], 100)


def folder(tmp_path, kind, channels, label, more=""):
    (tmp_path / "recordings.toml").write_text(SHEET % (kind, channels, label) + more)
    return tmp_path


def check(tmp_path, notes=0):
    emg, labels, repetitions = signal()
    (file,) = readers.find(tmp_path)
    recording, head = readers.read(file), readers.header(file)
    assert (file.subject, recording.rate_hz, head.num_channels, len(recording.notes)) == (7, 1000, 3, notes)
    np.testing.assert_array_equal(recording.emg, (emg * 1e-3).astype(np.float32))
    for array, truth in ((recording.labels, labels), (recording.repetitions, repetitions), (head.labels, labels)):
        np.testing.assert_array_equal(array, truth)
    assert recording.emg.dtype == np.float32 and recording.labels.dtype == recording.repetitions.dtype == np.int16


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_csv_with_heading(tmp_path, mark):
    emg, labels, repetitions = signal()
    rows = np.column_stack([np.arange(600), labels, emg, repetitions])
    (tmp_path / "deep").mkdir()
    np.savetxt(tmp_path / "deep" / "sub7_a.csv", rows, "%.9g", mark, header=mark.join("time move a b c rep".split()),
               comments="")
    check(folder(tmp_path, "csv", '["a", "b", "c"]', '"move"', 'repetition = "rep"\n'))


def test_csv_without_heading_counts_repetitions(tmp_path):
    emg, labels, _ = signal()
    np.savetxt(tmp_path / "sub7_a.csv", np.column_stack([emg, labels]), "%.9g", ",")
    check(folder(tmp_path, "csv", "[1, 2, 3]", "4"), notes=1)


def test_npy_and_npz(tmp_path):
    emg, labels, repetitions = signal()
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    np.save(tmp_path / "a" / "sub7_.npy", np.column_stack([emg, labels, repetitions]))
    check(folder(tmp_path / "a", "npy", "[1, 2, 3]", "4", "repetition = 5\n"))
    np.savez(tmp_path / "b" / "sub7_.npz", emg=emg, move=labels, rep=repetitions)
    check(folder(tmp_path / "b", "npz", '["emg"]', '"move"', 'repetition = "rep"\n'))


def test_runs_are_counted_by_hand():
    labels = np.array([0, 2, 2, 0, 2, 1, 1, 0, 1], np.int16)
    assert count_repetitions(labels).tolist() == [0, 1, 1, 0, 2, 1, 1, 0, 2]


def test_a_run_ends_at_the_seam_of_two_files():
    """The same movement ends one file and begins the next: two executions, counted and written so."""
    labels = np.array([1, 1, 1, 1, 0, 1], np.int16)
    assert count_repetitions(labels, (2,)).tolist() == [1, 1, 2, 2, 0, 3]
    assert from_samples(labels, np.ones(6, np.int16), (2,)) == [
        (0, 2, 1, 1), (2, 4, 1, 1), (4, 5, 0, 1), (5, 6, 1, 1)]
    file, emg = RecordingFile("x", 1), np.zeros((3, 2), np.float32)
    parts = [Recording(file, emg, part, np.zeros(3, np.int16), 100.0) for part in (labels[:3], labels[3:])]
    made = joined(file, parts, None, [], True, {})
    assert made.repetitions.tolist() == [1, 1, 1, 2, 0, 3] and made.seams == (3,)


@pytest.mark.parametrize("rate_hz", [100.0, 200.0, 2048.0])
def test_times_of_events_are_those_of_the_nearest_sample(rate_hz):
    """Samples as text of microseconds, as tables have them: 0.29 s at 100 Hz are 28.999999999999996 samples."""
    edges = np.arange(0, 120, 3)
    times = [float(f"{sample / rate_hz:.6f}") for sample in edges.tolist()]
    assert any(int(time * rate_hz) != sample for time, sample in zip(times, edges, strict=True))
    events = [(start, stop, 1 + i % 2, 1) for i, (start, stop) in enumerate(zip(times, times[1:], strict=False))]
    labels, _ = to_samples("x", events, 120, rate_hz)
    assert (np.flatnonzero(np.diff(labels)) + 1).tolist() == edges[1:].tolist()
    late = to_samples("x", [((10 + 0.4) / rate_hz, (20 + 0.6) / rate_hz, 1, 1)], 120, rate_hz)[0]
    assert np.flatnonzero(late).tolist() == list(range(10, 21))


@pytest.mark.parametrize("times", [(np.nan, 0.1), (0.1, np.nan), (0.1, np.inf), (-np.inf, 0.1), (np.nan, np.nan)])
def test_times_that_are_none_are_refused(times):
    with pytest.raises(InputError, match="movement 2, repetition 1, from .* s is none"):
        to_samples("x", [(0.0, 0.05, 1, 1), (*times, 2, 1)], 120, 100.0)


def test_a_cell_that_is_too_long_is_one_line(tmp_path):
    folder(tmp_path, "csv", "[1]", "2")
    (tmp_path / "sub7_a.csv").write_text("1;" + "x" * 140_000 + "\n1;2\n")
    with pytest.raises(InputError, match="cannot be read as text: field larger than"):
        readers.read(readers.find(tmp_path)[0])


@pytest.mark.parametrize(("labels", "numbered", "owned"), [
    ([1, 1, 0, 0, 2, 0], [1, 1, 2, 2, 2, 3], [1, 1, 1, 1, 2, 2]),  # of the movement before, not as the file numbers it
    ([0, 0, 1, 0, 2], [3, 3, 1, 1, 2], [1, 1, 1, 2, 2]),  # rest opens trials
    ([1, 0, 0, 2, 0, 3], [1, 0, 7, 2, 7, 0], [1, 1, 1, 2, 2, 0])])  # a movement of no repetition is of none
def test_rest_is_of_its_movements_repetition_whatever_its_file_says(labels, numbered, owned):
    columns = (np.array(part, np.int16) for part in (labels, numbered))
    made = Recording(RecordingFile("x", 1), np.zeros((len(labels), 1), np.float32), *columns, 100.0)
    assert owners(made).tolist() == owned


@pytest.mark.parametrize(("more", "content", "message"), [
    ("colour = 1\n", "1,2,3,4", "colour.*Known keys: rate_hz, unit"),
    ("= 1\n", "1,2,3,4", "is not TOML"),
    ("repetition = 9\n", "1,2,3,4\n" * 9, "has no column 9, only 1, 2, 3, 4"),
    ("", "1,2,x,4\n" * 9, "cannot be read as numbers"),
    ("", "1,2,3,0\n" * 9, "no movement"),
    ("", "1,nan,3,1\n" * 9, "NaN or Inf in channel 2"),
])
def test_what_is_wrong_is_said(tmp_path, more, content, message):
    (tmp_path / "sub7_a.csv").write_text("5,6,7,0\n" + content)
    folder(tmp_path, "csv", "[1, 2, 3]", "4", more)
    with pytest.raises(InputError, match=message):
        readers.read(readers.find(tmp_path)[0])


def test_files_that_do_not_fit_the_pattern(tmp_path):
    folder(tmp_path, "csv", "[1]", "2")
    with pytest.raises(InputError, match="has no such file"):
        readers.find(tmp_path)
    for name in ("sub7_a.csv", "sub7_b.csv"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="two files"):
        readers.find(tmp_path)
    (tmp_path / "sub7_b.csv").unlink()
    with pytest.raises(InputError, match="no subject 8"):
        readers.find(tmp_path, (8,))
    sheet = (SHEET % ("csv", "[1]", "2")).replace("{subject}", "{person}")
    (tmp_path / "recordings.toml").write_text(sheet)
    with pytest.raises(InputError, match="files: {person} is none of {subject}"):
        readers.find(tmp_path)
    (tmp_path / "recordings.toml").write_text(SHEET.replace("{subject}", "7") % ("csv", "[1]", "2"))
    assert [file.subject for file in readers.find(tmp_path)] == [1]  # no number, one person


def test_sessions_are_told_apart(tmp_path):
    """Each in a file of its own; `data info` names them."""
    import subprocess
    import sys

    emg, labels, repetitions = signal()
    for day in (1, 2):
        np.save(tmp_path / f"p3_day{day}.npy", np.column_stack([emg * day, labels, repetitions]))
    (tmp_path / "recordings.toml").write_text('rate_hz = 1000\nunit = "mV"\nfiles = "p{subject}_day{session}.npy"\n'
                                              "channels = [1, 2, 3]\nlabel = 4\nrepetition = 5\n")
    found = readers.find(tmp_path)
    assert [(f.subject, f.session, f.reader) for f in found] == [(3, 1, "table"), (3, 2, "table")]
    assert [readers.read(f).emg[0, 0] for f in found] == pytest.approx([1e-3 * emg[0, 0], 2e-3 * emg[0, 0]])
    shown = subprocess.run([sys.executable, "-m", "tfkfin.data", "info", str(tmp_path)], capture_output=True, text=True)
    assert shown.returncode == 0 and "3, session 2" in shown.stdout


def test_every_reader_says_what_it_expects():
    from tfkfin.base import registry

    names = registry.names("recordings/readers")
    assert {"ninapro", "table"} <= set(names)
    for name in names:
        made = readers.reader(name)
        assert made.expected and callable(made.find) and callable(made.read)
