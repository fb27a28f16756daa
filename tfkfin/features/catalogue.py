"""The features that a FIN can imitate: one table of names, formulas and units, and two ways to compute them that agree.

`direct` takes windows. `extract` takes a recording and the starts of windows. Where these follow a stride that divides
the window's length it adds each sample once and forms no window (`sums`); results equal `direct`'s to float32.
Samples are float32. A window with a NaN or infinite sample gives NaN, in that channel alone.
"""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfkfin.base.errors import InputError
from tfkfin.base.files import read_toml
from tfkfin.features import formulas, sums

RATE_HZ = 2000.0  # Ninapro DB2
CHUNK = 1 << 19  # samples of windows that are formed at once: each float64 array has 4 MB


@dataclass(frozen=True)
class Feature:
    """One feature of a window.

    Attributes:
        unit: in terms of the samples' unit x.
        compute: its definition, windows' statistics -> (N, C).
        needs: the sums (keys of `sums.SUMS`) that `compute` can also be computed from; none: it needs the windows.
        shortest: samples that a window must have.
        log: positive, and proportional to a power of the amplitude: models use its logarithm (the paper z-scores it).
    """

    name: str
    title: str
    formula: str
    unit: str
    reference: str
    compute: Callable[[Any], np.ndarray]
    needs: tuple[str, ...] = ()
    shortest: int = 1
    log: bool = False

    def direct(self, windows: np.ndarray, rate_hz: float = RATE_HZ) -> np.ndarray:
        """Windows (N, L, C) -> (N, C) float32."""
        return direct(windows, (self.name,), rate_hz)[..., 0]


COMPUTED = {  # how each is computed, and from which sums; what is said of it stands in catalogue.toml
    "ENT": (formulas.entropy, "softmax"), "PERMENT": (formulas.permutation_entropy, "patterns"),
    "SAMPEN": (formulas.sample_entropy,), "HISTENT": (formulas.histogram_entropy,),
    "SPECENT": (formulas.spectral_entropy,),
    "RMS": (lambda w: np.sqrt(w.square), "plain"), "VAR": (lambda w: w.var, "plain"),
    "SSI": (lambda w: w.square * w.length, "plain"), "MAV": (lambda w: w.absolute / w.length, "abs"),
    "IAV": (lambda w: w.absolute, "abs"), "WL": (lambda w: w.path, "path"), "LOG": (formulas.log_detector, "logs"),
    "LOGVAR": (lambda w: np.log(np.maximum(w.var, formulas.TINY)), "plain"),
    "ZC": (lambda w: w.crossings, "crossings"), "SSC": (lambda w: w.turns, "turns"),
    "WAMP": (lambda w: w.jumps, "jumps"), "SKEW": (lambda w: w.moment_ratio(3), "high_moments"),
    "KURT": (formulas.kurtosis, "high_moments"),
    "MOB": (lambda w: formulas.mobility(w.var, w.step_var), "plain", "steps"),
    "COM": (lambda w: formulas.complexity(w.var, w.step_var, w.bend_var), "plain", "steps", "bends"),
    **{f"AR{i + 1}": (lambda w, i=i: w.ar[..., i],) for i in range(formulas.AR_ORDER)},
    "MNF": (formulas.mean_frequency,), "MDF": (formulas.median_frequency,),
    **{f"SM{k}": (lambda w, k=k: w.spectrum[1] @ w.spectrum[0] ** k,) for k in (1, 2, 3)},
}


def _features() -> dict[str, Feature]:
    said, found = read_toml(Path(__file__).with_suffix(".toml"), "the catalogue of features"), {}
    for name, (compute, *needs) in COMPUTED.items():
        about = {key: one.format(**vars(formulas)) if isinstance(one, str) else one for key, one in said[name].items()}
        found[name] = Feature(name, compute=compute, needs=tuple(needs), **about)
    return found


FEATURES = _features()


def names(selection: str | Iterable[str]) -> tuple[str, ...]:
    """Upper-case names of a selection (a list, or a text "rms, wl"), in its order.

    Raises:
        InputError: a name is unknown or comes twice, or there is none.
    """
    given = selection.replace(",", " ").split() if isinstance(selection, str) else list(selection)
    found = tuple(str(name).strip().upper() for name in given)
    for name, text in zip(found, given, strict=True):
        if name not in FEATURES:
            raise InputError(f"unknown feature '{text}': did you mean '{_nearest(name)}'? Known: {', '.join(FEATURES)}")
        if found.count(name) > 1:
            raise InputError(f"feature '{name}' is named twice")
    if not found:
        raise InputError(f"no feature is named: choose from {', '.join(FEATURES)}")
    return found


def _nearest(name):
    """The most similar name, by its letters in order and sorted, so that RSM gives RMS and not SM1."""
    def alike(other):
        pairs = ((name, other), (sorted(name), sorted(other)))
        return sum(difflib.SequenceMatcher(None, a, b).ratio() for a, b in pairs)
    return max(FEATURES, key=alike)


