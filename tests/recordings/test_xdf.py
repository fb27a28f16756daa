"""XDF: streams on clocks of their own, marks, units, gaps, and files that lie; pyxdf reads what is written."""

import struct

import numpy as np
import pytest
from xdf_writer import chunk, header, marks, offsets, samples, whole

from tfkfin.base.errors import InputError
from tfkfin.recordings import readers
from tfkfin.recordings.formats import xdf

pytest.importorskip("pyxdf")

RATE, T = 500, 4000
SHEET = 'files = "p{subject}.xdf"\nhold = true\n'
MOVES = '[movements]\n1 = "fist"\n2 = "open"\n'
EVENTS = [(0.8, "fist"), (2.2, "rest"), (3.0, "open"), (4.4, "rest"), (5.0, "fist"), (6.4, "rest")]


def emg(channels=2, length=T) -> np.ndarray:
    return (20 * np.random.default_rng(1).standard_normal((length, channels))).astype(np.float32)


def labels() -> np.ndarray:
    """Of EVENTS, by hand."""
    return np.repeat([0, 1, 0, 2, 0, 1, 0], [400, 700, 400, 700, 300, 700, 800])


def write(folder, *parts: bytes, sheet=SHEET + MOVES):
    (folder / "p1.xdf").write_bytes(whole(*parts))
    (folder / "recordings.toml").write_text(sheet)
    return folder


def read(folder):
    return readers.read(readers.find(folder)[0])


def stream(number=1, name="Armband", kind="EMG", values=None, units=("microvolts", "uV"), rate=RATE):
    values = emg() if values is None else values
    stamps = 100.0 + np.arange(len(values)) / RATE
    return header(number, name, kind, values.shape[1], rate, units=units) + samples(number, stamps, values)


