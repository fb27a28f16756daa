"""Filters against SciPy's transfer functions, and the same everywhere: recordings, chunks, graphs, digests."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import signal

from tfkfin import recipe as recipes
from tfkfin.base.errors import InputError
from tfkfin.pipeline import dataset
from tfkfin.pipeline.subject import Subject
from tfkfin.recipe import Filter
from tfkfin.recordings import readers
from tfkfin.serving.signatures import filtered as in_graph
from tfkfin.signal.filtering import Causal, filtered, sections

RATE = 2000.0
OPTIONS = [Filter(high_pass_hz=20), Filter(low_pass_hz=400, order=4), Filter(high_pass_hz=20, low_pass_hz=450),
           Filter(notch_hz=50), Filter(high_pass_hz=15, notch_hz=50, notches=3)]
rng = np.random.default_rng(3)


def volts(samples=5000, channels=3, offset=1e-3):
    t = np.arange(samples)[:, None] / RATE
    return (1e-5 * rng.standard_normal((samples, channels)) + 2e-5 * np.sin(2 * np.pi * 50 * t) + offset).astype("f4")


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_filter_is_its_transfer_function(options):
    """Polynomials of numerator and denominator, not sections, and a signal that was at its first value for ever."""
    emg, sos = volts(), sections(options, RATE)
    b, a = signal.sos2tf(sos)
    held = np.concatenate([np.repeat(emg[:1].astype(float), 20_000, axis=0), emg])
    expected = signal.lfilter(b, a, held, axis=0)[20_000:]
    np.testing.assert_allclose(filtered(emg, sos), expected, atol=2e-9)
    causal, parts = Causal(sos), np.split(emg, [1, 7, 8, 400, 2001])
    np.testing.assert_array_equal(np.concatenate([causal(part) for part in parts]), filtered(emg, sos))
    np.testing.assert_allclose(in_graph(sos)(tf.constant(emg[None]))[0], expected, atol=2e-9)
    for few in (1, 63, 64, 65):
        np.testing.assert_allclose(in_graph(sos)(tf.constant(emg[None, :few]))[0], expected[:few], atol=2e-9)


def test_offset_and_hum_go_and_what_comes_later_is_not_seen():
    sos = sections(Filter(high_pass_hz=20, notch_hz=50), RATE)
    t = np.arange(8000)[:, None] / RATE
    hum = (5e-3 + 1e-4 * np.sin(2 * np.pi * 50 * t)).astype("f4")
    left = filtered(hum, sos)[4000:]
    assert np.abs(left).max() < 2e-7  # of 100 uV
    emg = volts()
    other = emg.copy()
    other[2000:] = 7
    np.testing.assert_array_equal(filtered(emg, sos)[:2000], filtered(other, sos)[:2000])
    np.testing.assert_array_equal(filtered(other, sos, [2000])[2000:], filtered(other[2000:], sos))


@pytest.mark.parametrize("options, said", [
    ({"high_pass_hz": 1000}, "high_pass_hz must lie below half the rate, 1000 Hz"),
    ({"notch_hz": 1200}, "notch_hz"), ({"low_pass_hz": 5000}, "low_pass_hz")])
def test_what_does_not_fit_the_rate_is_said(options, said):
    with pytest.raises(InputError, match=said):
        sections(options, RATE)
    with pytest.raises(InputError, match="high_pass_hz must be below low_pass_hz"):
        recipes.load(None, {"filter.high_pass_hz": 100, "filter.low_pass_hz": 50})


def test_recipes_that_ask_for_nothing_new_are_what_they_were():
    """Digests as they were before there were filters: old runs go on."""
    assert recipes.load(None, {"filter.order": 4}).digest == recipes.load(None).digest == "a198cfb5491f"
    assert recipes.load(None, {"filter.notch_hz": 50}).digest != "a198cfb5491f"


def test_a_dataset_is_filtered_and_nothing_rings_from_test_into_training(tiny_db2):
    settings = {"source.kind": "recordings", "window.length_ms": 100, "filter.high_pass_hz": 20,
                "filter.notch_hz": 50, "split.test_repetitions": "2,5"}
    recipe = recipes.load(None, settings)
    opened = dataset.open_dataset(recipe, tiny_db2)
    recording = readers.read(opened.files[1][0])
    plain = Subject.of([recording], recipe.window)
    one = Subject.of([recording], recipe.window, recipe.filter)
    b, a = signal.sos2tf(sections(recipe.filter, 2000))
    whole = signal.lfilter(b, a, recording.emg - recording.emg[0].astype(float), axis=0)
    start = one.places[40]
    np.testing.assert_allclose(one.volts(200, slice(40, 41))[0], whole[start : start + 200], atol=1e-9)
    assert not np.allclose(one.mean, plain.mean)
    noisy = recording.emg.copy()
    noisy[np.isin(recording.repetitions, (2, 5)) & (recording.labels > 0)] += 1e-3
    train = opened.part("train")
    clean, marked = (opened.load(1, train, emg) for emg in (recording.emg, noisy))
    np.testing.assert_array_equal(clean.emg, marked.emg)
    assert (clean.mean == marked.mean).all()