def direct(windows: np.ndarray, selection: str | Iterable[str], rate_hz: float = RATE_HZ) -> np.ndarray:
    """Features by their formulas: windows (N, L, C) -> (N, C, F) float32, or (N, L) -> (N, F)."""
    windows = np.asarray(windows, np.float32)
    if windows.ndim == 2:
        return direct(windows[..., None], selection, rate_hz)[:, 0]
    if windows.ndim != 3:
        raise InputError(f"`windows` must be (N, L, C) or (N, L). Received: shape {windows.shape}")
    chosen = _chosen(selection, windows.shape[1])
    windows = windows.transpose(0, 2, 1)
    out = np.empty(windows.shape[:2] + (len(chosen),), np.float32)
    for rows in _chunks(len(windows), windows.shape[1] * windows.shape[2]):
        out[rows] = _formulas(windows[rows], chosen, rate_hz)
    return out


def extract(emg: np.ndarray, starts: np.ndarray, length: int, selection: str | Iterable[str],
            rate_hz: float = RATE_HZ) -> np.ndarray:
    """Features of the windows emg[s : s + length]: emg (T, C) float32, starts (N,) samples -> (N, C, F) float32."""
    emg, starts = np.asarray(emg, np.float32), np.asarray(starts, np.int64)
    chosen = _chosen(selection, length)
    if emg.ndim != 2 or starts.ndim != 1:
        raise InputError(f"`emg` must be (T, C) and `starts` (N,). Received: shapes {emg.shape} and {starts.shape}")
    if len(starts) and not 0 <= starts.min() <= starts.max() <= len(emg) - length:
        raise InputError(f"`starts` must lie in 0..{len(emg) - length} for windows of {length} in {len(emg)} samples. "
                         f"Received: {starts.min()}..{starts.max()}")
    if not len(starts):
        return np.empty((0, emg.shape[1], len(chosen)), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        energy = np.vdot(emg, emg)  # finite where every sample is: four times as fast as `isfinite` of each
    finite = np.isfinite(energy) or np.isfinite(emg)
    if np.all(finite):
        return _extract(emg, starts, length, chosen, rate_hz)
    out = _extract(np.where(finite, emg, np.float32(0)), starts, length, chosen, rate_hz)
    lost = np.cumsum(np.pad(~finite, ((1, 0), (0, 0))), axis=0)
    out[lost[starts + length] > lost[starts]] = np.nan
    return out


def _chosen(selection, length):
    chosen = [FEATURES[name] for name in names(selection)]
    for feature in chosen:
        if length < feature.shortest:
            raise InputError(f"feature '{feature.name}' needs windows of {feature.shortest} samples or more. "
                             f"Received: {length}")
    return chosen


def _chunks(count, size):
    step = max(1, CHUNK // max(size, 1))
    return (slice(i, i + step) for i in range(0, count, step))


def _formulas(windows, chosen, rate_hz):
    """Windows (n, C, L) float32, perhaps with NaN -> (n, C, F)."""
    finite = np.isfinite(windows)
    lost = ~finite.all(-1)
    w = formulas.Samples(np.where(finite, windows, np.float32(0)), rate_hz)
    with np.errstate(over="ignore"):  # a value beyond float32 is inf
        out = np.stack([f.compute(w) for f in chosen], axis=-1).astype(np.float32)
    out[lost] = np.nan
    return out


def _extract(emg, starts, length, chosen, rate_hz):
    """`extract` of finite samples: from sums where the starts follow a stride, from formed windows elsewhere."""
    stride, runs = sums.plan(starts, length)
    if sums.covered(runs) < len(starts) // 2:  # sorted, they may follow a stride
        ordered, back = np.unique(starts, return_inverse=True)
        if sums.covered(sums.plan(ordered, length)[1]) > len(ordered) // 2:
            return _extract(emg, ordered, length, chosen, rate_hz)[back]
    fast = [i for i, f in enumerate(chosen) if f.needs]
    slow = [i for i, f in enumerate(chosen) if not f.needs]
    out = np.full((len(starts), emg.shape[1], len(chosen)), np.nan, np.float32)
    missing = np.ones(len(starts), bool)
    needs = tuple(dict.fromkeys(name for i in fast for name in chosen[i].needs))
    for low, high in sums.pieces(runs, stride, length, emg.shape[1]) if fast else ():
        missing[low:high] = False
        with np.errstate(over="ignore", invalid="ignore"):  # where it matters, the sums are NaN
            statistics = sums.WindowSums(emg[starts[low] : starts[high - 1] + length], stride, length, needs)
            for i in fast:
                out[low:high, :, i] = chosen[i].compute(statistics)
    windows = np.lib.stride_tricks.sliding_window_view(emg, length, axis=0)  # (T - length + 1, C, length)

    def fill(rows, channels, columns):
        """From formed windows, into columns of `out`: rows (M, 1), channels (M or 1, K)."""
        for part in _chunks(len(rows) if columns else 0, length * channels.shape[1]):
            r, c = rows[part], channels[part] if len(channels) == len(rows) else channels
            values = _formulas(windows[starts[r], c], [chosen[i] for i in columns], rate_hz)
            out[r[..., None], c[..., None], columns] = values

    every = np.arange(emg.shape[1])[None]
    fill(np.flatnonzero(missing)[:, None], every, fast)
    fill(np.arange(len(starts))[:, None], every, slow)
    undone = np.isnan(out)
    rows, channels = np.nonzero(undone.any(-1)) if undone.any() else (every[0, :0], every[0, :0])
    fill(rows[:, None], channels[:, None], fast)
    return out
