"""Every feature against an independent oracle, the streaming way against the direct one, and what odd input gives."""

import warnings

import numpy as np
import pytest
import scipy.signal
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from tfkfin.base.errors import InputError
from tfkfin.features import catalogue as F
from tfkfin.features import sums as feature_sums

ALL = tuple(F.FEATURES)
STREAMING = tuple(name for name, feature in F.FEATURES.items() if feature.needs)
COUNTS = ("ZC", "SSC", "WAMP", "PERMENT")


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def noise(*shape, seed=0):
    """Coloured noise: neighbours are alike, as in EMG, so that differences and spectra have a shape."""
    white = np.random.default_rng(seed).standard_normal((shape[0] + 4,) + shape[1:])
    return (0.6 * white[4:] + 0.5 * white[3:-1] + 0.3 * white[2:-2] - 0.2 * white[:-4]).astype(np.float32)


def cut(emg, starts, length):
    return np.stack([emg[s : s + length] for s in starts]) if len(starts) else np.zeros((0, length, emg.shape[1]))


def close(got, want, names, scale=1.0):
    """Equal to float32: a few units in the last place, or of what the value is a difference of; counts are equal."""
    for i, name in enumerate(names):
        atol = {"ENT": 2e-6, "LOGVAR": 2e-5, "SKEW": 1e-5, "KURT": 1e-4}.get(name, 0)
        rtol = 0 if name in COUNTS else 2e-6
        np.testing.assert_allclose(got[..., i], want[..., i], rtol=rtol, atol=atol * scale, err_msg=name)


# --- oracles -------------------------------------------------------------------------------------------------------

def autoregressive(x):
    return pytest.importorskip("librosa").lpc(x, order=4)[1:]


def median_frequency(x):
    f, p = scipy.signal.periodogram(x, 2000.0)
    total = 0.0
    for frequency, power in zip(f, p, strict=True):
        total += power
        if total >= p.sum() / 2:
            return frequency


def spectral_moment(k):
    def of(x):
        f, p = scipy.signal.periodogram(x, 2000.0, scaling="spectrum")
        return (f**k * p).sum()
    return of


def histogram_entropy(x):
    return scipy.stats.entropy(np.histogram(np.clip(x, -4, 3.9999), 32, (-4, 4))[0])


def turns(x):
    """Strict local extremes, by SciPy's peak finder."""
    return len(scipy.signal.argrelmax(x)[0]) + len(scipy.signal.argrelmin(x)[0])


ORACLES = {
    "ENT": lambda x: scipy.stats.entropy(scipy.special.softmax(x)),
    "RMS": lambda x: np.linalg.norm(x) / np.sqrt(len(x)),
    "VAR": np.var,
    "SSI": lambda x: np.dot(x, x),
    "MAV": lambda x: np.linalg.norm(x, 1) / len(x),
    "IAV": lambda x: np.linalg.norm(x, 1),
    "WL": lambda x: np.abs(np.diff(x)).sum(),
    "ZC": lambda x: pytest.importorskip("antropy").num_zerocross(x),
    "SSC": turns,
    "WAMP": lambda x: sum(abs(b - a) > 0.1 for a, b in zip(x[:-1], x[1:], strict=True)),
    "LOG": lambda x: scipy.stats.gmean(np.abs(x)),
    "LOGVAR": lambda x: np.log(np.var(x)),
    "SKEW": scipy.stats.skew,
    "KURT": scipy.stats.kurtosis,
    "MOB": lambda x: pytest.importorskip("antropy").hjorth_params(x)[0],
    "COM": lambda x: pytest.importorskip("antropy").hjorth_params(x)[1],
    "AR1": lambda x: autoregressive(x)[0],
    "AR2": lambda x: autoregressive(x)[1],
    "AR3": lambda x: autoregressive(x)[2],
    "AR4": lambda x: autoregressive(x)[3],
    "MNF": lambda x: np.average(*(lambda f, p: (f, None, p))(*scipy.signal.periodogram(x, 2000.0))),
    "MDF": median_frequency,
    "SM1": spectral_moment(1),
    "SM2": spectral_moment(2),
    "SM3": spectral_moment(3),
    "PERMENT": lambda x: pytest.importorskip("antropy").perm_entropy(x),
    "SAMPEN": lambda x: pytest.importorskip("antropy").sample_entropy(x),
    "SPECENT": lambda x: pytest.importorskip("antropy").spectral_entropy(x, 2000.0),
    "HISTENT": histogram_entropy,
}


