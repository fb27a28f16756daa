"""What people really have, made here in their layouts: read right, or refused with the true reason.

Each maker writes by plain means, so what was written is the oracle; the decoders' side is not touched.
"""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from tfkfin.base.console import run
from tfkfin.base.errors import InputError
from tfkfin.data import main
from tfkfin.recordings import doubts, readers
from tfkfin.recordings.draft import draft


def person(rate=200, channels=4, movements=3, reps=3, hold=1.0, rest=0.5, seed=0):
    """emg (T, C) volts, labels and repetitions (T,), 0 in rest."""
    rng = np.random.default_rng(seed)
    gains = 0.2 + rng.random((movements + 1, channels))
    gains[0] = 0.05
    order = [(m, r) for r in range(1, reps + 1) for m in range(1, movements + 1)]
    parts = [np.repeat([[0, 0], [m, r]], [int(rest * rate), int(hold * rate)], axis=0) for m, r in order]
    labels, repetitions = np.concatenate(parts).T
    return gains[labels] * 1e-4 * rng.standard_normal((len(labels), channels)), labels, repetitions


def table(path: Path, columns: list, heading: str = "", mark: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [mark.join(f"{v:.7g}" if isinstance(v, float) else str(v) for v in row)
            for row in zip(*(np.asarray(c).tolist() for c in columns), strict=True)]
    path.write_text("\n".join([heading] * bool(heading) + rows) + "\n")


def sheet(folder: Path, text: str) -> None:
    (folder / "recordings.toml").write_text(text)


def drafted(folder: Path) -> str:
    return draft(folder, readers.walk(folder))


def lines_of(text: str) -> dict[str, str]:
    """The keys of a draft that are not left open, as written."""
    said = (line.partition(" = ") for line in text.splitlines() if " = " in line and not line.startswith("#"))
    return {key: value.partition("   #")[0] for key, _, value in said}


def read_all(folder: Path, **how) -> list:
    return [readers.read(file) for file in readers.find(folder, **how)]


def refused(folder: Path, message: str, **how) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_all(folder, **how)
    assert "\n" not in str(caught.value)


def command(capsys, *words) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        run(main, [str(word) for word in words])
    said = capsys.readouterr()
    return stop.value.code, " ".join((said.out + said.err).split())


# Ninapro


def ninapro(path: Path, channels, movements, seed=0, exercise=1, **more):
    emg, labels, repetitions = person(200, channels, movements, 2, 0.2, 0.1, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    side = {name: np.zeros((len(emg), width), np.uint8) for name, width in more.items() if name != "frequency"}
    scalar = {"frequency": more["frequency"]} if "frequency" in more else {}
    savemat(path, dict(emg=np.round(emg * 2e5).astype(np.int8), restimulus=labels[:, None], exercise=exercise,
                       rerepetition=repetitions[:, None], **side, **scalar), do_compression=True)


def test_db8_has_three_acquisitions_at_2000_hz(tmp_path):
    for a in (1, 2, 3):
        ninapro(tmp_path / "one" / f"S1_E1_A{a}.mat", 16, 3, a)
    found = read_all(tmp_path / "one")
    assert [(r.file.session, r.rate_hz) for r in found] == [(1, 2000), (2, 2000), (3, 2000)]
    ninapro(tmp_path / "apart" / "first" / "S1_E1_A1.mat", 16, 3)  # the acquisitions in folders of their own
    ninapro(tmp_path / "apart" / "third" / "S1_E1_A3.mat", 16, 3)
    assert {r.rate_hz for r in read_all(tmp_path / "apart")} == {2000}


@pytest.mark.parametrize(("channels", "side", "rate"), [
    (16, {"glove": 22, "acc": 3}, 200), (16, {"glove": 18, "gyro": 48}, 2000), (10, {"acc": 36}, 2000),
    (10, {"acc": 30, "inclin": 2}, 2000), (10, {"glove": 22}, 100), (12, {}, 2000)])
def test_variables_of_a_file_tell_its_database(tmp_path, channels, side, rate):
    ninapro(tmp_path / "S7_E1_A1.mat", channels, 3, **side)
    assert [r.rate_hz for r in read_all(tmp_path)] == [rate]


@pytest.mark.parametrize("channels", [16, 10, 8])
def test_a_number_of_channels_alone_is_no_rate(tmp_path, channels):
    ninapro(tmp_path / "S7_E1_A1.mat", channels, 3)
    refused(tmp_path, "does not say its rate.*rate_hz = .* in a recordings.toml in its folder, or --set source.rate_hz")
    assert read_all(tmp_path, rate_hz=1000.0)[0].rate_hz == 1000
    sheet(tmp_path, "rate_hz = 2000\n")
    assert read_all(tmp_path)[0].rate_hz == 2000
    ninapro(tmp_path / "S7_E1_A1.mat", channels, 3, frequency=500)
    refused(tmp_path, "is at 500 Hz, and rate_hz = 2000 is given: leave it out")


def test_db1_alone_names_its_files_so(tmp_path):
    ninapro(tmp_path / "S7_A1_E1.mat", 10, 3)
    assert read_all(tmp_path)[0].rate_hz == 100


def test_siblings_tell_what_one_file_does_not(tmp_path):
    """DB3's two people with ten electrodes, beside one with twelve."""
    ninapro(tmp_path / "DB3_s7" / "S7_E1_A1.mat", 10, 3)
    ninapro(tmp_path / "DB3_s1" / "S1_E1_A1.mat", 12, 3)
    assert [(r.subject, r.num_channels, r.rate_hz) for r in read_all(tmp_path)] == [(1, 12, 2000), (7, 10, 2000)]


def test_a_recipe_says_the_rate(tmp_path):
    from tfkfin import recipe
    from tfkfin.pipeline.dataset import open_dataset

    ninapro(tmp_path / "S7_E1_A1.mat", 16, 3)
    settings = {"source.kind": "recordings", "window.length_ms": 20, "window.stride_ms": 10, "window.rate_hz": 0,
                "split.train_repetitions": "1", "split.test_repetitions": "2"}
    plain = recipe.load("own", settings)
    assert plain.digest == recipe.load("own", settings | {"source.rate_hz": 0}).digest
    with pytest.raises(InputError, match="source.rate_hz"):
        open_dataset(plain, tmp_path)
    assert open_dataset(recipe.load("own", settings | {"source.rate_hz": 1111}), tmp_path).rate_hz == 1111


@pytest.mark.parametrize(("channels", "sizes", "side"), [
    (12, (12, 17, 23), {}), (12, (12, 17), {}), (10, (12, 17, 23), {"glove": 22}), (16, (12, 17, 23), {"acc": 3}),
    (12, (17, 23, 9), {}), (10, (17, 23), {"acc": 36}), (8, (12, 17, 23), {"frequency": 200})])
def test_movements_are_numbered_as_the_exercises_here_have_them(tmp_path, channels, sizes, side):
    for k, size in enumerate(sizes):
        ninapro(tmp_path / f"S1_E{k + 1}_A1.mat", channels, size, k, k + 1, **side)
    found = read_all(tmp_path, exercise=range(1, len(sizes) + 1))
    begins = np.cumsum([0, *sizes])
    for k, recording in enumerate(found):
        assert set(recording.labels.tolist()) == {0, *range(begins[k] + 1, begins[k + 1] + 1)}


def envelope(seed=0):
    """Rectified, smoothed and quantised, as DB1's electrodes give it: a floor of one step, never negative."""
    emg, labels, repetitions = person(1000, 10, 3, 3, 2.0, 1.0, seed)
    slow = np.stack([np.convolve(np.abs(c), np.ones(300) / 300, "same") for c in emg.T], axis=1)[::10]
    return np.maximum(np.round(slow * 2e6) - 1, 1) * 0.0024, labels[::10], repetitions[::10]


def test_envelopes_are_recognised_and_nothing_is_advised_that_a_ninapro_folder_may_not_follow(tmp_path, capsys):
    emg, labels, repetitions = envelope()
    savemat(tmp_path / "S1_A1_E1.mat", dict(emg=emg, restimulus=labels[:, None], rerepetition=repetitions[:, None],
                                            glove=np.zeros((len(emg), 22))))
    code, said = command(capsys, "info", tmp_path)
    assert code == 0 and "rectified envelopes" in said and "volts" not in said and "unit in" not in said
    (recording,) = read_all(tmp_path)
    from tfkfin.recordings import health
    assert health.examine(recording).clipped == () and recording.rate_hz == 100
    emg, labels, repetitions = person(1000, 4, 3, 2)
    for offset, clip in ((0.001, 1), (0, 1)):  # an offset makes no envelope; clipped at its middle it is clipped
        savemat(tmp_path / "S1_A1_E1.mat", dict(emg=emg + offset, restimulus=labels[:, None], frequency=1000,
                                                rerepetition=repetitions[:, None]))
        assert not any("envelopes" in note for note in read_all(tmp_path)[0].notes)
    assert health.is_clipped(np.clip(emg[:, 0], -5e-5, 5e-5) + 5e-5)


def test_real_db1_is_told_as_it_is(real_sets):
    folder = next((folder for folder in real_sets if folder.name == "ninapro_db1"), None)
    if folder is None:
        pytest.skip("no Ninapro DB1 there")
    from tfkfin.recordings import health
    for recording in read_all(folder):
        assert recording.rate_hz == 100 and "rectified envelopes" in recording.notes[0]
        assert not any("volts" in note for note in recording.notes) and not health.examine(recording).clipped


# Heads of text files


def openbci(folder, mark="%"):
    """As the OpenBCI GUI writes it."""
    emg, labels, _ = person(250, 8)
    head = [f"{mark}OpenBCI Raw EXG Data", f"{mark}Number of channels = 8", f"{mark}Sample Rate = 250 Hz",
            "Sample Index, " + ", ".join(f"EXG Channel {i}" for i in range(8))
            + ", Accel Channel 0, Timestamp, Marker Channel, Timestamp (Formatted)"]
    rows = [f"{i % 256}, " + ", ".join(f"{x:.4f}" for x in row * 1e6) + f", 0.04, {1.6e9 + i / 250:.6f}, {label}.0, "
            f"2020-09-13 12:26:{i // 250 % 60:02d}.000" for i, (row, label) in enumerate(zip(emg, labels, strict=True))]
    (folder / "OpenBCI-RAW-p1.txt").write_text("\n".join([*head, *rows]) + "\n")
    return emg, labels


@pytest.mark.parametrize("mark", ["%", "# ", "", "// "])
def test_lines_above_a_heading(tmp_path, mark):
    emg, labels = openbci(tmp_path, mark)
    said = lines_of(text := drafted(tmp_path))
    assert (said["rate_hz"], said["label"], said["unit"]) == ("250", '"Marker Channel"', '"uV"')
    assert json.loads(said["channels"]) == [f"EXG Channel {i}" for i in range(8)]
    assert "Sample Index (only rises" in text and "Accel Channel 0 (is 0.04 throughout)" in text
    sheet(tmp_path, text)
    (recording,) = read_all(tmp_path)
    np.testing.assert_allclose(recording.emg, emg, atol=1e-9)
    np.testing.assert_array_equal(recording.labels, labels)
    sheet(tmp_path, text.replace("rate_hz = 250", "rate_hz = 500"))
    refused(tmp_path, "is at 250 Hz, and recordings.toml says rate_hz = 500")


HEADS = {
    "savetxt": ("# ch1,ch2,move\n", ",", "utf-8"),
    "a line of units": ("ch1;ch2;move\nmV;mV;-\n", ";", "utf-8"),
    "units in brackets": ("ch1 [mV]\tch2 [mV]\tmove\n", "\t", "utf-8"),
    "Latin": ("Bewegung für Öffnen\nch1 (\xb5V),ch2 (\xb5V),move\n", ",", "latin-1"),
    "UTF-16": ("ch1,ch2,move\n", ",", "utf-16"),
    "quoted": ('"a, mV","b, mV","move, of 3"\n', ",", "utf-8"),
    "a table of settings": ("Name\tJohn\nFrequency:\t200\n\nCH 1,uV\tCH 2,uV\tMarker\n", "\t", "utf-8"),
    "free text": ("Subject: anna\nSampling Frequency: 0.2 kHz\n\nch1,ch2,move\n", ",", "utf-8"),
    "blanks": ('"ch 1"  "ch 2"  move\n', " ", "utf-8"),
    "ends in a comma": ("ch1,ch2,move,\n", ",", "utf-8"),
}


@pytest.mark.parametrize("kind", HEADS)
def test_headings_as_programs_write_them(tmp_path, kind):
    heading, mark, encoding = HEADS[kind]
    emg, labels, _ = person(200, 2)
    unit = 1e6 if "\xb5" in heading or "uV" in heading else 1e3
    end = "," if kind == "ends in a comma" else ""
    rows = [mark.join([*(f"{v:.6f}" for v in row * unit), str(label)]) + end
            for row, label in zip(emg, labels, strict=True)]
    (tmp_path / "p1.csv").write_text(heading + "\n".join(rows) + "\n", encoding=encoding)
    text = drafted(tmp_path).replace("# rate_hz = 2000", "rate_hz = 200").replace("# the unit", "#")
    sheet(tmp_path, text)
    (recording,) = read_all(tmp_path)
    assert (recording.rate_hz, recording.num_channels) == (200, 2)
    np.testing.assert_allclose(recording.emg, emg, atol=1e-9)
    np.testing.assert_array_equal(recording.labels, labels)
    if "V" in heading:
        sheet(tmp_path, text + 'unit = "V"\n' if "[movements]" not in text else 'unit = "V"\n' + text)
        refused(tmp_path, "and recordings.toml says unit = \"V\": leave it out")


def test_blanks_in_columns_that_nobody_wants(tmp_path):
    emg, labels, _ = person(200, 2)
    note = np.where(np.arange(len(emg)) % 7, "", "seen at 12:30")
    some = np.where(np.arange(len(emg)) % 5, "1", "")
    words = np.array(["", "fist", "open", "pinch"])[labels]
    table(tmp_path / "p1.csv", [*emg.T, note, some, words], "a,b,note,some,move")
    sheet(tmp_path, drafted(tmp_path).replace("# rate_hz = 2000", "rate_hz = 200"))
    (recording,) = read_all(tmp_path)
    np.testing.assert_array_equal(recording.labels, labels)  # an empty cell is rest
    assert recording.num_channels == 2 and recording.names == {1: "fist", 2: "open", 3: "pinch"}
    sheet(tmp_path, 'rate_hz = 200\nunit = "V"\nfiles = "p{subject}.csv"\nchannels = ["a", "some"]\nlabel = "move"\n')
    refused(tmp_path, "channel some cannot be read as numbers: row 1 has ''")


def test_rows_that_lack_a_number_are_rows(tmp_path):
    emg, labels, _ = person(200, 2)
    cells = [[f"{v:.4f}" for v in column] for column in (emg * 1e3).T]
    cells[1][:3] = ["N/A"] * 3
    table(tmp_path / "p1.csv", [*cells, labels], "time,2,move")
    sheet(tmp_path, 'rate_hz = 200\nunit = "mV"\nfiles = "p{subject}.csv"\nchannels = ["time", "2"]\nlabel = "move"\n')
    refused(tmp_path, "channel 2 cannot be read as numbers: row 1 has 'N/A'")


def test_two_columns_of_one_name_are_counted(tmp_path):
    emg, labels, _ = person(200, 2)
    table(tmp_path / "p1.csv", [*emg.T, labels], "emg,emg,move")
    begin = 'rate_hz = 200\nunit = "V"\nfiles = "p{subject}.csv"\nlabel = "move"\nchannels = '
    sheet(tmp_path, begin + '["emg"]\n')
    refused(tmp_path, "several columns named emg: say which by number")
    sheet(tmp_path, begin + "[1, 2]\n")
    np.testing.assert_allclose(read_all(tmp_path)[0].emg, emg, atol=1e-9)


# Clocks


def bursts(n: int, packet: int, rate: float, inner: float) -> np.ndarray:
    i = np.arange(n)
    return i // packet * packet / rate + i % packet * inner


@pytest.mark.parametrize(("packet", "inner"), [(4, 0.0002), (8, 0.0), (2, 0.001), (16, 0.0001)])
def test_time_stamps_that_come_in_packets(tmp_path, packet, inner):
    emg, labels, _ = person(200)
    time = bursts(len(emg), packet, 200, inner)
    table(tmp_path / "p1.csv", [time, *(emg * 1e3).T, labels], "Timestamp,a,b,c,d,label")
    text = drafted(tmp_path)
    assert "# rate_hz = 20" in text and "its median step says" in text and "rate_hz" not in lines_of(text)
    sheet(tmp_path, text.replace("# rate_hz = 20", "rate_hz = 20"))
    (recording,) = read_all(tmp_path)
    assert recording.rate_hz == pytest.approx(200, rel=0.01) and "packets" in recording.notes[0]
    assert not any("were lost" in note for note in recording.notes)
    if inner:
        sheet(tmp_path, f"rate_hz = {1 / inner}\n" + text)
        refused(tmp_path, "packets")


def test_clocks_in_other_units_that_run_back_or_skip(tmp_path):
    emg, labels, _ = person(200)
    time = np.arange(len(emg)) / 200
    back, lost = time.copy(), time.copy()
    back[1000:] -= 3.0
    lost[500:] += 0.5
    for name, column, note in (("time_ms", time * 1e3, ""), ("t [us]", time * 1e6, ""), ("timestamp", time * 1e9, ""),
                               ("time", back, "runs back 1 times, first at sample 1000"),
                               ("time", lost, "1 gaps in column time: samples were lost")):
        table(tmp_path / "p1.csv", [np.round(column, 6), *(emg * 1e3).T, labels], f"{name},a,b,c,d,label")
        text = drafted(tmp_path)
        assert '"' + name + '"' not in lines_of(text)["channels"]
        if note.startswith("runs"):
            assert "runs back" in text
        rate = "" if "rate_hz" in lines_of(text) else "rate_hz = 200\n"
        sheet(tmp_path, rate + text)
        (recording,) = read_all(tmp_path)
        assert recording.rate_hz == pytest.approx(200, rel=0.001)
        assert note in " ".join(recording.notes) and ("column" in " ".join(recording.notes)) is bool(note)
    sheet(tmp_path, "rate_hz = 400\n" + "\n".join(line for line in text.splitlines() if "rate_hz" not in line))
    refused(tmp_path, "and rate_hz is 400")


# Names of files


def trials(folder, names: dict[str, int], channels=3):
    """A file a movement, under these names."""
    for i, (name, movement) in enumerate(names.items()):
        emg = person(200, channels, 4, 1, 1.0, 0.0, seed=i)[0][200 * movement - 200:200 * movement] if movement else \
            1e-6 * np.random.default_rng(i).standard_normal((200, channels))
        table(folder / name, list((emg * 1e6).T), ",".join("abc"[:channels]))


@pytest.mark.parametrize(("names", "pattern", "movements"), [
    ([f"s{s}_{m}_{r}.csv" for s in (1, 2) for m in ("open_hand", "fist", "wrist_flexion_slow") for r in (1, 2)],
     "s{subject}_{label}_{repetition}.csv", ["fist", "open_hand", "wrist_flexion_slow"]),
    ([f"User {s}/{m}/u{s}-{m.lower().replace(' ', '-')}-set-{r}.csv" for s in (1, 2)
      for m in ("Closed Grip", "Rest", "Index Finger") for r in (1, 2)],
     "User {subject}/{label}/u{subject}-*-set-{repetition}.csv", ["Closed Grip", "Index Finger"]),
    ([f"{m}/person{s}_trial{r}.csv" for s in (1, 2) for m in ("fist", "flex", "relax") for r in (1, 2)],
     "{label}/person{subject}_trial{repetition}.csv", ["fist", "flex"]),
    ([f"R_{r}_C_{c}.csv" for r in (0, 1) for c in (0, 1, 2)], "R_{repetition}_C_{label}.csv", []),
    ([f"{s}/{m}{r}.csv" for s in ("anna", "bo") for m in ("fist", "wrist_up", "rest") for r in (1, 2)],
     "{subject}/{label}{repetition}.csv", ["fist", "wrist_up"]),
    ([f"P{s}_2024-03-0{d}_{m}.csv" for s in (7, 8) for d in (1, 5) for m in ("fist", "open")],
     "P{subject}_{session}_{label}.csv", ["fist", "open"]),
])
def test_movements_in_names(tmp_path, names, pattern, movements):
    trials(tmp_path, {name: 1 + i % 3 for i, name in enumerate(names)})
    said = lines_of(text := drafted(tmp_path))
    assert json.loads(said["files"]) == pattern and "label" not in said and "left out" not in text
    assert [json.loads(said[str(i + 1)]) for i in range(len(movements))] == movements
    sheet(tmp_path, text.replace("# rate_hz = 2000", "rate_hz = 200"))
    assert sum(len(file.signals) for file in readers.find(tmp_path)) == len(names)
    assert all(r.labels.any() for r in read_all(tmp_path))


def test_a_column_that_says_what_names_say(tmp_path):
    emg, _, _ = person(200, 2)
    for i, name in enumerate(("fist", "open")):
        for k in (1, 2):
            table(tmp_path / "s1" / f"{name}_{k}.csv", [*(emg[:300] * 1e6).T, np.full(300, i + 1)], "a,b,label")
    said = lines_of(text := drafted(tmp_path))
    assert json.loads(said["files"]) == "s{subject}/{label}_{repetition}.csv" and "label" not in said
    sheet(tmp_path, text.replace("# rate_hz = 2000", "rate_hz = 200"))
    (recording,) = read_all(tmp_path)
    assert recording.names == {1: "fist", 2: "open"} and set(recording.repetitions.tolist()) == {1, 2}


def test_classes_and_repetitions_that_count_from_0(tmp_path):
    trials(tmp_path, {f"R_{r}_C_{c}.csv": 1 + c for r in (0, 1) for c in (0, 1, 2)})
    text = drafted(tmp_path).replace("# rate_hz = 2000", "rate_hz = 200")
    assert "# rest = false   # label 0" in text
    sheet(tmp_path, text)
    (recording,) = read_all(tmp_path)
    assert {*zip(recording.labels.tolist(), recording.repetitions.tolist(), strict=True)} == {
        (c, r) for c in (0, 1, 2) for r in (1, 2)}
    assert "'0' is taken for rest" in " ".join(recording.notes) and "count from 0" in " ".join(recording.notes)
    sheet(tmp_path, text.replace("# rest = false", "rest = false") + '[movements]\n0 = "fist"\n2 = "open"\n')
    (recording,) = read_all(tmp_path)
    assert {*zip(recording.labels.tolist(), recording.repetitions.tolist(), strict=True)} == {
        (c, r) for c in (1, 2, 3) for r in (1, 2)}
    assert recording.names == {1: "fist", 3: "open"} and "rest" not in " ".join(recording.notes)


def uci(folder, dates=("22.03.16", "22.03.16")):
    """36 people's files of the UCI repository: time in ms and class in columns, the minute in names."""
    for s in (1, 2):
        for run_, minute in ((1, "13-12"), (2, "13-13")):
            emg, labels, _ = person(1000, 8, 3, 2, 0.6, 0.3, seed=s * 10 + run_)
            table(folder / f"{s:02d}" / f"{run_}_raw_data_{minute}_{dates[s - 1]}.txt",
                  [np.arange(1, len(emg) + 1), *emg.T, labels],
                  "time\t" + "\t".join(f"channel{c}" for c in range(1, 9)) + "\tclass", "\t")


@pytest.mark.parametrize("dates", [("22.03.16", "22.03.16"), ("22.03.16", "04.05.16")])
def test_minutes_in_names_are_no_runs(tmp_path, dates):
    uci(tmp_path, dates)
    said = lines_of(text := drafted(tmp_path))
    assert json.loads(said["files"]) == "{subject}/{run}_raw_data_*.txt" and said["label"] == '"class"'
    assert json.loads(said["channels"]) == [f"channel{c}" for c in range(1, 9)]
    assert "# rate_hz = 1000   # column time" in text
    sheet(tmp_path, text.replace("# rate_hz", "rate_hz") + 'time = "time"\n')
    found = read_all(tmp_path)
    assert [(r.subject, len(r.seams), r.rate_hz) for r in found] == [(1, 1, 1000), (2, 1, 1000)]


def test_clocks_and_labels_by_whatever_name(tmp_path):
    emg, labels, repetitions = person(200)
    names = ["X [s]", *(f"Avanti {i}: EMG {i} [V]" for i in range(4)), "stimulus", "restimulus", "repetition",
             "rerepetition", "imu_x"]
    cue = np.roll(labels, -20)
    table(tmp_path / "S1.csv", [np.arange(len(emg)) / 200, *emg.T, cue, labels, np.roll(repetitions, -20), repetitions,
                                emg[:, 0]], ",".join(names))
    sheet(tmp_path, text := drafted(tmp_path))
    assert lines_of(text)["time"] == '"X [s]"' and json.loads(lines_of(text)["channels"]) == names[1:5]
    (recording,) = read_all(tmp_path)
    np.testing.assert_array_equal(recording.labels, labels)
    np.testing.assert_array_equal(recording.repetitions, repetitions)
    table(tmp_path / "q" / "S1.csv", [*emg.T, np.array(["Ruhe", "Faust", "offen", "x"])[labels]], "a,b,c,d,Bewegung")
    text = drafted(tmp_path / "q")
    assert '# rest = "?"' in text
    sheet(tmp_path / "q", text.replace('# rest = "?"', 'rest = "Ruhe"').replace("# rate_hz = 2000", "rate_hz = 200"))
    np.testing.assert_array_equal(read_all(tmp_path / "q")[0].labels > 0, labels > 0)


@pytest.mark.parametrize("words", [("monday", "tuesday"), ("morning", "evening")])
def test_words_beside_a_column_of_movements_are_sessions(tmp_path, words):
    for p in (1, 2):
        for i, word in enumerate(words):
            emg, labels, _ = person(200, 3, seed=10 * p + i)
            table(tmp_path / f"p{p}_{word}.csv", [*(emg * 1e6).T, np.array(["rest", "fist", "open", "pinch"])[labels]],
                  "a,b,c,gesture")
    said = lines_of(text := drafted(tmp_path))
    assert json.loads(said["files"]) == "p{subject}_{session}.csv" and "numbered in order" in text
    assert [said[str(i)] for i in (1, 2, 3)] == ['"fist"', '"open"', '"pinch"']
    sheet(tmp_path, text.replace("# rate_hz = 2000", "rate_hz = 200"))
    found = read_all(tmp_path)
    order = list(words) if "monday" in words else sorted(words)
    assert [(r.subject, r.file.session, r.path.stem.split("_")[1]) for r in found] == [
        (p, i + 1, order[i]) for p in (1, 2) for i in (0, 1)]
    assert f"session 2 is {order[1]}" in found[1].notes


def own(folder, names, **more):
    for i, name in enumerate(names):
        emg, labels, _ = person(200, 4, 2, 2, 0.6, 0.3, seed=i)
        table(folder / name, [*(emg * 1e3).T, labels], "a,b,c,d,label")


OWN = 'rate_hz = 200\nunit = "mV"\nchannels = ["a", "b", "c", "d"]\nlabel = "label"\n'


@pytest.mark.parametrize(("names", "pattern", "numbers"), [
    (["p7.csv", "p12345.csv", "p54321.csv"], "p{subject}.csv", [(7, 1), (12345, 1), (54321, 1)]),
    (["anna.csv", "bo.csv"], "{subject}.csv", [(1, 1), (2, 1)]),
    (["p1_20240105.csv", "p1_20231230.csv"], "p{subject}_{session}.csv", [(1, 1), (1, 2)]),
    (["p1_2024-01-05.csv", "p2_2023-12-30.csv"], "p{subject}_{session}.csv", [(1, 2), (2, 1)]),
])
def test_people_and_sessions_are_numbers_words_or_dates(tmp_path, names, pattern, numbers):
    own(tmp_path, names)
    sheet(tmp_path, f'files = "{pattern}"\n' + OWN)
    found = read_all(tmp_path)
    assert [(r.subject, r.file.session) for r in found] == numbers
    if "anna.csv" in names:
        assert "subject 1 is anna" in found[0].notes
    if "12345" in names[1]:
        from tfkfin import recipe
        from tfkfin.base.console import parse_numbers
        from tfkfin.pipeline.dataset import open_dataset
        assert [r.subject for r in read_all(tmp_path, subjects=parse_numbers("54321"))] == [54321]
        settings = {"source.kind": "recordings", "window.length_ms": 50, "window.stride_ms": 10, "window.rate_hz": 0,
                    "split.subjects": "7,54321", "split.train_repetitions": "1", "split.test_repetitions": "2"}
        assert sorted(open_dataset(recipe.load("own", settings), tmp_path).files) == [7, 54321]


def test_files_that_a_pattern_misses_are_told(tmp_path, caplog):
    own(tmp_path, ["p1.csv", "p2.csv", "p_x.csv", "summary.csv"])
    sheet(tmp_path, 'files = "p{subject}.csv"\n' + OWN)
    assert len(readers.find(tmp_path)) == 2
    assert "2 .csv files" in caplog.text and "p_x.csv, summary.csv" in caplog.text
    ninapro(tmp_path / "nina" / "S1_E1_A1.mat", 12, 3)
    ninapro(tmp_path / "nina" / "S2_E1.mat", 12, 3)
    readers.find(tmp_path / "nina")
    assert "1 .mat files" in caplog.text and "S2_E1.mat" in caplog.text


# What is no electrode


def test_a_label_among_the_channels_is_refused(tmp_path):
    rng, folder = np.random.default_rng(0), tmp_path / "runs"
    for k in (0, 1, 2):  # a file a movement; in the first the last column is 0 throughout
        _, labels, _ = person(200, 4, 1, 3, seed=k)
        table(folder / f"p1_{k}.txt", [*np.round(40 * rng.standard_normal((4, len(labels)))), labels * k])
    said = lines_of(text := drafted(folder))
    assert (said["channels"], said["label"], json.loads(said["files"])) == ("[1, 2, 3, 4]", "5", "p{subject}_{run}.txt")
    filled = text.replace("# rate_hz = 2000", "rate_hz = 200")
    sheet(folder, filled)
    assert read_all(folder)[0].num_channels == 4
    sheet(folder, filled.replace("[1, 2, 3, 4]", "[1, 2, 3, 4, 5]"))
    refused(folder, "channels has column 5, which label has already: a label or a clock is no electrode")
    emg, labels, repetitions = person(200)
    begin = 'rate_hz = 200\nunit = "mV"\nfiles = "p{subject}.csv"\n'
    table(tmp_path / "a" / "p1.csv", [*(emg * 1e3).T, labels, 7 * labels + 2, repetitions], "a,b,c,d,move,code,rep")
    for channels, label, message in (("[1, 2, 3, 4, 5]", '"move"', "channels has column 5, which label has already"),
                                     ('["a", "b", "move"]', "5", "channels has column move, which label"),
                                     ('["a", "b", "code"]', '"move"', "channel 3 of channels changes rarely.*label")):
        sheet(tmp_path / "a", begin + f"channels = {channels}\nlabel = {label}\n")
        refused(tmp_path / "a", message)
    table(tmp_path / "b" / "p1.csv", [*(emg * 1e3).T, labels], "a,b,c,d,move")
    sheet(tmp_path / "b", begin + "label = 5\n")  # all columns but the label's
    assert read_all(tmp_path / "b")[0].num_channels == 4


def test_counters_clocks_and_steps_are_no_electrodes_whatever_their_name(tmp_path):
    emg, labels, repetitions = person(200)
    n = len(emg)
    columns = {"x1": np.arange(n), "x2": np.arange(n) % 256, "x3": 5e4 + np.arange(n) // 3, "x4": np.arange(n) // 700,
               "x5": np.full(n, 3), **dict(zip("abcd", (emg * 1e3).T, strict=True)), "grasp": labels, "x6": repetitions}
    table(tmp_path / "p1.csv", list(columns.values()), ",".join(columns))
    said = lines_of(text := drafted(tmp_path))
    assert json.loads(said["channels"]) == list("abcd") and "label" not in said and "x2 (only rises" in text
    assert '# label = "?"   # columns x4, grasp, x6 hold steps: which is' in text
    sheet(tmp_path, OWN.replace('"label"', '"grasp"').replace('"c", "d"', '"x2"') + 'files = "p{subject}.csv"\n')
    assert "channel 3 only rises or falls, as a clock or a counter: is it an electrode?" in read_all(tmp_path)[0].notes


@pytest.mark.parametrize(("keys", "message"), [
    ('label = "a"\nrepetition = "a"\n', "repetition has column a, which label has already"),
    ('label = "label"\ntime = "a"\n', "channels has column a, which time has already"),
    ('label = "label"\nrepetition = "r"\nfiles = "p{subject}_{repetition}.csv"\n', "repetition and {repetition} both"),
    ('label = "label"\nlabels = "q{subject}.csv"\nstart = "s"\nstop = "e"\nduration = "d"\n', "stop and duration both"),
])
def test_keys_that_contradict_each_other(tmp_path, keys, message):
    own(tmp_path, ["p1.csv"])
    lines = OWN.replace('label = "label"\n', "") + ("" if "files" in keys else 'files = "p{subject}.csv"\n') + keys
    sheet(tmp_path, lines)
    refused(tmp_path, message)


@pytest.mark.parametrize("rest", ["rest", "Relax", "no_movement", "NEUTRAL", "idle"])
def test_rest_has_several_names(tmp_path, rest):
    emg, labels, _ = person(200)
    words = np.array([rest, "fist", "open_hand", "pinch"])[labels]
    table(tmp_path / "p1.csv", [*(emg * 1e3).T, words], "a,b,c,d,gesture")
    text = drafted(tmp_path).replace("# rate_hz = 2000", "rate_hz = 200")
    sheet(tmp_path, text.replace("open_hand", "open hand"))
    (recording,) = read_all(tmp_path)
    np.testing.assert_array_equal(recording.labels, labels)
    assert recording.names == {1: "fist", 2: "open hand", 3: "pinch"}
    sheet(tmp_path, 'rest = "Pause"\n' + text)
    table(tmp_path / "p1.csv", [*(emg * 1e3).T, np.where(labels == 0, "pause", words)], "a,b,c,d,gesture")
    np.testing.assert_array_equal(read_all(tmp_path)[0].labels, labels)


# EDF, BIDS, arrays


def edf(path, unit="uV", duration=None, names=("rest", "fist", "open"), annotate=True):
    import edfio

    emg, labels, _ = person(500, 2, 2)
    emg, labels = emg[: len(emg) // 500 * 500], labels[: len(emg) // 500 * 500]
    edges = np.flatnonzero(np.diff(labels)) + 1
    notes = [edfio.EdfAnnotation(i / 500, duration, names[labels[i]]) for i in edges] if annotate else []
    path.parent.mkdir(parents=True, exist_ok=True)
    edfio.Edf([edfio.EdfSignal(emg[:, c] * 1e6, 500, label=f"EMG{c + 1}", physical_dimension=unit) for c in range(2)],
              annotations=notes).write(path)
    return emg, labels


def test_annotations_that_last_no_time(tmp_path):
    _, labels = edf(tmp_path / "p1.edf")
    assert "# hold = true   # 11 annotations last no time" in (text := drafted(tmp_path))
    table_ = '[movements]\n1 = "fist"\n2 = "open"\n'
    sheet(tmp_path, 'files = "p{subject}.edf"\n' + table_)
    refused(tmp_path, r"6 annotations last no time \(fist, open\): hold = true")
    sheet(tmp_path, text.replace("# hold", "hold"))
    np.testing.assert_array_equal(read_all(tmp_path)[0].labels, labels)
    sheet(tmp_path, 'files = "p{subject}.edf"\nhold = true\n[movements]\n1 = "pinch"\n')
    refused(tmp_path, "no annotation is a movement that recordings.toml lists.*there are fist, open")
    table(tmp_path / "m1.csv", [[0.5, 1.5, 2.0], ["fist", "rest", "open"]], "onset,what")
    sheet(tmp_path, 'files = "p{subject}.edf"\nlabels = "m{subject}.csv"\nlabel = "what"\nstart = "onset"\n'
          'hold = true\n' + table_)
    held = np.zeros(len(labels))
    held[250:750], held[1000:] = 1, 2
    np.testing.assert_array_equal(read_all(tmp_path)[0].labels, held)


def test_marks_of_one_sample_in_a_column(tmp_path):
    emg, labels, _ = person(200)
    marks = np.where(np.diff(labels, prepend=0) > 0, labels, 0)
    table(tmp_path / "p1.csv", [*(emg * 1e3).T, marks], "a,b,c,d,label")
    sheet(tmp_path, 'files = "p{subject}.csv"\n' + OWN)
    refused(tmp_path, "9 marks in column label last one sample each: hold = true")
    sheet(tmp_path, 'hold = true\nfiles = "p{subject}.csv"\n' + OWN)
    (recording,) = read_all(tmp_path)
    assert recording.labels[:100].tolist() == [0] * 100 and (recording.labels[100:400] == 1).all()


def test_empty_units_are_asked_for(tmp_path):
    emg, _ = edf(tmp_path / "p1.edf", unit="", duration=1.0, names=("rest", "fist", "open"))
    more = 'files = "p{subject}.edf"\n[movements]\n1 = "fist"\n2 = "open"\n'
    sheet(tmp_path, "hold = true\n" + more)
    refused(tmp_path, "does not say its unit: give unit")
    edf(tmp_path / "p1.edf", unit="")
    sheet(tmp_path, 'hold = true\nunit = "uV"\n' + more)
    np.testing.assert_allclose(read_all(tmp_path)[0].emg, emg, atol=1e-8)


def bids(folder, rows: list[dict]):
    _, labels = edf(folder / "sub-01" / "emg" / "sub-01_task-move_emg.edf", annotate=False)
    (folder / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.11.0"}')
    stem = str(folder / "sub-01" / "emg" / "sub-01_task-move_")
    Path(stem + "channels.tsv").write_text("name\ttype\tunits\nEMG1\tEMG\tuV\nEMG2\tEMG\tuV\n")
    edges = [0, *(np.flatnonzero(np.diff(labels)) + 1), len(labels)]
    held = [(a, b) for a, b in zip(edges, edges[1:], strict=False) if labels[a]]
    with open(stem + "events.tsv", "w", newline="") as file:
        writer = csv.DictWriter(file, dict.fromkeys(["onset", "duration", *rows[0]]), delimiter="\t")
        writer.writeheader()
        for i, (a, b) in enumerate(held):
            row = {key: value[i] if isinstance(value, list) else value for key, value in rows[labels[a] - 1].items()}
            writer.writerow({"onset": a / 500, "duration": (b - a) / 500} | row)
    return labels


def test_movements_of_bids_in_another_column(tmp_path):
    one, two = ({"trial_type": "stimulus", "value": name} for name in ("pull_left", "pull_right"))
    labels = bids(tmp_path / "value", [one, two])
    (recording,) = read_all(tmp_path / "value")
    np.testing.assert_array_equal(recording.labels, labels)
    assert recording.names == {1: "pull_left", 2: "pull_right"}
    bids(tmp_path / "gesture", [{"trial_type": "go", "gesture": "fist"}, {"trial_type": "go", "gesture": "open"}])
    refused(tmp_path / "gesture", "which column of events.tsv names the movements.*gesture has fist, open.*label = ")
    sheet(tmp_path / "gesture", 'label = "gesture"\n')
    np.testing.assert_array_equal(read_all(tmp_path / "gesture")[0].labels, labels)
    counter = list(range(1, 100))  # a trigger's number that counts up names nothing
    bids(tmp_path / "codes", [{"trial_type": "fist", "value": counter}, {"trial_type": "open", "value": counter}])
    assert read_all(tmp_path / "codes")[0].names == {1: "fist", 2: "open"}
    bids(tmp_path / "brief", [one | {"duration": 0}, two | {"duration": 0}])
    refused(tmp_path / "brief", "6 last no time: hold = true")
    sheet(tmp_path / "brief", "hold = true\n")
    assert read_all(tmp_path / "brief")[0].labels[-1] == 2


@pytest.mark.parametrize("kind", ["mat", "npz", "npy"])
def test_channels_before_samples(tmp_path, kind):
    emg, labels, _ = person(200, 8)
    whole = np.vstack([np.round(emg.T * 1e6), labels])
    path = tmp_path / f"EMG_P1_ABC.{kind}"
    {"mat": lambda: savemat(path, {"Data": whole}), "npz": lambda: np.savez(path, Data=whole),
     "npy": lambda: np.save(path, whole)}[kind]()
    said = lines_of(text := drafted(tmp_path))
    assert (said["channels"], said["label"]) == (("[1, 2, 3, 4, 5, 6, 7, 8]", "9") if kind == "npy" else
                                                 ('["Data:1-8"]', '"Data:9"'))
    sheet(tmp_path, text.replace("# rate_hz = 2000", "rate_hz = 200"))
    (recording,) = read_all(tmp_path)
    np.testing.assert_allclose(recording.emg, emg, atol=1e-6)
    np.testing.assert_array_equal(recording.labels, labels)
    if kind != "npy":
        assert any("turned" in note for note in recording.notes)
        sheet(tmp_path, text.replace("# rate_hz = 2000", "rate_hz = 200").replace("Data:1-8", "Data"))
        refused(tmp_path, "tells the movement|which label has already")


def test_a_struct_beside_arrays(tmp_path):
    emg, labels, _ = person(200)
    savemat(tmp_path / "p1.mat", {"signal": emg * 1e3, "move": labels[:, None], "info": {"age": 31}, "fs": 200.0})
    said = lines_of(text := drafted(tmp_path))
    assert (said["channels"], said["label"], said["rate_hz"]) == ('["signal"]', '"move"', "200")
    sheet(tmp_path, text)
    np.testing.assert_array_equal(read_all(tmp_path)[0].labels, labels)
    sheet(tmp_path, text.replace('"signal"', '"info"'))
    refused(tmp_path, "info is not numeric.*-struct")
    savemat(tmp_path / "p1.mat", {"data": {"emg": emg, "move": labels}})
    with pytest.raises(InputError, match="data is not numeric.*-struct"):
        drafted(tmp_path)


def test_windows_are_no_recording(tmp_path, capsys):
    emg, labels, _ = person(500)
    at = range(0, len(emg) - 150, 100)
    np.savez(tmp_path / "s1.npz", X=np.stack([emg[i:i + 150].T for i in at]), y=labels[list(at)])
    code, said = command(capsys, "sheet", tmp_path, "--write")
    assert code == 2 and "these are windows" in said and "FINClassifier" in said
    assert not (tmp_path / "recordings.toml").exists()
    sheet(tmp_path, 'files = "s{subject}.npz"\nunit = "V"\nrate_hz = 500\nchannels = ["X"]\nlabel = "y"\n')
    refused(tmp_path, "these are windows.*FINClassifier")


def test_nothing_is_drafted_where_nothing_has_to_be(tmp_path, capsys):
    bids(tmp_path / "bids", [{"trial_type": "fist"}, {"trial_type": "open"}])
    ninapro(tmp_path / "ninapro" / "S1_E1_A1.mat", 12, 3)
    for name in ("bids", "ninapro"):
        code, said = command(capsys, "sheet", tmp_path / name, "--write")
        assert code == 2 and f"its layout of {name}, so there is nothing to draft" in said
        assert not (tmp_path / name / "recordings.toml").exists() and command(capsys, "info", tmp_path / name)[0] == 0


def test_doubts_by_hand():
    rises = doubts.look(np.arange(100) % 16)
    steps = doubts.look(np.repeat([0, 2, 0, 5], 50))
    assert rises.rises and not steps.rises and steps.steps and steps.some() == "0, 2, 5"
    assert doubts.look(np.random.default_rng(0).standard_normal(300)).why == ""
    assert doubts.tells(np.repeat([4, 9], 50), np.repeat([0, 1], 50))
    assert not doubts.tells(np.tile([4, 9], 50), np.repeat([0, 1], 50))
    clock = doubts.clock(np.array([0, 10, 20, 30, 25, 35.0]), "t_ms")
    assert (clock.rate_hz, clock.step_hz, clock.unit, clock.back) == (100, 100, "ms", (4,))
