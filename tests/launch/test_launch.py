"""Launchers: each does the same, tells the same of what goes wrong, and survives kills of workers and drivers.

Real fits under every launcher: test_same.py. Slurm's are run by `bash .ci/slurm`, which brings a Slurm.
"""

import io
import os
import socket
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import chaos
import pytest
import slurm_here
from rich.console import Console

from tfkfin import launch
from tfkfin.base.errors import InputError
from tfkfin.launch import LaunchContext, LaunchProgress, Task, TaskEvent, last_line
from tfkfin.launch import local as local_launcher
from tfkfin.recipe import Launch

HERE = Path(__file__).parent
MARKS = {"ray": pytest.mark.slow, "slurm": pytest.mark.slurm}
LAUNCHERS = [pytest.param(name, marks=MARKS.get(name, ())) for name in launch.names()]
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")  # of Ray


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    """Workers find toy.py."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A Slurm for those tests that are started where there is one."""
    assert not slurm_here.missing(), slurm_here.missing()
    with slurm_here.slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.fixture
def place(request, monkeypatch):
    """Where a launcher finds what it needs."""
    if request.node.callspec.params["launcher"] == "slurm":
        for name, value in request.getfixturevalue("slurm").items():
            if name in ("SLURM_CONF", "PATH"):
                monkeypatch.setenv(name, value)


HOWS = ("well", "well", "unfit", "broken", "killed once", "killed", "nothing")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_what_goes_wrong_is_told_and_tried_again(launcher, place, tmp_path):
    tasks = [Task(f"a/{i}", "toy:work", {"folder": str(tmp_path), "name": str(i), "how": how})
             for i, how in enumerate(HOWS)]

    def done(task):
        return (tmp_path / task.arguments["name"]).is_file()

    options = Launch(workers=2, retries=1, memory_gb=0.2)
    failed = launch.launch(tasks, done, launcher, options, tmp_path, "toys")
    assert set(failed) == {"a/2", "a/3", "a/5", "a/6"}
    assert failed["a/2"] == "2 is unfit" and failed["a/3"] == "ZeroDivisionError: 3 is broken"
    assert failed["a/5"] and failed["a/6"] == "it ended without a result"
    assert {i: (tmp_path / str(i)).read_text() for i in (0, 1, 4)} == {0: "0", 1: "1", 4: "16"}
    log = LaunchContext(options, tmp_path).log_of
    assert last_line(log(tasks[2])) == "error: 2 is unfit" and last_line(log(tasks[3])) == failed["a/3"]
    assert log(tasks[4]).read_text().count("4 begins") == 2 and last_line(log(tasks[5])) == "5 begins"
    with redirect_stdout(io.StringIO()) as shown:
        launch.report_failures(failed, tasks, tmp_path)
    assert all(text in shown.getvalue() for text in ("a/2", "a/6", "3 is broken"))
    for task in tasks:
        task.arguments["how"] = "well"
    before = {i: (tmp_path / str(i)).stat().st_mtime_ns for i in (0, 1, 4)}
    assert launch.launch(tasks, done, launcher, options, tmp_path, "toys") == {}
    assert all(done(task) for task in tasks)
    assert before == {i: (tmp_path / str(i)).stat().st_mtime_ns for i in (0, 1, 4)}  # what was done is not done again


@pytest.mark.parametrize(("launcher", "kills", "apart"), [  # Ray's are in test_same.py: it takes long to start
    ("local", 20, (0.05, 0.5)), pytest.param("slurm", 10, (0.5, 4), marks=pytest.mark.slurm)])
def test_kills_of_workers_and_drivers_change_nothing(launcher, kills, apart, request, tmp_path):
    environment = request.getfixturevalue("slurm") if launcher == "slurm" else dict(os.environ)
    folder = tmp_path / "run"
    folder.mkdir()
    command = [sys.executable, str(HERE / "toy.py"), launcher, str(folder), "12", "0.3"]
    killed = chaos.end(command, launcher, folder, kills, 5, apart, environment | {"PYTHONPATH": str(HERE)}, 300)
    assert sum(killed) == kills and min(killed) >= 1
    assert (folder / "table").read_text() == "".join(f"{i},{i * i}\n" for i in range(12))