def test_every_feature_has_an_oracle():
    assert set(ORACLES) == set(F.FEATURES)


@pytest.mark.parametrize("length", [64, 135, 600])
@pytest.mark.parametrize("name", ALL)
def test_feature_equals_its_oracle(name, length):
    windows = noise(length, 3, 2, seed=length).transpose(1, 0, 2)  # (3, L, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an oracle's own imports
        want = [[ORACLES[name](x.astype(np.float64)) for x in window.T] for window in windows]
    np.testing.assert_allclose(F.FEATURES[name].direct(windows), want, rtol=2e-6, atol=1e-6)


def test_tsfel_and_statsmodels_agree():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tsfel = pytest.importorskip("tsfel.feature_extraction.features")
        burg = pytest.importorskip("statsmodels.regression.linear_model").burg
    x = noise(600)
    got = dict(zip(ALL, F.direct(x[None], ALL)[0], strict=True))
    pairs = {"RMS": tsfel.rms, "VAR": tsfel.calc_var, "SSI": tsfel.abs_energy, "WL": tsfel.sum_abs_diff,
             "ZC": tsfel.zero_cross, "SKEW": tsfel.skewness, "KURT": tsfel.kurtosis}
    for name, oracle in pairs.items():
        assert got[name] == pytest.approx(oracle(x.astype(np.float64)), rel=1e-5), name
    rho, _ = burg(x.astype(np.float64), order=4, demean=False)
    np.testing.assert_allclose([got[f"AR{i}"] for i in (1, 2, 3, 4)], -rho, rtol=1e-5)


def test_by_hand():
    x = np.array([[0.0, 1.0, -1.0, 2.0]])
    hand = {"SSI": 6, "RMS": 1.5**0.5, "VAR": 1.25, "MAV": 1, "IAV": 4, "WL": 6, "ZC": 2, "SSC": 2, "WAMP": 3,
            "LOG": 2 ** (1 / 3), "LOGVAR": np.log(1.25), "SKEW": 0, "KURT": (2 * 0.5**4 + 2 * 1.5**4) / 4 / 1.25**2 - 3,
            "PERMENT": 1,  # orders 1-2-0 and 1-0-2, one each
            "MOB": (38 / 9 / 1.25) ** 0.5}  # steps 1, -2, 3: variance 14/3 - 4/9
    np.testing.assert_allclose(F.direct(x, hand)[0], list(hand.values()), rtol=1e-6, atol=1e-7)
    assert F.direct(np.log([[1.0, 1.0, 2.0]]), ["ENT"]) == pytest.approx(1.5 * np.log(2))  # p = 1/4, 1/4, 1/2


# --- streaming = direct --------------------------------------------------------------------------------------------

def runs(*pairs):
    return np.concatenate([np.arange(low, high) for low, high in pairs])


