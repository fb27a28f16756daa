"""The simulated person of a synthetic recording: muscles, electrodes, synergies and the spectrum of the EMG.

A simple model after the literature: synergies after d'Avella et al. (2003), the spectrum after Stulen and De Luca
(1981), mean and sd of amplitudes as in recorded signals. Random streams depend on (seed, subject, purpose), so a
subject does not depend on which others are made.
"""

from dataclasses import dataclass

import numpy as np

GRID_HZ = 100.0  # approximate rate at which envelopes are drawn before interpolation to the signal's rate
FOREARM, UPPER_ARM = 12, 2  # muscles: around the forearm, and biceps with triceps
POPULATION, PERSON, TIMING, EFFORT, SOURCES, ELECTRODES, SENSORS = range(7)  # purposes of random streams


@dataclass(frozen=True)
class Physiology:
    """How much people, repetitions and moments differ: sd of natural logarithms, unless the comment says otherwise.

    With the defaults a Gaussian-kernel SVM on the paper's features is 65-80 % right within a subject (17 movements held
    5 s: 79 %; 8 held 1.5 s: 69 %) and 17-38 % on a new subject. Windows have an excess kurtosis of 0.76 and an sd of
    log RMS of 0.70; recorded ones of BioPatRec have 0.86 and 0.63.
    """

    variants: int = 3  # neighbouring movements that share one gross posture
    fineness: float = 0.45  # of one muscle between such variants
    person_synergy: float = 0.7
    person_rotation: float = 1.0  # radians of the electrode ring; represents different arms as well as shifts
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
    """A random stream per purpose, so that drawing more for one does not change the others."""
    return np.random.default_rng([seed, subject, purpose, *more])


def synergies(seed: int, subject: int, movements: int, body: Physiology) -> np.ndarray:
    """Activation (G, M) of each muscle in each movement: a few prime movers common to people, with personal weights."""
    table = np.empty((movements, FOREARM + UPPER_ARM))
    for movement in range(movements):
        rng = stream(seed, 0, POPULATION, 0, movement // body.variants)  # subject 0: the same for everyone
        row = body.coactivation * rng.random(FOREARM + UPPER_ARM)
        movers = rng.choice(FOREARM, size=rng.integers(2, 5), replace=False)
        row[movers] += rng.uniform(0.3, 1.0, len(movers))
        row[FOREARM:] += 0.3 * rng.random(UPPER_ARM) ** 3
        fine = stream(seed, 0, POPULATION, 1, movement)
        table[movement] = row * np.exp(body.fineness * fine.standard_normal(len(row)))
    # A person's weights differ between postures, but not between variants of one.
    own = stream(seed, subject, PERSON).standard_normal((movements, FOREARM + UPPER_ARM))
    return table * np.exp(body.person_synergy * own[np.arange(movements) // body.variants])


def mixing(seed: int, subject: int, channels: int, body: Physiology) -> np.ndarray:
    """Gain (C, 2M) from the two sources of each muscle to each electrode.

    As in DB2: a ring, then two electrodes on finger flexors and extensors, then biceps and triceps. Up to 8 channels
    form a ring only; with more than 12 the ring grows. Gain falls smoothly with the angle between electrode and source.
    """
    rng = stream(seed, subject, ELECTRODES)
    ring = channels if channels <= 8 else max(8, channels - 4)
    turn = body.person_rotation * rng.standard_normal()
    places = 2 * np.pi * np.arange(ring) / ring + turn + 0.1 * rng.standard_normal(ring)
    places = np.append(places, np.array([1.0, 4.0]) + turn / 2)[:channels]  # rad, over the finger muscles
    muscles = 2 * np.pi * (np.arange(FOREARM) + 0.3 * rng.standard_normal(FOREARM)) / FOREARM
    sources = (muscles[:, None] + np.array([-0.12, 0.12])).ravel()  # (2M,) two groups of motor units
    depth = np.repeat(rng.uniform(0.35, 0.7, FOREARM), 2)  # rad: a deep muscle reaches more electrodes
    apart = np.angle(np.exp(1j * (places[:, None] - sources)))  # (C, 2M) in -pi..pi
    gain = np.zeros((channels, 2 * (FOREARM + UPPER_ARM)))
    gain[: len(places), : 2 * FOREARM] = np.exp(-0.5 * (apart / depth) ** 2) * (0.4 / depth)
    for extra in range(len(places), channels):  # biceps and triceps, which pick up nothing from the forearm
        own = 2 * (FOREARM + (extra - len(places)) % UPPER_ARM)
        gain[extra, own : own + 2] = 0.7
    sign = np.exp(body.electrode_gain * rng.standard_normal((channels, 1)))
    return gain * sign


def amplitudes(count: int, rate_hz: float, power) -> np.ndarray:
    """Amplitude (F,) float32 of each frequency, for `count` samples of unit variance with power `power(f)` at f Hz."""
    from scipy.fft import next_fast_len

    size = 2 * next_fast_len(max(count // 2 + 1, 32), real=True)  # even, as irfft requires
    shape = np.sqrt(power(np.arange(size // 2 + 1, dtype=np.float32) * np.float32(rate_hz / size)))
    # irfft adds each term twice and divides by `size`; a uniform number in -1..1 has variance 1/3.
    shape *= np.float32(size / 2 * np.sqrt(3 / np.square(shape).sum(dtype=np.float64)))
    return shape


def coloured(rng: np.random.Generator, count: int, shape: np.ndarray) -> np.ndarray:
    """Gaussian noise (count,) float32 with the spectrum of `amplitudes` for the same count."""
    from scipy.fft import irfft

    # The sum of many terms is Gaussian (central limit), and uniform numbers are drawn four times as fast.
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
        f = f * f  # f^2 from here on: products are many times faster than `**`
        high_pass = f * f / (f * f + 20.0**4)
        low_pass = np.square(np.square(f / edge))
        return f * high_pass / ((f + low_hz**2) * np.square(f / high_hz**2 + 1) * (1 + low_pass * low_pass))

    return power


def around(centre_hz: float):
    """Power of a slow fluctuation: constant, vanishing above about `centre_hz`."""
    return lambda f: np.exp(-((f / centre_hz) ** 2))
