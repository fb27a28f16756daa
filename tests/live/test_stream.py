"""The stream against the decoder over whole recordings, and what it does with unfit samples and other rates."""

from dataclasses import replace

import numpy as np
import pytest
from live_cases import played, sure
from scipy.signal import resample_poly, upfirdn

from tfkfin.base.errors import InputError
from tfkfin.live.stream import Stream
from tfkfin.signal.resampling import Resampler, _ratio


def test_a_stream_decides_as_the_decoder_does_over_the_recording(decoder, recording):
    emg = recording.emg[2000:14000]
    stream, expected = Stream(decoder), decoder.stream(emg)
    runs = []
    for sizes in ([1, 199, 200, 230, 239, 3000, 3001, 9000], range(7, 12000, 7)):
        stream.restart(0, 0)
        made = [found for part in np.split(emg, sizes) if (found := stream(part)) is not None]
        assert np.concatenate([m.numbers for m in made]).tolist() == list(range(len(expected["label"])))
        runs.append([np.concatenate([getattr(m, name) for m in made]) for name in ("labels", "probabilities",
                                                                                   "features")])
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, other)  # however samples come
    labels, probabilities, features = runs[0]
    np.testing.assert_allclose(probabilities, expected["probabilities"], atol=2e-5)
    np.testing.assert_allclose(features, expected["features"], rtol=1e-4, atol=1e-5)
    certain = sure(expected["probabilities"], decoder.decision.reject)
    assert certain.mean() > 0.99 and (labels == expected["label"])[certain].all() and len(np.unique(labels)) > 3


def test_strides_that_are_dropped_change_nothing_that_follows(streaming, recording):
    emg = recording.emg[2000:8000]
    whole, skipping = Stream(streaming, 30), Stream(streaming, 30)
    every = whole(emg)
    assert skipping(emg[:1000], 0) is None and skipping.following == (1000 - 200) // 30 + 1
    last = skipping(emg[1000:4000], 1)
    assert last.numbers.tolist() == [(4000 - 200) // 30]
    after = skipping(emg[4000:])
    np.testing.assert_array_equal(after.features, every.features[after.numbers])
    np.testing.assert_array_equal(last.features[0], every.features[last.numbers[0]])


@pytest.mark.parametrize("rates", [(2048, 2000), (200, 2000), (2000, 1000), (250, 2000)])
def test_the_causal_resampler_is_the_other_ones_filter_later(rates):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 2)).astype("f4")
    made = Resampler(*rates)
    parts = [made(part) for part in np.split(x, [1, 2, 50, 51, 1000])]
    got = np.concatenate(parts)
    up, down = _ratio(*rates)
    half = 10 * max(up, down)
    assert len(got) == (len(x) * up - 1) // down + 1 and made.delay_s == half / up / rates[0]
    assert [made.newest(k) for k in (0, 1, 100)] == [0, down // up, 100 * down // up]
    from scipy.signal import firwin

    taps = firwin(2 * half + 1, 1 / max(up, down), window=("kaiser", 5.0)) * up
    start = -(-(2 * half + 1) // down)  # from there on no sample before the first has a say
    np.testing.assert_allclose(got[start:], upfirdn(taps, x, up, down, axis=0)[start : len(got)], atol=1e-5)
    if half % down == 0:
        late = half // down
        offline = resample_poly(x, up, down, axis=0)
        np.testing.assert_allclose(got[start:], offline[start - late : len(got) - late], atol=1e-5)


def test_another_rate_is_resampled_and_spans_are_in_the_sources_samples(streaming, recording):
    half = replace(recording, emg=recording.emg[:12000:2], labels=recording.labels[:12000:2], rate_hz=1000.0)
    stream = Stream(streaming, 40, 1000.0)
    kept = played(stream, half)
    assert len(kept.made) == (12000 - 200) // 40 + 1
    assert stream.span(0) == (0, 99) and stream.span(10) == (200, 299)
    assert kept.made[0].time_s == 0.1 and stream.delay_s == pytest.approx((200 + 2 * 40) / 2 / 2000 + 0.01)
    whole = replace(recording, emg=recording.emg[:12000], labels=recording.labels[:12000])
    before = played(Stream(streaming, 40), whole)
    assert (kept.labels[1:] == before.labels[:-1]).mean() > 0.5  # nearly as that, by the filter's 10 ms later


def test_values_that_are_not_finite_are_held_and_counted(streaming, recording):
    emg = recording.emg[2000:6000].copy()
    emg[1000:1010, 2] = np.nan
    emg[1500] = np.inf
    held = emg.copy()
    held[1000:1010, 2], held[1500] = emg[999, 2], emg[1499]
    stream = Stream(streaming)
    kept = played(stream, replace(recording, emg=emg, labels=recording.labels[2000:6000]))
    stream.restart(0, 0)
    other = played(stream, replace(recording, emg=held, labels=recording.labels[2000:6000]))
    np.testing.assert_array_equal(kept.labels, other.labels)
    for made in kept.made:
        first, last = stream.span(made.window)
        assert made.filled == len(set(range(first, last + 1)) & {*range(1000, 1010), 1500})


def test_another_decoder_goes_on_without_a_gap(streaming, recording):
    emg = recording.emg[2000:6000]
    stream = Stream(streaming, 30)
    every = stream(emg)
    for cut in (1234, 100, 200):
        stream.restart(0, 0)
        first = stream(emg[:cut])
        stream.use(streaming, stream.prepared(streaming))
        second = stream(emg[cut:])
        numbers = [*(first.numbers if first else ()), *second.numbers]
        assert numbers == every.numbers.tolist()
        np.testing.assert_allclose(second.features, every.features[second.numbers], rtol=1e-4, atol=1e-6)


def test_what_does_not_fit_is_refused(streaming):
    with pytest.raises(InputError, match="a stride must be 1 to 200"):
        Stream(streaming, 201)
    with pytest.raises(InputError, match="must be"):
        Stream(streaming)(np.zeros((10, 3)))


def test_no_window_lies_across_a_seam(streaming, recording):
    """Trials that were files of their own, joined: each is decided as if it were alone."""
    joined = replace(recording, emg=recording.emg[:5000], labels=recording.labels[:5000], seams=(2101, 3500))
    stream = Stream(streaming, 40)
    kept, parts = played(stream, joined), []
    for start, stop in ((0, 2101), (2101, 3500), (3500, 5000)):
        stream.restart(0, 0)
        parts.append(stream(recording.emg[start:stop]))
    np.testing.assert_array_equal(kept.labels, np.concatenate([part.labels for part in parts]))
    ends = np.concatenate([start + 200 + 40 * part.numbers for start, part in zip((0, 2101, 3500), parts, strict=True)])
    np.testing.assert_allclose([made.time_s for made in kept.made], ends / 2000)
