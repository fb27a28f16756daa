"""What the families of FINs cost and how well they imitate: parameters, arithmetic, latency, R² on unseen recordings.

    python benchmarks/families.py [--data DIR] [--json FILE] [--quick]

Shipped FINs of the four features, 12 channels of 600 samples, batch 1. R² is zero-shot: on the recordings in --data, or
on four synthetic subjects, which no FIN was trained on. Arithmetic is counted by TensorFlow's profiler on the stock
Keras graph; for Bi-LSTMs, whose loop it counts once, by their matrix products.
"""

import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from common import Report, parser, seconds  # noqa: E402

from tfkfin import evaluate
from tfkfin.base import registry  # noqa: E402
from tfkfin.nets import fins as fin  # noqa: E402
from tfkfin.store import presets

CHANNELS = 12


def operations(bank, length: int) -> float:
    """Floating-point operations of one window of all channels and features."""
    stacks = [layer for model in fin.fins_of(bank) for layer in model.layers if layer.name == "bilstm"]
    if stacks:  # two a multiplication and addition; biases and gates are below 2 %
        products = [w for stack in stacks for w in stack.weights if len(w.shape) == 2]
        return float(sum(2 * length * CHANNELS * np.prod(w.shape) for w in products))
    spec = tf.TensorSpec((1, length, CHANNELS), tf.float32)
    graph = tf.function(lambda x: bank(x, training=False)).get_concrete_function(spec).graph
    profile = tf.compat.v1.profiler
    options = profile.ProfileOptionBuilder(profile.ProfileOptionBuilder.float_operation()).with_empty_output().build()
    return float(profile.profile(graph, options=options).total_float_ops)


def latency_ms(bank, length: int, repeats: int) -> np.ndarray:
    run = tf.function(lambda x: bank(x, training=False))
    x = tf.constant(np.random.default_rng(0).standard_normal((1, length, CHANNELS)), tf.float32)
    for _ in range(3):
        run(x).numpy()
    return np.array([1e3 * seconds(lambda: run(x).numpy()) for _ in range(repeats)])


def main(argv: list[str] | None = None) -> None:
    p = parser(__doc__.splitlines()[0])
    p.add_argument("--data", metavar="DIR", help="recordings for R² (default: four synthetic subjects)")
    args = p.parse_args(argv)
    report = Report("Families of FINs", ("tensorflow", "keras", "numpy"), args.json)
    with tempfile.TemporaryDirectory() as made:
        if args.data is None:
            from tfkfin.recordings.synthetic import synthesize

            synthesize(Path(made), (101, 102, 103, 104), movements=6, hold_s=1.2, rest_s=0.5, seed=77)
        for family in registry.names("nets/fins"):
            one = presets.load(family)
            length = one.input_shape[1]
            bank = fin.bank(fin.fins_of(one), CHANNELS)
            report.measured(f"{family}: parameters", one.count_params(), "")
            report.measured(f"{family}: arithmetic a window", operations(bank, length) / 1e6, "MFLOP")
            times = latency_ms(bank, length, 20 if args.quick else 200)
            report.measured(f"{family}: latency p50", float(np.percentile(times, 50)), "ms")
            report.measured(f"{family}: latency p99", float(np.percentile(times, 99)), "ms")
            told = Path(made, f"{family}.json")
            windows = "80" if args.quick else "800"
            on_these = str(args.data or made)
            evaluate.main(["--fin", family, "--data", on_these, "--windows", windows, "--json", str(told)])
            scores = json.loads(told.read_text())
            on = "recordings" if args.data else "synthetic"
            for name, values in scores["fin"].items():
                report.measured(f"{family}: {name}, R² ({on})", values["r2"], "")
    report.show()


if __name__ == "__main__":
    main()
