"""HDF5 is parsed by a process without rights: whatever a file does to it, a command ends in one line."""

import ast
import os
import re
import signal
import threading
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from tfkfin.base import console, hdf5
from tfkfin.base.errors import InputError
from tfkfin.recordings import matfile, readers
from tfkfin.recordings.recording import RecordingFile

READER = Path(hdf5.__file__).with_name("hdf5_reader.py")
rng = np.random.default_rng(0)
KINDS = {
    "scalar": {"data": 3.5}, "vector": {"data": np.arange(10)}, "empty": {"data": np.zeros((0, 4))},
    "big-endian": {"data": np.arange(12, dtype=">f4").reshape(3, 4)}, "bool": {"data": rng.random((3, 5)) > 0.5},
    "half": {"data": rng.random((4, 4)).astype("f2")}, "long double": {"data": np.ones(3, np.longdouble)},
    "3-D": {"data": rng.integers(0, 9, (5, 6, 7))}, "wide": {"data": rng.random((3, 300_000))},
    "filters": {"data": rng.random((700, 900)), "chunks": (33, 47), "compression": "gzip", "shuffle": True,
                "fletcher32": True},
    "lzf": {"data": rng.random((400, 400)), "compression": "lzf"},
    "one chunk": {"data": rng.random((900, 400)), "chunks": (900, 400), "compression": "gzip"},
    "fill value": {"shape": (1000, 1000), "chunks": (10, 1000), "dtype": "f4", "fillvalue": 7.0},
    "enum": {"data": np.array([1, 0, 2], "i1"), "dtype": h5py.enum_dtype({"a": 0, "b": 1, "c": 2}, "i1")},
}


@pytest.fixture
def started():
    """Starts the program anew, which a test has changed, and once more for those that follow."""
    hdf5._started.cache_clear()
    yield
    hdf5._started.cache_clear()


def crafted(tmp_path, monkeypatch, harm: str) -> Path:
    """A file that h5py opens with this effect: stands for bytes that HDF5's library overflows on."""
    program = tmp_path / "reader.py"
    program.write_text(READER.read_text().replace('if __name__ == "__main__":', (
        "def harm(*a, **k):\n"
        f"    {harm}\n"
        "h5py.File = harm\n"
        'if __name__ == "__main__":')))
    monkeypatch.setattr(hdf5, "_PROGRAM", program)
    path = tmp_path / "S1_E1_A1.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["emg"] = np.ones((4, 3000), "f4")
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_are_those_that_h5py_reads(kind, tmp_path):
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file.create_dataset("at the top", **KINDS[kind])
        if kind == "fill value":
            file["at the top"][55] = 1
        file["group/of/one"] = 1.0
    with h5py.File(tmp_path / "a.mat") as file:
        wanted = file["at the top"][()]
    found = matfile.load(tmp_path / "a.mat", ("at the top", "absent"))
    assert list(found) == ["at the top"] and matfile.shapes(tmp_path / "a.mat") == {"at the top": wanted.shape[::-1]}
    value = found["at the top"].T
    assert value.dtype == wanted.dtype and value.shape == wanted.shape and value.flags.writeable
    np.testing.assert_array_equal(value, wanted)


def test_recordings_that_matlab_would_write(tmp_path):
    """As `save` writes v7.3, through every layer of the package."""
    values = {"emg": rng.standard_normal((70_000, 12)).astype(np.float32), "restimulus": np.ones((70_000, 1), np.uint8),
              "frequency": np.array([[2000.0]])}
    matfile.save(tmp_path / "a.mat", values, "test", v73=True)
    for name, value in matfile.load(tmp_path / "a.mat", tuple(values)).items():
        assert value.dtype == values[name].dtype and np.array_equal(value, values[name])


HARM = {
    "a crash": ("os.kill(os.getpid(), 11)", "reading it ended the reader: SIGSEGV"),
    "an abort": ("os.abort()", "reading it ended the reader: SIGABRT"),
    "an end": ("os._exit(0)", "reading it ended the reader: exit code 0"),
    "a bomb": ("bytearray(1 << 40)", "more memory than there is"),
    "a loop": ("\n    while True: pass", "takes longer than 1 s"),
    "a sleep": ("import time; time.sleep(1e6)", "takes longer than 1 s"),
    "nonsense": ("os.write(3, b'x'); [os.write(fd, b'[]\\n') for fd in range(3, 9) if not "
                 "__import__('stat').S_ISREG(os.fstat(fd).st_mode)]", "its reader answers nonsense|ended"),
    "another file": ("open('/etc/hosts')", "damaged .*(Too many open files|Permission denied)"),
    "a connection": ("socket.socket()", "Too many open files"),
    "a longer file": ("open(os.memfd_create('a'), 'w')", "Too many open files"),
    "a program": ("os.execv('/bin/true', ['true'])", "Permission denied|exit code"),
}


@pytest.mark.parametrize("kind", HARM)
def test_what_a_file_may_do_to_its_reader(kind, tmp_path, monkeypatch, started):
    harm, said = HARM[kind]
    path = crafted(tmp_path, monkeypatch, harm)
    monkeypatch.setattr(hdf5, "SECONDS", 1)
    began = time.monotonic()
    with pytest.raises(InputError, match=f"^{re.escape(str(path))} .*({said})") as told:
        matfile.load(path, ("emg",))
    assert time.monotonic() - began < 10 and "\n" not in str(told.value)


