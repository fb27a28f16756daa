"""The door for files from outside: nothing is opened past it, and no pipe, bomb or growing file gets through."""

import ast
import contextlib
import csv
import io
import json
import os
import resource
import signal
import socket
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from tfkfin import models, recipe
from tfkfin.base import files, reading
from tfkfin.base.errors import InputError
from tfkfin.data import main as data
from tfkfin.fit.ledger import Ledger
from tfkfin.recordings import readers
from tfkfin.recordings.download import unpack
from tfkfin.recordings.readers import bids
from tfkfin.recordings.recording import Recording, RecordingFile
from tfkfin.store import folders

# === Nothing is opened past the door ===

ROOMS = ("recordings", "store", "recipe", "fit")
OPENS = {"open", "read_text", "read_bytes", "FileIO", "ZipFile", "TarFile", "loadmat", "whosmat", "fromfile", "memmap",
         "open_memmap", "genfromtxt", "File", "ParquetFile", "ParquetDataset", "read_table", "read_parquet", "read_csv",
         "read_edf", "read_bdf", "load_model", "load_weights", "from_hdf5"}
PAST = {  # what opens a file itself, and why it may
    "recordings/formats/arrays.py": {"np.load"},  # maps an .npy, after `reading.size_of`
    "recordings/formats/edf.py": {"edfio.read_edf", "edfio.read_bdf"},  # map them, after `formats.of`
    "recordings/formats/parquet.py": {"parquet.ParquetFile"},  # after `reading.size_of`
    "recordings/matfile.py": {"loadmat", "h5py.File", "tfio.IODataset.from_hdf5"},  # after `is_v73`
    "recordings/download.py": {"zipfile.ZipFile", "opened.open"},  # of what `reading.opened` gives
    "fit/stages/finetune.py": {"saving.load_weights"},  # which `nets/saving.py` opens, after its digest was right
    "fit/training.py": {"saving.load_weights"},
    "recordings/transfer.py": {"open", "os.open", "self.open"},  # to write
}


