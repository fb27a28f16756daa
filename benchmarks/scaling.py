"""Cost against size: windows, channels, subjects, hidden size. How fast it grows, and a plot.

    python benchmarks/scaling.py [--json FILE] [--plot FILE.png] [--quick] [--keep DIR]

A curve's sizes are timed in turn, over and over, and each size's median is kept. The exponent is the slope of log
seconds against log size (1: twice the size, twice the time); fixed costs push it below 1. A Bi-LSTM's arithmetic grows
with its weights, about the square of its units, so the curve of hidden sizes is held against the weights. The Bi-LSTM
kernel works on 16 sequences (windows x channels) at once where AVX-512 is to be had, so fewer cost as much as 16.
"""

import os
import statistics
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from alone import NAMES, opened  # noqa: E402
from common import Report, parser, recordings, seconds  # noqa: E402

from tfkfin.features.catalogue import extract  # noqa: E402
from tfkfin.nets import fins as fin
from tfkfin.nets.bilstm import layer as recurrent  # noqa: E402
from tfkfin.pipeline import batches  # noqa: E402

LENGTH, STRIDE = 600, 20
STEEPEST = 1.15  # the exponent that still counts as near-linear


def curve(sizes: list[int], work: Callable[[int], Callable], repeats: int) -> list[float]:
    """Median seconds of `work(size)()` for every size, all sizes in turn."""
    calls = [work(size) for size in sizes]
    for call in calls:
        call()
    times = [[seconds(call) for call in calls] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def exponent(sizes: list[float], times: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def features_of(windows: int = 16384, channels: int = 12) -> Callable:
    rng = np.random.default_rng(0)
    emg = rng.standard_normal(((windows - 1) * STRIDE + LENGTH, channels), np.float32)
    starts = np.arange(windows) * STRIDE
    return lambda: extract(emg, starts, LENGTH, NAMES)


def pipeline_of(folder: Path, subjects: int, share: int = 4000) -> Callable:
    """Reads subjects' .mat files and makes `share` windows of each, with targets."""
    dataset = opened(str(folder), **{"split.subjects": f"1-{subjects}"})
    return lambda: sum(len(e) for e, _ in batches.pooled(dataset, NAMES, 64, 1, max_windows=share * subjects))


def fins_of(windows: int = 4, channels: int = 12, units: int = 32, family: str = "bilstm") -> Callable:
    """Four FINs on a batch of windows."""
    bank = fin.bank([fin.fin(name, LENGTH, family, units) for name in NAMES], channels)
    emg = tf.constant(np.random.default_rng(0).standard_normal((windows, LENGTH, channels)), tf.float32)

    @tf.function(autograph=False)
    def run(x):
        with recurrent.engine("auto"):
            return bank(x, training=False)

    return lambda: run(emg).numpy()


def weights(units: int) -> int:
    """Weights of a stack of 3 Bi-LSTMs: what its arithmetic goes with."""
    return 2 * 4 * units * ((1 + units) + 2 * (2 * units + units))


def curves(folder: Path, quick: bool):
    """(name, sizes, work of a size, size -> what the exponent is taken against)."""
    top = 1 if quick else 4
    yield "features: windows", [2**k for k in range(10, 14 + top)], lambda n: features_of(windows=n), float
    yield "features: channels", [2**k for k in range(1, 4 + top // 2)], lambda n: features_of(4096, n), float
    yield "input pipeline: subjects", [1, 2, 4, 8][: 3 if quick else 4], lambda n: pipeline_of(folder, n), float
    yield "Bi-LSTM FINs: windows a batch", [2**k for k in range(0, 2 + top)], lambda n: fins_of(n), float
    yield "Bi-LSTM FINs: channels", [2**k for k in range(1, 4 + top // 2)], lambda n: fins_of(1, n), float
    yield "Bi-LSTM FINs: hidden size", [16, 32, 64, 128][: 3 if quick else 4], lambda n: fins_of(1, units=n), weights
    yield "conv FINs: windows a batch", [2**k for k in range(2, 4 + top)], lambda n: fins_of(n, family="conv"), float


def plot(found: list[dict], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(2, 4, figsize=(14, 6.5), layout="constrained")
    for axis, one in zip(axes.flat, found, strict=False):
        x, y = np.array(one["sizes"]), np.array(one["seconds"])
        against = np.array(one["against"])
        axis.loglog(x, 1e3 * y, "o-", label="measured")
        axis.loglog(x, 1e3 * y[-1] * against / against[-1], "--", color="grey",
                    label="in proportion" if np.array_equal(x, against) else "in proportion to the weights")
        axis.set(title=f"{one['name']}\nexponent {one['exponent']:.2f}", ylabel="ms", xlabel=one["name"].split(": ")[1])
        axis.set_xticks(x[:: 1 + len(x) // 6], [f"{size:,.0f}" for size in x[:: 1 + len(x) // 6]])
        axis.minorticks_off()
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,g}"))
        axis.legend(fontsize=8)
    for axis in list(axes.flat)[len(found):]:
        axis.axis("off")
    figure.savefig(file, dpi=100)


def main(argv: list[str] | None = None) -> None:
    p = parser(__doc__.splitlines()[0])
    p.add_argument("--plot", type=Path, metavar="FILE", help="write the curves here as PNG")
    args = p.parse_args(argv)
    report = Report("Cost against size: exponents", ("tensorflow", "keras", "numpy"), args.json)
    report.more["curves"] = found = []
    with recordings(8, args.keep) as folder:
        for name, sizes, work, against in curves(folder, args.quick):
            times = curve(sizes, work, 3 if args.quick else 7)
            basis = [float(against(size)) for size in sizes]
            slope = exponent(basis, times)
            found.append({"name": name, "sizes": sizes, "seconds": times, "against": basis, "exponent": slope})
            said = ", by weights" if against is weights else ""
            report.measured(f"{name}{said}, {sizes[0]:,} .. {sizes[-1]:,}", slope, "exponent", STEEPEST)
    report.show()
    if args.plot:
        plot(found, args.plot)


if __name__ == "__main__":
    main()
