"""Windows a second of `tfkfin.features.catalogue.extract` beside the ways people compute the same features today.

    python benchmarks/features.py [--json FILE] [--quick]

12 channels, windows of 600 samples every 20 (300 ms every 10 ms at 2 kHz), float32, one thread. Peers get their windows
contiguous in the layout that suits them best, (N, C, L), in batches that fit the cache; "in one array" is as most
people write it. What a peer answers is checked first, so all compute the same.
"""

import importlib
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy loads

import numpy as np  # noqa: E402
from common import Report, arguments  # noqa: E402

from tfkfin.features.catalogue import direct, extract  # noqa: E402

CHANNELS, LENGTH, STRIDE, BATCH = 12, 600, 20, 64
PAPER = ("ENT", "RMS", "VAR", "SSI")


def recording(seconds: float) -> np.ndarray:
    """Bursts of noise (T, C), unit variance."""
    rng = np.random.default_rng(0)
    count = int(seconds * 2000)
    bursts = 0.3 + np.abs(np.sin(np.arange(count) / 4000))[:, None]
    emg = rng.standard_normal((count, CHANNELS)) * bursts
    return (emg / emg.std(0)).astype(np.float32)


def plain_numpy(w):
    """The paper's four features as one writes them: windows (N, C, L) -> (N, C, 4)."""
    shifted = w - w.max(-1, keepdims=True)
    e = np.exp(shifted)
    total = e.sum(-1)
    entropy = np.log(total) - (shifted * e).sum(-1) / total
    square = (w * w).sum(-1)
    return np.stack([entropy, np.sqrt(square / w.shape[-1]), w.var(-1), square], -1)


def libemg_hudgins(w):
    """MAV, ZC, SSC, WL by LibEMG's definitions on its windows (N, C, L), in our words."""
    before, here, after = w[..., :-2], w[..., 1:-1], w[..., 2:]
    return np.stack([
        np.mean(np.abs(w), -1),
        np.sum(np.abs(np.diff(np.sign(w))) == 2, -1),
        np.sum((here - before) * (here - after) >= 0, -1),
        np.sum(np.abs(np.diff(w)), -1),
    ], -1)


def libemg_amplitudes(w):
    """RMS, VAR, MAV, WL, WAMP in the same way."""
    return np.stack([
        np.sqrt(np.mean(np.square(w), -1)), np.var(w, -1), np.mean(np.abs(w), -1), np.sum(np.abs(np.diff(w)), -1),
        np.sum(np.abs(np.diff(w)) > 0.1, -1),
    ], -1)


def window_by_window(functions):
    return lambda w: np.array([[[f(x) for f in functions] for x in window] for window in w])


def peers(quick: bool):
    """(name, peer on windows (N, C, L), our features, windows for the peer); what is not installed is left out."""
    many = 256 if quick else 1024
    yield "plain NumPy", plain_numpy, PAPER, many
    yield "LibEMG's formulas, Hudgins' set", libemg_hudgins, ("MAV", "ZC", "SSC", "WL"), many
    yield "LibEMG's formulas, amplitudes", libemg_amplitudes, ("RMS", "VAR", "MAV", "WL", "WAMP"), many
    try:
        tsfel = importlib.import_module("tsfel.feature_extraction.features")
        functions = window_by_window((tsfel.rms, tsfel.calc_var, tsfel.abs_energy))
        yield "tsfel's functions", functions, PAPER[1:], many // 16
    except ImportError:
        pass
    try:
        antropy = importlib.import_module("antropy")

        def permutation(w):
            return antropy.perm_entropy(w.reshape(-1, LENGTH)).reshape(w.shape[:2] + (1,))
        yield "antropy.perm_entropy, 2-D", permutation, ("PERMENT",), many // 4
    except ImportError:
        pass


def in_batches(peer, windows):
    return np.concatenate([peer(windows[i : i + BATCH]) for i in range(0, len(windows), BATCH)])


def main(argv: list[str] | None = None) -> None:
    args = arguments(__doc__.splitlines()[0], argv)
    repeats = 3 if args.quick else 9
    emg = recording(5 if args.quick else 60)
    starts = np.arange(0, len(emg) - LENGTH + 1, STRIDE)
    view = np.lib.stride_tricks.sliding_window_view(emg, LENGTH, axis=0)  # (T - L + 1, C, L)
    report = Report("Features: 12 channels, windows of 600 every 20 samples", ("numpy", "scipy", "tsfel", "antropy"),
                    args.json)

    def against(name, peer, features, count):
        ours = extract(emg, starts, LENGTH, features)
        np.testing.assert_allclose(peer(), ours[:count], rtol=1e-4, atol=1e-4, err_msg=name)
        report.compare(f"{'+'.join(features)} against {name}", lambda: extract(emg, starts, LENGTH, features), peer,
                       unit="windows/s", repeats=repeats, work=(len(starts), count))

    for name, peer, features, count in peers(args.quick):
        count = min(count, len(starts))
        windows = np.ascontiguousarray(view[starts[:count]])
        against(f"{name}, windows ready", lambda p=peer, w=windows: in_batches(p, w), features, count)
        if peer is plain_numpy:
            def cutting(chosen=starts[:count]):
                return np.concatenate([plain_numpy(np.ascontiguousarray(view[chosen[i : i + BATCH]]))
                                       for i in range(0, len(chosen), BATCH)])
            against(f"{name}, with the copy", cutting, features, count)
            against(f"{name}, in one array", lambda w=windows: plain_numpy(w), features, count)
            batch = windows.transpose(0, 2, 1)
            against("our own direct formulas", lambda b=batch: direct(b, PAPER), features, count)
    report.show()


if __name__ == "__main__":
    main()
