"""Recordings that lie: what a file says of itself is compared with the file before memory or time is spent on it."""

import os
import struct
import subprocess
import sys
import time
import zlib

import h5py
import numpy as np
import pytest
from scipy.io import savemat, whosmat
from scipy.sparse import csc_matrix

from tfkfin.base.errors import InputError
from tfkfin.recordings import matfile, readers
from tfkfin.recordings.recording import RecordingFile

T, C = 3000, 4


def contents(**changes) -> dict:
    rng = np.random.default_rng(0)
    labels = np.zeros((T, 1), np.uint8)
    labels[500:1500], labels[2000:2800] = 1, 2
    good = {"emg": (1e-5 * rng.standard_normal((T, C))).astype(np.float32), "restimulus": labels,
            "rerepetition": np.ones((T, 1), np.uint8), "frequency": np.array([[2000.0]])}
    return {name: value for name, value in (good | changes).items() if value is not None}


def element(rows: int, columns: int, kind: int = 7, stored: int = 7, count: int | None = None, name: bytes = b"emg",
            data: bytes = b"") -> bytes:
    """A matrix of MATLAB's level 5 by hand, which may lie; `count` is how many bytes its values are said to take."""
    padded = name.ljust(-(-len(name) // 8) * 8, b"\0")
    body = (struct.pack("<IIII", 6, 8, kind, 0) + struct.pack("<IIii", 5, 8, rows, columns)
            + struct.pack("<II", 1, len(name)) + padded
            + struct.pack("<II", stored, len(data) if count is None else count) + data)
    return struct.pack("<II", 14, max(len(body), count or 0)) + body


def v5(path, *elements: bytes, **changes) -> RecordingFile:
    """A recording whose last elements are these."""
    savemat(path, contents(**changes))
    with open(path, "ab") as file:
        for one in elements:
            file.write(one)
    return RecordingFile(path, 1)


def packed(content: bytes) -> bytes:
    small = zlib.compress(content, 9)
    return struct.pack("<II", 15, len(small)) + small


def bomb(gigabytes: float) -> bytes:
    """A compressed matrix of zeros, made piece by piece."""
    count = int(gigabytes * 1e9) // 4096 * 4096
    zipper = zlib.compressobj(1)
    small = zipper.compress(element(count // 16, 4, count=count))
    piece = bytes(1 << 20)
    for _ in range(count >> 20):
        small += zipper.compress(piece)
    small += zipper.compress(bytes(count & 0xFFFFF)) + zipper.flush()
    return struct.pack("<II", 15, len(small)) + small


def sparse_frequency(path):
    savemat(path, contents(frequency=csc_matrix(np.array([[2000.0]]))))
    return RecordingFile(path, 1)


def v73(path, change) -> RecordingFile:
    with h5py.File(path, "w") as file:
        for name, value in contents().items():
            file.create_dataset(name, data=value.T)
        change(file)
    return RecordingFile(path, 1)


def replaced(**how):
    def change(file):
        del file["emg"]
        file.create_dataset("emg", **how)
    return change


def external(file):
    text = os.path.join(os.path.dirname(file.filename), "secret.txt")
    with open(text, "w") as other:
        other.write("password " * T * C)
    replaced(shape=(C, T), dtype="f4", external=[(text, 0, h5py.h5f.UNLIMITED)])(file)


def linked(file):
    with h5py.File(os.path.join(os.path.dirname(file.filename), "other.h5"), "w") as other:
        other["emg"] = np.ones((C, T), "f4")
    del file["emg"]
    file["emg"] = h5py.ExternalLink("other.h5", "/emg")


def virtual(file):
    with h5py.File(os.path.join(os.path.dirname(file.filename), "other.h5"), "w") as other:
        other["emg"] = np.ones((C, T), "f4")
    layout = h5py.VirtualLayout((C, T), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "emg", (C, T))
    del file["emg"]
    file.create_virtual_dataset("emg", layout)


def pipe(path):
    os.mkfifo(path)
    return RecordingFile(path, 1)


def twice(path):
    """A bomb before what takes its name."""
    file = v5(path)
    content = path.read_bytes()
    path.write_bytes(content[:128] + bomb(0.3) + content[128:])
    return file


LIES = {
    "12e9 samples": (lambda p: v5(p, element(2**31 - 1, 6), emg=None), "damaged"),
    "12e9 samples, packed": (lambda p: v5(p, packed(element(2**31 - 1, 6, count=2**32 - 8)), emg=None), "damaged"),
    "dimensions below 0": (lambda p: v5(p, element(-5, -4, data=bytes(80)), emg=None), "damaged"),
    "values that end elsewhere": (lambda p: v5(p, packed(element(T, C, data=bytes(4 * T))), emg=None), "damaged"),
    "bytes for doubles": (lambda p: v5(p, packed(element(T, C, 6, 2, count=8 * T * C)), emg=None), "damaged"),
    "a long name": (lambda p: v5(p, packed(element(1, 1, name=b"n" * 3000, data=bytes(4)))), "damaged"),
    "a bomb": (lambda p: v5(p, bomb(0.3), emg=None), "would unpack to 0.3 GB"),
    "two of a name": (twice, "emg is there twice"),
    "sparse frequency": (sparse_frequency, "frequency is not a single number"),
    "complex": (lambda p: v5(p, emg=1j * np.ones((T, C))), "emg is not numeric"),
    "0.001 Hz": (lambda p: v5(p, frequency=0.001), "frequency is 0.001"),
    "1e300 Hz": (lambda p: v5(p, frequency=1e300), "frequency is 1e.300"),
    "NaN Hz": (lambda p: v5(p, frequency=np.nan), "frequency is nan"),
    "flat": (lambda p: v5(p, emg=np.full((T, C), 3e-6, np.float32)), "never changes"),
    "1e31 volts": (lambda p: v5(p, emg=contents()["emg"] * np.float32(1e36)), "no amplifier"),
    "another file's text": (lambda p: v73(p, external), "other files"),
    "another file's array": (lambda p: v73(p, linked), "no variable emg"),
    "a virtual array": (lambda p: v73(p, virtual), "other files"),
    "channels by the billion": (lambda p: v73(p, replaced(shape=(10**9, 1000), dtype="f4", chunks=(1, 1000))),
                                "would unpack|emg has shape"),
    "nothing stored, 48 GB said": (lambda p: v73(p, replaced(shape=(12, 10**9), dtype="f4", chunks=(1, 4096))),
                                   "would unpack to 48 GB"),
    "chunks of 3 GB": (lambda p: v73(p, replaced(shape=(C, T), maxshape=(None, None), dtype="f4",
                                                 chunks=(1, 750_000_000))), "would unpack to 3 GB"),
    "no values at all": (lambda p: v73(p, replaced(data=h5py.Empty("f4"))), "emg"),
    "text in HDF5": (lambda p: v73(p, replaced(data=[b"volts"])), "emg"),
    "a pipe": (pipe, "is a pipe, not a file"),
}


@pytest.fixture(scope="module", autouse=True)
def started(tmp_path_factory):
    """What reads HDF5 is started once by a process, and takes its time where others compute."""
    matfile.shapes(v73(tmp_path_factory.mktemp("started") / "a.mat", lambda file: None).path)


@pytest.mark.parametrize("case", LIES)
def test_a_recording_that_lies_is_refused_in_one_line_and_no_time(case, tmp_path):
    make, message = LIES[case]
    file = make(tmp_path / "S1_E1_A1.mat")
    began = time.monotonic()
    with pytest.raises(InputError, match=message) as told:
        readers.read(file)
    assert time.monotonic() - began < 2 and str(tmp_path) in str(told.value) and "\n" not in str(told.value)


def test_heads_are_read_as_scipy_reads_them(tmp_path):
    path = tmp_path / "a.mat"
    values = contents() | {"name": "text", "flag": np.array([[True]]), "cell": np.array([[1, "a"]], object), "x": 3,
                           "struct": {"a": 1}, "empty": np.zeros((0, 0)), "big": np.zeros((2, 3, 4), np.int64)}
    for packing in (False, True):
        savemat(path, values, do_compression=packing)
        found = {v.name: v for v in matfile.variables(path)}
        assert list(found) == [name for name, _, _ in whosmat(str(path))]
        for name, shape, kind in whosmat(str(path)):
            numeric = kind not in ("char", "cell", "struct")
            assert (found[name].numeric, found[name].shape) == (numeric, shape if numeric else ()), name
    assert matfile.load(path, ("big",))["big"].shape == (2, 3, 4)


@pytest.mark.parametrize(("files", "name", "said"), [
    ('"' + "*a" * 40 + '{subject}*.csv"', "a" * 200 + ".csv", "4 times"),
    ('"{label}*{label}**{subject}.csv"', "a" * 200 + ".csv", "4 times"),
    ('"*a*a*{subject}.csv"', "a" * 240 + "b.csv", "no such file"),
    ('"{subject}.csv"', "9" * 200 + ".csv", "no such file"),
])
def test_patterns_of_names_end_soon(files, name, said, tmp_path):
    (tmp_path / name).write_text("1,2\n")
    (tmp_path / "recordings.toml").write_text(f'rate_hz = 1000\nunit = "V"\nfiles = {files}\nchannels = [1]\nlabel = 2')
    began = time.monotonic()
    with pytest.raises(InputError, match=said):
        readers.find(tmp_path)
    assert time.monotonic() - began < 2


def sheet(folder, name: str, write) -> RecordingFile:
    (folder / "recordings.toml").write_text(
        f'rate_hz = 1000\nunit = "V"\nfiles = "{{subject}}{name}"\nchannels = [1, 2]\nlabel = 3')
    write(folder / f"1{name}")
    return RecordingFile(folder / f"1{name}", 1, reader="table")


def said_npy(path):
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 3)})
        file.write(bytes(800))


def said_npz(path):
    said_npy(path.with_suffix(".npy"))
    import zipfile
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path.with_suffix(".npy"), "emg.npy")


