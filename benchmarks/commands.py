"""Whole commands as users give them: how long until training begins, the demo, `best` on full-size subjects.

    python benchmarks/commands.py [--json FILE] [--quick] [--keep DIR]

Each runs in a process of its own, imports included. Full-size synthetic DB2 subjects: 32,240 training and 15,767 test
windows, 300 ms every 10 ms. Subjects 11 to 40 are links to the first ten.
"""

import tempfile
import time
from pathlib import Path

from common import HERE, Report, alone, arguments, recordings


def command(report: Report, name: str, limit: float | None, *given: str) -> dict:
    """One command of tfkfin.train: its time, and where a stage's time went; its peak memory is returned."""
    with tempfile.TemporaryDirectory() as made:
        began = time.perf_counter()
        answer = alone("command", *given, "--run", made)
        report.measured(name, time.perf_counter() - began, "s", limit)
    return answer


def main(argv: list[str] | None = None) -> None:
    args = arguments(__doc__.splitlines()[0], argv)
    report = Report("Whole commands", ("tensorflow", "keras", "numpy", "scikit-learn"), args.json)
    spent = [alone("first_step", time.time())["seconds"] for _ in range(1 if args.quick else 3)]
    report.measured("from the command to the first training step, demo", sorted(spent)[len(spent) // 2], "s", 6)
    command(report, "the demo, imitate to finetune", 60, "--stage", "finetune", "--pipeline", "pipelines/demo.toml")
    best = ("--stage", "finetune", "--pipeline", str(HERE.parent / "pipelines" / "best.toml"), "--set",
            "window.stride_ms=10", "--set", "split.train_repetitions=1,3,4,6", "--set", "split.test_repetitions=2,5")
    with recordings(4 if args.quick else 40, args.keep) as folder:
        on = (*best, "--data", str(Path(folder)))
        command(report, "best, one subject", 15, *on, "--subjects", "1")
        if args.quick:
            return report.show()
        few = command(report, "best, 4 subjects", None, *on, "--subjects", "1-4")["peak_mb"]
        many = command(report, "best, 40 subjects", 480, *on, "--subjects", "1-40")["peak_mb"]
        report.measured("peak memory, 4 subjects", few, "MB")
        report.measured("peak memory, 40 subjects", many, "MB", 1.1 * few)
    report.show()


if __name__ == "__main__":
    main()