STARTS = {  # name: (length, starts)
    "paper": (600, np.arange(0, 2400, 20)),
    "several runs": (600, np.concatenate([np.arange(3, 900, 20), np.arange(1501, 2300, 20), [2399]])),
    "stride 1": (50, np.arange(10, 60)),
    "stride 2": (50, np.arange(10, 160, 2)),
    "stride = length": (200, np.arange(0, 2800, 200)),
    "stride > length": (100, np.arange(0, 2800, 150)),
    "stride that does not divide": (300, np.arange(0, 2600, 70)),
    "prime": (407, np.arange(5, 2500, 37)),
    "long stride": (900, np.arange(0, 2100, 300)),
    "one window": (600, np.array([17])),
    "none": (600, np.array([], int)),
    "out of order": (600, np.random.default_rng(1).permutation(np.arange(0, 2400, 20))),
    "repeated": (600, np.repeat(np.arange(0, 400, 20), 2)),
    "backwards": (600, np.arange(0, 2400, 20)[::-1]),
    "anywhere": (250, np.random.default_rng(2).integers(0, 2700, 40)),
    "to the last sample": (600, np.arange(2400 - 10 * 20, 2401, 20)),
}


@pytest.mark.parametrize("case", STARTS)
@pytest.mark.parametrize("channels", [1, 5])
def test_streaming_equals_direct(case, channels):
    length, starts = STARTS[case]
    emg = noise(3000, channels)
    got = F.extract(emg, starts, length, STREAMING)
    assert got.shape == (len(starts), channels, len(STREAMING)) and got.dtype == np.float32
    close(got, F.direct(cut(emg, starts, length), STREAMING), STREAMING)


