"""What this process may use of the machine: cores, memory and open files, within the limits that are set to it.

Linux's files are read where they are; elsewhere the system is asked, and where it does not answer a constant stands in.
"""

import errno
import math
import os
from contextlib import suppress
from pathlib import Path, PurePosixPath

from tfkfin.base.errors import InputError

CGROUPS, GROUPS_OF = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
MEMINFO = Path("/proc/meminfo")
UNKNOWN_MEMORY = 2**32
FILES, FEWEST_FILES = 4096, 64  # open at once: asked for, and what every command gets by with
# limit, use, and the part of the use that the system takes back when it is short (files it keeps for rereading)
MEMORY_FILES = (("memory.max", "memory.current", "inactive_file"),
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", errors="replace")
    except OSError:
        return ""


def _number(text: str) -> int | None:
    """The first word as a number; None where it is "max" or missing."""
    words = text.split()
    return int(words[0]) if words and words[0].lstrip("-").isdigit() else None


def _entry(path: Path, key: str) -> int | None:
    """The number after `key` in a file of lines "key number"."""
    found = [line.split(None, 1)[1] for line in _text(path).splitlines() if line.startswith(f"{key} ")]
    return _number(found[0]) if found else None


def _groups(controller: str) -> list[Path]:
    """Folders of this process's groups, versions 1 and 2, with every group above: each may limit it.

    A container may see its own group as the root of the tree while its path names the tree outside, which is missing.
    """
    folders = []
    for line in _text(GROUPS_OF).splitlines():
        _, names, path = line.split(":", 2)
        if not names or controller in names.split(","):
            group = PurePosixPath(path.lstrip("/"))
            folders += [CGROUPS / (controller if names else "") / folder for folder in (group, *group.parents)]
    return folders


_computes: list[int] = []  # the process that computes


def one_process() -> None:
    """Called before networks compute.

    Raises:
        InputError: in a process that was forked from the one that computed before, whose threads it would wait for.
    """
    _computes[:] = _computes or [os.getpid()]
    if _computes != [os.getpid()]:
        raise InputError("this process was forked from one in which networks have computed: it would wait forever for "
                         "their threads. Start it with multiprocessing.get_context(\"spawn\")")


def cores() -> int:
    """Cores that threads of this process can keep busy: those it may run on, no more than its groups' quota.

    OMP_NUM_THREADS, where it is set, asks for fewer.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _groups("cpu"):
        words = _text(group / "cpu.max").split() or [
            word for name in ("quota", "period") for word in _text(group / f"cpu.cfs_{name}_us").split()]
        quota, period = (_number(word) for word in words) if len(words) == 2 else (None, None)
        if quota and period and quota > 0:  # "max" and -1: no limit
            allowed = min(allowed, math.ceil(quota / period))
    return max(min(allowed, _number(os.environ.get("OMP_NUM_THREADS", "")) or allowed), 1)


def _free() -> int:
    """Bytes the machine can give now."""
    kib = _entry(MEMINFO, "MemAvailable:")
    if kib is not None:
        return 1024 * kib
    for pages in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"):
        if pages in getattr(os, "sysconf_names", {}) and os.sysconf(pages) > 0:
            return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    return UNKNOWN_MEMORY


def memory() -> int:
    """Bytes this process can still take: of the machine's and of what its groups' limits leave."""
    free = [_free()]
    for group in _groups("memory"):
        for limit, used, reclaimable in MEMORY_FILES:
            most, now = _number(_text(group / limit)), _number(_text(group / used))
            if most is not None and now is not None:
                free.append(max(0, most - now + (_entry(group / "memory.stat", reclaimable) or 0)))
    return min(free)


def allow_files() -> None:
    """Lets this process open as many files as it may; of too few, libraries end it in the middle, without a word.

    Raises:
        OSError: too few all the same.
    """
    try:
        import resource
    except ModuleNotFoundError:  # no POSIX, no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):  # a sandbox may forbid it: what there is may do
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft != resource.RLIM_INFINITY and soft < FEWEST_FILES:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def afford(needed: float, what: str, remedy: str) -> None:
    """Makes sure, before work starts, that `needed` bytes can be had.

    Raises:
        InputError: they cannot; the message says `what` takes them and ends with `remedy`.
    """
    if needed > (free := memory()):
        raise InputError(f"{what} takes {needed / 1e9:.3g} GB of memory, and {free / 1e9:.3g} GB are free: {remedy}")
