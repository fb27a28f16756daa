"""float16, int8 ONNX and LiteRT files of conv FINs and head beside float32: size, latency, accuracy by person.

    python benchmarks/smaller.py RUN [--json FILE] [--quick]

RUN is a finished run on recordings, such as

    python -m tfkfin.train --stage finetune --data DIR --run RUN --set fin.family=conv --set imitate.epochs=0 \
        --set split.train_repetitions=1,3 --set split.test_repetitions=2
"""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
from common import Report, parser  # noqa: E402

from tfkfin import recipe  # noqa: E402
from tfkfin.export import export, fine_tuned  # noqa: E402
from tfkfin.fit.run import Run  # noqa: E402
from tfkfin.serving.engines import Exported  # noqa: E402
from tfkfin.store import folders  # noqa: E402

EXACT, *_ = WAYS = ("onnx float32", "onnx float16", "onnx int8", "litert float32")


def accuracy(decode: Exported, part, length: int) -> float:
    """% of a subject's test windows, each for itself."""
    parts = np.array_split(np.arange(len(part.windows)), max(1, len(part.windows) // 64))
    labels = np.concatenate([decode(part.volts(length, chosen))["label"] for chosen in parts])
    return 100 * float(np.mean(labels == part.windows.movements))


def main(argv: list[str] | None = None) -> None:
    p = parser(__doc__.splitlines()[0])
    p.add_argument("run", type=Path, metavar="RUN", help="a finished run on recordings")
    args = p.parse_args(argv)
    run = Run(args.run, recipe.load(args.run / "recipe.toml", {}))
    report = Report(f"Smaller files: {args.run.name}", ("onnx", "onnxruntime", "numpy"), args.json)
    lost = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as made:
        for subject in fine_tuned(args.run)[: 1 if args.quick else None]:
            part = run.dataset.load(subject, run.dataset.part("test"))
            ways = {}
            for way in WAYS:
                version = export(args.run, subject, Path(made, f"{subject} {way}"), *way.split())
                ways[way] = Exported(version, way.split()[0])
                if not lost[EXACT]:
                    file = version / {"onnx": folders.ONNX, "litert": folders.LITERT}[way.split()[0]]
                    report.measured(f"{way}: size", file.stat().st_size / 1000, "kB")
            scores = {way: accuracy(decode, part, run.length) for way, decode in ways.items()}
            report.measured(f"S{subject}: {EXACT}", scores[EXACT], "%")
            for way, score in scores.items():
                lost[way].append(scores[EXACT] - score)
                if way != EXACT:
                    report.measured(f"S{subject}: lost in {way}", lost[way][-1], "points", 2.0)
    window = part.volts(run.length, slice(0, 1))
    for way in WAYS[1:]:
        report.measured(f"lost in {way}, mean", float(np.mean(lost[way])), "points", 0.5)
        pair = (lambda decode=ways[one]: [decode(window) for _ in range(200)] for one in (way, EXACT))
        report.compare(f"one window, {way} against {EXACT}", *pair, "windows/s",
                       repeats=3 if args.quick else 9, work=(200, 200))
    report.show()


if __name__ == "__main__":
    main()
