"""Python in processes of their own, each forked from one that has TensorFlow loaded: importing it takes 4 s of a core.

`Popen` and `run` take what `subprocess`'s own take, for `[sys.executable, "-m" or "-c" or a script, ...]`: folder,
environment, streams, signals and exit codes are as there, and nothing of tfkfin is loaded before. Libraries are: tests
of how Python starts, of what is imported or of variables that libraries read when they are loaded use `subprocess`.
"""

import atexit
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from functools import cache

LOADED = ("tensorflow", "keras", "sklearn.svm", "sklearn.linear_model", "scipy.io", "scipy.signal", "h5py", "requests",
          "matplotlib.pyplot", "pydantic", "rich.progress", "rich.table", "filelock", "jinja2", "tomli_w")


class Popen(subprocess.Popen):
    """A process that is not this one's child: its guard says its number, and how it ended."""

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags,
                       shell, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, *more):
        if args[0] != sys.executable or preexec_fn or shell or pass_fds:
            raise ValueError(f"only {sys.executable}, as it is. Received: {args}")
        self._guard, theirs = socket.socketpair()
        told = {"words": [str(word) for word in args[1:]], "folder": os.fspath(cwd or os.getcwd()),
                "environment": dict(os.environ if env is None else env)}
        streams = [own if own >= 0 else number for number, own in enumerate((p2cread, c2pwrite, errwrite))]
        with theirs:
            socket.send_fds(_forking(os.getpid()), [b"."], [*streams, theirs.fileno()])
        with self._guard.makefile("rw") as lines:
            lines.write(json.dumps(told) + "\n")
            lines.flush()
            self.pid = int(self._line())
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)

    def _line(self) -> str:
        """A line from the guard, and no byte of what comes after it."""
        line = b""
        while not line.endswith(b"\n"):
            if not (part := self._guard.recv(1)):
                raise RuntimeError("the process that forks has ended")
            line += part
        return line.decode()

    def _try_wait(self, flags):
        if flags & os.WNOHANG and not select.select([self._guard], [], [], 0)[0]:
            return 0, 0
        status = int(self._line())
        self._guard.close()
        return self.pid, status

    def _internal_poll(self, **_):
        with self._waitpid_lock:
            if self.returncode is None and (ended := self._try_wait(os.WNOHANG))[0]:
                self._handle_exitstatus(ended[1])
        return self.returncode


def run(words, timeout: float = 300, capture_output: bool = True, text: bool = True, **options):
    """As `subprocess.run`."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} if capture_output else {}
    with Popen(words, text=text, **streams, **options) as process:
        try:
            said = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(words, process.returncode, *said)


@cache
def _forking(process: int) -> socket.socket:
    """Where to ask for processes; ends when this process does."""
    ours, theirs = socket.socketpair()
    with theirs:
        program = subprocess.Popen([sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    @atexit.register
    def end() -> None:
        ours.close()
        program.kill()
        program.wait()

    return ours


def serve(control: socket.socket) -> list[str]:
    """Forks until nobody asks any more; the words of a process, in that process."""
    for name in LOADED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while fds := socket.recv_fds(control, 1, 4)[1]:
        if os.fork():
            for fd in fds:
                os.close(fd)
            continue
        control.close()
        guard = socket.socket(fileno=fds[3])
        told = json.loads(guard.makefile().readline())
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if pid := os.fork():
            for fd in fds[:3]:
                os.close(fd)
            guard.sendall(b"%d\n" % pid)
            guard.sendall(b"%d\n" % os.waitpid(pid, 0)[1])
            os._exit(0)
        guard.close()
        for number, fd in enumerate(fds[:3]):
            os.dup2(fd, number)
            os.close(fd)
        sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
        sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)
        os.chdir(told["folder"])
        os.environ.clear()
        os.environ.update(told["environment"])
        sys.path[0:1] = ["", *filter(None, told["environment"].get("PYTHONPATH", "").split(os.pathsep))]
        return told["words"]
    sys.exit()


if __name__ == "__main__":
    how, *words = serve(socket.socket(fileno=int(sys.argv[1])))
    if how == "-m":
        sys.argv = words
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    elif how == "-c":
        sys.argv = ["-c", *words[1:]]
        exec(words[0], {"__name__": "__main__"})
    else:
        sys.argv, sys.path[0] = [how, *words], os.path.dirname(os.path.abspath(how))
        runpy.run_path(how, run_name="__main__")
