"""The person behind a synthetic recording: muscles, electrodes, synergies, timing, interference pattern.

A recipe in the manner of the literature, not a simulation: synergies after d'Avella et al. (2003), the spectrum after
Stulen and De Luca (1981), amplitude and its spread by comparison with recorded signals. Seeds go by (seed, subject,
purpose), so a subject is the same whoever else is made.
"""

from dataclasses import dataclass

import numpy as np

GRID_HZ = 100.0  # Hz or near it, at which envelopes are drawn before they are stretched to the signal's rate
FOREARM, UPPER_ARM = 12, 2  # muscles: around the forearm, and biceps with triceps
POPULATION, PERSON, TIMING, EFFORT, SOURCES, ELECTRODES, SENSORS = range(7)  # purposes of random streams


@dataclass(frozen=True)
class Physiology:
    """How much people, repetitions and moments differ: standard deviations of natural logarithms unless said.

    The defaults make a Gaussian-kernel SVM on the paper's features 65-80 % right within a subject (17 movements held
    5 s: 79 %; 8 held 1.5 s: 69 %) and 17-38 % on a subject it has not seen. Windows are as heavy-tailed (excess
    kurtosis 0.76) and as spread (sd of log RMS 0.70) as recorded ones of BioPatRec (0.86 and 0.63).
    """

    variants: int = 3  # neighbouring movements that share one gross posture
    fineness: float = 0.45  # of one muscle between such variants
    person_synergy: float = 0.7
    person_rotation: float = 1.0  # radians of the electrode ring: more than a shift, it stands for unlike arms
    electrode_gain: float = 0.4
    effort: float = 0.25  # of a whole repetition
    jitter: float = 0.2  # of one muscle in one repetition
    drift: float = 0.2  # of one muscle within a hold, about 1 Hz
    burst: float = 0.45  # of one muscle, about 8 Hz: what makes the amplitude super-Gaussian
    fatigue: float = 0.1  # amplitude gained over one hold, as a fraction
    tonic: float = 0.08  # activation at rest, as a fraction
    coactivation: float = 0.25  # of muscles that a movement does not need, as a fraction
    volts: float = 3.5e-5  # V, RMS of a fully active muscle right under an electrode
    noise: float = 2e-6  # V, RMS of amplifier and skin
    hum: float = 0.7e-6  # V, amplitude of 50 Hz


def stream(seed: int, subject: int, purpose: int, *more: int) -> np.random.Generator:
    """A random stream of its own for each purpose, so that changing one leaves the others alone."""
    return np.random.default_rng([seed, subject, purpose, *more])


