"""The reader against files written by scipy and h5py themselves: good ones, bad ones, and damaged ones."""

import hashlib
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from tfkfin.base.errors import InputError
from tfkfin.recordings import readers
from tfkfin.recordings.readers import ninapro
from tfkfin.recordings.recording import RecordingFile, flat_channels

T, C = 4000, 12


def contents(channels: int = C, **changes) -> dict:
    """Variables of a good file; a change of None leaves one out."""
    rng = np.random.default_rng(0)
    labels = np.zeros((T, 1), np.uint8)
    labels[500:1500], labels[2000:3000] = 1, 2
    good = {"emg": (1e-5 * rng.standard_normal((T, channels))).astype(np.float32), "restimulus": labels,
            "rerepetition": np.ones((T, 1), np.uint8), "stimulus": np.roll(labels, -300),
            "repetition": np.ones((T, 1), np.uint8), "subject": np.array([[1]]), "exercise": np.array([[1]]),
            "glove": np.zeros((T, 22))}
    return {name: value for name, value in (good | changes).items() if value is not None}


def write(folder, name="S1_E1_A1.mat", **changes):
    folder.mkdir(parents=True, exist_ok=True)
    savemat(folder / name, contents(**changes), do_compression=True)
    return RecordingFile(folder / name, 1, 1)


def digests(folder) -> dict:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_reads_exactly_what_scipy_reads(tmp_path):
    file = write(tmp_path)
    recording, truth = ninapro.read(file), loadmat(file.path)
    np.testing.assert_array_equal(recording.emg, truth["emg"])
    np.testing.assert_array_equal(recording.labels, truth["restimulus"][:, 0])
    np.testing.assert_array_equal(recording.repetitions, truth["rerepetition"][:, 0])
    assert recording.emg.dtype == np.float32 and recording.labels.dtype == recording.repetitions.dtype == np.int16
    assert (recording.num_channels, recording.rate_hz, recording.seconds) == (C, 2000, T / 2000)
    assert not recording.synthetic


def test_header_tells_the_same_as_the_recording(tiny_db2):
    for file in readers.find(tiny_db2):
        head, whole = ninapro.header(file), ninapro.read(file)
        np.testing.assert_array_equal(head.labels, whole.labels)
        np.testing.assert_array_equal(head.repetitions, whole.repetitions)
        assert (head.rate_hz, head.num_channels, head.synthetic) == (whole.rate_hz, whole.num_channels, True)


def test_v73_is_transposed_back_and_equal_to_v5(tmp_path):
    write(tmp_path / "v5")
    (tmp_path / "v73").mkdir()
    with h5py.File(tmp_path / "v73" / "S1_E1_A1.mat", "w", userblock_size=512) as file:
        for name, value in contents().items():
            file.create_dataset(name, data=value.T)  # MATLAB 7.3 keeps columns first
    old, new = (ninapro.read(readers.find(tmp_path / name)[0]) for name in ("v5", "v73"))
    np.testing.assert_array_equal(old.emg, new.emg)
    np.testing.assert_array_equal(old.labels, new.labels)
    np.testing.assert_array_equal(old.repetitions, new.repetitions)


def test_find_takes_names_as_they_come_and_leaves_junk(tmp_path):
    for name in ("DB2_s10/S10_E1_A1.mat", "db2_s2/s2_e1_a1.MAT", "deep/er/S1_A1_E1.mat", "S2_E2_A1.mat",
                 "__MACOSX/S3_E1_A1.mat", "._S4_E1_A1.mat", "S5_E1_A1.mat.part", "notes.txt", "subjects_E1_A1.mat"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "deep" / "loop").symlink_to(tmp_path)  # a link back up must not go round for ever
    assert [(f.subject, f.exercise) for f in readers.find(tmp_path)] == [(1, 1), (2, 1), (10, 1)]
    assert [f.path.name for f in readers.find(tmp_path, exercise=2)] == ["S2_E2_A1.mat"]
    assert [f.subject for f in readers.find(tmp_path, subjects=(10, 1))] == [1, 10]
    for arguments, message in (({"subjects": (1, 3)}, "no subject 3 for exercise 1: it has 1, 2, 10"),
                               ({"exercise": 3}, "no recording of exercise 3, only of 1, 2")):
        with pytest.raises(InputError, match=message):
            readers.find(tmp_path, **arguments)


