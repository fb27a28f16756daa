"""Writes synthetic recordings in Ninapro DB2's layout, from seeds, for tests and demonstrations.

Nobody was recorded: the header of the files and a variable `synthetic` state this. Scores on them show that the code
works, but nothing about people.

The simulated person is a simple model after the literature: synergies after d'Avella et al. (2003), the spectrum after
Stulen and De Luca (1981), mean and sd of amplitudes as in recorded signals. Random streams depend on (seed, subject,
purpose), so a subject does not depend on which others are made.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfkfin.base import machine
from tfkfin.base.errors import InputError
from tfkfin.base.files import alone, read_json, sweep, write_json
from tfkfin.recordings import matfile

NOTE = ".synthesis.json"  # settings of an unfinished synthesis, in its folder
_WORK = 5  # bytes of memory per byte of a signal that is made
_STEP = 2.0**-24  # V, about 60 nV: one step of the converter. A power of two: exact in float32, compresses well
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


@dataclass(frozen=True)
class Session:
    """The protocol of a recording: movements in order, each with all its repetitions, as in DB2."""

    movements: int = 17
    repetitions: int = 6
    channels: int = 12
    rate_hz: float = 2000.0
    hold_s: float = 5.0
    rest_s: float = 3.0

    def __post_init__(self):
        for name, low, high in (("movements", 1, 255), ("repetitions", 1, 255), ("channels", 1, 64),
                                ("rate_hz", 100, 20000), ("hold_s", 0.2, 60), ("rest_s", 0.2, 60)):
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} is {getattr(self, name)}, but {low} to {high} can be made")

    @property
    def size(self) -> float:
        """Bytes of a recording's signal."""
        return 4 * self.movements * self.repetitions * (self.hold_s + self.rest_s) * self.rate_hz * self.channels


class Hold(NamedTuple):
    """One repetition of one movement: seconds (start, stop) of the cue and of the muscles' response."""

    movement: int
    repetition: int
    cue: tuple[float, float]
    active: tuple[float, float]


def synthesize(folder: str | Path, subjects=(1, 2, 3), *, seed: int = 1, extras: bool = False, v73: bool = False,
               body: Physiology = Physiology(), **session) -> list[Path]:
    """Writes `folder`/DB2_s{n}/S{n}_E1_A1.mat for each subject, two at a time.

    Args:
        folder: made if it does not exist. Existing files are never overwritten, and then nothing is written, unless
            the same call was interrupted there, which is continued.
        subjects: their numbers. A subject's file depends on its number and the seed, not on the other subjects.
        seed: equal seeds give equal bytes.
        extras: also writes acc (T, 36), glove (T, 22) and inclin (T, 2), which readers ignore.
        v73: writes HDF5 as MATLAB 7.3 does, instead of compressed v5.
        body: how much people and moments differ.
        session: fields of Session: movements, repetitions, channels, rate_hz, hold_s, rest_s.

    Returns:
        The paths written, in the order of `subjects`.

    Raises:
        InputError: a file exists already, another process writes there, or a value is out of range.
    """
    folder, subjects, task = Path(folder), tuple(subjects), Session(**session)
    with alone(folder / ".synthesizing.lock", f"{folder}: another process makes recordings there"):
        paths = [folder / f"DB2_s{subject}" / f"S{subject}_E1_A1.mat" for subject in subjects]
        there, note = [path for path in paths if path.exists()], folder / NOTE
        settings = {"seed": seed, "extras": extras, "v73": v73, "body": repr(body), "session": repr(task)}
        if there and read_json(note, "remove it, and choose another folder") != settings:
            raise InputError(f"{there[0]} is there already and is never overwritten: choose another folder")
        if not 0 <= seed < 2**32:
            raise InputError(f"seed is {seed}, but 0 to {2**32 - 1} are possible")
        machine.afford(2 * _WORK * task.size, "making two such recordings at once",
                       "make shorter ones, or fewer channels")
        if len(paths) * task.size > shutil.disk_usage(folder).free:
            raise InputError(f"{len(paths) * task.size / 1e9:.3g} GB do not fit on the disk of {folder}: make fewer")
        write_json(note, settings)

        def write(subject: int, path: Path) -> None:
            if path not in there:
                sweep(path)
                matfile.save(path, variables(subject, task, seed, extras, body), "MATLAB 5.0 MAT-file, SYNTHETIC "
                             f"surface EMG by tfkfin, seed {seed}, subject {subject}: nobody recorded", v73)

        with ThreadPoolExecutor(2) as pool:  # zlib, FFT and random numbers take most time and release the GIL
            list(pool.map(write, subjects, paths))
        note.unlink()
        return paths


