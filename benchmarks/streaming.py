"""Streaming against windows cut one by one: answering, training, one live decision. 12 channels, 600 samples every 20.

    python benchmarks/streaming.py [--json FILE] [--quick]

The shipped conv FINs of four features, with a linear or the paper's head of 17 movements, on noise at 2 kHz. The peer
is the same network on windows, 64 at a time in one graph.
"""

import os
import time
from types import SimpleNamespace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from common import Report, parser  # noqa: E402

from tfkfin import recipe  # noqa: E402
from tfkfin.fit import training  # noqa: E402
from tfkfin.fit.trainers import TwoRates  # noqa: E402
from tfkfin.nets import fins, heads
from tfkfin.nets.forward import Forward  # noqa: E402
from tfkfin.nets.network import network as join  # noqa: E402
from tfkfin.pipeline import batches  # noqa: E402
from tfkfin.store import folders, presets  # noqa: E402

CHANNELS, LENGTH, STRIDE, MOVEMENTS = 12, 600, 20, 17
BATCH = 64  # windows, also of a training step


def network(kind: str) -> keras.Model:
    names = tuple(folders.card(presets.find("conv"))["features"])
    bank = fins.bank(fins.fins_of(presets.load("conv")), CHANNELS)
    return join(bank, heads.new(recipe.Classifier(kind=kind), names, LENGTH, CHANNELS, MOVEMENTS))


def signal(windows: int) -> SimpleNamespace:
    """As much noise as holds so many windows, as a subject: `emg`, `windows`."""
    emg = np.random.default_rng(0).standard_normal(((windows - 1) * STRIDE + LENGTH, CHANNELS), np.float32)
    starts = STRIDE * np.arange(windows)
    return SimpleNamespace(emg=emg, windows=SimpleNamespace(starts=starts))


def answering(report: Report, model: keras.Model, name: str, quick: bool) -> None:
    """The peer works on a part of the windows, which is as fast a window."""
    ours, theirs = signal(2048 if quick else 16384), signal(64 if quick else 512)
    forward, predict = Forward(model), training.Predictor(model)

    def cut():
        index = theirs.windows.starts[:, None] + np.arange(LENGTH)
        return predict(theirs.emg[index], BATCH)

    report.compare(f"{name}, streamed against cut", lambda: forward.recording(ours.emg, ours.windows.starts), cut,
                   "windows/s", repeats=3 if quick else 9, work=(len(ours.windows.starts), len(theirs.windows.starts)))


def epoch(report: Report, quick: bool) -> None:
    """An epoch of fine-tuning, FINs and the paper's head; the peer's on fewer windows, compared by the window."""
    rng, models = np.random.default_rng(1), []
    for windows in (512 if quick else 4096, 128 if quick else 512):
        part, net = signal(windows), network("conv")
        model = TwoRates(net.input, net.output)
        model.set_optimizers(training.adam(1e-5, 0), training.adam(1e-5, 0))
        losses = {"probabilities": keras.losses.SparseCategoricalCrossentropy(), "features": None}
        model.compile(model.head_optimizer, losses, jit_compile=False)
        targets = np.ones((windows, CHANNELS, 4), np.float32)
        models.append((part, model, targets, rng.integers(0, MOVEMENTS, windows)))

    def run(data, model):
        model.fit(data, verbose=0, shuffle=False)

    def streamed():
        part, model, targets, labels = models[0]
        pieces = training.neighbours(part.windows.starts)
        shuffled = [pieces[i] for i in rng.permutation(len(pieces))]
        run(training.neighbour_batches(part, targets, labels, LENGTH, BATCH, shuffled),
            model)

    def cut():
        part, model, targets, labels = models[1]
        run(batches.of_subject(part, targets, labels, LENGTH, BATCH, rng.permutation(len(labels))), model)

    report.compare("training epoch, stretches against windows", streamed, cut, "windows/s", repeats=3 if quick else 7,
                   work=tuple(len(m[3]) for m in models))


def live(report: Report, model: keras.Model, name: str, quick: bool) -> None:
    """One decision: from a stride of samples to probabilities."""
    decide, emg = Forward(model).live(STRIDE), signal(200 if quick else 2000).emg
    decide(emg[: LENGTH + STRIDE])
    spent = []
    for i in range(LENGTH + STRIDE, len(emg), STRIDE):
        new = emg[i : i + STRIDE]
        began = time.perf_counter()
        decide(new)
        spent.append(1e3 * (time.perf_counter() - began))
    for percent, limit in ((50, None), (95, None), (99, 1.0)):
        report.measured(f"{name}, live decision, p{percent}", float(np.percentile(spent, percent)), "ms", limit)


def main(argv: list[str] | None = None) -> None:
    args = parser(__doc__.splitlines()[0]).parse_args(argv)
    tf.random.set_seed(0)
    report = Report("Streaming, 12 channels, 600 samples every 20", ("tensorflow", "keras", "numpy"), args.json)
    for kind in ("linear", "conv"):
        model = network(kind)
        answering(report, model, f"conv FINs, {kind} head", args.quick)
        live(report, model, f"conv FINs, {kind} head", args.quick)
    epoch(report, args.quick)
    report.show()


if __name__ == "__main__":
    main()