def test_workers_end_with_a_killed_driver(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    driver = subprocess.Popen([sys.executable, str(HERE / "toy.py"), "local", str(folder), "2", "60"],
                              stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(folder.glob("logs/*.log"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    there = chaos.workers("local", driver.pid, folder)
    assert len(there) == 2
    driver.kill()
    driver.wait()
    while any(number in chaos.processes() for number in there):
        assert time.monotonic() < deadline, "workers outlive their driver"
        time.sleep(0.05)


def test_as_many_processes_as_pay(monkeypatch, tmp_path):
    monkeypatch.setattr(local_launcher.machine, "cores", lambda: 8)
    monkeypatch.setattr(local_launcher.machine, "memory", lambda: int(10.5e9))
    monkeypatch.setattr(local_launcher, "_gpus", list)

    def workers(tasks, **options):
        return local_launcher.workers(LaunchContext(Launch(**options), tmp_path), tasks)

    assert workers(100) == 5 and workers(3) == 3  # by memory, by tasks
    assert workers(100, memory_gb=1) == 8 and workers(100, memory_gb=1, threads=4) == 2  # by cores
    assert workers(100, memory_gb=50) == 1 and workers(100, workers=7) == 7
    monkeypatch.setattr(local_launcher, "_gpus", lambda: ["0", "1"])
    assert workers(100) == 2


def test_one_table_tells_how_far_any_launcher_is(tmp_path):
    tasks, context = [Task(f"a/{i}", "toy:work") for i in range(6)], LaunchContext(Launch(), tmp_path)
    (tmp_path / "logs").mkdir()
    for task in tasks[:4]:
        context.log_of(task).touch()
    progress = LaunchProgress("toys", "ray", 10, tasks, context)  # four were done before
    for event in (TaskEvent("a/0", "done"), TaskEvent("a/1", "failed", "why"), None, TaskEvent("a/2", "lost", "how")):
        progress.add(event)
    columns = progress.columns()
    assert columns.pop("left").startswith("about ") and columns == {
        "done": "5 of 10", "running": "2", "waiting": "2", "failed": "1", "lost and started again": "1"}
    drawn = Console(file=io.StringIO(), width=120)
    drawn.print(progress.table())
    assert all(text in drawn.file.getvalue() for text in ("toys, by ray", "5 of 10", *columns))


@pytest.mark.slow
def test_a_ray_cluster_that_is_there(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}  # else a token of whoever runs this decides
    head = subprocess.Popen([str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=2",
                             f"--port={address.partition(':')[2]}", "--include-dashboard=false",
                             "--disable-usage-stats"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            env=environment)
    folder, deadline, code = tmp_path / "run", time.monotonic() + 240, 1
    folder.mkdir()
    try:
        while code and head.poll() is None and time.monotonic() < deadline:  # it takes long to start
            done = subprocess.run([sys.executable, str(HERE / "toy.py"), "ray", str(folder), "3", "0", address],
                                  env=environment, capture_output=True, text=True)
            code = done.returncode
        assert (folder / "table").read_text() == "0,0\n1,1\n2,4\n", done.stderr
        assert head.poll() is None  # it is not the launcher's to end
    finally:
        head.terminate()
        head.wait(60)


def test_slurm_without_slurm_and_extras_that_are_not_there(monkeypatch, tmp_path):
    tasks = [Task("a", "toy:work", {"folder": str(tmp_path), "name": "1"})]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no squeue here"):
        launch.launch(tasks, lambda task: False, "slurm", Launch(), tmp_path, "toys")
    for launcher, module in (("ray", "ray"), ("slurm", "submitit")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(InputError, match=rf"needs the extra \[{launcher}\]"):
            launch.launch(tasks, lambda task: False, launcher, Launch(), tmp_path, "toys")


def test_nothing_to_do_starts_nothing(tmp_path):
    tasks = [Task("a", "toy:work", {})]
    assert launch.launch(tasks, lambda task: True, "local", Launch(), tmp_path / "none", "toys") == {}
    assert not (tmp_path / "none").exists()