def variables(subject: int, task: Session, seed: int, extras: bool = False, body: Physiology = Physiology()) -> dict:
    """All variables of one subject's file, with DB2's names and shapes."""
    holds, seconds = timeline(subject, task, seed)
    count = int(round(seconds * task.rate_hz))
    made = {"emg": _signal(subject, task, seed, holds, count, body), **_labels(task, holds, count)}
    if extras:
        made |= _sensors(subject, seed, made["restimulus"], task)
    scalars = {"subject": subject, "exercise": 1, "synthetic": 1, "frequency": task.rate_hz}
    return made | {name: np.array([[value]], np.float64) for name, value in scalars.items()}


def timeline(subject: int, task: Session, seed: int) -> tuple[list[Hold], float]:
    """The times of all cues and muscles, and the duration of the recording in seconds."""
    rng = stream(seed, subject, TIMING)
    holds, now = [], task.rest_s
    for movement in range(1, task.movements + 1):
        for repetition in range(1, task.repetitions + 1):
            stop = now + task.hold_s * rng.uniform(0.95, 1.05)
            late = np.clip(rng.lognormal(np.log(0.5), 0.35, 2), 0.2, 1.2)  # s, reaction to the cue's start and end
            late = np.minimum(late, 0.6 * np.array([task.hold_s, task.rest_s]))
            holds.append(Hold(movement, repetition, (now, stop), (now + late[0], stop + late[1])))
            now = stop + task.rest_s * rng.uniform(0.95, 1.05)
    return holds, now


def _labels(task: Session, holds: list[Hold], count: int) -> dict[str, np.ndarray]:
    """stimulus, restimulus, repetition, rerepetition (T, 1) uint8.

    As in DB2, `rerepetition` continues into the rest that follows, so it does not mark movement.
    """
    columns = dict(zip(("stimulus", "restimulus", "repetition", "rerepetition"), np.zeros((4, count, 1), np.uint8)))
    for hold in holds:
        cue, active = (slice(*(int(round(s * task.rate_hz)) for s in span)) for span in (hold.cue, hold.active))
        columns["stimulus"][cue], columns["repetition"][cue] = hold.movement, hold.repetition
        columns["restimulus"][active] = hold.movement
        tail = int(0.15 * task.rest_s * task.rate_hz)
        columns["rerepetition"][active.start : active.stop + tail] = hold.repetition
    return columns


def _envelopes(subject: int, task: Session, seed: int, holds: list[Hold], count: int, body: Physiology) -> np.ndarray:
    """Activation (M, N) float32 of each muscle, one point per `_step` samples."""
    rng = stream(seed, subject, EFFORT)
    table = synergies(seed, subject, task.movements, body)
    points, grid_hz = count // _step(task) + 2, task.rate_hz / _step(task)
    time = np.arange(points) / grid_hz
    slow, quick = (amplitudes(points, grid_hz, around(hz)) for hz in (1.0, 8.0))
    level = np.zeros((table.shape[1], points))
    for hold in holds:
        effort = np.exp(body.effort * rng.standard_normal() + body.jitter * rng.standard_normal(table.shape[1]))
        rise, fall = rng.uniform(0.03, 0.12, 2)  # s: time constants of onset and release
        start, stop = hold.active + rng.normal(0, 0.03, 2)  # corrected labels are accurate to some 30 ms
        near = slice(max(0, int((start - 1) * grid_hz)), int((stop + 1) * grid_hz))
        t = time[near]
        course = 1 / (1 + np.exp(-np.clip((t - start) / rise * 2, -50, 50)))
        course *= 1 / (1 + np.exp(np.clip((t - stop) / fall * 2, -50, 50)))
        course *= 1 + body.fatigue * np.clip((t - start) / 5.0, 0, 2)
        level[:, near] += np.outer(table[hold.movement - 1] * effort, course)
    for muscle in level:
        drift, burst = coloured(rng, points, slow), coloured(rng, points, quick)
        muscle += body.tonic
        muscle *= np.exp(body.drift * drift + body.burst * burst - body.burst**2)  # as E e^(2 b z) = e^(2 b^2)
    return level.astype(np.float32)


