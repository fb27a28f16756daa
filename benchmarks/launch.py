"""Launchers: what a task costs, two workers against one process on both cores, the books of 15,000 fits.

    python benchmarks/launch.py [--json FILE] [--quick] [--keep DIR] [--part books|overheads|best|classifier]

Ray wants its extra; Slurm wants root and Debian's slurmctld, slurmd, slurm-client and munge, and is started here.
What is not there is said, and not measured.
"""

import contextlib
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from common import HERE, Report, alone, parser, recordings

TOYS = HERE.parent / "tests" / "launch"
sys.path.insert(0, str(TOYS))
SPLIT = ("--set", "split.train_repetitions=1,3,4,6", "--set", "split.test_repetitions=2,5")
FITS = {"best": ("--stage", "finetune", "--pipeline", str(HERE.parent / "pipelines" / "best.toml"), *SPLIT),
        "classifier": (  # the paper's, 5 epochs of windows every 50 ms
            "--stage", "classify", *SPLIT, "--set", "window.stride_ms=50", "--set", "classify.epochs=5")}
WORKERS = 2  # as toy.py asks for


def command(*given: str, **environment: str) -> float:
    """Seconds of a command that ends well."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *given], capture_output=True, text=True, cwd=HERE.parent,
                          env=os.environ | environment | {"PYTHONPATH": f"{HERE.parent}{os.pathsep}{TOYS}"})
    if done.returncode:
        raise RuntimeError(f"{given}: {done.stderr[-2000:]}")
    return time.perf_counter() - began


def toys(launcher: str, count: int, environment: dict[str, str]) -> float:
    """Seconds of so many tasks of no work by two workers."""
    with tempfile.TemporaryDirectory() as folder:
        return command(str(TOYS / "toy.py"), launcher, folder, str(count), "0", **environment)


@contextlib.contextmanager
def place(launcher: str) -> Iterator[dict[str, str] | None]:
    """The environment in which a launcher finds what it needs; None where it is not there."""
    import slurm_here

    if launcher == "slurm" and not slurm_here.missing():
        with tempfile.TemporaryDirectory() as folder, slurm_here.slurm(Path(folder)) as found:
            yield {name: found[name] for name in ("SLURM_CONF", "PATH")}
    else:
        yield {} if launcher == "local" or launcher == "ray" and importlib.util.find_spec("ray") else None


def overheads(report: Report, quick: bool) -> None:
    """What a worker spends on a task of no work: the time of many less that of few, times the workers."""
    repeats, spent = 1 if quick else 3, {}
    for launcher, many in (("local", 1000), ("ray", 400), ("slurm", 24)):
        with place(launcher) as environment:
            if environment is None:
                report.console.log(f"no {launcher} here: not measured")
                continue
            many = many // 4 if quick else many
            pairs = [(toys(launcher, WORKERS, environment), toys(launcher, WORKERS + many, environment))
                     for _ in range(repeats)]
        spent[launcher] = statistics.median(WORKERS * (late - early) / many for early, late in pairs)
        report.measured(f"{launcher}: {WORKERS} tasks of no work by {WORKERS} workers, from start to end",
                        statistics.median(early for early, _ in pairs), "s")
        report.measured(f"{launcher}: a worker's time for each further task of no work", 1000 * spent[launcher], "ms")
        report.measured(f"{launcher}: the same, of a task of 60 s", 100 * spent[launcher] / 60, "%")
    imported = statistics.median(command("-c", "import tensorflow") for _ in range(repeats))
    report.measured("import of TensorFlow: once a worker, with Slurm once a job", imported, "s")
    if "slurm" in spent:
        report.measured("slurm: a task and its own import, of a task of 60 s", 100 * (spent["slurm"] + imported) / 60,
                        "%")


def two_workers(report: Report, folder: Path, name: str, people: int, repeats: int) -> None:
    """The same people by one process that uses both cores, and by two workers of one thread each, in turn."""

    def fits(*more: str) -> None:
        with tempfile.TemporaryDirectory() as made:
            command("-m", "tfkfin.train", *FITS[name], "--data", str(folder), "--run", made, *more)

    report.compare(f"{people} people, {name}: two workers against one process on both cores",
                   lambda: fits("--launcher", "local", "--set", "launch.workers=2"), fits, "people/min",
                   repeats=repeats, work=(60 * people, 60 * people))


def books(report: Report, subjects: int) -> None:
    """A plan of `subjects` × 5 × 3: opened, made into tasks, and what all came to added up."""
    with tempfile.TemporaryDirectory() as made:
        from tfkfin.recordings.synthetic import synthesize

        real, folder = Path(made, "real"), Path(made, "many")
        synthesize(real, range(1, 5), movements=2, repetitions=5, channels=2, hold_s=0.4, rest_s=0.2)
        files = sorted(real.rglob("*.mat"))
        for subject in range(1, subjects + 1):
            link = folder / f"DB2_s{subject}" / f"S{subject}_E1_A1.mat"
            link.parent.mkdir(parents=True)
            link.symlink_to(files[subject % len(files)])
        found = alone("books", folder, Path(made, "run"))
    name = f"{subjects:,} people × 5 folds × 3 seeds"
    report.measured(f"{name}: labels of all recordings read, content known by its digest", found["open_s"], "s")
    report.measured(f"{name}: planned and accounted for", found["books_s"], "s", 5)
    report.measured(f"{name}: peak memory", found["peak_mb"], "MB", 500)


def main(argv: list[str] | None = None) -> None:
    p = parser(__doc__.splitlines()[0])
    p.add_argument("--part", choices=("books", "overheads", *FITS), help="only this; other figures of FILE stay")
    args = p.parse_args(argv)
    report = Report("Launchers", ("tensorflow", "keras", "numpy", "ray", "submitit"), args.json, bool(args.part))
    if args.part in (None, "books"):
        books(report, 50 if args.quick else 1000)
    if args.part in (None, "overheads"):
        overheads(report, args.quick)
    people, size = (2, {"movements": 4, "hold_s": 2.0, "rest_s": 1.0}) if args.quick else (4, {})
    for name in FITS:
        if args.part in (None, name):
            with recordings(people, None if args.quick else args.keep, **size) as folder:
                two_workers(report, folder, name, people, 1 if args.quick else 2)
    report.show()


if __name__ == "__main__":
    main()