@pytest.mark.parametrize("amplitude", [1e-6, 1e-3, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("offset", [0.0, 10.0, -1000.0])
def test_streaming_equals_direct_at_any_amplitude_and_mean(amplitude, offset):
    emg = (noise(1600, 2) + np.float32(offset)) * np.float32(amplitude)
    starts = np.arange(0, 1000, 20)
    got = F.extract(emg, starts, 600, STREAMING)
    assert np.isfinite(got).all()
    close(got, F.direct(cut(emg, starts, 600), STREAMING), STREAMING, scale=5)


@pytest.mark.parametrize("amplitude", [1e-20, 1e10, 1e30])
def test_streaming_equals_direct_where_float32_powers_end(amplitude):
    emg, starts = noise(1600, 2) * np.float32(amplitude), np.arange(0, 1000, 20)
    got = F.extract(emg, starts, 600, STREAMING)
    close(got, F.direct(cut(emg, starts, 600), STREAMING), STREAMING, scale=5)


def test_streaming_survives_steps_spikes_and_silence():
    emg = noise(6000, 4)
    emg[2000:4000, 0] += 3000  # a step: windows far from the run's mean
    emg[3000, 1] = 1e4  # a spike: other windows keep their entropy
    emg[1500:4500, 2] = 0.1  # a flat stretch that is not 0
    emg[:, 3] *= np.linspace(0, 100, 6000)  # a slow growth
    starts = np.arange(0, 5400, 20)
    got, want = F.extract(emg, starts, 600, STREAMING), F.direct(cut(emg, starts, 600), STREAMING)
    for i, name in enumerate(STREAMING):
        atol = {"SKEW": 1e-4, "KURT": 1e-3, "LOGVAR": 1e-4, "ENT": 1e-5, "VAR": 1e-10}.get(name, 0)
        np.testing.assert_allclose(got[..., i], want[..., i], rtol=1e-5, atol=atol, err_msg=name)


def test_streaming_forms_no_window_and_direct_features_mix_in(monkeypatch):
    emg, starts = noise(2000, 3), np.arange(0, 1000, 20)
    want = F.extract(emg, starts, 600, ("MNF", "ENT", "AR1"))
    np.testing.assert_array_equal(want[..., 1:2], F.extract(emg, starts, 600, ["ENT"]))
    np.testing.assert_array_equal(want[..., [0, 2]], F.extract(emg, starts, 600, ["MNF", "AR1"]))
    monkeypatch.setattr(F, "_formulas", None)
    F.extract(emg, starts, 600, ("ENT", "RMS", "VAR", "SSI"))


def test_pieces_do_not_show(monkeypatch):
    emg, starts = noise(9000, 2), np.arange(0, 8400, 20)
    whole = F.extract(emg, starts, 600, STREAMING)
    monkeypatch.setattr(feature_sums, "RUN", 1)
    monkeypatch.setattr(feature_sums, "PIECE", 1)
    assert len(list(feature_sums.pieces([(0, len(starts))], 20, 600, 2))) == 2
    close(F.extract(emg, starts, 600, STREAMING), whole, STREAMING)


@given(st.integers(1, 40), st.integers(0, 30), st.integers(1, 3))
def test_slide_adds_neighbours(n, k, c):
    blocks = np.random.default_rng(n).standard_normal((n + max(k, 1) - 1, c))
    want = [blocks[i : i + k].sum(0) for i in range(len(blocks) - k + 1)]
    np.testing.assert_allclose(feature_sums.slide(blocks, k), want, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(4, 30), st.integers(0, 99), st.integers(1, 3))
def test_streaming_equals_direct_for_any_stride(stride, k, n, seed, channels):
    length = stride * k
    chosen = tuple(name for name in STREAMING if F.FEATURES[name].shortest <= length)
    starts = seed + stride * np.arange(n)
    emg = np.round(noise(starts[-1] + length + seed % 2, channels, seed=seed), 1)  # rounded: ties, zeros
    got, want = F.extract(emg, starts, length, chosen), F.direct(cut(emg, starts, length), chosen)
    for i, name in enumerate(chosen):  # a few samples may all but agree: their variance is small beside the mean's
        np.testing.assert_allclose(got[..., i], want[..., i], rtol=1e-4, atol=1e-4, err_msg=name)


# --- properties ----------------------------------------------------------------------------------------------------

LINEAR, SQUARE = ("RMS", "MAV", "IAV", "WL", "LOG"), ("VAR", "SSI", "SM1", "SM2", "SM3")
FREE = ("SKEW", "KURT", "MOB", "COM", "AR1", "AR4", "MNF", "MDF", "SPECENT", "PERMENT", "SAMPEN", "ZC", "SSC")


@settings(max_examples=20, deadline=None)
@given(st.integers(-12, 12), st.integers(0, 1000))
def test_scale(exponent, seed):
    windows, scale = noise(120, 2, 2, seed=seed).transpose(1, 0, 2), np.float32(2.0**exponent)
    for chosen, power in ((LINEAR, 1), (SQUARE, 2), (FREE, 0)):
        np.testing.assert_allclose(
            F.direct(windows * scale, chosen), F.direct(windows, chosen) * scale**power, rtol=1e-5, atol=1e-30)


@settings(max_examples=20, deadline=None)
@given(st.integers(-4, 4), st.permutations(range(4)), st.integers(0, 1000))
def test_shift_and_permutation(shift, order, seed):
    emg = np.round(noise(400, 4, seed=seed) * 64) / np.float32(64)  # whole 64ths: the shift is exact
    starts, still = np.arange(0, 280, 20), ("ENT", "VAR", "WL", "SSC", "WAMP", "KURT", "MOB", "COM", "PERMENT")
    before = F.extract(emg, starts, 120, still)
    np.testing.assert_allclose(F.extract(emg + np.float32(shift), starts, 120, still), before, rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(F.extract(emg[:, order], starts, 120, still), before[:, order], rtol=2e-6, atol=2e-6)


def test_entropy_lies_between_one_sample_and_all():
    assert F.direct(np.full((1, 600), 7.0), ["ENT"])[0, 0] == pytest.approx(np.log(600))
    spike = np.zeros((1, 600))
    spike[0, 300] = 1e6
    assert F.direct(spike, ["ENT"])[0, 0] == 0


# --- odd input -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("level", [0.0, 0.1, -3.7, 1e4, 1e-6])
@pytest.mark.parametrize("way", ["direct", "extract"])
def test_flat_windows_give_the_stated_values(level, way):
    emg = np.full((1000, 2), level, np.float32)
    starts = np.arange(0, 400, 20)
    values = F.direct(cut(emg, starts, 600), ALL) if way == "direct" else F.extract(emg, starts, 600, ALL)
    got = {name: values[..., i] for i, name in enumerate(ALL)}
    size = abs(np.float32(level))
    want = {"ENT": np.log(600), "RMS": size, "MAV": size, "LOG": size, "IAV": 600 * size,
            "SSI": 600 * np.float64(size) ** 2, "LOGVAR": np.log(np.finfo(np.float32).tiny),
            "AR1": -1 if level else 0}
    for name in ALL:
        np.testing.assert_allclose(got[name], want.get(name, 0), rtol=2e-6, atol=1e-12, err_msg=name)


def test_ramp_has_no_complexity():
    ramp = np.arange(600, dtype=np.float32)[None]
    assert F.direct(ramp, ["COM", "SSC", "PERMENT"]).tolist() == [[0, 0, 0]]
    got = F.extract(np.arange(1000, dtype=np.float32)[:, None], np.arange(0, 400, 20), 600, ["COM", "MOB"])
    assert (got == 0).all()


def test_a_signal_without_repeats_has_the_largest_sample_entropy():
    assert F.direct(2.0 ** np.arange(10)[None], ["SAMPEN"])[0, 0] <= np.log(8 * 7 / 2)
    assert F.direct(np.array([[0.0, 3.0, -9.0, 27.0]]), ["SAMPEN"])[0, 0] == 0  # ln(2 * 1 / 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_missing_sample_marks_its_windows_and_channel_alone(bad):
    emg, starts = noise(2000, 3), np.arange(0, 1400, 20)
    clean = F.extract(emg, starts, 600, ALL)
    emg[700, 1] = bad
    got = F.extract(emg, starts, 600, ALL)
    hit = (starts <= 700) & (700 < starts + 600)
    assert np.isnan(got[hit, 1]).all()
    np.testing.assert_allclose(got[~hit], clean[~hit], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(got[:, [0, 2]], clean[:, [0, 2]])
    np.testing.assert_array_equal(np.isnan(F.direct(cut(emg, starts, 600), ALL)), np.isnan(got))


def test_input_is_not_changed():
    emg = noise(800, 2)
    emg[3, 0] = np.nan
    copy = emg.copy()
    F.extract(emg, np.arange(0, 200, 20), 600, ALL)
    F.direct(emg[None], ALL)
    np.testing.assert_array_equal(emg, copy)


def test_names_are_normalised():
    assert F.names(["ent", " Rms"]) == ("ENT", "RMS")
    assert F.names("wl, zc") == ("WL", "ZC")


@pytest.mark.parametrize(("selection", "message"), [
    (["RSM"], "unknown feature 'RSM': did you mean 'RMS'"),
    (["entr"], "unknown feature 'entr': did you mean 'ENT'"),
    (["ENT", "ent"], "feature 'ENT' is named twice"),
    ([], "no feature is named"),
])
def test_unfit_names(selection, message):
    with pytest.raises(InputError, match=message):
        F.names(selection)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: F.extract(np.zeros((100, 2)), [0, 60], 50, ["RMS"]), r"`starts` must lie in 0\.\.50"),
    (lambda: F.extract(np.zeros((100, 2)), [-1], 50, ["RMS"]), r"`starts` must lie in 0\.\.50"),
    (lambda: F.extract(np.zeros(100), [0], 50, ["RMS"]), r"`emg` must be \(T, C\)"),
    (lambda: F.direct(np.zeros(100), ["RMS"]), r"`windows` must be \(N, L, C\)"),
    (lambda: F.direct(np.zeros((1, 3)), ["AR1"]), "feature 'AR1' needs windows of 5 samples or more. Received: 3"),
])
def test_unfit_arrays(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_registry_is_complete():
    for name, feature in F.FEATURES.items():
        assert name == feature.name == name.upper()
        assert all((feature.title, feature.formula, feature.unit, feature.reference)), name
