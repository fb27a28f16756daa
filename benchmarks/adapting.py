"""Updates by single labelled windows, and calibration for a new person or day from one repetition.

    python benchmarks/adapting.py [--json FILE] [--quick]

The update is `SessionPosterior.update` of one window, what decides solved anew each time, beside one update with all
windows so far. The calibration is `Decoder.calibrated` of the recipe `best`: 12 channels, 17 movements of 5 s, windows
of 300 ms every 50 ms, from what the network saw of them; noise, which costs the same as signals do.
"""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
from common import Report, parser  # noqa: E402

CHANNELS, MOVEMENTS, LENGTH, HOLD, STRIDE = 12, 17, 600, 10_000, 100  # samples at 2 kHz
SIZES = ((130, 20), (192, 17))  # dimensions and classes; the second is what `best` has at 12 channels


def prior_of(size: int, classes: int, sessions: int = 3, repetitions: int = 4, windows: int = 20):
    """A model of noise about class means that differ by session."""
    from tfkfin.sessions.prior import SessionPrior

    rng = np.random.default_rng(0)
    session, repetition, c = (part.ravel() for part in np.meshgrid(
        np.arange(sessions), np.arange(repetitions), np.repeat(np.arange(classes), windows), indexing="ij"))
    x = rng.normal(size=(classes, size))[c] + 0.3 * rng.normal(size=(sessions, classes, size))[session, c]
    return SessionPrior().fit(x + rng.normal(size=x.shape), c, session, repetition)


def updates(report: Report, size: int, classes: int, count: int) -> None:
    from tfkfin.sessions.posterior import SessionPosterior

    prior, rng = prior_of(size, classes), np.random.default_rng(1)
    x, labels, spent = rng.normal(2, 3, (count, size)), rng.integers(classes, size=count), []
    session = SessionPosterior(prior)
    for i in range(count):
        began = time.perf_counter()
        session.update(x[i : i + 1], labels[i : i + 1])
        spent.append(1e3 * (time.perf_counter() - began))
    named = f"update by one window, {size} dimensions, {classes} classes"
    for q in (50, 99):
        report.measured(f"{named}, p{q}", float(np.percentile(spent, q)), "ms", 2 if q == 99 else None)
    apart = max(float(np.abs(a - b).max() / np.abs(b).max())
                for a, b in zip(session.linear(), SessionPosterior(prior).update(x, labels).linear(), strict=True))
    report.measured(f"{named}: after {count:,} of them, from one calibration on all", 1e9 * apart, "1e-9", 1000)


def calibrations(report: Report, count: int) -> None:
    from tfkfin import recipe as recipes
    from tfkfin.decoder import decoder
    from tfkfin.nets import heads
    from tfkfin.nets.network import network
    from tfkfin.store import presets

    recipe, rng = recipes.load("best"), np.random.default_rng(0)
    bank = presets.new_bank(recipe.fin, recipe.features.names, LENGTH, CHANNELS)
    model = network(bank, heads.new(recipe.classifier, recipe.features.names, LENGTH, CHANNELS, MOVEMENTS))
    windows = (HOLD - LENGTH) // STRIDE + 1
    labels = np.repeat(np.arange(MOVEMENTS), windows)
    own = decoder.about(recipe, 2000.0, LENGTH, STRIDE, np.arange(1, MOVEMENTS + 1), np.zeros(CHANNELS),
                        np.ones(CHANNELS))
    whole, spent = decoder.BaseDecoder(own, model), {"with labels": [], "without": []}

    def inputs(sessions: int) -> np.ndarray:
        rows = sessions * len(labels)
        means = rng.normal(size=(MOVEMENTS, CHANNELS))[np.tile(labels, sessions)]
        described = rng.normal(size=(rows, whole.head.classifier.inputs[1].shape[1]))
        features = np.exp(means[..., None] + rng.normal(size=(rows, CHANNELS, 4)))
        return np.asarray(whole.head.inputs(features.astype(np.float32), described.astype(np.float32)))

    times = 4  # 2 sessions of 2 repetitions
    groups = np.repeat([0, 0, 1, 1], len(labels)), np.repeat([1, 2, 1, 2], len(labels))
    whole.head.solve(inputs(times), np.tile(labels, times), groups)
    for _ in range(count):
        for name, known in (("with labels", labels + 1), ("without", None)):
            given = inputs(1)
            began = time.perf_counter()
            whole.calibrated(given, known)
            spent[name].append(time.perf_counter() - began)
    for name, each in spent.items():
        report.measured(f"best, one repetition of {MOVEMENTS} movements, {CHANNELS} channels, {len(labels):,} windows, "
                        f"{name}, p95", float(np.percentile(each, 95)), "s", 1)


def main(argv: list[str] | None = None) -> None:
    args = parser(__doc__.splitlines()[0]).parse_args(argv)
    report = Report("Updates and calibrations", ("tensorflow", "keras", "numpy", "scipy"), args.json)
    for size, classes in SIZES:
        updates(report, size, classes, 300 if args.quick else 10_000)
    calibrations(report, 3 if args.quick else 20)
    report.show()


if __name__ == "__main__":
    main()
