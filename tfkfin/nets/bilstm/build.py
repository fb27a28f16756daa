"""Compiling `bilstm.c` for the machine it runs on: once, into the user's cache folder (`$TFKFIN_CACHE` moves it).

The cache belongs to its user: a folder or a library that somebody else could have written is not used. What a compiler
makes is tried in a process of its own before it is kept.
"""

import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

from tfkfin.base import files
from tfkfin.base.errors import InputError

SOURCE = Path(__file__).with_name("bilstm.c")
FLAGS = ("-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fvisibility=hidden",
         "-shared", "-fPIC")
LONGEST_S = 120.0  # of a compiler
TRIAL = "tfkfin.nets.bilstm.trial"  # what a library has to pass
SUFFIX = ".dylib" if sys.platform == "darwin" else ".so"


class NativeUnavailable(RuntimeError):
    """The kernel cannot be had on this machine; the message says why."""


def compilers() -> list[list[str]]:
    """Commands of the C compilers found, best first."""
    try:
        wanted = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise NativeUnavailable(f"$CC is no command: {error}") from None
    found = [c for c in [wanted, ["cc"], ["gcc"], ["clang"]] if c and shutil.which(c[0])]
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
        return (_is_own(path) and _is_own(_seal(path))
                and _seal(path).read_text() == hashlib.sha256(path.read_bytes()).hexdigest())
    except OSError:
        return False


def _secure(folder: Path) -> None:
    """Makes the cache folder, and sure that nobody but this user can put a library there.

    Raises:
        NativeUnavailable: somebody can.
    """
    if not hasattr(os, "geteuid"):  # Windows keeps a user's folders by other means
        folder.mkdir(parents=True, exist_ok=True)
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid == os.geteuid() and folder.stat().st_mode & 0o022:
        folder.chmod(folder.stat().st_mode & ~0o022)
    folder = folder.resolve()
    for each in (folder, *folder.parents):
        status, own = each.stat(), (os.geteuid(),) if each == folder else (os.geteuid(), 0)
        others = status.st_mode & 0o002 and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in own or others or each == folder and status.st_mode & 0o022:
            raise NativeUnavailable(f"{each} belongs to, or can be written by, other users: name a folder of your own "
                                    "with TFKFIN_CACHE")


def _is_own(path: Path) -> bool:
    """Whether a file is a plain one of this user's that others cannot write."""
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and (not hasattr(os, "geteuid") or (
        status.st_uid == os.geteuid() and not status.st_mode & 0o022))


def _run(command: list[str]) -> subprocess.CompletedProcess:
    """Runs a compiler, or what it made; whatever takes too long is killed with all that it has started.

    Raises:
        NativeUnavailable: it did.
    """
    own = {"start_new_session": True} if hasattr(os, "killpg") else {}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", **own) as process:
        try:
            output, _ = process.communicate(timeout=LONGEST_S)
        except BaseException as error:
            if own:
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise NativeUnavailable(f"{command[0]} takes longer than {LONGEST_S:g} s") from None
            raise
    return subprocess.CompletedProcess(command, process.returncode, output)


def _compile(to: Path) -> None:
    """Compiles the source with the first compiler that can, tuned to this processor if any compiler can do that."""
    found, failures = compilers(), {}
    if not found:
        raise NativeUnavailable("no C compiler found ($CC, cc, gcc, clang or the ziglang package)")
    for tuning in tunings():
        for command in found:
            try:
                run = _run([*command, *FLAGS, *tuning, "-o", str(to), str(SOURCE)])
                if run.returncode == 0 and to.stat().st_size:
                    run = _run([sys.executable, "-m", TRIAL, str(to)])
                    if run.returncode == 0:
                        return
                output = run.stdout.strip()[-500:] or f"exit code {run.returncode}"
            except (OSError, NativeUnavailable) as error:
                output = str(error)
            failures[" ".join(command)] = output
    raise NativeUnavailable("the C compiler failed: " + "; ".join(f"{c}: {output}" for c, output in failures.items()))


def library() -> Path:
    """This machine's kernel, compiled unless it lies in the cache.

    Raises:
        NativeUnavailable: no compiler, or every one fails.
        OSError: the cache folder cannot be written.
    """
    try:
        path = library_path()
    except InputError as error:  # a user without a home
        raise NativeUnavailable(str(error)) from None
    _secure(path.parent)
    if not _intact(path):
        for left in (path, _seal(path)):  # whosever they are, they are not written through
            files.sweep(left)
            left.unlink(missing_ok=True)
        with files.replacing(path) as partial:
            _compile(partial)
            digest = hashlib.sha256(partial.read_bytes()).hexdigest()
        files.write_text(_seal(path), digest)
    return path