def opening(path: Path) -> set[str]:
    """What is named in a module by which a file's content can be got; not what writes, and not the door itself."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    writing = set()
    for node in nodes:
        if isinstance(node, ast.Call):
            words = [word.value for word in node.keywords if word.arg == "mode"]
            modes = [arg.value for arg in (*node.args[:2], *words) if isinstance(arg, ast.Constant) and isinstance(
                arg.value, str)]
            if any(set(mode) <= set("wxab+") and set(mode) & set("wxa") for mode in modes):
                writing.add(id(node.func))
    names = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute | ast.Name)
             and isinstance(node.ctx, ast.Load) and id(node) not in writing}
    return {name for name in names if name.rpartition(".")[2] in OPENS or name == "np.load"}


@pytest.mark.parametrize("path", [path for room in ROOMS for path in sorted(Path("tfkfin", room).rglob("*.py"))],
                         ids=str)
def test_no_module_opens_a_file_past_the_door(path):
    assert opening(path) <= PAST.get(path.relative_to("tfkfin").as_posix(), set()), "open it by tfkfin.base.reading"


def test_what_opens_a_file_is_found(tmp_path):
    path = tmp_path / "a.py"
    path.write_text("open(p)\np.read_text()\nnp.load(p)\nreader = edfio.read_edf\nopen(p, 'wb')\nopen(p, mode='r')\n"
                    "pandas.read_csv(p)\np.open('rb')\nopen(p, 'rb+')\nopen(p, 'x')\nreading.opened(p)\n")
    assert opening(path) == {"open", "p.read_text", "np.load", "edfio.read_edf", "pandas.read_csv", "p.open"}


# === Pipes, sockets, devices, folders, links in circles ===

@contextmanager
def soon(seconds: int = 10, memory: int = 1 << 30):
    """No more than so many seconds and bytes of memory above what is held now."""
    def late(*_):
        raise TimeoutError

    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limits, before = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (held + memory, limits[1]))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)


@contextmanager
def refused(said: str, *names: str, memory: int = 1 << 30):
    """One line that says `said` and names a file, soon and in little memory."""
    with pytest.raises(InputError, match=said) as told, soon(memory=memory):
        yield
    assert "\n" not in str(told.value) and all(name in str(told.value) for name in names)


def bound_socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as made:  # names of sockets are short
        made.bind(path.name)


SPECIAL = {"a pipe": os.mkfifo, "a device": lambda path: path.symlink_to("/dev/zero"), "a folder": os.mkdir,
           "a socket": bound_socket, "a link that leads to itself": lambda path: path.symlink_to(path.name)}


def own(folder: Path, suffix: str = "csv", **sheet) -> None:
    """The sheet of a folder of own files."""
    said = {"rate_hz": 1000, "unit": "mV", "files": f"p{{subject}}.{suffix}", "channels": ["a"], "label": "m"} | sheet
    (folder / "recordings.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in said.items()))


def read(folder: Path) -> Recording:
    return readers.read(readers.find(folder)[0])


def dataset(folder: Path) -> Path:
    """A small BIDS dataset; its subject's folder."""
    labels = np.repeat([0, 1, 0, 2, 0], [100, 250, 110, 250, 90])
    emg = np.random.default_rng(0).standard_normal((len(labels), 2)).astype(np.float32) * 1e-5
    bids.write([Recording(RecordingFile(Path("a"), 1), emg, labels, (labels > 0).astype(int), 1000.0)], folder / "b",
               "made", "edf")
    return folder / "b" / "sub-01" / "ses-01" / "emg"


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("suffix", ["csv", "npy", "npz", "parquet", "mat", "edf", "bdf"])
def test_a_signal_is_a_file(kind, suffix, tmp_path):
    own(tmp_path, suffix)
    SPECIAL[kind](path := tmp_path / f"p1.{suffix}")
    with refused(kind, str(path)):
        readers.read(RecordingFile(path, 1, reader="table"))
    with refused(kind, str(path)):
        readers.read(RecordingFile(path, 1))
    (tmp_path / "recordings.toml").unlink()
    (tmp_path / "p2.csv").write_text("a,m\n" + "1,0\n2,1\n" * 50)
    if not path.is_dir():
        with soon():  # drafts pass it over and say so
            data(["sheet", str(tmp_path), "--quiet"])


@pytest.mark.parametrize("kind", SPECIAL)
def test_a_sheet_and_a_file_of_labels_are_files(kind, tmp_path):
    (tmp_path / "p1.csv").write_text("a\n" + "1\n2\n" * 50)
    own(tmp_path, labels="q{subject}.csv")
    SPECIAL[kind](tmp_path / "q1.csv")
    if kind != "a folder":  # which is none of the files of a folder
        with refused(kind, "q1.csv"):
            read(tmp_path)
    (tmp_path / "recordings.toml").unlink()
    SPECIAL[kind](tmp_path / "recordings.toml")
    with refused(kind if kind != "a folder" else "holds no recordings", str(tmp_path)):
        read(tmp_path)


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("end", ["events.tsv", "channels.tsv", "emg.json", "emg.edf"])
def test_sidecars_are_files(kind, end, tmp_path):
    emg = dataset(tmp_path)
    file, (path,) = readers.find(tmp_path / "b")[0], emg.glob(f"*_{end}")
    path.unlink()
    SPECIAL[kind](path)
    with refused(kind, str(path)):
        readers.read(file)


READ = {  # a file, and what reads it
    "m/1/model_card.json": lambda folder: models.show_card(str(folder / "m")),
    "m/.last_version": lambda folder: folders.next_version(folder / "m"),
    "models.config": lambda folder: folders.add_to_config(folder / "m"),
    "r.toml": lambda folder: recipe.load(folder / "r.toml"),
    "results.json": lambda folder: Ledger(folder).get("results"),
    "a.json": lambda folder: models.main(["list", "--json", str(folder / "a.json")])}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", READ)
