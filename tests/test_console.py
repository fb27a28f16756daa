"""Whatever ends a command: one line with file and remedy, an exit code, nothing half done, no orders to a terminal."""

import errno
import io
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import pytest

from tfkfin.base import console, files
from tfkfin.base.errors import InputError


def ended(main, *argv) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command line in this process."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err, \
            pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as code:
        for changed in ("handlers", "propagate", "level"):
            patch.setattr(console.log, changed, getattr(console.log, changed))
        console.run(main, list(argv))
    return code.value.code, out.getvalue(), err.getvalue()


def raising(error):
    def main(argv):
        raise error
    return main


class ResourceExhaustedError(Exception):
    """As TensorFlow's."""


HDF5 = ("[Errno 28] Unable to synchronously create file (unable to open file: name = '/full/S1.h5', errno = 28, "
        "error message = 'No space left on device')")
ENDS = {
    "full disk": (OSError(errno.ENOSPC, "No space left on device", "/full/a"), 2, "/full/a: No space left.*make room"),
    "full disk, HDF5": (RuntimeError(HDF5), 2, "/full/S1.h5: No space left.*make room"),
    "full disk, TensorFlow": (RuntimeError("FAILED_PRECONDITION: /full/ckpt; No space left on device"), 2,
                              "/full/ckpt; No space left on device: make room"),
    "read-only": (PermissionError(errno.EROFS, "Read-only file system", "/ro/a"), 2, "/ro/a: Read-only.*you may write"),
    "no right": (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "/x: Permission denied: choose a folder"),
    "vanished": (FileNotFoundError(errno.ENOENT, "No such file", "/gone"), 2, "/gone: No such file.*once more"),
    "open files": (OSError(errno.EMFILE, "Too many open files", "/a"), 2, "ulimit -n"),
    "open files, C++": (RuntimeError("random_device::random_device(const std::string&): device not available"), 2,
                        "random_device.*ulimit -n"),
    "vanished, TensorFlow": (RuntimeError("INVALID_ARGUMENT: FileNotFoundError: [Errno 2] No such file or directory: "
                                          "'/gone/S1.mat' Traceback ... passed to ParallelMapDatasetV2"), 2,
                             "^error: /gone/S1.mat: No such file or directory: something removed it"),
    "file size": (OSError(errno.EFBIG, "File too large"), 2, "File too large: let files grow"),
    "no words": (OSError("odd"), 2, "odd"),
    "memory": (MemoryError(), 2, "more memory than there is"),
    "memory, TensorFlow": (ResourceExhaustedError("OOM when allocating tensor"), 2, "more memory than there is"),
    "depth": (RecursionError(), 2, "nested too deep"),
    "input": (InputError("two\nlines"), 2, "^error: two lines$"),
    "foreign": (KeyError("accuracy"), 1, "unforeseen KeyError: 'accuracy' .test_console.py, line .*TRACEBACK"),
    "interrupt": (KeyboardInterrupt(), 130, "^interrupted: the same command resumes"),
    "steering": (InputError("no \x1b]0;title\x07 \x9b31m \u202eecno"), 2, r"^error: no \?\]0;title\? \?31m \?ecno$"),
}


@pytest.mark.parametrize("case", ENDS)
def test_one_line_and_an_exit_code(case):
    error, code, said = ENDS[case]
    found, _, told = ended(raising(error))
    assert (found, told.count("\n")) == (code, 1), told
    assert __import__("re").search(said, told.strip()) and "Traceback" not in told


def test_not_even_a_pipe_to_hear_of_signals(monkeypatch):
    def full():
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pipe", full)
    code, _, told = ended(lambda argv: None)
    assert (code, told.count("\n")) == (2, 1) and "ulimit -n" in told


@pytest.mark.parametrize("limits, code", [("-n 30", 2), ("-Sn 30", 0)])
def test_commands_may_open_as_many_files_as_the_system_lets_them_and_refuse_to_begin_with_too_few(limits, code):
    """TensorFlow's libraries end a process that can open none."""
    words = f"ulimit {limits}; exec {sys.executable} -m tfkfin --version"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert done.stderr == "error: Too many open files: allow more open files (ulimit -n 4096)\n" * (code == 2)


@pytest.mark.parametrize("soft, code", [(256, 0), (30, 2)])
def test_a_sandbox_that_lets_nobody_change_limits_is_no_error_where_they_do(soft, code, monkeypatch):
    def forbidden(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (soft, 4096))
    monkeypatch.setattr(resource, "setrlimit", forbidden)
    assert ended(lambda argv: None)[0] == code


def test_a_traceback_for_who_asks(monkeypatch):
    monkeypatch.setenv("TFKFIN_TRACEBACK", "1")
    assert "Traceback" in ended(raising(KeyError("a")))[2]


def test_a_terminal_gets_no_orders_from_outside(capsys):
    name = "a\x1b[2Jb\x9bc\x07.mat"

    def main(argv):
        from rich.table import Table

        console.log.warning("warning: %s", name)
        table = Table("name", title=name)
        table.add_row(name)
        console.terminal(width=60).print(table, f"[bold]{name}[/bold]")

    _, out, err = ended(main)
    assert not {"\x1b", "\x9b", "\x07"} & set(out + err) and out.count("a?[2Jb?c?.mat") == 3 and name[0] in err


