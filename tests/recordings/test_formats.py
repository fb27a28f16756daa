"""One synthetic recording, written in every format by plain means: each reads back equal."""

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from tfkfin.base import registry
from tfkfin.base.errors import InputError
from tfkfin.recordings import formats, readers
from tfkfin.recordings.readers import bids
from tfkfin.recordings.recording import Recording, RecordingFile

RATE, NAMES = 1000.0, {1: "fist", 2: "open hand"}
TABLE = '[movements]\n1 = "fist"\n2 = "open hand"\n'
HEAD = "rate_hz = 1000\nunit = \"mV\"\n"
CHANNELS = 'channels = ["a", "b", "c"]\n'


def truth() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """emg (T, 3) in millivolts, six decimals; labels and repetitions: three trials of rest and a movement."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 0, 2, 0, 1], [100, 250, 110, 250, 93, 300])
    repetitions = np.repeat([0, 1, 0, 1, 0, 2], [100, 250, 110, 250, 93, 300])
    return np.round(0.05 * rng.standard_normal((len(labels), 3)), 6), labels, repetitions


def sheet(folder: Path, text: str) -> None:
    (folder / "recordings.toml").write_text(text + TABLE)


def rows(folder: Path, name: str, heading: str, columns: list, mark: str = ",") -> None:
    lines = [heading.replace(",", mark)] * bool(heading)
    lines += [mark.join(f"{v:.9g}" if isinstance(v, float) else str(v) for v in row)
              for row in zip(*columns, strict=True)]
    (folder / name).write_text("\n".join(lines) + "\n")


def held() -> list[tuple[float, float, str, int]]:
    """Onset s, duration s, name and repetition of every movement, by hand."""
    return [(0.1, 0.25, "fist", 1), (0.46, 0.25, "open hand", 1), (0.803, 0.3, "fist", 2)]


def csv(folder):
    emg, labels, repetitions = truth()
    rows(folder, "p7_2.csv", "t,a,b,c,note,move,rep",
         [np.arange(len(emg)) / RATE, *emg.T, ["x y"] * len(emg), labels, repetitions])
    sheet(folder, HEAD + CHANNELS + 'files = "p{subject}_{session}.csv"\ntime = "t"\nlabel = "move"\n'
          'repetition = "rep"\n')


def words(folder):
    """Names instead of numbers, semicolons, decimal commas, and repetitions that have to be counted."""
    emg, labels, _ = truth()
    rows(folder, "p7_2.csv", "a,b,c,move",
         [[f"{v:.6f}".replace(".", ",") for v in channel] for channel in emg.T]
         + [[("rest", "Fist", "open hand")[i] for i in labels]], ";")
    sheet(folder, HEAD + CHANNELS + 'files = "p{subject}_{session}.csv"\nlabel = "move"\n')


def trials(folder):
    """One file a trial, in a folder a person; movement and repetition stand in the names."""
    emg, labels, repetitions = truth()
    (folder / "p7").mkdir()
    edges = np.flatnonzero(np.diff(labels, prepend=-1, append=-1))
    for i, (a, b) in enumerate(zip(edges, edges[1:], strict=False)):
        name = ("rest", "fist", "open hand")[labels[a]]
        rows(folder / "p7", f"s2_{i + 1:02d}_{name}_{repetitions[a]}.csv", "a,b,c", list(emg[a:b].T))
    sheet(folder, HEAD + CHANNELS + 'files = "p{subject}/s{session}_{run}_{label}_{repetition}.csv"\n')


def apart(folder):
    """Signals in one file, labels in another."""
    emg, labels, repetitions = truth()
    (folder / "labels").mkdir()
    rows(folder, "p7_2.txt", "", list(emg.T), " ")
    rows(folder / "labels", "p7_2_labels.tsv", "move,rep", [labels, repetitions], "\t")
    sheet(folder, HEAD + 'channels = [1, 2, 3]\nfiles = "p{subject}_{session}.txt"\nlabel = "move"\n'
          'labels = "p{subject}_{session}_labels.tsv"\nrepetition = "rep"\n')


def listed(folder):
    """The other file lists what was held when."""
    rows(folder, "p7_2.csv", "a,b,c", list(truth()[0].T))
    rows(folder, "p7_2_labels.csv", "onset,length,move,rep", [[e[i] for e in held()] for i in range(4)])
    sheet(folder, HEAD + CHANNELS + 'files = "p{subject}_{session}.csv"\nlabels = "p{subject}_{session}_labels.csv"\n'
          'label = "move"\nrepetition = "rep"\nstart = "onset"\nduration = "length"\n')


def runs(folder):
    """Parts of a session in files of their own."""
    emg, labels, _ = truth()
    for i, part in enumerate((slice(460), slice(460, 803), slice(803, None))):
        np.save(folder / f"p7_2_{i + 9}.npy", np.column_stack([emg[part], labels[part]]))
    sheet(folder, HEAD + 'channels = [1, 2, 3]\nfiles = "p{subject}_{session}_{run}.npy"\nlabel = 4\n')


def npz(folder):
    emg, labels, repetitions = truth()
    np.savez(folder / "p7_2.npz", emg=emg, move=labels, rep=repetitions)
    sheet(folder, HEAD + 'channels = ["emg"]\nfiles = "p{subject}_{session}.npz"\nlabel = "move"\nrepetition = "rep"\n')


def parquet(folder):
    import pyarrow
    from pyarrow import parquet as files

    emg, labels, repetitions = truth()
    table = dict(zip("abc", emg.T, strict=True)) | {"move": np.array(["rest", "fist", "open hand"])[labels],
                                                    "rep": repetitions}
    files.write_table(pyarrow.table(table), folder / "p7_2.parquet")
    sheet(folder, HEAD + CHANNELS + 'files = "p{subject}_{session}.parquet"\nlabel = "move"\nrepetition = "rep"\n')


def matlab(folder):
    emg, labels, repetitions = truth()
    savemat(folder / "p7_2.mat", {"signal": emg, "move": labels[:, None], "rep": repetitions[:, None]})
    sheet(folder, HEAD + 'channels = ["signal"]\nfiles = "p{subject}_{session}.mat"\nlabel = "move"\n'
          'repetition = "rep"\n')


def ninapro(folder):
    emg, labels, repetitions = (a.astype(kind) for a, kind in zip(truth(), ("f8", "u1", "u1"), strict=True))
    savemat(folder / "S7_E1_A1.mat", {"emg": emg * 1e-3, "restimulus": labels[:, None],
                                      "rerepetition": repetitions[:, None], "frequency": RATE})
    sheet(folder, "")


def edf(folder, unit="uV", kind="edf", **changes):
    """Movements in annotations; unit and rate in the file."""
    import edfio

    signal, file = (edfio.EdfSignal, edfio.Edf) if kind == "edf" else (edfio.BdfSignal, edfio.Bdf)
    emg = truth()[0] * {"uV": 1e3, "mV": 1}[unit]
    signals = [signal(emg[:, c], RATE, label=name, physical_dimension=unit) for c, name in enumerate("abc")]
    temperature = signal(np.linspace(36, 37, len(emg)), RATE, label="t", physical_dimension="degreeC")
    notes = [edfio.EdfAnnotation(*event[:3]) for event in held()] + [edfio.EdfAnnotation(0.05, None, "start")]
    file([*signals, temperature], data_record_duration=0.001, annotations=notes).write(folder / f"p7_2.{kind}")
    sheet(folder, f'files = "p{{subject}}_{{session}}.{kind}"\n')


def bdf(folder):
    edf(folder, "mV", "bdf")


def trigger(folder):
    """A channel of the file is the label."""
    import edfio

    emg, labels, _ = truth()
    signals = [edfio.EdfSignal(emg[:, c], RATE, label=name, physical_dimension="mV") for c, name in enumerate("abc")]
    trigger = edfio.EdfSignal(labels.astype(float), RATE, label="trigger", physical_range=(-32768, 32767))
    edfio.Edf([*signals, trigger], data_record_duration=0.001).write(folder / "p7_2.edf")
    sheet(folder, 'files = "p{subject}_{session}.edf"\nlabel = "trigger"\n')


def xdf(folder):
    """As LabRecorder writes what comes by LSL; movements are marks."""
    import xdf_writer

    emg, stamps = 1e3 * truth()[0], 1e5 + np.arange(len(truth()[0])) / RATE
    marks = sorted([(1e5 + s, name) for s, _, name, _ in held()] + [(1e5 + s + d, "rest") for s, d, *_ in held()])
    (folder / "p7_2.xdf").write_bytes(xdf_writer.whole(
        xdf_writer.header(1, "Amplifier", "EMG", 3, RATE, "double64", ["uV"] * 3),
        xdf_writer.samples(1, stamps, emg, "double64"), xdf_writer.marks(2, "Cues", marks)))
    sheet(folder, 'files = "p{subject}_{session}.xdf"\nhold = true\n')


def own_bids(folder, kind="bdf"):
    emg, labels, repetitions = truth()
    made = Recording(RecordingFile(Path("x"), 7, session=2), (emg * 1e-3).astype(np.float32), labels.astype(np.int16),
                     repetitions.astype(np.int16), RATE, names=NAMES)
    folder.rmdir()
    bids.write([made], folder, "one person", kind)


def own_bids_edf(folder):
    own_bids(folder, "edf")


def mne_bids(folder):
    """As MNE-BIDS writes it: filled up to whole seconds, and a mark that says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mne
        import mne_bids as library

        raw = mne.io.RawArray(truth()[0].T * 1e-3, mne.create_info(list("abc"), RATE, "emg"), verbose="error")
        raw.set_annotations(mne.Annotations(*([e[i] for e in held()] for i in range(3))))
        library.write_raw_bids(raw, library.BIDSPath(root=folder, subject="07", session="2", task="x", datatype="emg"),
                               allow_preload=True, format="BDF", emg_placement="Other", verbose="error",
                               event_id={"fist": 1, "open hand": 2})


