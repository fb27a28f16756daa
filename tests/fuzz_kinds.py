"""Inputs for tests/fuzz.py: of each kind a small good one, of which chance makes another that lies or is damaged.

Half of the inputs and more are whole containers whose content lies. Whether one is, a parser that knows the container
and nothing else decides: `Input.parse`.
"""

import contextlib
import csv
import io
import json
import os
import random
import signal
import struct
import tempfile
import time
import tomllib
import zipfile
import zlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import edfio
import fuzz_bombs
import h5py
import numpy as np
import tomli_w
from pyarrow import parquet
from scipy.io import savemat, whosmat

from tfkfin import recipe as recipes
from tfkfin import train
from tfkfin.base.errors import InputError
from tfkfin.client import connect, replay
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.fit import run_folder
from tfkfin.fit.ledger import Ledger
from tfkfin.fit.run import Run, fingerprint
from tfkfin.fit.search import Search, state_of
from tfkfin.models import show_card, show_list
from tfkfin.recordings import draft, readers
from tfkfin.recordings.download import unpack
from tfkfin.recordings.readers import bids as bids_files
from tfkfin.recordings.recording import Recording, RecordingFile
from tfkfin.recordings.transfer import PartialFile
from tfkfin.store import folders


class Input(NamedTuple):
    """What is done with an input, and what raises if its container is not whole."""

    act: Callable[[], object]
    parse: Callable[[], object]


def each(*calls: Callable) -> None:
    """All of them; then the last InputError of them, if there was one."""
    refused = None
    for call in calls:
        try:
            call()
        except InputError as error:
            refused = error
    if refused:
        raise refused


def words(rng: random.Random) -> str:
    """A cell of a table."""
    return rng.choice([str(numbers(rng)), "", "nan", "1e999", "-", '"', "0x10", "1_000", "1,5", "\u0663",
                       "1e-400", "a" * 2000, "9" * 5000, "9" * 400, "1e308", "-1e308"])


def numbers(rng: random.Random):
    return rng.choice([0, 1, -1, 2, 3, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 10**30, 10**400, -2**31, 0.5,
                       1e-300, 1e300, float("nan"), float("inf"), -float("inf"),
                       True, False, None, "", "a", "\x00", "\x1b[2J", "1",
                       "../..", "x" * 5000, [], {}, [[]], [1, 2], {"a": 1}])


def flipped(rng: random.Random, content: bytes) -> bytes:
    """Bytes changed, cut, doubled, or replaced by numbers that parsers stumble over."""
    made = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        if not made:
            return bytes(made)
        at, kind = rng.randrange(len(made)), rng.randrange(5)
        if kind == 0:
            made[at] = rng.randrange(256)
        elif kind == 1:
            value = rng.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**16, rng.randrange(2**32)])
            made[at : at + 4] = struct.pack(rng.choice("<>") + "I", value)
        elif kind == 2:
            del made[at : at + rng.randrange(1, 64)]
        elif kind == 3:
            made[at:at] = made[at : at + rng.randrange(1, 64)]
        else:
            made[at:at] = rng.randbytes(rng.randrange(1, 16))
    return bytes(made) if rng.random() < 0.9 else bytes(made[: rng.randrange(len(made) + 1)])


