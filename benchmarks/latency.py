"""Latency of one window through a decoder, engine by engine: p50, p95, p99 at batch 1, 12 channels of 600 samples.

    python benchmarks/latency.py [--json FILE] [--quick] [--family conv]

Bi-LSTM FINs (3 x 32 units, four features) + head of 17 movements, and conv FINs + head; random weights. Each decoder is
exported as SavedModel and ONNX and loaded back through `tfkfin.serving.engines.Exported`. The peers are what a Keras
user calls: the stock Keras LSTM's graph, and `model.predict`.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from common import Report, parser  # noqa: E402

from tfkfin import recipe  # noqa: E402
from tfkfin.base.console import InputError  # noqa: E402
from tfkfin.decoder.decoder import BaseDecoder  # noqa: E402
from tfkfin.fit.run import Run  # noqa: E402
from tfkfin.fit.trainers import new_decoder  # noqa: E402
from tfkfin.nets.bilstm import layer as recurrent  # noqa: E402
from tfkfin.serving import engines, signatures  # noqa: E402
from tfkfin.serving.version import save_onnx  # noqa: E402
from tfkfin.store import folders  # noqa: E402

CHANNELS, LENGTH, MOVEMENTS, STRIDE = 12, 600, tuple(range(1, 18)), 20
MEAN, SD = np.zeros(CHANNELS), np.full(CHANNELS, 1e-5)  # V
LIMITS_MS = {"bilstm": 60.0, "conv": 5.0}


def exported(family: str, folder: Path) -> tuple[keras.Model, Path]:
    """A decoder with random weights, and its version folder as tfkfin.export fills it."""
    settings = recipe.load(None, {"fin.family": family, "fin.pretrained": ""})
    run = Run(folder, settings)
    run.dataset = SimpleNamespace(channels=CHANNELS, movements=MOVEMENTS, length=LENGTH)
    model = new_decoder(run)
    model.get_layer("standardise").set(MEAN, SD)
    noise = (MEAN + SD * np.random.default_rng(0).standard_normal((16, LENGTH, CHANNELS))).astype(np.float32)
    features = model(noise)["features"].numpy().reshape(-1, 4)
    model.get_layer("head").get_layer("classifier").get_layer("z_score").set(features.mean(0), features.std(0))
    decoder = BaseDecoder({
        "kind": "decoder", "family": family, "length": LENGTH, "channels": CHANNELS, "movements": list(MOVEMENTS),
        "stride": STRIDE, "rate_hz": 2000.0, "features": list(settings.features.names),
        "mean_v": MEAN.tolist(), "sd_v": SD.tolist()}, model)
    version, made = folder / "1", signatures.Signatures(decoder, "keras")
    signatures.save_decoder(signatures.Signatures(decoder), version)
    save_onnx(made.answer, made.window, version / folders.ONNX)
    decoder.save(version)
    return model, version


def peers(model: keras.Model) -> dict[str, Callable]:
    """What one calls without tfkfin's engines: the graph of stock Keras layers, and `predict`."""
    @tf.function(autograph=False)
    def stock(x):
        with recurrent.engine("keras"):
            return model(x, training=False)["probabilities"]

    return {"Keras graph": lambda emg: {"probabilities": stock(tf.constant(emg)).numpy()},
            "Keras model.predict": lambda emg: model.predict(emg, verbose=0)}


def every_engine(version: Path) -> dict[str, Callable]:
    found = {}
    for name in engines.ENGINES:
        try:
            found[name] = engines.Exported(version, name)
        except InputError:
            continue
    return found


def times_ms(calls: dict[str, Callable], windows: np.ndarray, budget_s: float) -> dict[str, np.ndarray]:
    """Milliseconds of every call (N,), ten windows an engine in turn, so that no engine's idle threads disturb another.

    Two calls before each ten are not counted; an engine that has spent `budget_s` seconds is done.
    """
    spent = {name: [] for name in calls}
    for first in range(0, len(windows), 10):
        for name, call in calls.items():
            if sum(spent[name]) > 1e3 * budget_s:
                continue
            for i, window in enumerate([*windows[:2], *windows[first : first + 10]]):
                began = time.perf_counter()
                call(window[None])
                if i >= 2:
                    spent[name].append(1e3 * (time.perf_counter() - began))
    return {name: np.array(times) for name, times in spent.items()}


def against(report: Report, family: str, ours: np.ndarray, peer: np.ndarray, name: str) -> None:
    ratios = peer / ours
    report.comparisons.append({
        "name": f"{family} FINs + head, batch 1, fastest engine against {name}", "unit": "windows/s",
        "ours": 1e3 / float(np.median(ours)), "peer": 1e3 / float(np.median(peer)), "ratio": float(np.median(ratios)),
        "spread": [float(v) for v in np.percentile(ratios, [5, 95])]})


def family_latency(report: Report, family: str, quick: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model, version = exported(family, Path(folder))
        calls = every_engine(version)
        windows = (SD * np.random.default_rng(1).standard_normal((20 if quick else 200, LENGTH, CHANNELS))).astype("f")
        wanted = calls["savedmodel"](windows[:4])
        apart = max(float(np.abs(call(windows[:4])[key] - wanted[key]).max() / max(1.0, np.abs(wanted[key]).max()))
                    for call in calls.values() for key in ("probabilities", "features"))
        report.measured(f"{family}: engines differ by at most", 1e6 * apart, "1e-6", 10)
        auto = engines.Exported(version)
        spent = times_ms({"auto": auto} | calls, windows, 2 if quick else 15)
        slow = times_ms({"ours": auto} | peers(model), windows, 1 if quick else 10)
    for name, times in spent.items():
        said = f"auto ({auto.engine})" if name == "auto" else name
        for q in (50, 95, 99):
            limit = LIMITS_MS[family] if name == "auto" else None
            report.measured(f"{family} FINs + head, {said}, p{q}", float(np.percentile(times, q)), "ms", limit)
    for name in sorted(slow.keys() - {"ours"}):
        pairs = min(len(slow["ours"]), len(slow[name]))
        against(report, family, slow["ours"][:pairs], slow[name][:pairs], name)


def main(argv: list[str] | None = None) -> None:
    p = parser(__doc__.splitlines()[0])
    p.add_argument("--family", choices=tuple(LIMITS_MS), help="only this family of FINs (default: both)")
    args = p.parse_args(argv)
    report = Report("Latency at batch 1: 12 channels, 600 samples",
                    ("tensorflow", "keras", "numpy", "onnxruntime", "tf2onnx"), args.json)
    for family in [args.family] if args.family else LIMITS_MS:
        family_latency(report, family, args.quick)
    report.show()


if __name__ == "__main__":
    main()