FORMATS = [csv, words, trials, apart, listed, runs, npz, parquet, matlab, ninapro, edf, bdf, trigger, xdf, own_bids,
           own_bids_edf, mne_bids]
SIXTEEN_BITS = edf, trigger, own_bids_edf


@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__)
def test_reads_back_equal(tmp_path, write):
    if write is xdf:
        pytest.importorskip("pyxdf")
    folder = tmp_path / "own"
    folder.mkdir()
    write(folder)
    emg, labels, repetitions = truth()
    (file,) = readers.find(folder)
    recording, head = readers.read(file), readers.header(file)
    assert (file.subject, file.session, recording.rate_hz) == (7, 1 if write is ninapro else 2, RATE)
    np.testing.assert_array_equal(recording.labels, labels)
    np.testing.assert_array_equal(recording.repetitions, repetitions)
    assert recording.names == NAMES and recording.emg.dtype == np.float32
    step = 1e-3 * np.ptp(emg, axis=0) / 2 ** (16 if write in SIXTEEN_BITS else 24)
    assert (np.abs(recording.emg - 1e-3 * emg) <= 1.001 * step + 1e-10).all()
    for name in ("labels", "repetitions"):
        np.testing.assert_array_equal(getattr(head, name), getattr(recording, name))
    for name in ("rate_hz", "num_channels", "names", "seams", "notes"):
        assert getattr(head, name) == getattr(recording, name)
    assert recording.seams == {trials: (100, 350, 460, 710, 803), runs: (460, 803)}.get(write, ())
    assert all(path.is_file() for path in file.paths)