def changed(rng: random.Random, value):
    """A tree as JSON and TOML hold them with some of its leaves, keys or branches replaced."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        kind = rng.randrange(8)
        if kind == 0:
            return {k: v for k, v in value.items() if k != key}
        if kind == 1:
            return value | {key + rng.choice("_x\x00 "): value[key]}
        return value | {key: changed(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        kind = rng.randrange(4)
        if kind == 0:
            return value[:at] + value[at + 1 :]
        if kind == 1:
            return value[:at] * 2 + value[at:]
        return [*value[:at], changed(rng, value[at]), *value[at + 1 :]]
    return numbers(rng)


def arrays(rng: random.Random) -> dict:
    """Variables of a small recording, some of them unfit."""
    labels = np.zeros((600, 1), np.uint8)
    labels[50:250], labels[300:550] = 1, 2
    good = {"emg": (1e-5 * np.random.default_rng(0).standard_normal((600, 3))).astype(np.float32), "restimulus": labels,
            "rerepetition": np.ones((600, 1), np.uint8), "frequency": np.array([[2000.0]])}
    for _ in range(rng.randrange(3)):
        name = rng.choice(list(good))
        array, kind = good[name], rng.randrange(8)
        if kind == 0:
            good[name] = np.full(array.shape, rng.choice([np.nan, np.inf, 1e38, -1, 70000, 0.5]))
        elif kind == 1:
            good[name] = array.T
        elif kind == 2:
            good[name] = array[: rng.randrange(len(array) + 1)]
        elif kind == 3 and array.dtype.kind != "U":
            good[name] = array.astype(rng.choice(["f8", "i8", "u4", "i2", "c16", "?"]))
        elif kind == 4:
            good[name] = np.array([["text"]])
        elif kind == 5 and array.ndim == 2:
            good[name] = array[..., None][:, :, [0] * rng.randrange(3)]
        elif kind == 6:
            good[rng.choice(["subject", "exercise", "synthetic", "stimulus"])] = good.pop(name)
        else:
            good[name] = np.empty(rng.choice([(0, 0), (0, 3), (1, 1), (600, 0)]))
    return good


def mat5(rng: random.Random, folder: Path) -> Input:
    """Level 5 files: damaged bytes outside and, where elements are packed, lying bytes inside whole packing."""
    plain = io.BytesIO()
    savemat(plain, arrays(rng), do_compression=False)
    content, inside = plain.getvalue(), rng.random()
    if inside < 0.3:
        content = flipped(rng, content)
    elif inside < 0.9:  # each element mutated by itself, then packed or given its true length
        made, position = content[:128], 128
        while position < len(content):
            count = struct.unpack_from("<I", content, position + 4)[0]
            element = content[position : position + 8 + count]
            if rng.random() < 0.4:
                at = rng.randrange(8, min(len(element), 120) - 4)
                value = rng.choice([0, 1, 6, 9, 2**31 - 1, 2**32 - 1, rng.randrange(2**32)])
                element = element[:at] + struct.pack("<I", value) + element[at + 4 :]
            if rng.random() < 0.5:
                packed = zlib.compress(element)
                element = struct.pack("<II", 15, len(packed)) + packed
            made, position = made + element, position + 8 + count
        content = made
    (folder / "S1_E1_A1.mat").write_bytes(content)
    return recording(folder, lambda path: whosmat(path))


def recording(folder: Path, parse: Callable) -> Input:
    """Ninapro's file of that folder, read as every command does."""
    path = folder / "S1_E1_A1.mat"
    file = RecordingFile(path, 1)
    return Input(lambda: each(lambda: readers.header(file), lambda: readers.read(file)), lambda: parse(path))


def hdf5(rng: random.Random, folder: Path) -> Input:
    """Version 7.3: whole files with odd datasets, links and sizes, and some with damaged bytes."""
    memory = io.BytesIO()
    with h5py.File(memory, "w", userblock_size=512) as file:
        for name, value in arrays(rng).items():
            kind = rng.randrange(14)
            if value.dtype.kind == "U":
                value = np.array([b"text"])
            if kind == 0:
                file.create_dataset(name, shape=(rng.choice([1, 12, 10**6]), rng.choice([10**3, 10**9])), dtype="f4",
                                    chunks=(1, rng.choice([1, 1000])))
            elif kind == 1:
                file[name] = h5py.SoftLink(rng.choice(["/emg", "/", f"/{name}", "/nowhere"]))
            elif kind == 2:
                file[name] = h5py.ExternalLink("/etc/hosts", "/emg")
            elif kind == 3:
                file.create_group(name)
            elif kind == 4:
                file.create_dataset(name, data=h5py.Empty("f4"))
            elif kind == 5 and value.size:
                file.create_dataset(name, data=value.T, compression="gzip", chunks=True, shuffle=True)
            else:
                file.create_dataset(name, data=value.T)
    content = memory.getvalue()
    (folder / "S1_E1_A1.mat").write_bytes(flipped(rng, content) if rng.random() < 0.3 else content)
    return recording(folder, lambda path: h5py.File(path).close())


