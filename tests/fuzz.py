"""Mutated inputs by the thousand: whatever comes in, the answer is right or an `InputError`, soon and in little memory.

    nice -n 19 python tests/fuzz.py --count 10000            of every kind, on all cores; seeded
    python tests/fuzz.py --kind mat5 --count 500 --seed 3

Counted are crashes (a process that dies), hangs (> 5 s), memory (> 2 GiB above the start) and errors that are no
InputError. Half of the inputs and more are whole containers with lying content, so that they pass the first parser.
"""

import argparse
import io
import json
import multiprocessing
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

HANG_S, MOST_BYTES = 5, 2 << 30
DAMAGED: list[bool] = []  # filled where bytes of a container are damaged; else it is whole, and its content lies


class Hang(BaseException):
    """It takes too long."""


def numbers(rng: random.Random):
    return rng.choice([0, 1, -1, 2, 3, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 10**30, -2**31, 0.5,
                       1e-300, 1e300, float("nan"), float("inf"), -float("inf"),
                       True, False, None, "", "a", "\x00", "\x1b[2J", "1",
                       "../..", "x" * 5000, [], {}, [[]], [1, 2], {"a": 1}])


def flipped(rng: random.Random, content: bytes) -> bytes:
    """Bytes changed, cut, doubled, or replaced by numbers that parsers stumble over."""
    DAMAGED.append(True)
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
            made[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 16)))
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
    import numpy as np

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


def mat5(rng: random.Random, folder: Path) -> Callable:
    """Level 5 files: damaged bytes outside and, where elements are packed, lying bytes inside whole packing."""
    from scipy.io import savemat

    from tfkfin.recordings import readers
    from tfkfin.recordings.recording import RecordingFile

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
    path = folder / "S1_E1_A1.mat"
    path.write_bytes(content)
    file = RecordingFile(path, 1)
    return lambda: (readers.header(file), readers.read(file))


def hdf5(rng: random.Random, folder: Path) -> Callable:
    """Version 7.3: whole files with odd datasets, links and sizes, and some with damaged bytes."""
    import h5py
    import numpy as np

    from tfkfin.recordings import readers
    from tfkfin.recordings.recording import RecordingFile

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
    path = folder / "S1_E1_A1.mat"
    path.write_bytes(flipped(rng, content) if rng.random() < 0.3 else content)
    file = RecordingFile(path, 1)
    return lambda: (readers.header(file), readers.read(file))


def recipe(rng: random.Random, folder: Path) -> Callable:
    """Recipes that are TOML with unfit options, some of them damaged; and settings of a command line."""
    import tomli_w

    from tfkfin import recipe as recipes

    value = changed(rng, recipes.Recipe().model_dump(mode="json"))
    value = changed(rng, value) if isinstance(value, dict) else {"seed": value}
    text = tomli_w.dumps(_toml(value if isinstance(value, dict) else {"fin": value})).encode()
    path = folder / "own.toml"
    path.write_bytes(flipped(rng, text) if rng.random() < 0.3 else text)
    key = rng.choice([*recipes.fields(), "no.such", "a" * 300, ".", "fin." * 50])
    said = f"{key}={rng.choice([str(numbers(rng)), '[' * 3000, '1-9999', '9-1', '{a=1}'])}"
    return lambda: (recipes.load(str(path)), recipes.load("demo", dict([recipes.parse_setting(said)])))