def test_every_kind_of_file_is_in_the_list(tmp_path):
    """A format that is added is written here too."""
    there = set()
    for write in FORMATS:
        (tmp_path / write.__name__).mkdir()
        write(tmp_path / write.__name__)
        there |= {path.suffix.lstrip(".") for path in (tmp_path / write.__name__).rglob("*")}
    assert set(formats.suffixes()) - there <= {"pq"}
    used = {readers.find(tmp_path / write.__name__)[0].reader for write in FORMATS}
    assert used == set(registry.names("recordings/readers"))


@pytest.mark.parametrize("kind", ["bdf", "edf"])
def test_bids_validates(tmp_path, kind):
    """The validator of the standard's makers finds no error."""
    (tmp_path / "own").mkdir()
    own_bids(tmp_path / "own", kind)
    command = [str(Path(sys.executable).with_name("bids-validator-deno")), str(tmp_path / "own"), "--format", "json"]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=300).stdout)
    issues = said["issues"]["issues"]
    assert not [issue for issue in issues if issue.get("severity") == "error"]
    assert said["summary"]["modalities"] == ["emg"] and said["summary"]["subjects"] == ["07"]


def test_bids_reads_back_in_mne(tmp_path):
    """An independent reader sees the same volts and events."""
    (tmp_path / "own").mkdir()
    own_bids(tmp_path / "own")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mne_bids as library

        raw = library.read_raw_bids(library.BIDSPath(root=tmp_path / "own", subject="07", session="02",
                                                     task="movements", run="01", datatype="emg"), verbose="error")
        volts = raw.get_data()
    emg = truth()[0]
    assert np.abs(volts[:, : len(emg)].T - 1e-3 * emg).max() < 1e-10 and raw.get_channel_types() == ["emg"] * 3
    assert [a["description"] for a in raw.annotations] == [event[2] for event in held()]
    np.testing.assert_allclose([(a["onset"], a["duration"]) for a in raw.annotations],
                               [event[:2] for event in held()])