def recipe(rng: random.Random, folder: Path) -> Input:
    """Recipes that are TOML with unfit options, some of them damaged; and settings of a command line."""
    value = changed(rng, recipes.Recipe().model_dump(mode="json"))
    value = changed(rng, value) if isinstance(value, dict) else {"seed": value}
    text = tomli_w.dumps(_toml(value if isinstance(value, dict) else {"fin": value})).encode()
    path = folder / "own.toml"
    path.write_bytes(flipped(rng, text) if rng.random() < 0.3 else text)
    key = rng.choice([*recipes.fields(), "no.such", "a" * 300, ".", "fin." * 50])
    said = f"{key}={rng.choice([str(numbers(rng)), '[' * 3000, '1-9999', '9-1', '{a=1}'])}"
    return Input(lambda: each(lambda: recipes.load(str(path)),
                              lambda: recipes.load("demo", dict([recipes.parse_setting(said)]))),
                 lambda: tomllib.loads(path.read_text(encoding="utf-8")))


def _toml(value):
    """The same without what TOML has no word for."""
    if isinstance(value, dict):
        return {str(key): _toml(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_toml(one) for one in value if one is not None]
    return value if not isinstance(value, int) or abs(value) < 2**63 else 7


def columns(rng: random.Random) -> dict[str, np.ndarray]:
    """Columns of a small recording of one's own, some of which lie."""
    made = {name: np.array([values(i) for i in range(240)], np.float64) for name, values in {
        "a": lambda i: i % 7, "b": lambda i: -i % 5, "m": lambda i: i // 30 % 3, "t": lambda i: 1 + i // 90}.items()}
    for _ in range(rng.choice([0, 1, 1, 2])):
        name, kind = rng.choice(list(made)), rng.randrange(6)
        if kind == 0 and made[name].dtype == np.float64 and len(made[name]):
            made[name][rng.randrange(len(made[name]))] = rng.choice(
                [np.nan, np.inf, -1, 0.5, 70000, 1e38, 1e300, 40000])
        elif kind == 1:
            made[name] = np.full(240, rng.choice([np.nan, 0, 3, -7, 1e300]))
        elif kind == 2 and len(made) > 1:
            made.pop(name)
        elif kind == 3:
            made[name] = made[name][: rng.randrange(240)]
        elif kind == 4 and made[name].dtype == np.float64:
            made[name] = made[name].astype(rng.choice(["i2", "u1", "f4", "?", "c8", "U3", "M8[s]"]))
        else:
            made[rng.choice(["a", "b", "m", "t", "", "1", "x\n", "é"])] = made.pop(name)
    return made


def text_table(rng: random.Random, path: Path) -> None:
    made = columns(rng)
    mark = rng.choice([",", ",", ";", "\t"])
    lines = [[*made], *([str(v) for v in row] for row in zip(*made.values(), strict=False))]
    for _ in range(rng.choice([0, 0, 1, 3])):
        row = rng.choice(lines)
        if row:
            row[rng.randrange(len(row))] = words(rng)
    if rng.random() < 0.2:
        rng.choice(lines).append(words(rng))
    path.write_text("\n".join(mark.join(line) for line in lines), encoding="utf-8")


def npy_table(rng: random.Random, path: Path) -> None:
    """A head of NumPy's that may say another shape or kind than what follows."""
    made = [v for v in columns(rng).values() if v.dtype.kind in "fiub" and len(v) == 240]
    array = np.column_stack(made) if made else np.zeros(0)
    head = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
    head = head | {rng.choice(list(head)): rng.choice(
        [(240, 4), (10**9, 4), (-1, 4), (240,), (240, 10**9), (2**31, 2**31, 2**31), "<f8", "|O", ">i2", "<U9", "|V3",
         [("a", "<f8")], True, numbers(rng)])} if rng.random() < 0.5 else head
    said = (repr(head) + "\n").encode()
    path.write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", len(said)) + said + array.tobytes())


def npz_table(rng: random.Random, path: Path) -> None:
    with zipfile.ZipFile(path, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for name, values in columns(rng).items():
            held = io.BytesIO()
            np.save(held, values.astype(object) if rng.random() < 0.05 else values, allow_pickle=True)
            content = held.getvalue()
            if rng.random() < 0.2:
                said = rng.choice([b"(-1,) ", b"(9**9)", b"(2,99)", b"240   ", b"(240,1"])
                content = content.replace(b"(240,)", said)
            archive.writestr(f"{name}.npy", content)


def mat_table(rng: random.Random, path: Path) -> None:
    savemat(path, {name or "n": v for name, v in columns(rng).items() if v.dtype.kind in "fiubUc"},
            do_compression=rng.random() < 0.5, oned_as="column")


def parquet_table(rng: random.Random, path: Path) -> None:
    import pyarrow

    made = {name: v for name, v in columns(rng).items() if len(v) == 240 and v.dtype.kind != "c"}
    table = pyarrow.table({name: v.tolist() if rng.random() < 0.2 else v for name, v in made.items()})
    if rng.random() < 0.3 and made:
        table = table.append_column("n", [[rng.choice([None, [1], "x", {"a": 1}, b"b"]) for _ in range(1)] * 240])
    parquet.write_table(table, path, compression=rng.choice(["none", "snappy", "zstd"]))


@cache
def _edf(kind: str) -> bytes:
    held, rng = io.BytesIO(), np.random.default_rng(0)
    signal, file = (edfio.BdfSignal, edfio.Bdf) if kind == "bdf" else (edfio.EdfSignal, edfio.Edf)
    file([signal(rng.standard_normal(500), 500, label=name, physical_dimension="mV") for name in "abmt"],
         annotations=[edfio.EdfAnnotation(0.1, 0.2, "fist"), edfio.EdfAnnotation(0.5, 0.3, "rest")]).write(held)
    return held.getvalue()


def edf_table(rng: random.Random, path: Path) -> None:
    """A whole file, some of whose header's fields (8 characters from byte 168 on) say something else."""
    path.write_bytes(edf_lies(rng, _edf(path.suffix[1:])))


def edf_lies(rng: random.Random, content: bytes) -> bytes:
    content = bytearray(content)
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        at = rng.choice([0, 8, 88, 168, 176, 184, 192, 236, 244, 252, *range(256, 1536, 8)])
        said = rng.choice(["0", "-1", "1", "2", "99999999", "1e9", "nan", "inf", "uV", "", "EDF+D", "a", "-32768",
                           "32767"])
        content[at : at + 8] = said.ljust(8).encode()
    return bytes(content)


TABLES = {"csv": text_table, "txt": text_table, "npy": npy_table, "npz": npz_table, "mat": mat_table,
          "parquet": parquet_table, "edf": edf_table, "bdf": edf_table}
PARSERS = {
    "csv": lambda path: path.read_text(encoding="utf-8-sig"),
    "npy": lambda path: np.lib.format.read_magic(io.BytesIO(path.read_bytes()[:8])),
    "npz": lambda path: zipfile.ZipFile(path).close(), "mat": lambda path: whosmat(path),
    "parquet": lambda path: parquet.ParquetFile(path).close(), "edf": lambda path: edfio.read_edf(path),
    "bdf": lambda path: edfio.read_bdf(path)}
PARSERS["txt"] = PARSERS["csv"]
SHEETS = {
    "table": {"rate_hz": 1000, "unit": "mV", "files": "p{subject}_*.csv", "channels": ["a", "b"], "label": "m",
              "repetition": "t", "movements": {"1": "fist"}},
    "numbers": {"rate_hz": 1000, "unit": "uV", "files": "p{subject}_*.csv", "channels": [1, 2], "label": 3,
                "repetition": 4},
    "names": {"rate_hz": 500, "unit": "mV", "files": "p{subject}_{label}.csv", "movements": {"1": "x", "2": "y"}},
    "events": {"rate_hz": 1000, "unit": "V", "files": "p{subject}_x.csv", "channels": ["a", "b"], "label": "m",
               "labels": "q{subject}.csv", "start": "on", "duration": "long", "movements": {"1": "fist"}},
    "notes": {"files": "p{subject}_*.csv", "channels": ["a", "b"], "movements": {"1": "fist"}}}


def sheet(rng: random.Random, folder: Path) -> Input:
    """Own recordings: tables of every kind that are not what they say, and sheets that say odd things."""
    suffix = rng.choice([*TABLES, "csv", "csv"])
    kind = {"npy": "numbers", "edf": "notes", "bdf": "notes"}.get(suffix, rng.choice(list(SHEETS)[:-1]))
    said = dict(SHEETS[kind]) | {"files": SHEETS[kind]["files"].replace("csv", suffix)}
    if rng.random() < 0.3:
        said = changed(rng, said)
    if isinstance(said, dict) and rng.random() < 0.1:
        files = rng.choice(["*p*{subject}*.csv", "{label}_{subject}*.csv", "{subject}{session}.csv"])
        said = said | {"files": files.replace("csv", suffix)}
    text = tomli_w.dumps(_toml(said if isinstance(said, dict) else {"rate_hz": 1})).encode()
    (folder / "recordings.toml").write_bytes(flipped(rng, text) if rng.random() < 0.1 else text)
    path = folder / f"p1_x.{suffix}"
    TABLES[suffix](rng, path)
    if rng.random() < 0.15:
        path.write_bytes(flipped(rng, path.read_bytes()))
    rows = [["on", "long", "m"], *([f"{0.03 * i:g}", "0.02", str(i % 3)] for i in range(8))]
    for _ in range(rng.choice([0, 1, 2])):
        rng.choice(rows)[rng.randrange(3)] = words(rng)
    (folder / "q1.csv").write_text("\n".join(",".join(row) for row in rows), encoding="utf-8")

    def act():
        each(*(partial(read, file) for file in readers.find(folder) for read in (readers.header, readers.read)))

    return Input(act, lambda: (tomllib.loads((folder / "recordings.toml").read_text(encoding="utf-8")),
                               PARSERS[suffix](path)))


@cache
def _bids() -> dict[str, bytes]:
    """The files of a small BIDS dataset."""
    labels = np.repeat([0, 1, 0, 2, 0], [100, 250, 110, 250, 90])
    emg = np.random.default_rng(0).standard_normal((len(labels), 2)).astype(np.float32) * 1e-5
    one = Recording(RecordingFile(Path("a"), 1), emg, labels, (labels > 0).astype(int), 1000.0, names={1: "fist"})
    with tempfile.TemporaryDirectory() as folder:
        bids_files.write([one], Path(folder, "b"), "made", "edf")
        return {path.relative_to(Path(folder, "b")).as_posix(): path.read_bytes()
                for path in Path(folder, "b").rglob("*") if path.is_file()}


def bids(rng: random.Random, folder: Path) -> Input:
    """BIDS: a sidecar, or a table of events or channels, that says something else."""
    every = _bids()
    names = [name for name in every if name.endswith((".json", ".tsv", ".edf")) and "sub-" in name]
    name, damaged = rng.choice(names), rng.random() < 0.2
    content = every[name]
    if damaged:
        content = flipped(rng, content)
    elif name.endswith(".edf"):
        content = edf_lies(rng, content)
    elif name.endswith(".json"):
        content = json.dumps(changed(rng, json.loads(content))).encode()
    else:
        rows = [line.split("\t") for line in content.decode().splitlines()]
        for _ in range(rng.choice([1, 1, 2, 4])):
            row = rng.choice(rows)
            row[rng.randrange(len(row))] = words(rng).replace("\t", "")
        if rng.random() < 0.1:
            del rng.choice(rows)[rng.randrange(1, 3) :]
        content = "\n".join("\t".join(row) for row in rows).encode()
    for path, kept in every.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content if path == name else kept)

    def act():
        each(*(partial(read, file) for file in readers.find(folder) for read in (readers.header, readers.read)))

    def parse():
        if name.endswith(".edf"):
            return edfio.read_edf(folder / name)
        text = (folder / name).read_text(encoding="utf-8")
        return json.loads(text) if name.endswith(".json") else list(csv.reader(text.splitlines(), delimiter="\t"))

    return Input(act, parse)


_RESULTS = {
    "stage": "classify", "protocol": "honest", "recipe_digest": "0" * 12, "seconds": {"imitate": 1.5},
    "environment": {"tfkfin": "0"}, "fin": {"RMS": {"r2": 0.5}},
    "confusion": {"labels": [1, 2], "counts": [[1, 0], [0, 1]]},
    **{key: {"mean": 0.5, "std": 0.1, "per_subject": {"1": 0.5}} for key in ("accuracy", "execution", "classifier")},
    "dataset": {"subjects": [1], "synthetic": True, "fingerprint": "0" * 12}}
_RUN_FILES = {
    "classify/S1.json": {"accuracy": 0.5, "confusion": [[1]]}, "results.json": _RESULTS,
    "x.tfkfin.part.json": {"url": "u", "length": 7, "version": "v"}, "fingerprint.json": {"recordings": "0" * 12},
    "recordings.json": {"files": {"x": [1, 2, 3, 4, "0" * 64]}},
    "tuning.json": {"complete": True, "options": {"stage": "classify", "max_trials": 3}, "best": {"folder": "t"}}}


def run_file(rng: random.Random, folder: Path) -> Input:
    """Files of a run folder, of a search and of a download: JSON that lies, now and then damaged, and arrays."""
    Ledger(folder).put("classify/S1", _RUN_FILES["classify/S1.json"], {"a": np.arange(9), "m": np.eye(2)})
    (folder / "x.tfkfin.part").write_bytes(b"abc")
    run = Run(folder, recipes.load("demo", {"source.kind": "signals"}))
    which = rng.choice([*_RUN_FILES, "results.json", "classify/S1.npz"])
    run.__dict__["fingerprint"] = "0" * 12  # as of recordings that are there
    path = folder / which
    if which.endswith(".npz"):
        npz_table(rng, path)
        content = path.read_bytes()
    else:
        content = json.dumps(changed(rng, _RUN_FILES[which])).encode()
    path.write_bytes(flipped(rng, content) if rng.random() < 0.2 else content)
    search = Search(run, "classify", (1,), 2)

    def results():
        with contextlib.redirect_stdout(io.StringIO()):
            each(lambda: train.show(run.results(), folder), lambda: run.publish("classify", {"fin": {}}))

    acts = {"classify/S1.json": lambda: run.done("classify", "S1"), "results.json": results,
            "classify/S1.npz": lambda: run.ledger.arrays("classify/S1"), "fingerprint.json": run.claim,
            "recordings.json": lambda: fingerprint([("S1", folder / "x.tfkfin.part")], folder / "recordings.json"),
            "x.tfkfin.part.json": lambda: PartialFile("u", folder / "x"),
            "tuning.json": lambda: each(lambda: state_of(folder),
                                        lambda: search.begin({"stage": "classify", "max_trials": 4}))}
    return Input(acts[which], lambda: (zipfile.ZipFile(path).close() if which.endswith(".npz") else
                                       json.loads(path.read_text(encoding="utf-8"))))


def card(rng: random.Random, folder: Path) -> Input:
    """Model folders: cards that are JSON and lie, sealed anew or not, and files that changed."""
    version = folder / "m" / "1"
    version.mkdir(parents=True)
    (version / folders.SAVED_MODEL).write_bytes(b"pb")
    own = {"name": "m", "summary": "s", "input": "i", "parameters": 3, "score": "1", "length": 8, "kind": "decoder",
           "channels": 2, "movements": [1, 2], "decision": {"vote": 1, "reject": 0.0}, "stride": 4,
           "sha256": folders.checksums(version)}
    value = changed(rng, own)
    if isinstance(value, dict) and rng.random() < 0.5:
        value = folders.sealed(value)
    text = json.dumps(value).encode()
    path = version / folders.CARD
    path.write_bytes(flipped(rng, text) if rng.random() < 0.3 else text)

    def act():
        with contextlib.redirect_stdout(io.StringIO()):
            each(lambda: show_list([folder]), lambda: show_card(str(version.parent)), lambda: folders.changed(version),
                 lambda: folders.verify(version), lambda: run_folder.find_decoder(version.parent),
                 lambda: BaseDecoder(folders.card(version), answer=lambda emg: {}))

    return Input(act, lambda: json.loads(path.read_text(encoding="utf-8")))


def zipped(rng: random.Random, folder: Path) -> Input:
    """Archives: odd members in whole archives, and damaged ones."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        names = ["S1_E1_A1.mat", "DB2_s1/S1_E1_A1.mat", "S1_E2_A1.mat", "S1_A1_E1.mat", "__MACOSX/S1_E1_A1.mat",
                 "../S1_E1_A1.mat", "/etc/x", "C:\\x", "a" * 300, "é\x1b"]
        for name in rng.sample(names[: rng.choice([1, 3, 5, 10])], 1) + rng.sample(names[2:], rng.randrange(3)):
            info = zipfile.ZipInfo(name)
            info.external_attr = rng.choice([0, 0, 0, 0o120777 << 16, 0o100644 << 16, 0o010644 << 16])
            archive.writestr(info, rng.choice([b"", b"mat", bytes(100_000), rng.randbytes(99)]))
    content = held.getvalue()
    path = folder / "a.zip"
    path.write_bytes(flipped(rng, content) if rng.random() < 0.5 else content)
    return Input(lambda: unpack(path, 1, {1: folder / "out" / "S1_E1_A1.mat"}, lambda: None),
                 lambda: zipfile.ZipFile(path).close())


def reply(rng: random.Random, folder: Path) -> Input:
    """Answers of a server, as they are after HTTP: whole JSON that lies, and damaged text."""
    def dims(*sizes):
        return {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": str(size)} for size in sizes]}}

    scalars = {"rate_hz": "DT_FLOAT", "length": "DT_INT64", "stride": "DT_INT64", "vote": "DT_INT64",
               "reject": "DT_FLOAT", "movements": "DT_INT64"}
    metadata = {"metadata": {"signature_def": {"signature_def": {
        "serving_default": {"inputs": {"emg": dims(-1, 8, 2)}, "outputs": {
            "probabilities": dims(-1, 2), "label": {"dtype": "DT_INT64", "tensor_shape": {"dim": [{"size": "-1"}]}}}},
        "about": {"inputs": {"emg": dims(1)}, "outputs": {name: {"dtype": kind} for name, kind in scalars.items()}}}}}}
    about = {"outputs": {"rate_hz": 200.0, "length": 8, "stride": 4, "vote": 1, "reject": 0.0, "movements": [1, 2]}}
    answer = {"outputs": {"probabilities": [[0.25, 0.75]], "label": [2]}}
    said = [metadata, about, answer]
    said[rng.randrange(3)] = changed(rng, said[(which := rng.randrange(3))])
    texts = [json.dumps(value).encode() for value in said]
    if rng.random() < 0.3:
        texts[which] = flipped(rng, texts[which])
    client = connect("http://127.0.0.1:9", "m", timeout_s=2, retries=0)
    left = iter([texts[1], *[texts[2]] * 99])
    status = rng.choice([200, 200, 200, 200, 404, 500, 302])
    client._fetched = lambda method, *_: (status, "reason", texts[0] if method == "GET" else next(left))
    return Input(lambda: list(replay(client, np.zeros((20, 2)), np.zeros(20), 200.0)),
                 lambda: [json.loads(text) for text in texts])


def bomb(rng: random.Random, folder: Path) -> Input:
    """Small files of every kind that unpack to much."""
    which = rng.choice([*fuzz_bombs.TABLES, *fuzz_bombs.TABLES, "events.tsv", "channels.tsv", "emg.json",
                        "recordings.toml", "card", "recipe"])
    if which in fuzz_bombs.TABLES:
        path = folder / f"p1.{which}"
        fuzz_bombs.TABLES[which](rng, path)
        said = {"rate_hz": 1000, "unit": "mV", "files": f"p{{subject}}.{which}", "label": "m"}
        said |= {"channels": rng.choice([["a"], ["a", "t"], ["t"], ["n"], ["d"]])} if rng.random() < 0.7 else {}
        (folder / "recordings.toml").write_text(tomli_w.dumps(said))
        sheets_draft = partial(draft.draft, folder, [path])
        return Input(lambda: each(lambda: readers.read(readers.find(folder)[0]), sheets_draft), lambda: None)
    if which in ("card", "recipe"):
        path = folder / (folders.CARD if which == "card" else "own.toml")
        path.write_bytes((fuzz_bombs.trees if which == "card" else fuzz_bombs.toml)(rng))
        return Input(lambda: folders.card(folder) if which == "card" else recipes.load(path), lambda: None)
    for path, kept in _bids().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(kept)
    path = next(folder.rglob(f"sub-*_{which}"), folder / which)
    if which.endswith(".tsv"):
        fuzz_bombs.text(rng, path)
        heading, *rows = path.read_text().replace(",", "\t").replace(";", "\t").split("\n")
        known = "onset\tduration\ttrial_type" if which == "events.tsv" else "name\ttype\tunits"
        path.write_text("\n".join([heading.replace("a\tm\tt", known), *rows]))
    else:
        path.write_bytes((fuzz_bombs.toml if which.endswith(".toml") else fuzz_bombs.trees)(rng))
    return Input(lambda: readers.read(readers.find(folder)[0]), lambda: None)


def special(rng: random.Random, folder: Path) -> Input:
    """Pipes, sockets, devices, folders and links in the place of a file of any other kind."""
    made = rng.choice([mat5, recipe, sheet, bids, run_file, card])(rng, folder)
    fuzz_bombs.replace(rng, folder)
    return Input(made.act, lambda: None)


def planted(rng: random.Random, folder: Path) -> Input:
    """What the search for errors has to find; of no product."""
    return Input(rng.choice([lambda: os.kill(os.getpid(), signal.SIGSEGV), lambda: time.sleep(60), lambda: {}["gone"],
                             lambda: bytearray(9 << 28), lambda: _raise(InputError(""))]), lambda: None)


def _raise(error: Exception) -> None:
    raise error


KINDS = {kind.__name__: kind for kind in (mat5, hdf5, recipe, sheet, bids, run_file, card, zipped, reply, bomb,
                                          special, planted)}
