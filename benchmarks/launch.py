"""Launchers: what a task costs, two workers against one process on both cores, the books of 15,000 fits.

    python benchmarks/launch.py [--json FILE] [--quick] [--keep DIR]

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

from common import HERE, Report, alone, arguments, recordings

TOYS = HERE.parent / "tests" / "launch"
sys.path.insert(0, str(TOYS))
BEST = ("--stage", "finetune", "--pipeline", str(HERE.parent / "pipelines" / "best.toml"), "--set",
        "split.train_repetitions=1,3,4,6", "--set", "split.test_repetitions=2,5")


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
    for launcher, many in (("local", 400), ("ray", 400), ("slurm", 24)):
        with place(launcher) as environment:
            if environment is None:
                report.console.log(f"no {launcher} here: not measured")
                continue
            few, many = 2, many // 4 if quick else many
            pairs = [(toys(launcher, few, environment), toys(launcher, few + many, environment))
                     for _ in range(1 if quick else 3)]
        task = statistics.median((late - early) / many for early, late in pairs)
        report.measured(f"{launcher}: {few} tasks of no work, from start to end", statistics.median(
            early for early, _ in pairs), "s")
        report.measured(f"{launcher}: each further task of no work", 1000 * task, "ms")
        report.measured(f"{launcher}: the same, of a task of 60 s", 100 * task / 60, "%")
    seconds = statistics.median(command("-c", "import tensorflow") for _ in range(1 if quick else 3))
    report.measured("import of TensorFlow: once a worker, with Slurm once a job", seconds, "s")


def two_workers(report: Report, folder: Path, people: int, repeats: int) -> None:
    """The same people by one process that uses both cores, and by two workers of one thread each, in turn."""

    def fits(*more: str) -> None:
        with tempfile.TemporaryDirectory() as made:
            command("-m", "tfkfin.train", *BEST, "--data", str(folder), "--run", made, *more)

    report.compare(f"{people} people, best: two workers against one process on both cores",
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
    args = arguments(__doc__.splitlines()[0], argv)
    report = Report("Launchers", ("tensorflow", "keras", "numpy", "ray", "submitit"), args.json)
    books(report, 50 if args.quick else 1000)
    overheads(report, args.quick)
    people, size = (2, {"movements": 4, "hold_s": 2.0, "rest_s": 1.0}) if args.quick else (4, {})
    with recordings(people, None if args.quick else args.keep, **size) as folder:
        two_workers(report, folder, people, 1 if args.quick else 3)
    report.show()


if __name__ == "__main__":
    main()