@pytest.mark.parametrize(("name", "write"), [(".npy", said_npy), (".npz", said_npz), (".csv", os.mkfifo)])
def test_tables_that_lie(name, write, tmp_path):
    file = sheet(tmp_path, name, write)
    with pytest.raises(InputError, match=f"1{name}"):
        readers.read(file)


def test_a_sheet_may_be_no_pipe(tmp_path):
    os.mkfifo(tmp_path / "recordings.toml")
    with pytest.raises(InputError, match="a pipe, not a file"):
        readers.find(tmp_path)


def test_a_header_takes_no_memory_for_what_it_only_says(tmp_path):
    import resource

    file = v73(tmp_path / "S1_E1_A1.mat", replaced(shape=(10**9, 1000), dtype="f4", chunks=(1, 1000)))
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 40, before[1]))
    try:
        with pytest.raises(InputError, match="emg has shape .1000, 1000000000."):
            readers.header(file)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_memory_is_asked_for_first(tmp_path, monkeypatch):
    (tmp_path / "new").mkdir()
    monkeypatch.setattr("tfkfin.base.machine.memory", lambda: 50_000)
    said = "S1_E1_A1.mat: .*emg.* takes 0.000108 GB of memory, and 5e-05 GB are free"  # with its labels and rate, twice
    for file in (v5(tmp_path / "S1_E1_A1.mat"), v73(tmp_path / "new" / "S1_E1_A1.mat", lambda file: None)):
        with pytest.raises(InputError, match=said):
            readers.read(file)


