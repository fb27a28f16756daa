"""The input pipeline beside Keras's own and LibEMG's formulas; its start, its memory, whether training waits for it.

    python benchmarks/pipeline.py [--json FILE] [--quick] [--keep DIR]

Full-size synthetic DB2 recordings: 12 channels at 2 kHz, 17 movements x 6 repetitions x 5 s; windows of 600 samples
every 20. Peers get the signal in memory; ours, where it says so, starts from the .mat file. LibEMG's windows and
formulas are in our words.
"""

import os
from dataclasses import replace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from alone import NAMES, opened  # noqa: E402
from common import Report, alone, arguments, recordings  # noqa: E402
from features import libemg_amplitudes, libemg_hudgins  # noqa: E402

from tfkfin.features.catalogue import extract  # noqa: E402
from tfkfin.pipeline import batches  # noqa: E402
from tfkfin.pipeline.dataset import Dataset, Subject  # noqa: E402

LENGTH, STRIDE, BATCH = 600, 20, 64


@tf.function
def four_features(w: tf.Tensor) -> tf.Tensor:
    """The paper's four features in TensorFlow operations: windows (B, L, C) -> (B, C, 4)."""
    shifted = w - tf.reduce_max(w, 1, keepdims=True)
    weight = tf.exp(shifted)
    total = tf.reduce_sum(weight, 1)
    entropy = tf.math.log(total) - tf.reduce_sum(shifted * weight, 1) / total
    square = tf.reduce_sum(w * w, 1)
    return tf.stack([entropy, tf.sqrt(square / LENGTH), tf.math.reduce_variance(w, 1), square], -1)


def keras_windows(emg: np.ndarray, shuffle: bool) -> tf.data.Dataset:
    return keras.utils.timeseries_dataset_from_array(emg, None, LENGTH, STRIDE, batch_size=BATCH, shuffle=shuffle)


def keras_features(emg: np.ndarray) -> np.ndarray:
    data = keras_windows(emg, False).map(four_features, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)
    return np.concatenate(list(data.as_numpy_iterator()))


def keras_training(emg: np.ndarray) -> int:
    """Shuffled windows and their four features, as a FIN trains on them."""
    data = keras_windows(emg, True).map(lambda w: (w, four_features(w)), num_parallel_calls=tf.data.AUTOTUNE)
    return sum(len(w) for w, _ in data.prefetch(2))


def libemg(emg: np.ndarray, formulas) -> np.ndarray:
    """LibEMG's way: a list of slices to an array of windows (N, C, L), then its formulas."""
    windows = np.array([emg[i : i + LENGTH].T for i in range(0, len(emg) - LENGTH + 1, STRIDE)])
    return formulas(windows)


def speeds(report: Report, dataset: Dataset, subject: Subject, repeats: int, count: int) -> None:
    """`count` windows for the peers, all for us."""
    emg = subject.emg[: (count - 1) * STRIDE + LENGTH]
    starts = np.arange(count) * STRIDE
    every = len(subject.windows)

    def ours(names=NAMES):
        return subject.features(names, LENGTH, dataset.rate_hz)

    def epoch():
        one = dataset.split.model_copy(update={"pretrain_subjects": (subject.number,)})
        return sum(len(w) for w, _ in batches.pooled(replace(dataset, split=one), NAMES, BATCH, 1))

    np.testing.assert_allclose(keras_features(emg), extract(emg, starts, LENGTH, NAMES), rtol=2e-3, atol=1e-3)
    for name, peer, names in (
            ("timeseries_dataset_from_array + TF operations", keras_features, NAMES),
            ("LibEMG's windows and formulas, Hudgins' set", lambda e: libemg(e, libemg_hudgins),
             ("MAV", "ZC", "SSC", "WL")),
            ("LibEMG's windows and formulas, amplitudes", lambda e: libemg(e, libemg_amplitudes),
             ("RMS", "VAR", "MAV", "WL", "WAMP"))):
        report.compare(f"{'+'.join(names)}, signal in memory, against {name}", lambda n=names: ours(n),
                       lambda p=peer: p(emg), "features/s", repeats=repeats,
                       work=(every * len(names) * dataset.channels, count * len(names) * dataset.channels))
    trained = epoch()
    report.compare("shuffled windows with four features, ours from the .mat file, against "
                   "timeseries_dataset_from_array + TF operations from memory", epoch, lambda: keras_training(emg),
                   "windows/s", repeats=min(3, repeats), work=(trained, count))


def starts_and_waits(report: Report, folder, quick: bool) -> None:
    answer = alone("first_batch", folder, repeats=1 if quick else 5)
    report.measured("first batch after TensorFlow is imported, 10 subjects", answer["seconds"], "s", 2.0)
    report.measured("processor time of that", answer["cpu_s"], "s")
    for family, batch, share, steps, epochs, said in (
            ("bilstm", 8 if quick else 16, 160, 3 if quick else 12, 1, "160 windows a recording, as in db2_within"),
            ("conv", 32, 160, 20 if quick else 500, 2 if quick else 4, "160 windows a recording, as in db2_within"),
            ("conv", 32, 1600, 20 if quick else 500, 2, "1600 windows a recording")):
        answer = alone("waiting", folder, family, batch, share, steps, epochs)
        for name, epoch in (("first", "first epoch"), ("later", "later epochs")):
            if answer[name] is not None:
                report.measured(f"wait ratio, {epoch}, {family} FINs train, batch {batch}, {said} "
                                f"({answer['steps']:.0f} steps in all, {answer['windows_s']:,.0f} windows/s)",
                                100 * answer[name], "%", 5.0)


def memory(report: Report, kept, quick: bool) -> None:
    share = 200 if quick else 0
    for few, many, allowed, each in ((2, 10, 1.1, share), (4, 40, 1.1, 1000 if not quick else 100)):
        found = {}
        for count in (few, many):
            with recordings(count, kept) as folder:
                found[count] = alone("read", folder, each)
        small, large = found[few], found[many]
        said = f"{each} windows each" if each else "every window"
        report.measured(f"peak memory, {few} subjects, {said}", small["peak_mb"], "MB")
        report.measured(f"peak memory, {many} subjects, {said}", large["peak_mb"], "MB", allowed * small["peak_mb"])
        report.measured(f"beyond the imported package, {few} subjects", small["peak_mb"] - small["imported_mb"], "MB")
        report.measured(f"beyond the imported package, {many} subjects", large["peak_mb"] - large["imported_mb"], "MB")
        report.measured(f"windows a second, {many} subjects, from .mat files", large["windows_s"], "windows/s")


def main(argv: list[str] | None = None) -> None:
    args = arguments(__doc__.splitlines()[0], argv)
    report = Report("Input pipeline: 12 channels, windows of 600 every 20 samples", ("tensorflow", "keras", "numpy"),
                    args.json)
    with recordings(10, args.keep) as folder:
        dataset = opened(str(folder))
        speeds(report, dataset, dataset.load(1), 3 if args.quick else 5, 1024 if args.quick else 4096)
        starts_and_waits(report, folder, args.quick)
        memory(report, args.keep or folder, args.quick)
    report.show()


if __name__ == "__main__":
    main()