def synergies(seed: int, subject: int, movements: int, body: Physiology) -> np.ndarray:
    """Activation (G, M) of each muscle in each movement: a few prime movers, shared by people, weighted by each."""
    table = np.empty((movements, FOREARM + UPPER_ARM))
    for movement in range(movements):
        rng = stream(seed, 0, POPULATION, 0, movement // body.variants)  # subject 0: the same for everyone
        row = body.coactivation * rng.random(FOREARM + UPPER_ARM)
        movers = rng.choice(FOREARM, size=rng.integers(2, 5), replace=False)
        row[movers] += rng.uniform(0.3, 1.0, len(movers))
        row[FOREARM:] += 0.3 * rng.random(UPPER_ARM) ** 3
        fine = stream(seed, 0, POPULATION, 1, movement)
        table[movement] = row * np.exp(body.fineness * fine.standard_normal(len(row)))
    # A person has an own way with each posture, and keeps to it in its variants.
    own = stream(seed, subject, PERSON).standard_normal((movements, FOREARM + UPPER_ARM))
    return table * np.exp(body.person_synergy * own[np.arange(movements) // body.variants])


def mixing(seed: int, subject: int, channels: int, body: Physiology) -> np.ndarray:
    """Gain (C, 2M) from two sources a muscle to each electrode.

    As in DB2: a ring, then two electrodes on finger flexors and extensors, then biceps and triceps. Up to 8 channels
    are ring only; beyond 12 the ring grows. Gain falls smoothly with the angle between electrode and source.
    """
    rng = stream(seed, subject, ELECTRODES)
    ring = channels if channels <= 8 else max(8, channels - 4)
    turn = body.person_rotation * rng.standard_normal()
    places = 2 * np.pi * np.arange(ring) / ring + turn + 0.1 * rng.standard_normal(ring)
    places = np.append(places, np.array([1.0, 4.0]) + turn / 2)[:channels]  # rad, over the finger muscles
    muscles = 2 * np.pi * (np.arange(FOREARM) + 0.3 * rng.standard_normal(FOREARM)) / FOREARM
    sources = (muscles[:, None] + np.array([-0.12, 0.12])).ravel()  # (2M,) two halves: motor units differ
    depth = np.repeat(rng.uniform(0.35, 0.7, FOREARM), 2)  # rad, a deep muscle spreads wide
    apart = np.angle(np.exp(1j * (places[:, None] - sources)))  # (C, 2M) in -pi..pi
    gain = np.zeros((channels, 2 * (FOREARM + UPPER_ARM)))
    gain[: len(places), : 2 * FOREARM] = np.exp(-0.5 * (apart / depth) ** 2) * (0.4 / depth)
    for extra in range(len(places), channels):  # biceps and triceps, which hear nothing of the forearm
        own = 2 * (FOREARM + (extra - len(places)) % UPPER_ARM)
        gain[extra, own : own + 2] = 0.7
    sign = np.exp(body.electrode_gain * rng.standard_normal((channels, 1)))
    return gain * sign


def amplitudes(count: int, rate_hz: float, power) -> np.ndarray:
    """Amplitude (F,) float32 of each frequency, for `count` samples of unit variance with power `power(f)` at f Hz."""
    from scipy.fft import next_fast_len

    size = 2 * next_fast_len(max(count // 2 + 1, 32), real=True)  # even, as irfft likes it
    shape = np.sqrt(power(np.arange(size // 2 + 1, dtype=np.float32) * np.float32(rate_hz / size)))
    # irfft counts each of these twice and divides by `size`; a uniform number in -1..1 has variance 1/3.
    shape *= np.float32(size / 2 * np.sqrt(3 / np.square(shape).sum(dtype=np.float64)))
    return shape


def coloured(rng: np.random.Generator, count: int, shape: np.ndarray) -> np.ndarray:
    """Gaussian noise (count,) float32 with the spectrum that `amplitudes` gave for as many samples."""
    from scipy.fft import irfft

    # The sum of so many terms is Gaussian whatever each is, and uniform numbers come four times as fast.
    spectrum = rng.random(2 * len(shape), dtype=np.float32)
    spectrum *= 2
    spectrum -= 1
    spectrum = spectrum.view(np.complex64)
    spectrum *= shape
    return irfft(spectrum, 2 * len(shape) - 2, overwrite_x=True)[:count]


def interference(low_hz: float, high_hz: float, rate_hz: float):
    """Power of surface EMG at f Hz after Stulen and De Luca, inside a 20-450 Hz amplifier (or below 0.45 rate)."""
    edge = min(450.0, 0.45 * rate_hz) ** 2

    def power(f: np.ndarray) -> np.ndarray:
        f = f * f  # squares from here on: whole powers by multiplication are many times faster than `**`
        high_pass = f * f / (f * f + 20.0**4)
        low_pass = np.square(np.square(f / edge))
        return f * high_pass / ((f + low_hz**2) * np.square(f / high_hz**2 + 1) * (1 + low_pass * low_pass))

    return power


def around(centre_hz: float):
    """Power of a slow fluctuation: flat, gone above about `centre_hz`."""
    return lambda f: np.exp(-((f / centre_hz) ** 2))