def test_synthesis_goes_on_where_it_was_cut_off(tmp_path):
    code = ("import os, sys\nfrom tfkfin.recordings import matfile, synthetic\nsave = matfile.save\n"
            "def cut(path, *more):\n    if '_s2' in str(path):\n        (path.parent).mkdir(parents=True)\n"
            "        (path.parent / f'.{os.getpid()}.partial.S2_E1_A1.mat').write_bytes(b'half'); os._exit(3)\n"
            "    save(path, *more)\nmatfile.save = cut\n"
            "synthetic.ThreadPoolExecutor = lambda n: __import__('concurrent.futures').futures.ThreadPoolExecutor(1)\n"
            "synthetic.synthesize(sys.argv[1], (1, 2, 3), movements=1, repetitions=1, hold_s=0.5, rest_s=0.2)")
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    assert subprocess.run([sys.executable, "-c", code, cut], timeout=60).returncode == 3
    from tfkfin.recordings.synthetic import synthesize

    task = {"movements": 1, "repetitions": 1, "hold_s": 0.5, "rest_s": 0.2}
    with pytest.raises(InputError, match="never overwritten"):
        synthesize(cut, (1, 2, 3), seed=2, **task)
    paths = synthesize(cut, (1, 2, 3), **task)
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in synthesize(whole, (1, 2, 3), **task)]
    assert sorted(p.relative_to(cut) for p in cut.rglob("*")) == sorted(p.relative_to(whole) for p in whole.rglob("*"))
    with pytest.raises(InputError, match="never overwritten"):
        synthesize(cut, (1, 2, 3), **task)


def test_one_process_synthesizes_in_a_folder(tmp_path):
    from tfkfin.base import files
    from tfkfin.recordings.synthetic import synthesize

    task = {"movements": 1, "repetitions": 1, "hold_s": 0.5, "rest_s": 0.2}
    with files.alone(tmp_path / "made" / ".synthesizing.lock", "first"), \
            pytest.raises(InputError, match="another process makes recordings there: wait for it"):
        synthesize(tmp_path / "made", (1,), **task)
    assert not [*tmp_path.rglob("*.mat")]
    (path,) = synthesize(tmp_path / "made", (1,), **task)
    assert [p for p in (tmp_path / "made").rglob("*") if p.is_file()] == [path]
