"""The stage `classify` on full-size subjects: its time, its memory over subjects, and the head's training beside peers.

    python benchmarks/stages.py [--json FILE] [--quick] [--keep DIR]

One full-size synthetic DB2 subject: 17 movements x 4 training repetitions x 5 s, 300 ms every 10 ms, 30 epochs in
batches of 300. Peers train the same network on the same features: PyTorch, and Keras as one writes it for one subject
(a new model, compiled and fitted on arrays).
"""

import importlib.util
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import numpy as np  # noqa: E402
from alone import NAMES, opened  # noqa: E402
from common import Report, alone, arguments, recordings  # noqa: E402

from tfkfin import recipe  # noqa: E402
from tfkfin.fit.run import Run  # noqa: E402
from tfkfin.fit.trainers import HeadTrainer, new_head  # noqa: E402
from tfkfin.nets.network import head_parts  # noqa: E402
from tfkfin.pipeline.dataset import Dataset  # noqa: E402

COPIES, BATCH = 12, 300


def torch_head(channels: int, classes: int):
    """The head in PyTorch, with its optimiser; the same layers in its own layout (N, C, H, W)."""
    import torch
    from torch import nn

    class Noisy(nn.Module):
        def forward(self, x):  # (B, F, C) -> (B, F, C, copies)
            shadows = x[..., None].expand(-1, -1, -1, COPIES - 1)
            return torch.cat([x[..., None], shadows + 0.01 * torch.randn_like(shadows)], -1)

    def block(before, after, kernel):
        return [nn.Conv2d(before, after, kernel), nn.BatchNorm2d(after, momentum=0.1), nn.PReLU()]

    net = nn.Sequential(Noisy(), *block(len(NAMES), 64, 5), nn.Dropout(0.3), *block(64, 32, 5),
                        *block(32, classes, 4), nn.Flatten())
    assert net(torch.zeros(2, len(NAMES), channels)).shape == (2, classes)
    return net, torch.optim.Adam(net.parameters(), 1e-2, weight_decay=3e-5)


def torch_epoch(features: np.ndarray, labels: np.ndarray):
    """A function that trains one epoch in PyTorch, z-scored and in a new order each time."""
    import torch

    net, adam = torch_head(features.shape[1], int(labels.max()) + 1)
    flat = features.reshape(-1, features.shape[-1])
    x = torch.from_numpy(np.ascontiguousarray(((features - flat.mean(0)) / flat.std(0)).transpose(0, 2, 1)))
    y = torch.from_numpy(labels)

    def epoch():
        for part in torch.randperm(len(y)).split(BATCH):
            adam.zero_grad()
            torch.nn.functional.cross_entropy(net(x[part]), y[part]).backward()
            adam.step()

    return epoch


def trainings(report: Report, dataset: Dataset, run: Run, quick: bool) -> None:
    subject = dataset.load(1)
    train = subject.select(dataset.split.train_repetitions)
    features, labels = train.features(NAMES, dataset.length, dataset.rate_hz), dataset.labels(train)
    trainer, repeats = HeadTrainer(run), 2 if quick else 5

    def few(step: int):
        return features[::step], labels[::step]

    def compiled_anew(x, y):
        keras.backend.clear_session()
        model = head_parts(new_head(run))[1]
        model.get_layer("z_score").set(x.reshape(-1, 4).mean(0), x.reshape(-1, 4).std(0))
        model.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"])
        model.fit(x, y, BATCH, epochs=1, verbose=0)

    x, y = few(8 if quick else 1)
    if importlib.util.find_spec("torch"):
        report.compare(f"one epoch of the head, {len(y):,} windows, against PyTorch",
                       lambda: trainer.fit(x, y, 1, "", 1), torch_epoch(x, y), "windows/s", repeats=repeats,
                       work=(len(y), len(y)))
    small = few(16)
    report.compare(f"a new subject of {len(small[1]):,} windows, one epoch, against Keras compiled anew",
                   lambda: trainer.fit(*small, 1, "", 1), lambda: compiled_anew(*small), "windows/s", repeats=repeats,
                   work=(len(small[1]), len(small[1])))


def stage(report: Report, folder, quick: bool) -> None:
    epochs = 1 if quick else 30
    answer = alone("classify", folder, "1", epochs)
    report.measured(f"classify, one subject, {answer['windows']:,} windows, {epochs} epoch(s), with the SVM baseline",
                    answer["total_s"], "s", 240)
    report.measured("processor time of that, all threads", answer["cpu_s"], "s")
    report.measured("its accuracy (synthetic)", 100 * answer["accuracy"], "%")
    several = alone("classify", folder, "1-3" if quick else "1-8", 1)
    count, resident = len(several["seconds"]), several["resident_mb"]
    graphs = several["graphs"]
    report.measured("traces of the training step for the first subject", graphs[0], "traces")
    report.measured(f"traces of the training step for subjects 2 to {count}", graphs[-1] - graphs[0], "traces", 0)
    report.measured("memory after the second subject", resident[1], "MB")
    report.measured(f"memory after subject {count}", resident[-1], "MB", 1.05 * resident[1])
    report.measured("first subject, one epoch, with tracing", several["seconds"][0], "s")
    report.measured("a later subject, one epoch (median)", float(np.median(several["seconds"][1:])), "s")
    report.more["resident_mb"] = resident


def main(argv: list[str] | None = None) -> None:
    args = arguments(__doc__.splitlines()[0], argv)
    report = Report("Stages: one full-size subject", ("tensorflow", "keras", "numpy", "torch", "scikit-learn"),
                    args.json)
    with recordings(8, args.keep) as folder:
        run = Run(folder, recipe.load(None, {"source.kind": "recordings", "source.data": str(folder)}))
        trainings(report, opened(str(folder)), run, args.quick)
        stage(report, folder, args.quick)
    report.show()


if __name__ == "__main__":
    main()