def _toml(value):
    """The same without what TOML has no word for."""
    if isinstance(value, dict):
        return {str(key): _toml(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_toml(one) for one in value if one is not None]
    return value if not isinstance(value, int) or abs(value) < 2**63 else 7


def sheet(rng: random.Random, folder: Path) -> Callable:
    """Own recordings: sheets that say odd things, and tables that are not what they say."""
    import tomli_w

    from tfkfin.recordings import readers

    said = {"rate_hz": 1000, "unit": "mV", "files": "p{subject}_*.csv", "channels": ["a", "b"], "label": "m",
            "repetition": "t", "movements": {"1": "fist"}}
    said = changed(rng, said) if rng.random() < 0.7 else said
    pattern = rng.choice(["p{subject}_*.csv", "*p*{subject}*.csv", "{label}_{subject}*.csv", "{subject}{session}.csv"])
    if isinstance(said, dict) and rng.random() < 0.3:
        said = said | {"files": pattern}
    text = tomli_w.dumps(_toml(said if isinstance(said, dict) else {"rate_hz": 1})).encode()
    (folder / "recordings.toml").write_bytes(flipped(rng, text) if rng.random() < 0.2 else text)
    lines = ["a,b,m,t", *(f"{i % 7},{-i % 5},{i // 40 % 3},{1 + i // 120}" for i in range(360))]
    table = "\n".join(lines).encode()
    (folder / "p1_x.csv").write_bytes(flipped(rng, table) if rng.random() < 0.6 else table)
    return lambda: [(readers.header(file), readers.read(file)) for file in readers.find(folder)]


def run_file(rng: random.Random, folder: Path) -> Callable:
    """Files of a run folder: scores, arrays, the sheet of a download."""
    import numpy as np

    from tfkfin import recipe as recipes
    from tfkfin.fit.ledger import Ledger
    from tfkfin.fit.run import Run
    from tfkfin.recordings.transfer import Part

    Ledger(folder).put("classify/S1", {"accuracy": 0.5, "confusion": [[1]]}, {"a": np.arange(9)})
    for name in ("classify/S1.json", "results.json", "x.tfkfin.part.json"):
        value = {"accuracy": {"mean": 0.5}, "seconds": {}, "url": "u", "length": 7, "version": "v"}
        value = json.dumps(changed(rng, value))
        content = value.encode() if rng.random() < 0.6 else flipped(rng, value.encode())
        (folder / name).write_bytes(content)
    (folder / "x.tfkfin.part").write_bytes(b"abc")
    if rng.random() < 0.5:
        path = folder / "classify" / "S1.npz"
        path.write_bytes(flipped(rng, path.read_bytes()))
    run = Run(folder, recipes.Recipe())

    calls = [lambda: run.done("classify", "S1"), run.results, lambda: run.ledger.arrays("classify/S1"),
             lambda: Part("u", folder / "x")]
    return rng.choice(calls)


def card(rng: random.Random, folder: Path) -> Callable:
    """Model folders: cards that are JSON and lie, sealed anew or not, and files that changed."""
    from tfkfin.models import presets
    from tfkfin.models.__main__ import show_list
    from tfkfin.models.decoder import Decoder

    version = folder / "m" / "1"
    version.mkdir(parents=True)
    (version / presets.SAVED_MODEL).write_bytes(b"pb")
    own = {"name": "m", "summary": "s", "input": "i", "parameters": 3, "score": "1", "length": 8, "kind": "decoder",
           "channels": 2, "movements": [1, 2], "decision": {"vote": 1, "reject": 0.0}, "stride": 4,
           "sha256": presets.checksums(version)}
    value = changed(rng, own)
    if isinstance(value, dict) and rng.random() < 0.5:
        value = presets.sealed(value)
    text = json.dumps(value).encode()
    (version / presets.CARD).write_bytes(flipped(rng, text) if rng.random() < 0.3 else text)
    return lambda: (_quiet(lambda: show_list([folder])), presets.changed(version), presets.verify(version),
                    Decoder(presets.card(version), answer=lambda emg: {}))


def _quiet(call: Callable) -> None:
    import contextlib

    with contextlib.redirect_stdout(io.StringIO()):
        call()


def zipped(rng: random.Random, folder: Path) -> Callable:
    """Archives: odd members in whole archives, and damaged ones."""
    from tfkfin.recordings.download.archive import unpack

    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        names = ["S1_E1_A1.mat", "DB2_s1/S1_E1_A1.mat", "S1_E2_A1.mat", "S1_A1_E1.mat", "__MACOSX/S1_E1_A1.mat",
                 "../S1_E1_A1.mat", "/etc/x", "C:\\x", "a" * 300, "é\x1b"]
        for name in rng.sample(names[: rng.choice([1, 3, 5, 10])], 1) + rng.sample(names[2:], rng.randrange(3)):
            info = zipfile.ZipInfo(name)
            info.external_attr = rng.choice([0, 0, 0, 0o120777 << 16, 0o100644 << 16, 0o010644 << 16])
            noise = bytes(rng.randrange(256) for _ in range(99))
            archive.writestr(info, rng.choice([b"", b"mat", bytes(100_000), noise]))
    content = held.getvalue()
    path = folder / "a.zip"
    path.write_bytes(flipped(rng, content) if rng.random() < 0.5 else content)
    return lambda: unpack(path, 1, {1: folder / "out" / "S1_E1_A1.mat"}, lambda: None)


def reply(rng: random.Random, folder: Path) -> Callable:
    """Answers of a server, as they are after HTTP: whole JSON that lies, and damaged text."""
    import numpy as np

    from tfkfin.client import connect, replay

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
    return lambda: list(replay(client, np.zeros((20, 2)), np.zeros(20), 200.0))


KINDS = {"mat5": mat5, "hdf5": hdf5, "recipe": recipe, "sheet": sheet, "run_file": run_file, "card": card,
         "zipped": zipped, "reply": reply}


def outcome(kind: str, seed: int) -> str:
    """What one input came to: "answered", "refused", or what went wrong."""
    from tfkfin.console import InputError

    def hang(*_):
        raise Hang

    with tempfile.TemporaryDirectory() as folder:
        rng = random.Random(f"{kind} {seed}")
        act = KINDS[kind](rng, Path(folder))
        signal.signal(signal.SIGALRM, hang)
        signal.setitimer(signal.ITIMER_REAL, HANG_S)
        try:
            act()
            return "answered"
        except InputError as error:
            return "refused" if str(error) else f"silence: {kind} {seed}"
        except Hang:
            return f"hang: {kind} {seed}"
        except MemoryError:
            return f"memory: {kind} {seed}"
        except Exception as error:
            return f"{type(error).__name__}: {kind} {seed}: {str(error)[:80]}"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _work(kind: str, seeds: range, told) -> None:
    """A process of its own, so that a crash ends it and nothing else; it says each seed before it tries it."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.getLogger("tfkfin").addHandler(logging.NullHandler())
    logging.getLogger("tfkfin").propagate = False
    import numpy  # noqa: F401  what is loaded once counts for no input

    most = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most + (1 << 30), resource.RLIM_INFINITY))
    for seed in seeds:
        told.send((seed, None, False))
        DAMAGED.clear()
        said = outcome(kind, seed)
        told.send((seed, said, not DAMAGED))
    told.close()


def fuzz(kind: str, seeds: range) -> Counter:
    """Outcomes of these seeds; a process that dies is a crash, and the next goes on after it."""
    found, left = Counter(), seeds
    while len(left):
        ours, theirs = multiprocessing.Pipe(False)
        process = multiprocessing.get_context("fork").Process(target=_work, args=(kind, left, theirs))
        process.start()
        theirs.close()
        last = left.start - 1
        try:
            while True:
                if not ours.poll(4 * HANG_S):
                    process.kill()
                    found[f"hang: {kind} {last} (killed)"] += 1
                    break
                last, said, whole = ours.recv()
                if said is not None:
                    found[said] += 1
                    found["whole"] += whole
        except EOFError:
            process.join()
            if process.exitcode:
                found[f"crash {process.exitcode}: {kind} {last}"] += 1
        process.join()
        left = range(last + 1, seeds.stop) if process.exitcode else range(0)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="inputs of each kind (default: 1000)")
    parser.add_argument("--kind", choices=KINDS, action="append", help="default: every one")
    parser.add_argument("--seed", type=int, default=0, help="the first (default: 0)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many, whatever is left")
    options = parser.parse_args()
    began, wrong, every = time.monotonic(), 0, Counter()
    for kind in options.kind or KINDS:
        found, since = Counter(), time.monotonic()
        share = options.seconds / len(options.kind or KINDS)
        for first in range(options.seed, options.seed + options.count, 200):
            found += fuzz(kind, range(first, min(first + 200, options.seed + options.count)))
            if time.monotonic() - since > share:
                break
        whole = found.pop("whole", 0)
        bad = {said: n for said, n in found.items() if said not in ("answered", "refused")}
        wrong, every = wrong + sum(bad.values()), every + Counter(inputs=sum(found.values()), whole=whole)
        sys.stdout.write(f"{kind:9} {sum(found.values()):7} inputs, {whole} of them whole: {found['answered']} "
                         f"answered, {found['refused']} refused, {sum(bad.values())} wrong, "
                         f"{time.monotonic() - since:.0f} s\n")
        for said, count in sorted(bad.items(), key=lambda one: -one[1])[:12]:
            sys.stdout.write(f"    {count:5}  {said}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{every['inputs']} inputs, {every['whole']} of them whole: "
                     f"{wrong} wrong in {time.monotonic() - began:.0f} s\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