def test_a_terminal_that_knows_ascii_alone_gets_its_table(tmp_path):
    code = ("from tfkfin.base import console\n"
            "def main(argv):\n    from rich.table import Table\n    table = Table('R²', title='mean ± sd')\n"
            "    table.add_row('0.9 ± 0.1')\n    console.terminal().print(table)\n    console.log.info('é')\n"
            "console.run(main)")
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONIOENCODING": "ascii"}, text=True,
                          capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "?\n") and "0.9 ? 0.1" in done.stdout


def test_output_that_cannot_be_written_is_no_success():
    code = "from tfkfin.base import console; console.run(lambda argv: print('scores'))"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
                              env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"})
    assert done.returncode == 2 and "No space left" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("number", "code", "said"), [
    (signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted"),
    (signal.SIGHUP, 143, "terminated")])
def test_a_signal_ends_it_tidily(number, code, said, tmp_path):
    program = ("import sys, time\nfrom pathlib import Path\nfrom tfkfin.base import console, files\n"
               "def main(argv):\n    with files.replacing(Path(argv[0])) as partial:\n"
               "        sys.stdout.write('ready\\n'); sys.stdout.flush(); time.sleep(30)\n"
               "console.run(main)")
    process = subprocess.Popen([sys.executable, "-c", program, tmp_path / "a.json"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(number, signal.default_int_handler
                                                                if number == signal.SIGINT else signal.SIG_DFL))
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, told = process.communicate(timeout=20)
    assert process.returncode == code and told.startswith(said) and told.count("\n") == 1
    assert not [*tmp_path.iterdir()]


def test_an_interrupt_while_it_still_loads_is_one_line(tmp_path):
    (tmp_path / "pydantic.py").write_text("import sys, time\nsys.stdout.write('ready\\n')\nsys.stdout.flush()\n"
                                          "time.sleep(30)\n")
    where = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    process = subprocess.Popen([sys.executable, "-m", "tfkfin.train"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, env=os.environ | where)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)
    assert told == "interrupted: nothing has been done yet\n" and process.returncode != 0


@contextmanager
def files_no_larger_than(size: int):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_may_not_grow_is_named_and_nothing_is_left(tmp_path):
    with files_no_larger_than(4096), pytest.raises(OSError, match="too large") as told:
        files.write_json(tmp_path / "a.json", {"a": "x" * 10_000})
    assert told.value.filename == str(tmp_path / "a.json") and not [*tmp_path.iterdir()]


def test_weights_on_a_full_disk_are_an_error_and_no_crash(tmp_path):
    """HDF5's own writing would end in a segmentation fault here."""
    import keras

    from tfkfin.nets import saving

    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
    path = tmp_path / "a.weights.h5"
    for limit in (1024, 8192):
        with files_no_larger_than(limit), pytest.raises(OSError, match="too large") as told:
            saving.save_weights(model, path)
        assert told.value.filename == str(path) and not [*tmp_path.iterdir()]
    saving.save_weights(model, path)
    other = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
    saving.load_weights(other, path, "")
    assert (other.get_weights()[0] == model.get_weights()[0]).all()
    for content in (b"", b"x" * 100, path.read_bytes()[:5000]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="a.weights.h5 is damaged.*: do this$"):
            saving.load_weights(other, path, "do this")


def test_a_link_in_the_place_of_what_is_written_is_not_followed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    files.partial_of(tmp_path / "a.json").symlink_to(tmp_path / "mine")
    files.write_json(tmp_path / "a.json", {})
    assert (tmp_path / "mine").read_text() == "mine" and not (tmp_path / "a.json").is_symlink()


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b"[" * 100_000, b'{"a": ' * 50_000, b"1" * 5000, b"{"])
def test_damaged_tables_are_named(content, tmp_path):
    for name, read in (("a.json", files.read_json), ("a.toml", files.read_toml)):
        if name == "a.toml" and content in (b"", b"[1]"):
            continue  # TOML
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            read(tmp_path / name)


def test_nothing_is_looked_for_behind_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "a.toml")
    began = time.monotonic()
    with pytest.raises(InputError, match="is a pipe, not a file"):
        files.read_toml(tmp_path / "a.toml")
    with pytest.raises(InputError, match="is a pipe, not a file"):
        files.read_json(tmp_path / "a.toml")
    assert files.read_json(tmp_path / "b.json") is None and time.monotonic() - began < 1


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "1e400", "0"])
def test_numbers_have_bounds(text, capsys):
    import argparse

    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=console.numeric(float, 0.001, 10))
    with pytest.raises(SystemExit) as code:
        parser.parse_args(["--n", text])
    assert code.value.code == 2 and "is not from 0.001 to 10" in capsys.readouterr().err


def test_logging_is_left_as_it_was():
    assert logging.getLogger("tfkfin") is console.log and json.dumps(console.shown("a\nb\tc é ✓")) == json.dumps(
        "a\nb\tc é ✓")


@pytest.mark.parametrize("line", [
    "train --stage classify --run s3://bucket/run", "tune --run gs://bucket/run", "experiments ladder --run S3://b/run",
    "export az://account/container/run", "export runs/one --to s3://bucket/model",
    "calibrate M --data D --to abfs://c@a/model", "data download db2 --to https://host/folder"])
def test_what_is_kept_is_kept_on_a_disk(line, tmp_path, monkeypatch):
    """Object stores have neither locks nor rename in one step."""
    from tfkfin.__main__ import main

    monkeypatch.chdir(tmp_path)
    code, out, err = ended(main, *line.split())
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and not out
    assert "is on no disk" in err and "copy them afterwards" in err and not list(tmp_path.iterdir())
