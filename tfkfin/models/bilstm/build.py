"""Compiling `bilstm.c` for the machine it runs on: once, into the user's cache folder (`$TFKFIN_CACHE` moves it)."""

import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tfkfin import files

SOURCE = Path(__file__).with_name("bilstm.c")
FLAGS = ("-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fvisibility=hidden",
         "-shared", "-fPIC")
SUFFIX = ".dylib" if sys.platform == "darwin" else ".so"


class NativeUnavailable(RuntimeError):
    """The kernel cannot be had on this machine; the message says why."""


def compilers() -> list[list[str]]:
    """Commands of the C compilers found, best first."""
    wanted = [shlex.split(os.environ["CC"])] if os.environ.get("CC") else []
    found = [c for c in wanted + [["cc"], ["gcc"], ["clang"]] if shutil.which(c[0])]
    if importlib.util.find_spec("ziglang"):
        found.append([sys.executable, "-m", "ziglang", "cc"])
    return found


def tunings() -> tuple[tuple[str, ...], ...]:
    """Flags for this very processor, best first: Apple's clang knows no `-march=native` on arm64, x86 no `-mcpu`."""
    arm = platform.machine().lower() in ("arm64", "aarch64")
    return ((("-mcpu=native",),) if arm else ()) + (("-march=native",), ())


def _cpu() -> str:
    """What tuning depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    wanted = [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
    return platform.machine() + "".join(sorted(set(wanted)))


def library_path() -> Path:
    """Where this machine's kernel is, or will be."""
    key = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode() + _cpu().encode()).hexdigest()[:16]
    return files.cache("") / f"bilstm-{key}{SUFFIX}"


def _seal(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _intact(path: Path) -> bool:
    """A truncated library can load and crash later, so its digest is checked before it is opened."""
    try:
        return _seal(path).read_text() == hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return False


def _compile(to: Path) -> None:
    """Compiles the source with the first compiler that can, tuned to this processor if any compiler can do that."""
    found, failures = compilers(), {}
    if not found:
        raise NativeUnavailable("no C compiler found ($CC, cc, gcc, clang or the ziglang package)")
    for tuning in tunings():
        for command in found:
            run = subprocess.run([*command, *FLAGS, *tuning, "-o", str(to), str(SOURCE)], capture_output=True,
                                 text=True)
            if run.returncode == 0 and to.exists():
                return
            failures[" ".join(command)] = run.stderr.strip()[-500:]
    raise NativeUnavailable("the C compiler failed: " + "; ".join(f"{c}: {said}" for c, said in failures.items()))


def library() -> Path:
    """This machine's kernel, compiled unless it lies in the cache.

    Raises:
        NativeUnavailable: no compiler, or every one fails.
        OSError: the cache folder cannot be written.
    """
    path = library_path()
    if not _intact(path):
        with files.replacing(path) as partial:
            _compile(partial)
            digest = hashlib.sha256(partial.read_bytes()).hexdigest()
        files.write_text(_seal(path), digest)
    return path