def test_cards_recipes_and_results_are_files(name, kind, tmp_path):
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / folders.SAVED_MODEL).write_bytes(b"pb")
    SPECIAL[kind](tmp_path / name)
    if name == "r.toml" and kind in ("a folder", "a link that leads to itself"):
        kind = "no recipe"
    elif kind == "a link that leads to itself" and name in ("m/.last_version", "models.config", "a.json"):
        return  # there is no file, and whoever writes one replaces the link
    with refused(kind, Path(name).name):
        READ[name](tmp_path)


def test_a_file_that_grows_ends_where_it_ended(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"ab\n" * 40_000)
    with reading.opened(path) as file, reading.opened_text(path) as text:
        begin = file.read(3), text.readline()
        with path.open("ab") as more:
            more.write(b"cd\n" * 400_000)
        assert b"".join([begin[0], *file]) == b"ab\n" * 40_000 and begin[1] + text.read() == "ab\n" * 40_000
    with reading.opened(path) as file:
        assert file.read(10) + file.read() == path.read_bytes() and not file.read(1)


# === Small files that unpack to large ones ===

def text_csv(path: Path) -> None:
    path.write_text("a,m\n" + "1,0\n" * 10_000 + f"2,{'x' * 100_000}\n" + "1,1\n" * 10_000)


def numbers_npz(path: Path) -> None:
    np.savez_compressed(path, a=np.zeros(5 << 23), m=np.zeros(9))


def bytes_npz(path: Path) -> None:
    """Numbers of one byte, which become eight when they are scaled."""
    np.savez_compressed(path, a=np.zeros(5 << 23, np.int8), m=np.zeros(5 << 23, np.int8))


def text_npz(path: Path) -> None:
    np.savez_compressed(path, a=np.zeros(3000), m=np.array(["x" * 24_000, *"y" * 2999]))


def packed_npz(path: Path) -> None:
    held = io.BytesIO()
    np.save(held, np.zeros(1 << 20))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        for name in "am":
            archive.writestr(f"{name}.npy", held.getvalue())


def rows_parquet(path: Path) -> None:
    from pyarrow import parquet, table

    part = table({"a": np.zeros(1 << 20), "m": np.zeros(1 << 20, np.int8)})
    with parquet.ParquetWriter(path, part.schema) as file:
        for _ in range(20):
            file.write_table(part)


def text_parquet(path: Path, rows: int = 1000, **how) -> None:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({"a": np.arange(float(rows)), "m": ["x" * 100_000] * rows})
    parquet.write_table(table, path, compression="zstd", **how)


def pages_parquet(path: Path) -> None:
    text_parquet(path, rows=3000, use_dictionary=False)


def deltas_parquet(path: Path) -> None:
    text_parquet(path, use_dictionary=False, column_encoding={"m": "DELTA_BYTE_ARRAY"})


