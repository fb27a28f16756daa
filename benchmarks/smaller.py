"""float16 and int8 ONNX files of conv FINs and head beside float32: size, latency, accuracy by person.

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
from tfkfin.export import PRECISIONS, export, fine_tuned  # noqa: E402
from tfkfin.fit.run import Run  # noqa: E402
from tfkfin.models import presets  # noqa: E402
from tfkfin.serving.engines import Exported  # noqa: E402


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
    lost = {precision: [] for precision in PRECISIONS}
    with tempfile.TemporaryDirectory() as made:
        for subject in fine_tuned(args.run)[: 1 if args.quick else None]:
            part = run.dataset.load(subject, run.dataset.part("test"))
            ways = {}
            for precision in PRECISIONS:
                version = export(args.run, subject, Path(made, f"{subject}_{precision}"), "onnx", precision)
                ways[precision] = Exported(version, "onnx")
                if not lost["float32"]:
                    size = (version / presets.ONNX).stat().st_size / 1000
                    report.measured(f"{precision}: model.onnx", size, "kB")
            scores = {precision: accuracy(decode, part, run.length) for precision, decode in ways.items()}
            report.measured(f"S{subject}: float32", scores["float32"], "%")
            for precision, score in scores.items():
                lost[precision].append(scores["float32"] - score)
                if precision != "float32":
                    report.measured(f"S{subject}: lost in {precision}", lost[precision][-1], "points", 2.0)
    window = part.volts(run.length, slice(0, 1))
    for precision in PRECISIONS[1:]:
        report.measured(f"lost in {precision}, mean", float(np.mean(lost[precision])), "points", 0.5)
        pair = (lambda decode=ways[one]: [decode(window) for _ in range(200)] for one in (precision, "float32"))
        report.compare(f"one window, {precision} against float32", *pair, "windows/s",
                       repeats=3 if args.quick else 9, work=(200, 200))
    report.show()


if __name__ == "__main__":
    main()