def test_clocks_that_differ_are_compared_within_a_sample(tmp_path):
    """Two machines whose clocks are 1234.5 s apart and part by 20 ppm; stamps come in packets, and jitter."""
    rng, true = np.random.default_rng(2), 100 + np.arange(T) / RATE

    def away(seconds):  # of the recorder's clock -> of the amplifier's
        return (seconds - 1234.5) * (1 - 2e-5)

    packets = np.repeat(away(true)[31::32], 32)[:T] - np.tile(np.arange(31, -1, -1), T // 32 + 1)[:T] / RATE
    measured = np.arange(95, 115, 1.0)
    parts = (header(1, "Armband", "EMG", 2, RATE, units=("microvolts", "uV")),
             samples(1, packets + 2e-3 * rng.standard_normal(T // 32 + 1).repeat(32)[:T], emg()),
             offsets(1, away(measured), measured - away(measured)), marks(2, "Cues", EVENTS, 100.0))
    made = read(write(tmp_path, *parts))
    assert (made.rate_hz, made.names, made.seams) == (RATE, {1: "fist", 2: "open"}, ())
    np.testing.assert_allclose(made.emg, 1e-6 * emg(), rtol=1e-6)
    edges, right = (np.flatnonzero(np.diff(of)) for of in (made.labels, labels()))
    assert len(edges) == len(right) and np.abs(edges - right).max() <= 1
    assert made.repetitions.max() == 2


def test_which_stream(tmp_path):
    """The one of type EMG; several are asked about, and a name says which, and which of its channels."""
    other, three = stream(3, "Other", values=emg(3), units=("V", "mV", "newton")), marks(2, "Cues", EVENTS, 100.0)
    folder = write(tmp_path, stream(4, "Brain", "EEG"), stream(), three)
    assert read(folder).num_channels == 2
    write(tmp_path, stream(), other, three)
    with pytest.raises(InputError, match=r"several streams that may be EMG: Armband \(EMG, 2 channels\), Other \(EM.*"
                                         r'channels = \["NAME"\]'):
        read(folder)
    write(tmp_path, stream(), other, three, sheet=f'{SHEET}channels = ["Other:1-2"]\n{MOVES}')
    np.testing.assert_allclose(read(folder).emg, emg(3)[:, :2] * [1, 1e-3], rtol=1e-6)
    write(tmp_path, stream(), other, three, sheet=f'{SHEET}channels = ["Other"]\n{MOVES}')
    with pytest.raises(InputError, match="Other is in newton, and not in volts"):
        read(folder)
    write(tmp_path, stream(), other, three, sheet=f'{SHEET}channels = ["Armband", "Other:1"]\n{MOVES}')
    with pytest.raises(InputError, match="a clock each"):
        read(folder)
    write(tmp_path, other, three)
    assert read(folder).num_channels == 2 and "1 channels that are not in volts are left out" in str(read(folder).notes)
    write(tmp_path, stream(units=()), three)
    with pytest.raises(InputError, match="does not say its unit"):
        read(folder)


def test_which_marks(tmp_path):
    """Two streams of marks that both name movements; numbers; a stream of numbers at a rate of its own."""
    keys = marks(3, "Keys", [(101.0, "fist")])
    with pytest.raises(InputError, match='streams Cues, Keys have movements: label = "Cues"'):
        read(write(tmp_path, stream(), keys, marks(2, "Cues", EVENTS, 100.0)))
    write(tmp_path, stream(), keys, marks(2, "Cues", EVENTS, 100.0), sheet=f'{SHEET}label = "Cues"\n{MOVES}')
    np.testing.assert_array_equal(read(tmp_path).labels, labels())
    number = {"fist": 1, "open": 2, "rest": 0}
    codes = header(2, "Codes", "Triggers", 1, 0, "int32") + samples(
        2, [t + 100 for t, _ in EVENTS], [[number[text]] for _, text in EVENTS], "int32")
    np.testing.assert_array_equal(read(write(tmp_path, stream(), codes)).labels, labels())
    slow = header(2, "Screen", "Stimulus", 1, 50, "int16") + samples(
        2, 100 + np.arange(0, T, 10) / RATE, labels()[::10, None], "int16")
    write(tmp_path, stream(), slow, sheet='files = "p{subject}.xdf"\nlabel = "Screen"\n' + MOVES)
    np.testing.assert_array_equal(read(tmp_path).labels, labels())
    write(tmp_path, stream(), marks(2, "Cues", [(-50.0, "open"), *EVENTS, (300.0, "fist")], 100.0))
    assert "2 marks before or after Armband are left out" in str(read(tmp_path).notes)
    with pytest.raises(InputError, match="3 annotations last no time"):
        read(write(tmp_path, stream(), marks(2, "Cues", EVENTS, 100.0), sheet='files = "p{subject}.xdf"\n' + MOVES))
    assert not read(write(tmp_path, stream(), marks(2, "Cues", []))).cued


def test_rates_that_are_not_as_stated_are_told(tmp_path):
    cues = marks(2, "Cues", EVENTS, 100.0)
    made = read(write(tmp_path, stream(rate=501), cues))
    assert made.rate_hz == 501 and "500.00 samples of Armband came a second, by its stated rate 501" in str(made.notes)
    for rate, said in ((1000, "says that Armband is at 1000 Hz, and 500 samples a second came"), (0, "says no rate")):
        with pytest.raises(InputError, match=f"{said}.*give rate_hz in recordings.toml"):
            read(write(tmp_path, stream(rate=rate), cues))
        made = read(write(tmp_path, stream(rate=rate), cues, sheet=f"rate_hz = 500\n{SHEET}{MOVES}"))
        np.testing.assert_array_equal(made.labels, labels())


def test_what_a_gap_parts_does_not_continue(tmp_path):
    stamps = 100 + np.arange(T) / RATE + np.where(np.arange(T) >= 1300, 7.0, 0.0)
    later = [(t + 100 + 7 * (t * RATE >= 1300), text) for t, text in EVENTS]
    made = read(write(tmp_path, header(1, "A", "EMG", 2, RATE, units=("V", "V")), samples(1, stamps, emg() * 1e-6),
                      marks(2, "Cues", later)))
    assert made.seams == (1300,) and "1 gaps" in str(made.notes)
    np.testing.assert_array_equal(made.labels, labels())


def test_a_recorder_that_was_cut_off(tmp_path):
    folder = write(tmp_path, marks(2, "Cues", EVENTS[:2], 100.0), stream())
    path = folder / "p1.xdf"
    content = path.read_bytes()
    for lacks in (1, 5, 11, 100):
        path.write_bytes(content[:-lacks])
        made = read(folder)
        assert len(made.emg) == T - T % 32 - (0 if T % 32 else 32) and "ends within a chunk" in str(made.notes)


HEAD = header(1, "A", "EMG", 2, RATE, units=("V", "V"))
LIES = {
    "no XDF": b"hello, this is none", "nothing": b"", "its magic alone": b"XDF:",
    "10^18 samples": whole(HEAD, chunk(3, b"\x08" + struct.pack("<Q", 10**18), 1)),
    "4 billion texts": whole(header(1, "A", "EMG", 1, RATE, "string"), chunk(3, b"\x04\xff\xff\xff\xff", 1)),
    "10^9 channels": whole(header(1, "A", "EMG", 10**9, RATE), chunk(3, b"\x04" + bytes(4), 1)),
    "channels below 0": whole(header(1, "A", "EMG", -2, RATE)),
    "samples of nobody": whole(samples(7, [0.0], [[1.0, 2.0]])),
    "an unknown type": whole(header(1, "A", "EMG", 2, RATE, "object")),
    "entities": whole(chunk(2, b'<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><info>&b;</info>', 1)),
    "16 bits' entities": whole(chunk(2, '<!DOCTYPE x []><info/>'.encode("utf-16-le"), 1)),
    "no XML": whole(chunk(2, b"<info>", 1)), "a deep tree": whole(chunk(2, b"<a>" * 100_000, 1)),
    "NaN Hz": whole(header(1, "A", "EMG", 2, "nan")), "text for a rate": whole(header(1, "A", "EMG", 2, "fast")),
    "stamps that are none": whole(HEAD, samples(1, [np.nan] * 100, emg(2, 100))),
    "stamps that run back": whole(HEAD, samples(1, 1e3 - np.arange(100.0), emg(2, 100))),
    "more than its chunk": whole(HEAD, chunk(3, b"\x01\x01\x08" + bytes(9), 1), samples(1, [1.0, 2.0], emg(2, 2))),
}


@pytest.mark.parametrize("case", LIES)
def test_files_that_lie_are_refused_in_one_line(tmp_path, case):
    write(tmp_path)
    (tmp_path / "p1.xdf").write_bytes(LIES[case])
    with pytest.raises(InputError, match="p1.xdf") as told:
        read(tmp_path)
    assert "\n" not in str(told.value)


def test_a_draft_reads_back(tmp_path):
    from tfkfin.recordings import sheet
    from tfkfin.recordings.draft import draft

    folder = write(tmp_path, stream(), marks(2, "Cues", EVENTS, 100.0))
    (folder / "recordings.toml").unlink()
    (folder / "recordings.toml").write_text(draft(folder, [folder / "p1.xdf"]))
    assert sheet.of(folder).hold and set(sheet.of(folder).movements.values()) == {"fist", "open"}
    np.testing.assert_array_equal(read(folder).labels, labels())


def test_the_writer_is_read_by_pyxdf(tmp_path):
    import pyxdf

    writer = xdf.Writer(tmp_path / "a.xdf", 250.0, 3)
    first, second = (1e-6 * emg(3, 90)).astype(np.float32), (1e-6 * emg(3, 7)).astype(np.float32)
    second[2, 1] = np.nan
    writer.mark("fist", 5)
    writer.samples(first)
    writer.mark("öffnen", 2)
    writer.samples(second)
    one, marks_ = pyxdf.load_xdf(tmp_path / "a.xdf", dejitter_timestamps=False)[0]  # before it is closed
    writer.close()
    second[2] = second[1]
    np.testing.assert_array_equal(one["time_series"], np.concatenate([first, second]))
    np.testing.assert_allclose(one["time_stamps"], np.arange(97) / 250)
    assert [text for text, in marks_["time_series"]] == ["fist", "öffnen"]
    np.testing.assert_allclose(marks_["time_stamps"], [5 / 250, 92 / 250])
    units = [c["unit"][0] for c in one["info"]["desc"][0]["channels"][0]["channel"]]
    assert units == ["volts"] * 3 and one["info"]["nominal_srate"] == ["250.0"]
    with pytest.raises(InputError, match="a.xdf cannot be written: File exists"):
        xdf.Writer(tmp_path / "a.xdf", 250.0, 3)