def test_find_follows_links_to_folders(tmp_path):
    write(tmp_path / "disk")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "data").symlink_to(tmp_path / "disk")
    assert len(readers.find(tmp_path / "project")) == 1


def test_find_says_what_is_missing(tmp_path):
    with pytest.raises(InputError, match="not there.*S1_E1_A1.mat"):
        readers.find(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is empty"):
        readers.find(tmp_path)
    (tmp_path / "DB2_s1.zip").touch()
    with pytest.raises(InputError, match="no recordings.*unpack"):
        readers.find(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        readers.find(tmp_path / "DB2_s1.zip")
    write(tmp_path / "a"), write(tmp_path / "b", "S1_A1_E1.mat")
    with pytest.raises(InputError, match="two files.*S1_E1_A1.mat.*S1_A1_E1.mat"):
        readers.find(tmp_path)


def bad_emg(index, value):
    emg = contents()["emg"]
    emg[index] = value
    return emg


@pytest.mark.parametrize(("changes", "message"), [
    ({"emg": None}, "no variable emg, only .*restimulus"),
    ({"rerepetition": None, "repetition": None}, "no variable restimulus with rerepetition, only emg"),
    ({"emg": np.zeros((T, 2, 2))}, r"emg has shape \(4000, 2, 2\)"),
    ({"emg": np.zeros((C, T))}, r"emg has shape \(12, 4000\)"),
    ({"emg": np.array([["volts"]])}, "emg"),
    ({"emg": 1j * np.ones((T, C))}, "emg is not numeric"),
    ({"emg": np.array([[{"a": 1}]], dtype=object)}, "emg"),
    ({"emg": bad_emg((1234, 3), np.nan)}, "NaN or Inf in channel 4, first at sample 1234"),
    ({"emg": bad_emg((slice(7, 9), slice(0, 2)), -np.inf)}, "channel 1, 2, first at sample 7"),
    ({"restimulus": np.ones((T, 2))}, r"restimulus has shape \(4000, 2\)"),
    ({"restimulus": np.full((T, 1), 1.5)}, "whole numbers"),
    ({"restimulus": np.full((T, 1), -1)}, "whole numbers"),
    ({"restimulus": np.full((T, 1), np.nan)}, "whole numbers"),
    ({"restimulus": np.full((T, 1), 70000)}, "whole numbers"),
    ({"restimulus": np.full((T, 1), 7e4)}, "whole numbers"),
    ({"restimulus": np.zeros((T, 1))}, "no movement"),
    ({"rerepetition": np.zeros((T, 1))}, "no movement"),
    ({"frequency": np.array([[0]])}, "frequency is 0"),
])
def test_unfit_contents_are_said_in_one_line(tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        ninapro.read(write(tmp_path, **changes))
    assert "S1_E1_A1.mat" in str(caught.value) and "\n" not in str(caught.value)


def test_large_finite_values_are_no_inf(tmp_path):
    recording = readers.read(write(tmp_path, emg=contents()["emg"] * np.float32(1e14)))
    assert np.isfinite(recording.emg).all() and any("volts" in note for note in recording.notes)
    emg = contents()["emg"]
    emg[:, 0] = 1e38  # whose sum overflows
    with pytest.raises(InputError, match="emg reaches 1e.38"):
        ninapro.read(write(tmp_path, emg=emg))


@pytest.mark.parametrize("content", [b"", b"x" * 50, b"<html>404</html>" * 100, b"\x89HDF\r\n\x1a\n" + bytes(2000)])
def test_not_a_matlab_file(tmp_path, content):
    path = tmp_path / "S1_E1_A1.mat"
    path.write_bytes(content)
    with pytest.raises(InputError, match="S1_E1_A1.mat is"):
        ninapro.read(RecordingFile(path, 1, 1))


@pytest.mark.parametrize("v73", [False, True])
def test_every_truncation_is_an_input_error(tiny_db2, tmp_path, v73):
    source = readers.find(tiny_db2)[0].path
    if v73:
        with h5py.File(tmp_path / "whole", "w", userblock_size=512) as file:
            for name, value in contents().items():
                file.create_dataset(name, data=value.T)
        source = tmp_path / "whole"
    whole, path = source.read_bytes(), tmp_path / "S1_E1_A1.mat"
    for cut in np.linspace(0, len(whole) - 1, 60).astype(int):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError):
            ninapro.read(RecordingFile(path, 1, 1))


def test_damage_never_escapes_as_another_error(tmp_path):
    path, rng = write(tmp_path).path, np.random.default_rng(1)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    refused = 0
    for _ in range(150):
        damaged = whole.copy()
        damaged[rng.integers(0, len(whole), 5)] = rng.integers(0, 256, 5)
        path.write_bytes(damaged.tobytes())
        try:
            ninapro.read(RecordingFile(path, 1, 1))
        except InputError:
            refused += 1
    assert refused > 100


def test_decisions_are_noted(tmp_path):
    cases = [
        ({"emg": contents()["emg"][:-7]}, "cut to 3993"),
        ({"restimulus": None}, "cue labels are used"),
        ({"subject": np.array([[9]])}, "says subject 9, its name 1"),
        ({"exercise": np.array([[2]])}, "says exercise 2, its name 1"),
        ({}, "2000 Hz is assumed, the rate of DB2"),
        ({"channels": 10}, "100 Hz is assumed, the rate of DB1"),
        ({"channels": 16}, "200 Hz is assumed, the rate of DB5"),
    ]
    for number, (changes, note) in enumerate(cases):
        recording = ninapro.read(write(tmp_path / str(number), **changes))
        assert any(note in said for said in recording.notes), recording.notes
        assert len(recording.emg) == len(recording.labels) == len(recording.repetitions)


def test_rate_of_the_file(tmp_path):
    file = write(tmp_path, channels=10, frequency=np.array([[1000]], np.uint16))
    assert ninapro.read(file).rate_hz == 1000 and ninapro.header(file).rate_hz == 1000
    assert not any("assumed" in note for note in ninapro.read(file).notes)
    without = write(tmp_path / "without", channels=10)
    assert ninapro.read(without).rate_hz == 100 and any("assumed" in note for note in ninapro.read(without).notes)


@pytest.mark.parametrize(("exercise", "labels", "globally", "note"), [
    (2, (18, 40), (18, 40), "through all exercises already"),  # DB2 as served today: +17 would corrupt it
    (2, (1, 23), (18, 40), "numbered from 18 instead"),
    (3, (41, 49), (41, 49), "already"),
    (3, (1, 9), (41, 49), "numbered from 41 instead"),
    (3, (1, 40), (41, 49), "numbered from 41 instead"),  # the 2017 release: 1 2 4 6 8 9 16 32 40
])
def test_numbering_of_movements(tmp_path, exercise, labels, globally, note):
    column = contents()["restimulus"]
    stored = np.where(column == 2, labels[1], np.where(column == 1, labels[0], 0)).astype(np.uint8)
    write(tmp_path, f"S1_E{exercise}_A1.mat", restimulus=stored, exercise=np.array([[exercise]]))
    file = readers.find(tmp_path, exercise=exercise)[0]
    kept, renumbered = ninapro.read(file), ninapro.read(replace(file, all_exercises=True))
    np.testing.assert_array_equal(kept.labels, stored[:, 0])
    assert set(renumbered.labels.tolist()) == {0, *globally}
    assert any(note in said for said in renumbered.notes)


def test_flat_channels_are_named_from_one(tmp_path):
    emg = contents()["emg"]
    emg[:, 6], emg[:, 8], emg[:2000, 9] = 0, 3e-6, 0  # the last one is silent for a while only
    assert flat_channels(ninapro.read(write(tmp_path, emg=emg))) == (7, 9)


@pytest.mark.parametrize("dtype", ["float64", "int16", ">f4"])
def test_other_types_become_float32(tmp_path, dtype):
    emg = (1000 * np.random.default_rng(2).standard_normal((T, C))).astype(dtype)
    recording = ninapro.read(write(tmp_path, emg=emg))
    assert recording.emg.dtype == np.float32
    np.testing.assert_array_equal(recording.emg, emg.astype(np.float32))


def test_inputs_are_never_changed(tiny_db2, tmp_path):
    shutil.copytree(tiny_db2, tmp_path / "data")
    before = digests(tmp_path)
    for file in readers.find(tmp_path):
        ninapro.header(file), ninapro.read(file)
    assert digests(tmp_path) == before


def test_recorded_signals_read(real_sets):
    for i, folder in enumerate(real_sets):
        for file in readers.find(folder):
            recording = ninapro.read(file)
            assert recording.seconds > 1 and recording.labels.any() and not recording.synthetic
            assert i or 1e-6 < recording.emg.std() < 1e-2  # V


def test_db6_has_ten_sessions_and_fourteen_electrodes(tmp_path):
    wide = contents(16)["emg"]
    wide[:, 8:10] = 0
    for day, time in ((1, 1), (1, 2), (5, 2)):
        write(tmp_path, f"S3_D{day}_T{time}.mat", emg=wide, exercise=None, subject=None)
    files = readers.find(tmp_path)
    assert [(f.subject, f.session) for f in files] == [(3, 1), (3, 2), (3, 10)]
    recording, head = readers.read(files[0]), readers.header(files[0])
    assert recording.rate_hz == head.rate_hz == 2000 and recording.num_channels == head.num_channels == 14
    np.testing.assert_array_equal(recording.emg, np.delete(wide, (8, 9), axis=1))
    write(tmp_path, "S3_D1_T1.mat", emg=contents(16)["emg"])
    with pytest.raises(InputError, match="columns 9 and 10 of DB6 have no electrode, but a signal here"):
        readers.read(files[0])


def test_exercises_together_have_49_movements(tmp_path):
    from tfkfin import recipe
    from tfkfin.pipeline.dataset import open_dataset

    sizes, first = (17, 23, 9), 0
    for k, size in enumerate(sizes):  # the second numbered through as served today, the third within itself
        stored = np.repeat(np.arange(1, size + 1), 2)[:, None].repeat(40, 0).astype(np.uint8)
        times = np.tile(np.repeat([1, 2], 40), size)[:, None].astype(np.uint8)
        emg = np.random.default_rng(k).standard_normal((len(stored), C)).astype(np.float32) * 1e-5
        write(tmp_path, f"S1_E{k + 1}_A1.mat", emg=emg, restimulus=stored + (first if k == 1 else 0),
              rerepetition=times, exercise=np.array([[k + 1]]), stimulus=None, repetition=None, glove=None)
        first += size
    settings = {"source.kind": "recordings", "source.exercise": "1-3", "window.length_ms": 10, "window.stride_ms": 5,
                "window.rate_hz": 0, "split.train_repetitions": "1", "split.test_repetitions": "2"}
    asked = recipe.load("own", settings)
    data = open_dataset(asked, tmp_path)
    assert data.movements == tuple(range(1, 50)) and len(data.files[1]) == 3
    subject = data.load(1)
    for label in (1, 18, 40, 41, 49):  # each from its own file
        file = np.searchsorted(np.cumsum(sizes), label)
        assert (subject.files[subject.windows.movements == label] == file).all()
    assert recipe.load("own", settings | {"source.exercise": "1"}).source.model_dump()["exercise"] == 1
    (tmp_path / "S1_E3_A1.mat").unlink()
    with pytest.raises(InputError, match="no subject 1 for exercise 1-3: it has none"):
        open_dataset(asked, tmp_path)


@pytest.mark.parametrize("exercise, first, movements, channels, named", [
    (1, 1, 17, 12, True), (1, 1, 16, 12, False), (2, 18, 23, 12, False), (1, 3, 17, 12, False),
    (2, 1, 17, 10, True), (2, 13, 17, 10, True)])
def test_movements_of_exercise_b_have_their_names(tmp_path, exercise, first, movements, channels, named):
    """Where all 17 are there, so that nothing is shifted; never a guess. Names from Ninapro's description, by hand."""
    labels = np.zeros((T, 1), np.uint8)
    for i in range(movements):
        labels[100 * i + 50 : 100 * i + 100] = first + i
    file = write(tmp_path, f"S1_E{exercise}_A1.mat", channels=channels, restimulus=labels,
                 exercise=np.array([[exercise]]), frequency=np.array([[2000.0 if channels == 12 else 100.0]]))
    for one in (ninapro.header(replace(file, exercise=exercise)), ninapro.read(replace(file, exercise=exercise))):
        some = {0: "Thumb up", 5: "Fingers flexed together in fist", 8: "Wrist supination (axis: middle finger)",
                16: "Wrist extension with closed hand"}
        assert len(one.names) == 17 * named
        assert not named or {i: one.names[first + i] for i in some} == some
    (tmp_path / "recordings.toml").write_text('[movements]\n1 = "own"\n')
    assert not ninapro.header(replace(file, exercise=exercise)).names  # the user's own count
