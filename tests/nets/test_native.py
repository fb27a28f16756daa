"""Building, loading and sharing the compiled Bi-LSTM."""

import logging
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfkfin.base import machine
from tfkfin.nets.bilstm import build, native
from tfkfin.nets.bilstm.buffers import Buffers, budget
from tfkfin.nets.bilstm.layer import BiLSTM, engine


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """An empty cache folder and nothing loaded, before and after."""
    monkeypatch.setenv("TFKFIN_CACHE", str(tmp_path))
    native.reset()
    yield tmp_path
    native.reset()


def data(*shape, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype("float32")


def layer_for(shape, units=8, num_layers=2):
    layer = BiLSTM(units, num_layers)
    layer.build(shape)
    return layer


def gradients(layer, x, function):
    """Output, and gradients of a random projection of it wrt input and weights."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
        loss = tf.reduce_sum(y * data(*y.shape, seed=9))
    return [v.numpy() for v in (y, *tape.gradient(loss, [x, *[w.value for w in layer.weights]]))]


def assert_identical(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_a_compiler_auto_uses_the_stock_operation(fresh, monkeypatch, caplog):
    monkeypatch.setattr(build, "compilers", lambda: [])
    layer, x = layer_for((2, 5, 1)), data(2, 5, 1)
    with caplog.at_level(logging.INFO, logger="tfkfin"):
        graph = tf.function(layer).get_concrete_function(tf.TensorSpec(x.shape)).graph
        layer(x)
    assert "BlockLSTMV2" in {op.type for op in graph.get_operations()}
    assert [r.message for r in caplog.records if "no C compiler" in r.message and "block engine" in r.message]
    assert len(caplog.records) == 1
    with engine("native"), pytest.raises(ValueError, match="`engine` must be .* no C compiler .* Received"):
        layer(x)


@pytest.mark.parametrize("command", ["'gcc", "   ", "\"a b", "no-such-compiler -O"])
def test_a_compiler_that_is_no_command_ends_nothing(monkeypatch, command):
    monkeypatch.setenv("CC", command)
    try:
        assert all(found[0] in ("cc", "gcc", "clang", sys.executable) for found in build.compilers())
    except build.NativeUnavailable as error:
        assert "$CC is no command" in str(error)


def test_failing_compiler_is_reported_and_leaves_nothing(fresh, monkeypatch):
    monkeypatch.setattr(build, "compilers", lambda: [["false"]])
    with pytest.raises(native.NativeUnavailable, match="compiler failed: false"):
        native.load()
    assert not list(fresh.iterdir())


@pytest.mark.kernel
def test_a_compiler_that_cannot_tune_still_builds(fresh, monkeypatch):
    monkeypatch.setattr(build, "tunings", lambda: (("-mcpu=no-such-processor", "-march=neither"), ()))
    assert native.load().lanes >= 4
    assert [path.suffix for path in sorted(fresh.iterdir())] == [".sha256", build.SUFFIX]


def fake_compiler(folder: Path, text: str) -> list[list[str]]:
    """A compiler that is a script; `$OUT` is where the library is to be."""
    path = folder.parent / f"{folder.name}-cc"
    path.write_text("#!/bin/sh\nwhile [ \"$1\" != -o ]; do shift; done; OUT=$2\n" + text)
    path.chmod(0o755)
    return [[str(path)]]


@pytest.mark.parametrize("made", ["echo rubbish > $OUT", ": > $OUT", "cp /bin/sh $OUT",
                                  "echo 'long bilstm_lanes(void) { return 8; }' | cc -shared -xc -o $OUT -",
                                  "sed 's/expf/fabsf/' $3 | cc -O1 -shared -fPIC -xc -o $OUT -"])
def test_what_a_compiler_makes_is_tried_before_it_is_kept(fresh, monkeypatch, made):
    monkeypatch.setattr(build, "compilers", lambda: fake_compiler(fresh, made))
    with pytest.raises(native.NativeUnavailable, match="compiler failed"):
        native.load()
    assert not list(fresh.iterdir())


def gone_within(pid: int, seconds: float) -> bool:
    """Whether a killed process ends in time; one that is being killed may still be seen to run for a moment."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


def test_a_compiler_that_hangs_is_killed_with_its_children(fresh, monkeypatch):
    monkeypatch.setattr(build, "LONGEST_S", 0.5)
    slow = f"sleep 97 & echo $! > {fresh.parent}/pid; wait"
    monkeypatch.setattr(build, "compilers", lambda: fake_compiler(fresh, slow))
    began = time.monotonic()
    with pytest.raises(native.NativeUnavailable, match="takes longer than 0.5 s"):
        native.load()
    assert time.monotonic() - began < 10
    pid = int((fresh.parent / "pid").read_text())
    assert gone_within(pid, 10.0)


@pytest.mark.parametrize("mode, owner", [(0o777, None), (0o1777, None), (0o755, 12345), (0o700, 12345)])
def test_a_folder_that_others_can_write_is_not_used(tmp_path, monkeypatch, mode, owner):
    if os.geteuid() and owner:
        pytest.skip("only root can give files away")
    shared = tmp_path / "shared"
    shared.mkdir()
    cache = shared / "cache" if owner is None and mode == 0o777 else shared
    cache.mkdir(exist_ok=True)
    os.chmod(shared, mode)
    if owner:
        os.chown(shared, owner, owner)
    monkeypatch.setenv("TFKFIN_CACHE", str(cache))
    monkeypatch.setattr(build, "_compile", lambda to: to.write_bytes(b"library"))
    if (mode, owner) == (0o1777, None):  # ours: it is taken from the others
        assert build.library().read_bytes() == b"library" and not shared.stat().st_mode & 0o022
        return
    with pytest.raises(native.NativeUnavailable, match="other users.*TFKFIN_CACHE"):
        build.library()


@pytest.mark.parametrize("plant", ["owner", "mode", "link"])
def test_a_library_that_somebody_else_put_there_is_built_anew(fresh, monkeypatch, plant):
    monkeypatch.setattr(build, "_compile", lambda to: to.write_bytes(b"ours"))
    path = build.library_path()
    target = fresh / "theirs" if plant == "link" else path
    target.write_bytes(b"theirs")
    path.with_suffix(".sha256").write_text(__import__("hashlib").sha256(b"theirs").hexdigest())
    if plant == "link":
        path.symlink_to(target)
    elif plant == "mode":
        path.chmod(0o666)
    elif os.geteuid():
        pytest.skip("only root can give files away")
    else:
        os.chown(path, 12345, 12345)
    assert build.library().read_bytes() == b"ours" and not path.is_symlink()
    assert plant != "link" or target.read_bytes() == b"theirs"


def test_a_user_without_a_home_gets_the_stock_operation(monkeypatch):
    monkeypatch.delenv("TFKFIN_CACHE", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("no home")))
    native.reset()
    try:
        with pytest.raises(native.NativeUnavailable, match="no home folder"):
            native.load()
    finally:
        native.reset()