@pytest.mark.parametrize(("write", "change", "message"), [
    (edf, {"unit = \"mV\"\n": ""}, "a is in uV, and recordings.toml says unit = \"mV\": leave it out"),
    (edf, {"rate_hz = 2000\n": ""}, "is at 1000 Hz, and recordings.toml says rate_hz = 2000"),
    (edf, {"channels = [\"t\"]\n": ""}, "t is in degreeC, and not in volts"),
    (csv, {"": "rate_hz = 1000\n"}, "does not say its rate"),
    (csv, {"": "unit = \"mV\"\n"}, "does not say its unit"),
    (csv, {"rate_hz = 2000\n": "rate_hz = 1000\n"}, "steps by 0.001 s, which is 1000 Hz, and rate_hz is 2000"),
    (words, {"": TABLE}, "'Fist' is no movement that recordings.toml lists"),
    (trials, {"": TABLE}, "'fist' is no movement that .*recordings.toml lists"),
    (listed, {"stop = \"onset\"\n": "duration = \"length\"\n"}, "has no duration"),
    (apart, {"label = \"no\"\n": "label = \"move\"\n"}, "has no column no, only move, rep"),
])
def test_what_does_not_fit_is_an_error(tmp_path, write, change, message):
    write(tmp_path)
    text = (tmp_path / "recordings.toml").read_text()
    for new, old in change.items():
        assert old in text
        text = new + text.replace(old, "")
    (tmp_path / "recordings.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        readers.read(readers.find(tmp_path)[0])


def test_bids_sidecars_that_do_not_fit(tmp_path):
    (tmp_path / "own").mkdir()
    own_bids(tmp_path / "own")
    for end, old, new, message in (("channels.tsv", "uV", "degreeC", "is in uV, its channels.tsv says degreeC"),
                                   ("emg.json", "1000.0", "2000.0", "is at 1000 Hz, and its emg.json says 2000"),
                                   ("emg.json", "1000.0", '"fast"', "is at 1000 Hz, and its emg.json says fast"),
                                   ("emg.json", "1000.0", "NaN", "is at 1000 Hz, and its emg.json says nan"),
                                   ("events.tsv", "0.1\t", "x\t", "a row that is not numbers")):
        other = tmp_path / end
        shutil.copytree(tmp_path / "own", other)
        (path,) = other.rglob(f"*_{end}")
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        with pytest.raises(InputError, match=message):
            readers.read(readers.find(other)[0])
        shutil.rmtree(other)
    (path,) = (tmp_path / "own").rglob("*_emg.json")
    for seconds in (float("inf"), -float("inf"), float("nan"), -1, "long"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"RecordingDuration": seconds}))
        assert readers.read(readers.find(tmp_path / "own")[0]).seconds >= len(truth()[0]) / RATE  # whole records
    with pytest.raises(InputError, match="nothing in it is overwritten"):
        bids.write([], tmp_path / "own", "again")


def test_notes_that_are_no_text_and_channels_of_two_lengths(tmp_path):
    for name in ("edf", "npz"):
        (tmp_path / name).mkdir()
    edf(tmp_path / "edf")
    (path,) = (tmp_path / "edf").glob("*.edf")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"fist", b"f\xb0\xcb\xddt"[:4]))
    assert b"fist" in content
    np.savez(tmp_path / "npz" / "p7_2.npz", a=np.ones(300), b=np.ones(200), move=np.ones(300), rep=np.ones(300))
    sheet(tmp_path / "npz", HEAD + 'files = "p{subject}_{session}.npz"\nchannels = ["a", "b"]\nlabel = "move"\n')
    for name, message in (("edf", "is damaged"), ("npz", "channels a, b are not equally long")):
        with pytest.raises(InputError, match=message):
            readers.read(readers.find(tmp_path / name)[0])


DRAFTED = [csv, words, trials, apart, listed, npz, parquet, matlab, edf, bdf, trigger]


@pytest.mark.parametrize("write", DRAFTED, ids=lambda write: write.__name__)
def test_a_draft_reads_the_same_once_it_is_filled_in(tmp_path, write):
    """What a draft cannot know is left open; the rest is the owner's own sheet."""
    from tfkfin.recordings.draft import draft

    write(tmp_path)
    (tmp_path / "recordings.toml").unlink()
    text = draft(tmp_path, readers.walk(tmp_path))
    if write in (csv,):
        assert "rate_hz = 1000   #" in text and 'time = "t"' in text
    filled = text.replace("# rate_hz = 2000", "rate_hz = 1000").replace('# label = "?"', 'label = "trigger"')
    assert ('unit = "mV"   # a guess' in text) is (write not in (edf, bdf, trigger))
    (tmp_path / "recordings.toml").write_text(filled)
    (file,) = readers.find(tmp_path)
    recording = readers.read(file)
    emg, labels, repetitions = truth()
    assert (file.subject, file.session, recording.rate_hz) == (7, 2, RATE)
    np.testing.assert_array_equal(recording.labels, labels)
    np.testing.assert_array_equal(recording.repetitions, repetitions)
    np.testing.assert_allclose(recording.emg, 1e-3 * emg, atol=1e-8)
    named = words, trials, listed, parquet, edf, bdf
    assert {m: name.lower() for m, name in recording.names.items()} == (NAMES if write in named else {})
