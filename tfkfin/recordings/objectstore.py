"""A root on `s3://` or `az://`, through tensorflow-io's file systems, in a process of its own.

Of its own because a process that has used tensorflow-io's S3 aborts as it ends ("pure virtual method called", seen with
0.37.1): this one is left by `os._exit` with all its work done, and who asked for it never loads the plugin.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tfkfin.base.console import InputError

_BLOCK = 8 << 20  # bytes a request
_HINT = {"s3": "S3_ENDPOINT, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY",
         "az": "TF_AZURE_STORAGE_KEY, or TF_AZURE_USE_DEV_STORAGE=1"}


def listing(url: str) -> dict[str, tuple[int, str]]:
    """Relative name -> size and stamp of every object below `url`.

    Raises:
        InputError: the store cannot be reached, or lets us see nothing there.
    """
    found = {name: (size, stamp) for name, size, stamp in _child(url, {"list": url})}
    if not found:
        raise InputError(f"{url} holds no file that can be seen: check the name, and {_HINT[url.partition(':')[0]]}")
    return found


def fetch(url: str, targets: dict[str, Path]) -> Iterator[str]:
    """Copies objects into files, one after another, and gives each name when its file is there."""
    yield from _child(url, {"copy": [(name, f"{url}/{name}", str(target)) for name, target in targets.items()]})


def _child(url: str, request: dict) -> Iterator:
    """Answers of the process, line by line."""
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=told, encoding="utf-8")
        ended = False
        try:
            process.stdin.write(json.dumps(request))
            process.stdin.close()
            for line in process.stdout:
                answer = json.loads(line)
                if isinstance(answer, dict):
                    ended = answer.get("end", False)
                    if not ended:
                        raise InputError(f"{url}: {answer['error']}: check {_HINT[url.partition(':')[0]]}")
                else:
                    yield answer
            if not ended:
                process.wait()
                told.seek(0)
                last = told.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise InputError(f"{url}: tensorflow-io stopped with code {process.returncode}: {last[:300]}")
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def _listed(url: str) -> Iterator[tuple[str, int, str]]:
    import tensorflow as tf

    for folder, _, names in tf.io.gfile.walk(url):
        for name in names:
            address = f"{folder.rstrip('/')}/{name}"
            stat = tf.io.gfile.stat(address)
            yield address[len(url) + 1:], stat.length, str(stat.mtime_nsec)


def _copied(copies: list) -> Iterator[str]:
    import tensorflow as tf

    for name, address, target in copies:
        with tf.io.gfile.GFile(address, "rb") as source, open(target, "wb") as file:
            while block := source.read(_BLOCK):
                file.write(block)
        yield name


def _answer() -> None:
    """The process: one request on stdin, answers on stdout."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    request = json.loads(sys.stdin.read())
    try:
        import tensorflow_io  # noqa: F401  its file systems register themselves

        for answer in _listed(request["list"]) if "list" in request else _copied(request["copy"]):
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
        last = {"end": True}
    except Exception as error:  # tensorflow-io raises anything; the parent makes one line of it
        last = {"error": " ".join(str(error).split())[:300] or type(error).__name__}
    sys.stdout.write(json.dumps(last) + "\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    _answer()
