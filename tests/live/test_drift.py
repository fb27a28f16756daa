"""A device whose clock is off: its rate is read from when samples come, and its signal is what it truly was."""

import numpy as np
import pytest
from live_cases import Kept

from tfkfin.live.loop import Loop
from tfkfin.live.sources import SPAN_S, Chunk, Drift, LiveSource
from tfkfin.live.stream import Stream


def arrivals(rate_hz, seconds, packet=40, seed=3):
    """When packets of a device are here: late by chance, now and then by much, and at once with those before."""
    rng = np.random.default_rng(seed)
    due = np.arange(1, int(seconds * rate_hz / packet) + 1) * packet / rate_hz
    late = rng.exponential(0.003, len(due)) + 0.1 * (rng.random(len(due)) < 0.01)
    return np.maximum.accumulate(due + late)


@pytest.mark.parametrize("off", [-0.005, -0.001, 0.0, 0.0002, 0.002, 0.005, 0.03])
def test_a_rate_is_read_from_arrivals(off):
    """To a fifth of a thousandth within two spans; nothing is said of a clock that is right, or of no clock at all."""
    drift, found = Drift(2000.0), []
    for received in arrivals(2000 * (1 + off), 200):
        found += [rate] if (rate := drift(40, received)) else []
    if 0.0005 < abs(off) < 0.01:
        assert found == [pytest.approx(2000 * (1 + off), rel=2e-4)]
    else:
        assert found == []


def told(*rates_hz):
    """What is said at the end of each span, of packets that come on time at the rate of the span."""
    drift, when, said = Drift(2000.0), 0.0, []
    drift(40, when)
    for rate in rates_hz:
        begun = drift._start if drift._start is not None else when + 40 / rate
        while when < begun + SPAN_S:
            when += 40 / rate
            found = drift(40, when)
            said += [found] if found else []
    return said


def test_a_rate_is_the_mean_of_two_spans_that_agree():
    """One span alone says nothing, nor do two that differ by more than a fifth of a thousandth."""
    assert told(2008) == [] and told(2008, 2009) == [] and told(2008, 2000, 2008) == []
    assert told(2008, 2008.3) == [pytest.approx(2008.15, abs=0.01)]


def test_a_standstill_is_no_slow_clock():
    drift, when = Drift(2000.0), arrivals(2000.0, 200)
    when[len(when) // 2 :] += 2.0  # late for two seconds, for ever
    assert [rate for received in when if (rate := drift(40, received))] == []


class Device(LiveSource):
    rate_hz, channels, drifts = 2000.0, 4, True


def test_a_drifting_signal_becomes_what_it_was(streaming):
    """A tone of 200 Hz, sampled 0.4 % too fast: at the decoder's rate it has 200 Hz again, by its spectrum."""
    true_hz, stream, kept, seen = 2008.0, Stream(streaming, 40), Kept(), []
    loop = Loop(stream, Device(), [kept])
    stream.network = lambda volts, newest=None: seen.append((stream.source_hz, volts))
    stream.network.restart = lambda: None
    for i, received in enumerate(arrivals(true_hz, 75)):
        tone = 1e-5 * np.sin(2 * np.pi * 200 * np.arange(40 * i, 40 * i + 40) / true_hz)
        loop._take(Chunk(np.tile(tone[:, None], 4).astype("f4"), received), None)

    def tone_hz(rate):
        x = np.concatenate([volts[:, 0] for hz, volts in seen if (hz == 2000) == (rate == 2000)])[1000:17000]
        spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x)), 1 << 20))
        return spectrum.argmax() * 2000 / (1 << 20)

    assert tone_hz(2000) == pytest.approx(200 * 2000 / true_hz, abs=0.01)
    assert stream.source_hz == pytest.approx(true_hz, rel=2e-4) and tone_hz(true_hz) == pytest.approx(200, abs=0.05)
    assert ["200" in note and "begin anew" in note for note in kept.notes] == [True]
    first, last = stream.span(stream.following - 1)
    assert loop._count - 1 - last < 50 and last - first == pytest.approx(199 * true_hz / 2000, abs=1.6)