def lists_parquet(path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    part = pyarrow.table({"a": pyarrow.array([[1]] * 100_000), "m": np.zeros(100_000, np.int8)})
    with parquet.ParquetWriter(path, part.schema) as file:
        for _ in range(60):
            file.write_table(part)


def arrays_mat(path: Path) -> None:
    savemat(path, {name: np.zeros((1 << 25, 1), np.float32) for name in "abm"}, do_compression=True)


BOMBS = {"csv": (text_csv,), "npz": (numbers_npz, bytes_npz, text_npz, packed_npz), "mat": (arrays_mat,),
         "parquet": (rows_parquet, text_parquet, pages_parquet, deltas_parquet, lists_parquet)}


@pytest.mark.parametrize(("suffix", "make"), [(suffix, make) for suffix, every in BOMBS.items() for make in every],
                         ids=lambda one: getattr(one, "__name__", one))
def test_a_small_file_that_unpacks_to_a_large_one_is_refused(suffix, make, tmp_path):
    path = tmp_path / f"p1.{suffix}"
    make(path)
    own(tmp_path, suffix, channels=["a", "b"] if suffix == "mat" else ["a"])
    assert path.stat().st_size < 3e6
    with refused("would unpack|as NumPy|DELTA_BYTE", str(path)):
        read(tmp_path)
    (tmp_path / "recordings.toml").unlink()
    with refused("would unpack|as NumPy|DELTA_BYTE", str(path)):
        data(["sheet", str(tmp_path), "--quiet"])


def test_complex_numbers_become_no_words(tmp_path):
    """Each would be 256 bytes: half a gigabyte of what is 32 MB."""
    np.savez_compressed(tmp_path / "p1.npz", a=np.zeros(1 << 21, complex), m=np.zeros(1 << 21, np.int8))
    with soon(memory=400 << 20):
        data(["sheet", str(tmp_path), "--quiet"])


def test_members_that_nobody_asked_for_are_not_unpacked(tmp_path):
    path = tmp_path / "p1.npz"
    np.savez_compressed(path, a=np.sin(np.arange(900.0)), m=np.repeat([0, 1, 0], 300), other=np.zeros(5 << 23))
    own(tmp_path, "npz")
    with soon(memory=200 << 20):
        assert read(tmp_path).emg.shape == (900, 1)


def test_what_may_be_read_is_read_as_before(tmp_path):
    """Text that is long but holds no more than its file, and text of all rows of one column."""
    words = ["fist" * 20, "open", " rest "] * 250_000
    (tmp_path / "p1.csv").write_text("a,m,n\n" + "".join(f"{i},{w},\"x, {i}\"\n\n" for i, w in enumerate(words)))
    from tfkfin.recordings import formats

    columns = formats.read(tmp_path / "p1.csv", ["m", "a", "n"]).columns
    assert columns["m"].tolist() == [word.strip() for word in words] and columns["m"].dtype.kind == "U"
    assert columns["n"].tolist() == [f"x, {i}" for i in range(len(words))]  # read in two parts
    assert (columns["a"] == np.arange(len(words))).all()


@pytest.mark.parametrize(("codec", "pages", "dictionary"), [("snappy", "1.0", True), ("zstd", "2.0", False)])
def test_parquet_is_read_as_pyarrow_reads_it(codec, pages, dictionary, tmp_path):
    import pyarrow
    from pyarrow import parquet

    from tfkfin.recordings import formats
    from tfkfin.recordings.formats import parquet as parquets

    n, path = 20_000, tmp_path / "a.parquet"
    some, words = [None if i % 5 else i for i in range(n)], ["u", "v"] * (n // 2)
    table = pyarrow.table({
        "x": np.random.default_rng(0).standard_normal(n), "i": some, "b": np.arange(n) % 2 == 0, "s": words,
        "t": [None if i is None else str(i) for i in some], "e": pyarrow.array(words).dictionary_encode(),
        "l": pyarrow.array(words, pyarrow.large_string()), "z": pyarrow.nulls(n), "none": [None] * n,
        "time": pyarrow.array(np.arange(n)).cast(pyarrow.timestamp("us"))})
    parquet.write_table(table, path, compression=codec, data_page_version=pages, use_dictionary=dictionary,
                        row_group_size=7000, data_page_size=5000)
    with path.open("rb") as file, parquet.ParquetFile(path) as whole:
        about = whole.metadata
        for g, columns in enumerate(parquets._columns(file, path.stat().st_size)):
            for c, own in enumerate(columns):
                right = about.row_group(g).column(c)
                assert (own[7], own[9], own.get(11)) == (right.total_compressed_size, right.data_page_offset,
                                                         right.dictionary_page_offset)
        assert g == about.num_row_groups - 1 and c == about.num_columns - 1
    found, whole = formats.read(path, None).columns, parquet.read_table(path)
    assert list(found) == whole.column_names
    for name, values in found.items():
        right = whole[name].to_numpy()
        assert values.dtype == right.dtype
        np.testing.assert_array_equal(values, right, name)


def wide(rows: str) -> str:
    return "onset\tduration\ttrial_type\t" + "\t".join(f"c{i}" for i in range(10_000)) + "\n" + rows


@pytest.mark.parametrize("end", ["events.tsv", "channels.tsv"])
def test_a_table_of_many_columns_takes_the_memory_of_its_cells(end, tmp_path):
    (path,) = (emg := dataset(tmp_path)).glob(f"*_{end}")
    path.write_text(wide("1\t1\tfist\n" * 5000))
    with refused("fewer cells than its heading", str(path)):
        read(tmp_path / "b")
    if end == "events.tsv":  # a row that ends early is read
        path.write_text("onset\tduration\ttrial_type\tvalue\n0.1\t0.2\tfist\t1\n0.5\t0.2\topen\n")
        assert set(read(emg.parents[2]).names.values()) == {"fist", "open"}


NUMBERS = ("9" * 5000, "9" * 4000, "1e308", "-1e308", "1e309", str(10**400), "9" * 19, "nan", "-1", "1e-308")


@pytest.mark.parametrize("number", NUMBERS, ids=lambda text: text[:8] + f" of {len(text)}")
@pytest.mark.parametrize("where", ["onset", "duration", "trial_type", "value", "repetition", "SamplingFrequency",
                                   "RecordingDuration"])
def test_numbers_that_none_can_be(where, number, tmp_path):
    """Each is refused in one line, or plays no part, and none ends in an error that nobody foresaw."""
    emg = dataset(tmp_path)
    if where[0].isupper():
        (path,) = emg.glob("*_emg.json")
        said = json.loads(path.read_text())
        path.write_text(json.dumps(said).replace(f'"{where}": {json.dumps(said[where])}', f'"{where}": {number}'))
        assert number in path.read_text()
    else:
        (path,) = emg.glob("*_events.tsv")
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        for row in rows if where in ("trial_type", "value") else rows[:1]:
            row[where] = number
        path.write_text("\n".join(map("\t".join, [rows[0], *(row.values() for row in rows)])))
    times = where in ("onset", "duration", "repetition") and number[:2] in ("99", "1e") and number != "1e-308"
    surely = times or where == "SamplingFrequency" or where == "trial_type" and number.isdecimal()
    try:
        with soon():
            read(tmp_path / "b")
        assert not surely
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000


def test_archives_packed_in_other_ways_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("S1_E1_A1.mat", bytes(1000))
    with refused("packed as none of Ninapro's"):
        unpack(tmp_path / "a.zip", 1, {1: tmp_path / "S1_E1_A1.mat"}, lambda: None)
    assert not (tmp_path / "S1_E1_A1.mat").exists()


@pytest.mark.parametrize(("name", "content"), [
    ("a.json", b'{"a": [' + b"[]," * 12_000_000 + b"0]}"), ("a.toml", b"x = 1 # \n" * 150_000)])
def test_texts_are_as_large_as_ours_are(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with refused("MB, and one of its kind at most", name):
        (files.read_toml if name.endswith("toml") else files.read_json)(tmp_path / name)


def test_of_many_wrong_options_some_are_explained(tmp_path):
    (tmp_path / "r.toml").write_text("".join(f"x{i} = 1\n" for i in range(20_000)))
    with refused("unknown key 'x0'; .*; and 19992 more", "r.toml"):
        recipe.load(tmp_path / "r.toml")
    (tmp_path / "recordings.toml").symlink_to("r.toml")
    with refused("x0: Extra inputs are not permitted. Known keys", "recordings.toml", memory=100 << 20):
        readers.find(tmp_path)
    (tmp_path / "r.toml").write_text("x = 1\n" * 50_000)
    with refused("has 0.3 MB, and one of its kind at most 0.262", "r.toml"):
        recipe.load(tmp_path / "r.toml")


def test_a_link_to_nothing_says_so(tmp_path):
    (tmp_path / "recordings.toml").symlink_to("gone")
    with refused("is a link to what is not there", "recordings.toml"):
        readers.find(tmp_path)


def test_a_signal_without_a_unit_is_named(tmp_path):
    (path,) = dataset(tmp_path).glob("*_emg.edf")
    content = path.read_bytes()
    assert content.count(b"uV      " * 2) == 1
    path.write_bytes(content.replace(b"uV      " * 2, b"uV      " + b" " * 8))
    with refused("EMG02 is in no unit", str(path)):
        read(tmp_path / "b")