def test_a_command_ends_in_one_line(tmp_path, monkeypatch, started, capsys):
    path = crafted(tmp_path, monkeypatch, "os.kill(os.getpid(), 11)")
    with pytest.raises(SystemExit) as ended:
        console.run(lambda argv: readers.read(RecordingFile(path, 1)), [])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and str(path) in said and "SIGSEGV" in said and len(said.splitlines()) == 1


def test_one_file_does_nothing_to_the_next(tmp_path, monkeypatch, started):
    """A reader reads one file and ends; the program that starts readers parses nothing."""
    bad = crafted(tmp_path, monkeypatch, "real(*a).close(); 'bad' in os.readlink(f'/proc/self/fd/{a[0].fileno()}') and "
                                         "os.kill(os.getpid(), 11); return real(*a)")
    program = hdf5._PROGRAM
    program.write_text(program.read_text().replace("def harm", "real = h5py.File\ndef harm"))
    good, bad = tmp_path / "good.mat", bad.rename(tmp_path / "bad.mat")
    good.write_bytes(bad.read_bytes())
    monkeypatch.setattr(hdf5, "_PROGRAM", program)
    results = {}

    def read(path, number):
        try:
            results[path.name, number] = matfile.load(path, ("emg",))["emg"].sum()
        except InputError as error:
            results[path.name, number] = str(error)

    threads = [threading.Thread(target=read, args=(path, i)) for i in range(6) for path in (good, bad)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 12
    for (name, _), found in results.items():
        assert found == 12000 if name == "good.mat" else "SIGSEGV" in found, (name, found)


def test_the_program_is_started_anew_when_somebody_ends_it(tmp_path, started):
    matfile.save(tmp_path / "a.mat", {"emg": np.ones((9, 2))}, "test", v73=True)
    for _ in range(2):
        assert matfile.shapes(tmp_path / "a.mat") == {"emg": (9, 2)}
        child, = [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
                  if READER.name in Path(f"/proc/{pid}/cmdline").read_text()][-1:]
        os.kill(child, signal.SIGKILL)
        time.sleep(0.1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    import keras

    path = tmp_path_factory.mktemp("model") / "good.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization(), keras.layers.Dense(3)]).save(path)
    return path


def weights(path: Path, to: Path, change) -> Path:
    """A `.keras` file whose weights have been changed."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w") as new:
        (to.parent / "weights.h5").write_bytes(old.read("model.weights.h5"))
        with h5py.File(to.parent / "weights.h5", "a") as file:
            change(file)
        new.writestr("config.json", old.read("config.json"))
        new.write(to.parent / "weights.h5", "model.weights.h5")
    return to


def elsewhere(file):
    del file["layers/dense/vars/0"]
    with h5py.File(Path(file.filename).with_name("other.h5"), "w") as other:
        other["w"] = np.ones((2, 3), "f4")
    layout = h5py.VirtualLayout((2, 3), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "w", (2, 3))
    file.create_virtual_dataset("layers/dense/vars/0", layout)


def linked(file):
    del file["layers/dense/vars/0"]
    file["layers/dense/vars/0"] = h5py.ExternalLink("other.h5", "/w")


def huge(file):
    file.create_dataset("huge", (10**9, 10**3), "f4", chunks=(1000, 1000))


def circle(file):
    file["layers/again"] = file["layers"]


LIES = {"elsewhere": elsewhere, "linked": linked, "huge": huge, "a circle": circle,
        "text": lambda file: file.create_dataset("text", data=b"volts")}


@pytest.mark.parametrize("lie", LIES)
def test_weights_that_lie(lie, model, tmp_path):
    from tfkfin.nets import saving

    with pytest.raises((ValueError, KeyError)):
        saving.load(weights(model, tmp_path / "a.keras", LIES[lie]))


def test_weights_are_those_that_keras_reads(model, tmp_path):
    import keras

    from tfkfin.nets import saving

    wanted, found = keras.saving.load_model(model, compile=False), saving.load(model)
    for ours, theirs in zip(found.get_weights(), wanted.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    saving.save_weights(wanted, tmp_path / "a.weights.h5")
    found.set_weights([np.zeros_like(one) for one in found.get_weights()])
    saving.load_weights(found, tmp_path / "a.weights.h5", "")
    for ours, theirs in zip(found.get_weights(), wanted.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_weights_that_crash_their_reader(model, tmp_path, monkeypatch, started):
    import keras

    from tfkfin.nets import saving

    network = keras.saving.load_model(model, compile=False)
    saving.save_weights(network, tmp_path / "a.weights.h5")
    crafted(tmp_path, monkeypatch, "os.kill(os.getpid(), 11)")
    with pytest.raises(ValueError, match="ended the reader: SIGSEGV"):
        saving.load(model)
    with pytest.raises(InputError, match="a.weights.h5 is damaged.*: do this"):
        saving.load_weights(network, tmp_path / "a.weights.h5", "do this")


def test_nothing_else_opens_hdf5_to_read_it():
    """Elsewhere h5py writes, and Keras loads what was copied: `nets/saving.py` sees to that."""
    for path in Path("tfkfin").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        names = {ast.unparse(call.func) for call in calls}
        if path.name != READER.name:
            for call in [call for call in calls if ast.unparse(call.func).endswith("h5py.File")]:
                assert [ast.unparse(one) for one in call.args[1:]] == ["'w'"], f"{path}:{call.lineno}"
            imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "h5py"]
            assert not imported, path
        if path != Path("tfkfin/nets/saving.py"):
            others = [name for name in names if name.endswith((".load_model", ".load_weights"))]
            assert all(name.startswith("saving.") for name in others), f"{path}: {others}"
