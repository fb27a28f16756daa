"""The features that a FIN can imitate: one table of names, formulas and units, and two ways to compute them that agree.

`direct` takes windows. `extract` takes a recording and the starts of windows. Where these follow a stride that divides
the window's length it adds each sample once and forms no window (`sums`); results equal `direct`'s to float32.
Samples are float32. A window with a NaN or infinite sample gives NaN, in that channel alone.
"""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfkfin.base.errors import InputError
from tfkfin.features import formulas, sums

RATE_HZ = 2000.0  # Ninapro DB2
CHUNK = 1 << 19  # samples of windows that are formed at once: each float64 array has 4 MB

HUDGINS = "Hudgins, Parker, Scott 1993"
PHINYOMARK = "Phinyomark, Phukpattaranont, Limsakul 2012"
HJORTH = "Hjorth 1970"
FIN = "Wu, Atashzar, Ghassemi, Alhanai 2025 (arXiv 2405.19356)"
SPECTRUM = "P: one-sided power per bin, mean removed, no taper"


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


def _amplitudes():
    yield Feature("RMS", "root mean square", "sqrt(mean x^2)", "x", FIN, lambda w: np.sqrt(w.square), ("plain",),
                  log=True)
    yield Feature("VAR", "variance", "mean (x - mean x)^2, ddof 0; 0 for a flat window", "x^2", FIN, lambda w: w.var,
                  ("plain",), log=True)
    yield Feature("SSI", "simple square integral", "sum x^2", "x^2", FIN, lambda w: w.square * w.length, ("plain",),
                  log=True)
    yield Feature("MAV", "mean absolute value", "mean |x|", "x", HUDGINS, lambda w: w.absolute / w.length, ("abs",),
                  log=True)
    yield Feature("IAV", "integral of absolute value", "sum |x|", "x", PHINYOMARK, lambda w: w.absolute, ("abs",),
                  log=True)
    yield Feature("WL", "waveform length", "sum |x[i+1] - x[i]|", "x", HUDGINS, lambda w: w.path, ("path",), log=True)
    yield Feature("LOG", "log detector", "exp(mean ln|x|) over the samples that are not 0; 0 if all are", "x",
                  PHINYOMARK, formulas.log_detector, ("logs",), log=True)
    yield Feature("LOGVAR", "log variance", "ln max(VAR, 1.2e-38)", "ln x^2", "Blankertz et al. 2008",
                  lambda w: np.log(np.maximum(w.var, formulas.TINY)), ("plain",))


def _counts():
    yield Feature("ZC", "zero crossings", f"count of sign changes that step by more than {formulas.ZC_THRESHOLD:g}; "
                  "0 is positive", "1", HUDGINS, lambda w: w.crossings, ("crossings",))
    yield Feature("SSC", "slope sign changes", f"count of turns whose larger step exceeds {formulas.SSC_THRESHOLD:g}",
                  "1", HUDGINS, lambda w: w.turns, ("turns",), shortest=2)
    yield Feature("WAMP", "Willison amplitude", f"count of |x[i+1] - x[i]| > {formulas.WAMP_THRESHOLD:g}", "1",
                  PHINYOMARK, lambda w: w.jumps, ("jumps",))


def _shapes():
    yield Feature("SKEW", "skewness", "mean (x - mean x)^3 / sd^3, ddof 0; 0 for a flat window", "1", PHINYOMARK,
                  lambda w: w.moment_ratio(3), ("high_moments",))
    yield Feature("KURT", "excess kurtosis (Fisher)", "mean (x - mean x)^4 / sd^4 - 3, ddof 0; 0 for a flat window",
                  "1", PHINYOMARK, formulas.kurtosis, ("high_moments",))
    yield Feature("MOB", "Hjorth mobility", "sqrt(var dx / var x), a sample; 0 for a flat window", "1", HJORTH,
                  lambda w: formulas.mobility(w.var, w.step_var), ("plain", "steps"), shortest=3)
    yield Feature("COM", "Hjorth complexity", "mobility(dx) / mobility(x); 0 for a flat window or slope", "1", HJORTH,
                  lambda w: formulas.complexity(w.var, w.step_var, w.bend_var), ("plain", "steps", "bends"),
                  shortest=4)
    for i in range(formulas.AR_ORDER):
        yield Feature(f"AR{i + 1}", f"autoregressive coefficient {i + 1} of {formulas.AR_ORDER}",
                      "a_k of x[t] = -sum a_k x[t-k] + e, Burg, mean kept", "1", "Burg 1975",
                      lambda w, i=i: w.ar[..., i], shortest=formulas.AR_ORDER + 1)


def _entropies():
    yield Feature("ENT", "entropy of the softmax", "ln sum e^x - sum x e^x / sum e^x", "nats", FIN + ", its code",
                  formulas.entropy, ("softmax",))
    yield Feature("PERMENT", "permutation entropy", "-sum p log2 p over the orders of 3 neighbours; ties rise", "bits",
                  "Bandt, Pompe 2002; Cao et al. 2004", formulas.permutation_entropy, ("patterns",), shortest=3)
    yield Feature("SAMPEN", "sample entropy", "-ln(A/B), m = 2, r = 0.2 sd; none found: ln((L-2)(L-3)/2); flat: 0",
                  "nats", "Richman, Moorman 2000", formulas.sample_entropy, shortest=4)
    yield Feature("HISTENT", "histogram entropy", f"-sum p ln p over {formulas.HIST_BINS} bins of "
                  f"-{formulas.HIST_RANGE:g}..{formulas.HIST_RANGE:g} x; the end bins take what lies beyond", "nats",
                  "Shannon 1948", formulas.histogram_entropy)
    yield Feature("SPECENT", "spectral entropy", f"-sum p log2 p, p = P / sum P ({SPECTRUM}); flat: 0", "bits",
                  "Inouye et al. 1991", formulas.spectral_entropy)


def _spectra():
    yield Feature("MNF", "mean frequency", f"sum f P / sum P ({SPECTRUM}); flat: 0", "Hz", PHINYOMARK,
                  formulas.mean_frequency)
    yield Feature("MDF", "median frequency", f"the first f with half of P at or below ({SPECTRUM}); flat: 0", "Hz",
                  PHINYOMARK, formulas.median_frequency)
    for k in (1, 2, 3):
        yield Feature(f"SM{k}", f"spectral moment {k}", f"sum f^{k} P ({SPECTRUM})", f"x^2 Hz^{k}", "Du, Vuskovic 2004",
                      lambda w, k=k: w.spectrum[1] @ w.spectrum[0] ** k, log=True)


FEATURES = {f.name: f for part in (_entropies, _amplitudes, _counts, _shapes, _spectra) for f in part()}


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


def extract(
    emg: np.ndarray, starts: np.ndarray, length: int, selection: str | Iterable[str], rate_hz: float = RATE_HZ
) -> np.ndarray:
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
