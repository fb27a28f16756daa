"""A process that has loaded what commands load, and forks one a trial: each starts at once, and a fault meets its work.

Takes a line of JSON from stdin for each trial (see `faults.Trial`) and answers with one. Commands run as from a shell:
their own process, folder, signals, stdout and stderr; only TensorFlow's start and end are not seen.
"""

import errno
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "shutil.rmtree")


class Events:
    """Counts what a command does to files below its folder; at the event `at`, `act` is called with the path."""

    def __init__(self, root: str, at: int, act):
        self.root, self.at, self.act, self.count, self.busy = os.path.realpath(root), at, act, 0, False
        self.places: dict[str, int] = {}  # in the code -> the first event there

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.busy or not (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES
                             or event in CHANGES):
            return
        path = arguments[0]
        if not isinstance(path, str | bytes | os.PathLike):
            return
        path = os.path.abspath(os.fsdecode(path))
        if not path.startswith(self.root):
            return
        self.count += 1
        self.places.setdefault(f"{event} {_place(sys._getframe(1))}", self.count)
        if self.act is not None and self.count >= self.at:
            self.busy = True
            try:
                self.act(path, self.count, event)
            finally:
                self.busy = False


def _place(frame) -> str:
    """The innermost lines of the package that led somewhere; not those through which every command goes."""
    lines = []
    while frame and len(lines) < 4:
        name = frame.f_code.co_filename
        if f"{os.sep}tfkfin{os.sep}" in name and not name.endswith(("console.py", "__main__.py")):
            lines.append(f"{name}:{frame.f_lineno}")
        frame = frame.f_back
    return " ".join(lines)


def _act(trial: dict):
    """What happens at the event of a trial."""
    kind, at = trial.get("fault"), trial.get("at", 0)

    def kill(path, count, event):
        if count == at:
            os.kill(os.getpid(), trial["signal"])

    def full(path, count, event):
        if event in ("open", "os.mkdir"):  # what there is can still go
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def vanish(path, count, event):
        if count == at:
            shutil.rmtree(trial["gone"], ignore_errors=True)

    return {"kill": kill, "full": full, "vanish": vanish}.get(kind)


def _limit(trial: dict) -> None:
    if trial.get("fault") == "size":
        resource.setrlimit(resource.RLIMIT_FSIZE, (trial["at"], resource.RLIM_INFINITY))
    elif trial.get("fault") == "files":
        resource.setrlimit(resource.RLIMIT_NOFILE, (trial["at"], trial["at"]))
    elif trial.get("fault") == "clock":
        clock, steps = time.time, iter(trial["steps"])

        def stepping() -> float:
            stepping.off += next(steps, 0)
            return clock() + stepping.off

        stepping.off = 0.0
        time.time, time.time_ns = stepping, lambda: int(1e9 * stepping())


def child(trial: dict, counted: int, said: int) -> None:
    """Runs a command and ends."""
    code = 70
    try:
        os.chdir(trial["folder"])
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(said, 2)
        os.close(silent)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from tfkfin import __main__ as commands

        sys.argv = ["tfkfin", *trial["argv"]]
        events = Events(trial["folder"], trial.get("at", 0), _act(trial))
        sys.addaudithook(events)
        _limit(trial)
        try:
            commands.script()
        except SystemExit as end:
            code = end.code or 0
        except KeyboardInterrupt as error:  # before a command begins and after its end, as Python does
            sys.excepthook(KeyboardInterrupt, error, error.__traceback__)
            code = 130
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        os.write(counted, json.dumps({"events": events.count, "places": events.places}).encode())
    except BaseException:
        traceback.print_exc()
        code = 71
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(trial: dict) -> dict:
    """Forks, kills where a trial says so, waits. Codes below 0 are signals; None: it did not end in its time."""
    began, pids, codes = time.monotonic(), [], {}
    read, write = os.pipe()
    heard, said = os.pipe()  # no file: it may grow whatever files may not
    for descriptor in (read, heard):
        os.set_blocking(descriptor, False)
    words = counts = b""

    def listen(descriptor: int) -> bytes:
        try:
            return os.read(descriptor, 1 << 20)
        except BlockingIOError:
            return b""

    for _ in range(trial.get("times", 1)):
        pid = os.fork()
        if not pid:
            os.close(read)
            child(trial, write, said)
        pids.append(pid)
    os.close(write)
    os.close(said)
    after, limit, waited, last = trial.get("after_s"), trial.get("limit_s", 900), 0.0, began
    while len(codes) < len(pids) and waited < limit:
        now = time.monotonic()
        waited, last = waited + min(now - last, 1.0), now  # where all of this is stopped for a while, it does not count
        for pid in set(pids) - codes.keys():
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
        if after is not None and time.monotonic() - began >= after:
            after = None
            for pid in set(pids) - codes.keys():
                os.kill(pid, trial["signal"])
        words, counts = words + listen(heard), counts + listen(read)
        time.sleep(0.003)
    for pid in set(pids) - codes.keys():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    words, counts = words + listen(heard), counts + listen(read)
    os.close(read)
    os.close(heard)
    return {"said": words.decode("utf-8", "replace"), "codes": [codes.get(pid) for pid in pids],
            "seconds": time.monotonic() - began, **(json.loads(counts) if counts and len(pids) == 1 else {})}


def main() -> None:
    for name in sys.argv[1:]:
        __import__(name)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(run(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
