"""Inputs for tests/fuzz.py that are small and unpack to much, and places of files in which there is none.

Zeros are packed once: DEFLATE's blocks may be repeated, so that gigabytes are made in no time.
"""

import functools
import os
import random
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

ZEROS = 1 << 24  # bytes of a packed block
CELLS = ("x", "fist", "1", "1.5", "n/a", "")


@functools.cache
def _zeros() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(bytes(ZEROS)) + packer.flush(zlib.Z_FULL_FLUSH)


def packed(head: bytes, blocks: int) -> bytes:
    """A raw DEFLATE stream of `head` and so many blocks of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH) + _zeros() * blocks + packer.flush()


def npz(rng: random.Random, path: Path) -> None:
    """Arrays of zeros, some of which say another size or shape than they have."""
    made, listed = b"", b""
    for name in ("a", "m", "t", "other")[: rng.randrange(1, 5)]:
        blocks = rng.choice([0, 1, 2, 4, 15, 17, 200])
        kind = rng.choice(["<f8", "<f4", "|i1", "|b1", "<U1", "<U100000", "<c16", "<i2"])
        size = np.dtype(kind).itemsize
        count = blocks * ZEROS // size if rng.random() < 0.8 else rng.choice([0, 1, 10**6, 10**12, 2**62])
        shape = rng.choice([(count,), (count // 4, 4), (4, count // 4), (1, count)])
        said = (repr({"descr": kind, "fortran_order": False, "shape": shape}) + "\n").encode()
        head = b"\x93NUMPY\x02\x00" + struct.pack("<I", len(said)) + said
        crc = zlib.crc32(head)
        for _ in range(min(blocks, 20)):
            crc = zlib.crc32(bytes(ZEROS), crc)
        content, full = packed(head, blocks), len(head) + blocks * ZEROS
        full = min(full, 2**32 - 2) if rng.random() < 0.8 else rng.choice([0, len(head), 1000, 2**32 - 2])
        entry = struct.pack("<HHHHHIIIHH", 20, 0, rng.choice([8] * 9 + [12, 14]), 0, 0, crc, len(content), full,
                            len(name) + 4, 0)
        listed += b"PK\x01\x02" + struct.pack("<H", 20) + entry + struct.pack("<HHHII", 0, 0, 0, 0, len(made)) + (
            f"{name}.npy".encode())
        made += b"PK\x03\x04" + entry + f"{name}.npy".encode() + content
    count = listed.count(b"PK\x01\x02")
    end = struct.pack("<HHHHIIH", 0, 0, count, count, len(listed), len(made), 0)
    path.write_bytes(made + listed + b"PK\x05\x06" + end)


def mat(rng: random.Random, path: Path) -> None:
    """Packed matrices of zeros."""
    made = bytes(124) + b"\x00\x01IM"
    for name in ("a", "m", "t", "other")[: rng.randrange(1, 5)]:
        blocks = rng.choice([0, 1, 2, 4, 15, 17, 60])
        kind, stored, size = rng.choice([(6, 9, 8), (7, 7, 4), (8, 1, 1), (6, 2, 1)])
        count = blocks * ZEROS if rng.random() < 0.8 else rng.choice([0, 8, 2**31, 2**32 - 64])
        body = struct.pack("<IIII", 6, 8, kind, 0) + struct.pack("<IIii", 5, 8, min(count // size, 2**31 - 1), 1)
        body += struct.pack("<HH4s", 1, len(name[:4]), name[:4].ljust(4, "\0").encode())
        body += struct.pack("<II", stored, count)
        content = b"\x78\x9c" + packed(struct.pack("<II", 14, min(len(body) + count, 2**32 - 1)) + body, blocks)
        content += struct.pack(">I", 1)
        made += struct.pack("<II", 15, len(content)) + content
    path.write_bytes(made)


def text(rng: random.Random, path: Path) -> None:
    """A table with few cells, with a cell that is long, or with many columns."""
    wide, long = rng.choice([2, 2, 2, 100, 10_000]), rng.choice([1, 100, 10_000, 130_000])
    rows, ragged = rng.choice([9, 5000, 60_000]), rng.random() < 0.3
    heading = ["a", "m", "t", *(f"c{i}" for i in range(wide))]
    row = [rng.choice(CELLS) for _ in heading]
    rows = min(rows, 200_000 // (1 if ragged else len(row)))
    cells = row[: rng.randrange(1, 4)] if ragged else row
    strange = [*row[:1], "x" * long, *row[2:]]
    mark = rng.choice([",", ";", "\t"])
    lines = [mark.join(heading), *[mark.join(cells)] * rows, mark.join(strange), *[mark.join(cells)] * 9]
    path.write_text("\n".join(lines))


def parquet(rng: random.Random, path: Path) -> None:
    """Columns of one value, and of text that is said once, whole or with heads that say other sizes."""
    import pyarrow
    from pyarrow import parquet as files

    rows, groups = rng.choice([(9, 1), (9, 400), (1000, 30), (100_000, 1), (100_000, 40)])
    long = rng.choice([1, 100, 10_000, 100_000])
    plain = rows * long <= 10**7 and rng.random() < 0.5
    words = pyarrow.DictionaryArray.from_arrays(np.zeros(rows, np.int32), ["x" * long])
    table = pyarrow.table({
        "a": np.zeros(rows, rng.choice(["f8", "f4", "i1", "?"])), "t": np.ones(rows),
        "m": words.dictionary_decode() if plain else words,
        "n": pyarrow.array([rng.choice([None, [0] * long if long <= 10_000 else [], [1]])] * 9 + [[1]] * (rows - 9),
                           pyarrow.list_(pyarrow.int8())),
        "d": pyarrow.array([1] * rows).cast(pyarrow.decimal128(20, 0))})
    table = table.select(rng.sample(table.column_names, rng.randrange(1, 6)))
    delta = {"m": "DELTA_BYTE_ARRAY"} if plain and "m" in table.column_names and rng.random() < 0.3 else None
    with files.ParquetWriter(path, table.schema, compression=rng.choice(["zstd", "snappy", "none"]), store_schema=False,
                             use_dictionary=delta is None and not (plain and rng.random() < 0.5), column_encoding=delta,
                             data_page_version=rng.choice(["1.0", "2.0"])) as file:
        for _ in range(groups):
            file.write_table(table)
    if path.stat().st_size > 4 << 20:  # a large file may take much
        files.write_table(table, path, compression="zstd", store_schema=False)
    if rng.random() < 0.4:
        content = bytearray(path.read_bytes())
        for _ in range(rng.choice([1, 1, 3])):
            at = rng.choice([rng.randrange(4, min(len(content), 60)),
                             rng.randrange(max(4, len(content) - 700), len(content))])
            content[at] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        path.write_bytes(content)


def trees(rng: random.Random) -> bytes:
    """JSON of many small things."""
    part = rng.choice(["[],", "{},", '"",', "[[[[0]]]],", '{"a":{}},', "1e308,", "9" * 400 + ",",
                       "[" * 900 + "]" * 900 + ","])
    count = rng.choice([1, 1000, 300_000, 2_000_000]) // len(part)
    return f'{{"a": [{part * count}0], "SamplingFrequency": 1000}}'.encode()


def toml(rng: random.Random) -> bytes:
    """TOML of many small things, or of keys that are deep."""
    deep = ".".join("a" * rng.choice([1, 2, 200, 2000]))
    part = rng.choice([f"x{{}}.{deep} = 1\n", f"[x{{}}.{deep}]\n", "x{} = [[], {{}}, '']\n", "[[x]]\ny{} = 1\n",
                       "x{} = " + "9" * 400 + "\n", "x{} = " + "[" * 400 + "]" * 400 + "\n"])
    most = rng.choice([10**3, 10**5, 900_000, 3_000_000])
    return "".join(part.format(i) for i in range(most // len(part) + 1)).encode()


TABLES = {"npz": npz, "mat": mat, "csv": text, "parquet": parquet}


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def link(where: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(where or path.name)


def bound(path: Path) -> None:
    before = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name[:100])
    finally:
        os.chdir(before)


SPECIAL = (pipe, folder, bound, link(""), *map(link, ("/dev/zero", "/dev/full", "/dev/tty", "/proc/self/mem", "nowhere",
                                                      ".")))


def replace(rng: random.Random, where: Path) -> None:
    """Puts something else in the place of one of the files below a folder."""
    path = rng.choice(sorted(path for path in where.rglob("*") if path.is_file()))
    path.unlink()
    rng.choice(SPECIAL)(path)
