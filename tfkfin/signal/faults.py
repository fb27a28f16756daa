"""What goes wrong on an arm, done to a recorded signal: the faults that decoders are tried with.

A fault is (rng, emg (T, C) volts, mean (C,), sd (C,), rate in Hz) -> (T, C); mean and sd are those of training.
`FAULTS` has a fault and which electrodes it befalls: all at once, each in turn, or each with the next one.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scipy import signal

MAINS_HZ = 50.0


def clean(rng, emg, mean, sd, rate_hz):
    return emg


def offset(rng, emg, mean, sd, rate_hz):
    """Two standard deviations: electrodes polarise, amplifiers drift."""
    return emg + 2 * sd


def hum(rng, emg, mean, sd, rate_hz):
    """The mains, two standard deviations of it."""
    return emg + 2 * sd * _tone(rng, emg, MAINS_HZ, rate_hz)


def harmonics(rng, emg, mean, sd, rate_hz):
    """Multiples of the mains, as rectifiers and lamps give, as far as the rate has room for them."""
    sizes = {2: 0.5, 3: 0.7, 5: 0.5, 7: 0.3}
    return emg + sd * sum(size / np.sqrt(2) * _tone(rng, emg, k * MAINS_HZ, rate_hz) for k, size in sizes.items()
                          if k * MAINS_HZ < rate_hz / 2)


def dead(rng, emg, mean, sd, rate_hz):
    """A cable that is broken: nothing, 0 V."""
    return np.zeros_like(emg)


def electrode_lost(rng, emg, mean, sd, rate_hz):
    """An electrode that has come off and hangs in the air: the mains and noise, five standard deviations in all."""
    return mean + sd * (4.9 * _tone(rng, emg, MAINS_HZ, rate_hz) + rng.standard_normal(emg.shape))


def gain_up(rng, emg, mean, sd, rate_hz):
    return 3 * emg


def gain_down(rng, emg, mean, sd, rate_hz):
    return 0.3 * emg


def inverted(rng, emg, mean, sd, rate_hz):
    """A bipolar electrode turned by 180 degrees; an envelope has no sign to lose, and is mirrored about its mean."""
    return 2 * mean - emg


def swapped(rng, emg, mean, sd, rate_hz):
    """Two plugs in each other's socket."""
    return emg[:, ::-1]


def clipped(rng, emg, mean, sd, rate_hz):
    """An amplifier that is driven too far."""
    return np.clip(emg, mean - 0.8 * sd, mean + 0.8 * sd)


def spikes(rng, emg, mean, sd, rate_hz):
    """Eight a second and electrode, of 5 to 25 standard deviations, up to 2 ms long."""
    found = emg.copy()
    for column, size in enumerate(sd):
        for start in rng.integers(0, len(emg), round(8 * len(emg) / rate_hz)):
            stop = start + rng.integers(1, max(2, round(0.002 * rate_hz) + 1))
            found[start:stop, column] += rng.choice([-1, 1]) * rng.uniform(5, 25) * size
    return found


def held(rng, emg, mean, sd, rate_hz):
    """A fifth of the samples lost on the air, in gaps of 2 to 20 ms in which the last value is held."""
    lengths = np.maximum(1, np.round(rate_hz * rng.uniform(0.002, 0.02, len(emg)))).astype(int)
    between = np.maximum(1, np.round(4 * rng.exponential(0.011 * rate_hz, len(emg)))).astype(int)
    source, at = np.arange(len(emg)), 0
    for gap, stretch in zip(lengths, between, strict=True):
        if (at := at + stretch) >= len(emg):
            break
        source[at : at + gap] = at - 1
        at += gap
    return emg[source]


def motion(rng, emg, mean, sd, rate_hz):
    """Cables that move: noise below 60 Hz of 1.5 standard deviations, in two of five half-seconds."""
    noise = signal.sosfilt(signal.butter(2, min(60, 0.4 * rate_hz), fs=rate_hz, output="sos"),
                           rng.standard_normal(emg.shape), axis=0)
    half = max(1, round(rate_hz / 2))
    there = np.repeat(rng.random(-(-len(emg) // half)) < 0.4, half)[: len(emg), None]
    return emg + 1.5 * sd * there * noise / (noise.std(axis=0) + 1e-12)


def coarse(rng, emg, mean, sd, rate_hz):
    """A converter with steps of 0.7 standard deviations."""
    return mean + np.round((emg - mean) / (0.7 * sd)) * 0.7 * sd


ALL, EACH, PAIRS = "all electrodes", "each electrode in turn", "each two neighbours in turn"
FAULTS: dict[str, tuple[Callable, str]] = {
    "clean": (clean, ALL), "offset": (offset, ALL), "offset_one": (offset, EACH), "hum": (hum, ALL),
    "hum_one": (hum, EACH), "harmonics": (harmonics, ALL), "dead": (dead, EACH),
    "electrode_lost": (electrode_lost, EACH), "gain_up": (gain_up, ALL), "gain_up_one": (gain_up, EACH),
    "gain_down": (gain_down, ALL), "gain_down_one": (gain_down, EACH), "inverted": (inverted, EACH),
    "swapped": (swapped, PAIRS), "clipped": (clipped, ALL), "spikes": (spikes, ALL), "held": (held, ALL),
    "motion": (motion, ALL), "coarse": (coarse, ALL)}


def places(name: str, channels: int) -> list[np.ndarray]:
    """The electrodes that a fault befalls, one array for each time that it is tried."""
    where = FAULTS[name][1]
    if where == ALL:
        return [np.arange(channels)]
    return [np.array([c] if where == EACH else [c, (c + 1) % channels]) for c in range(channels)
            if where == EACH or channels > 2 or c + 1 < channels]


def spoilt(name: str, emg: np.ndarray, mean: np.ndarray, sd: np.ndarray, rate_hz: float,
           seed: int = 0) -> Iterator[np.ndarray]:
    """A signal (T, C), volts, with a fault: once for each of its `places`; the same seed, the same signals."""
    for i, columns in enumerate(places(name, emg.shape[1])):
        found = np.array(emg, np.float64)
        rng = np.random.default_rng([seed, list(FAULTS).index(name), i])
        found[:, columns] = FAULTS[name][0](rng, found[:, columns], mean[columns], sd[columns], rate_hz)
        yield found.astype(np.float32)


def _tone(rng, emg, frequency, rate_hz):
    """A sine of each electrode with a phase of its own, mean square 1."""
    time = np.arange(len(emg))[:, None] / rate_hz
    return np.sqrt(2) * np.sin(2 * np.pi * (frequency * time + rng.random(emg.shape[1])))