def _step(task: Session) -> int:
    """Samples between points of an envelope, for about GRID_HZ."""
    return max(1, round(task.rate_hz / GRID_HZ))


def _signal(subject: int, task: Session, seed: int, holds: list[Hold], count: int, body: Physiology) -> np.ndarray:
    """emg (T, C) float32, volts, column-major."""
    gain = (body.volts * mixing(seed, subject, task.channels, body)).astype(np.float32)
    level = _envelopes(subject, task, seed, holds, count, body)
    rng = stream(seed, subject, SOURCES)
    emg = rng.standard_normal((task.channels, count), dtype=np.float32)
    emg *= np.float32(body.noise)
    emg += _hum(rng, task, count, body)
    ramp = np.arange(_step(task), dtype=np.float32) / np.float32(_step(task))
    for source in range(gain.shape[1]):
        if source % 2 == 0:  # the two sources of a muscle share its drive and spectrum
            points = level[source // 2]
            drive = (points[:-1, None] + np.diff(points)[:, None] * ramp).ravel()[:count]
            power = interference(rng.uniform(60, 110), rng.uniform(150, 250), task.rate_hz)
            shape = amplitudes(count, task.rate_hz, power)
        wave = coloured(rng, count, shape)
        wave *= drive
        _mix(emg, wave, gain[:, source], 0.02 * gain.max())
    np.rint(emg / np.float32(_STEP), out=emg)
    emg *= np.float32(_STEP)
    return emg.T


def _mix(emg: np.ndarray, wave: np.ndarray, gain: np.ndarray, least: float) -> None:
    """Adds gain (C,) times wave (T,) to emg (C, T), in blocks that fit the processor's cache.

    BLAS is not used, as its rounding may differ with the number of threads, and equal seeds must give equal bytes.
    """
    channels = np.flatnonzero(gain > least)
    part = np.empty(1 << 14, np.float32)
    for start in range(0, len(wave), len(part)):
        block = wave[start : start + len(part)]
        for channel in channels:
            emg[channel, start : start + len(part)] += np.multiply(block, gain[channel], out=part[: len(block)])


def _hum(rng: np.random.Generator, task: Session, count: int, body: Physiology) -> np.ndarray:
    """Mains hum with odd harmonics (C, T) float32, with a random amplitude per channel."""
    cycles = (50.0 * np.arange(count) / task.rate_hz % 1).astype(np.float32)
    size = body.hum * rng.lognormal(0, 0.7, (task.channels, 1)).astype(np.float32)
    tone = np.zeros(count, np.float32)
    for k in (k for k in (1, 3, 5) if 50 * k < task.rate_hz / 2):
        tone += np.sin(np.float32(2 * np.pi) * (k * cycles + np.float32(rng.random()))) / np.float32(k)
    return size * tone


def _sensors(subject: int, seed: int, restimulus: np.ndarray, task: Session) -> dict[str, np.ndarray]:
    """acc (T, 36) g, glove (T, 22) and inclin (T, 2) degrees: postures with sensor noise, float32."""
    rng = stream(seed, subject, SENSORS)
    made = {}
    for name, width, scale in (("acc", 36, 1.0), ("glove", 22, 40.0), ("inclin", 2, 30.0)):
        posture = rng.standard_normal((task.movements + 1, width))[restimulus[:, 0]]
        noise = rng.standard_normal(posture.shape, dtype=np.float32)
        made[name] = (scale * (posture + 0.02 * noise)).astype(np.float32)
    return made


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