@pytest.mark.kernel
def test_corrupted_library_is_rebuilt(fresh):
    path = build.library_path()
    assert path.parent == fresh
    path.write_bytes(b"not a library")
    path.with_suffix(".sha256").write_text("0" * 64)
    assert native.load().lanes >= 4
    assert path.stat().st_size > 10_000


@pytest.mark.kernel
def test_two_threads_at_once():
    layers_, x = [layer_for((70, 30, 1)), layer_for((3, 30, 1), 32)], [data(70, 30, 1), data(3, 30, 1)]
    alone = [gradients(m, v, m) for m, v in zip(layers_, x)]
    together = [[], []]

    def run(i):
        for _ in range(3):
            together[i].append(gradients(layers_[i], x[i], layers_[i]))

    threads = [threading.Thread(target=run, args=(i,)) for i in (0, 1)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i in (0, 1):
        for result in together[i]:
            assert_identical(result, alone[i])


@pytest.mark.kernel
def test_two_runs_are_identical():
    layer, x = layer_for((50, 20, 1), 32, 3), data(50, 20, 1)
    runs = [gradients(layer, x, lambda v, k=k: layer(v, training=k)) for k in (False, True, True)]
    for other in runs[1:]:
        assert_identical(runs[0][1:], other[1:])
    np.testing.assert_array_equal(layer(x), layer(x))


def test_buffers_are_reused_and_together_stay_below_their_limit():
    buffers = Buffers(limit=10_000)
    first = buffers.take(1000)
    buffers.give(first)
    assert buffers.take(900) is first  # fits, and is not twice as large
    others = [buffers.take(1000) for _ in range(3)]
    assert first.ctypes.data % 64 == others[0].ctypes.data % 64 == 0
    for buffer in (first, *others):
        buffers.give(buffer)
    assert 1 <= len(buffers._free) and sum(b.nbytes for b in buffers._free) <= 10_000
    assert buffers._taken == 0


@pytest.mark.kernel
def test_kept_states_are_bounded_and_optional():
    kernel = native.load()
    layer, x = layer_for((20, 15, 1)), data(20, 15, 1)
    expected = gradients(layer, x, layer)
    for _ in range(3):
        layer(x, training=True)  # no gradient ever asks for these
    with kernel.kept._lock:
        limit, kernel.kept._limit = kernel.kept._limit, 1
    try:
        assert_identical(gradients(layer, x, lambda v: layer(v, training=True))[1:], expected[1:])
    finally:
        kernel.kept._limit = limit


def lay(folder, **contents):
    """Writes files; "__" in a name stands for "/", "_dot_" for "."."""
    for name, text in contents.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


@pytest.fixture
def linux(monkeypatch, tmp_path):
    """A folder of made-up files in the place of Linux's: 64 cores, 8 GiB available, no group."""
    monkeypatch.delenv("TFKFIN_KEEP_MB", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    for name, file in (("CGROUPS", "groups"), ("GROUPS_OF", "own"), ("MEMINFO", "meminfo")):
        monkeypatch.setattr(machine, name, tmp_path / file)
    lay(tmp_path, meminfo=f"MemTotal: {16 * 2**20} kB\nMemAvailable: {8 * 2**20} kB")
    return tmp_path


GIB = 2**30


def test_without_limits_the_machine_counts(linux):
    assert machine.cores() == 64 and machine.memory() == 8 * GIB and budget() == 4 * GIB
    lay(linux, own="0::/", groups__cpu_dot_max="max 100000", groups__memory_dot_max="max",
        groups__memory_dot_current=5 * GIB)
    assert machine.cores() == 64 and machine.memory() == 8 * GIB


def test_limits_of_control_groups_version_2_and_of_those_above(linux):
    lay(linux, own="0::/pod/box", groups__pod__cpu_dot_max="250000 100000", groups__pod__box__cpu_dot_max="max 100000",
        groups__pod__box__memory_dot_max=6 * GIB, groups__pod__box__memory_dot_current=5 * GIB,
        groups__pod__box__memory_dot_stat=f"anon {GIB}\ninactive_file {2 * GIB}")
    assert machine.cores() == 3
    assert machine.memory() == 3 * GIB  # of what is used, 2 GiB are files kept for rereading
    lay(linux, groups__pod__memory_dot_max=GIB, groups__pod__memory_dot_current=2 * GIB)
    assert machine.memory() == 0


@pytest.mark.parametrize("seen", ["docker/abc", ""])
def test_limits_of_control_groups_version_1(linux, seen):
    """A container sees its own group at the root of the tree, though its path is that of the host."""
    group = f"groups/{{}}/{seen}/".replace("/", "__")
    lay(linux, own="4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n9:name=systemd:/",
        **{group.format("cpu") + "cpu_dot_cfs_quota_us": 50000, group.format("cpu") + "cpu_dot_cfs_period_us": 100000,
           group.format("memory") + "memory_dot_limit_in_bytes": 2 * GIB,
           group.format("memory") + "memory_dot_usage_in_bytes": GIB})
    assert machine.cores() == 1 and machine.memory() == GIB
    lay(linux, **{group.format("cpu") + "cpu_dot_cfs_quota_us": -1})
    assert machine.cores() == 64


def test_elsewhere_than_on_linux(linux, monkeypatch):
    (linux / "meminfo").unlink()
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert machine.cores() == os.cpu_count() and machine.memory() > 0
    monkeypatch.setattr(os, "sysconf_names", {})
    assert machine.memory() == machine.UNKNOWN_MEMORY
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert build.tunings() == (("-mcpu=native",), ("-march=native",), ())


# Buffers of exactly the size asked for, so that nothing beyond is anyone's, and full of NaN, so that what was never
# written shows. TensorFlow stays out: it does not start under the sanitiser.
SANITISED = """
import ctypes, sys
from pathlib import Path
import numpy as np
from tfkfin.nets.bilstm import native

class Exact:
    limit, lib = 2**40, ctypes.CDLL(None)
    def take(self, floats):
        at = ctypes.c_void_p()
        if self.lib.posix_memalign(ctypes.byref(at), ctypes.c_size_t(64), ctypes.c_size_t(4 * floats)):
            raise MemoryError
        buffer = np.frombuffer((ctypes.c_float * floats).from_address(at.value), np.float32)
        buffer[:] = np.nan
        return buffer
    def give(self, buffer):
        self.lib.free(ctypes.c_void_p(buffer.ctypes.data))

kernel = native.Kernel(Path(sys.argv[1]))
kernel.buffers, rng = Exact(), np.random.default_rng(0)
kernel.kept = native.Kept(kernel.buffers)
for layers in (1, 2, 3):
    for n, t, d, u in ((1, 1, 1, 1), (5, 3, 3, 5), (17, 20, 1, 8), (33, 50, 2, 3), (50, 9, 9, 13), (97, 7, 4, 32)):
        for threads in (1, 2, 64):
            for readout in ("both", "reverse"):
                kernel.threads = threads  # another plan: blocks of one to three vectors, or split by direction
                sizes = [s for level in range(layers) for _ in (0, 1)
                         for s in ((2 * u if level else d, 4 * u), (u, 4 * u), (4 * u,))]
                w = [0.3 * rng.standard_normal(s).astype(np.float32) for s in sizes]
                x = rng.standard_normal((n, t, d)).astype(np.float32)
                y, _ = kernel.forward(x, w, readout, False)
                kept, token = kernel.forward(x, w, readout, True)
                found = [y, kept, *kernel.backward(x, w, readout, y, token), *kernel.backward(x, w, readout, y, 0)]
                if not all(np.isfinite(v).all() for v in found) or abs(y - kept).max() > 1e-5:
                    sys.exit(f"not finite, or kept differs: {layers, n, t, d, u, threads, readout}")
print("through", "tensorflow" in sys.modules)
"""


def sanitised(source: Path, folder: Path, tuning: str) -> subprocess.CompletedProcess:
    """Runs shapes through the source, built to report what it does outside its arrays or outside the language."""
    gcc = shutil.which("gcc")
    runtime = gcc and subprocess.check_output([gcc, "-print-file-name=libasan.so"], text=True).strip()
    if not runtime or not os.path.isabs(runtime):
        pytest.skip("no gcc with sanitisers")
    library = folder / "bilstm.so"
    flags = [f for f in build.FLAGS if f != "-O3"] + ["-O1", "-g", "-fsanitize=address,undefined",
                                                      "-fno-sanitize-recover=all", f"-march={tuning}"]
    subprocess.run([gcc, *flags, "-o", str(library), str(source)], check=True)
    environment = os.environ | {"LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0",
                                "PYTHONPATH": str(Path(build.__file__).parents[3])}
    return subprocess.run([sys.executable, "-c", SANITISED, str(library)], capture_output=True, text=True,
                          env=environment, timeout=600)


@pytest.mark.slow
@pytest.mark.kernel
@pytest.mark.parametrize("tuning", ["native", "haswell", "x86-64"])
def test_sanitisers_find_nothing(tmp_path, tuning):
    """In vectors of what this machine has (16 lanes with AVX-512), of 8 lanes and of 4."""
    if tuning != "native" and platform.machine() != "x86_64":
        pytest.skip("x86 only")
    done = sanitised(build.SOURCE, tmp_path, tuning)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "through False" and "runtime error" not in done.stderr


@pytest.mark.slow
@pytest.mark.kernel
@pytest.mark.parametrize("sound, wrong, report", [  # what shows that the test above can fail
    ("memset(small, 0, sizeof(float) * 3 * Up * S);", "memset(small, 0, sizeof(float) * 3 * Up * S + 4);",
     "heap-buffer-overflow"),
    ("o[s * width + u] = ", "o[(s + 1) * width + u] = ", "heap-buffer-overflow"),
    ("return (n + m - 1) / m * m;", "int i = 2147483647; i += (int)m; return (n + m - 1) / m * m + (i == 7);",
     "signed integer overflow"),
])
def test_sanitisers_find_a_planted_error(tmp_path, sound, wrong, report):
    text = build.SOURCE.read_text()
    assert sound in text
    (tmp_path / "bilstm.c").write_text(text.replace(sound, wrong, 1))
    done = sanitised(tmp_path / "bilstm.c", tmp_path, "native")
    assert done.returncode != 0 and report in done.stderr
