"""What may be wrong with recordings: one list of doubts, which drafts of sheets, `data info` and reading share.

About columns: what holds steps, counts or times is no electrode. About clocks: what rate time stamps tell. About
recordings: amplitudes that are no volts, rectified envelopes.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfkfin.base.errors import InputError
from tfkfin.recordings import health
from tfkfin.recordings.recording import Recording

MOST = 100  # different values that a column of labels may have
_RARE, _RISING = 0.05, 0.85  # share of samples at which a label changes at most; of changes of a counter that rise
_FEW = 20  # samples below which a column tells nothing
_SCALES = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}  # seconds per unit of a clock
_LIKELY_HZ = 30.0, 2e4  # rates at which EMG is recorded
_NEAR = 0.02  # rates that differ by this share agree
_PACKET_S = 0.25  # s: samples between two gaps that are closer come in packets


class Look(NamedTuple):
    """What a column holds, in one file or in several.

    Attributes:
        size: samples.
        text: it is no column of numbers.
        values: the different ones, if there are at most MOST.
        changes: samples that differ from the one before; of these, `ups` are larger.
        spread: standard deviation of every file.
    """

    size: int
    text: bool
    values: frozenset
    changes: int
    ups: int
    spread: tuple[float, ...]

    @property
    def steps(self) -> bool:
        """It holds few values for long, as labels do."""
        return 1 < len(self.values) <= MOST and self.changes <= _RARE * self.size

    @property
    def rises(self) -> bool:
        """It counts up or down, and perhaps begins again: a clock or a counter."""
        return not self.text and self.size >= _FEW and self.changes > 0.1 * self.size and (
            max(self.ups, self.changes - self.ups) >= _RISING * self.changes)

    @property
    def why(self) -> str:
        """Why this is no electrode's signal; "" where it may be one."""
        if self.text:
            return "is text"
        if not self.changes and len(self.values) == 1:
            return f"is {min(self.values):g} throughout"
        if self.rises:
            return "only rises or falls, as a clock or a counter"
        return f"changes rarely, and holds {self.some()}" if self.steps else ""

    def some(self) -> str:
        """Its values, shortened."""
        shown = [value if self.text else f"{value:g}" for value in sorted(self.values)]
        return ", ".join([*shown[:6], *(["..."] if len(shown) > 6 else [])])


def look(values: np.ndarray) -> Look:
    """What one column (T,) of one file holds."""
    if values.dtype.kind not in "biuf":
        different = np.unique(values.astype(str) if values.dtype.hasobject else values)[: MOST + 1].astype(str)
        changes = int(np.sum(values[1:] != values[:-1]))
        return Look(len(values), True, frozenset(different.tolist()), changes, 0, ())
    numbers = np.nan_to_num(np.asarray(values, np.float64))
    steps = np.diff(numbers)
    ups, changes = int(np.sum(steps > 0)), int(np.count_nonzero(steps))
    few = changes <= _RARE * len(numbers)
    different = np.unique(numbers)[: MOST + 1].tolist() if few else ()
    return Look(len(numbers), False, frozenset(different), changes, ups, (float(np.std(numbers)),))


def together(looks: Iterable[Look]) -> Look:
    """The same column in all files."""
    sizes, text, values, changes, ups, spread = zip(*looks, strict=True)
    union = frozenset().union(*values) if all(values) else frozenset()
    return Look(sum(sizes), any(text), union, sum(changes), sum(ups), sum(spread, ()))


def channels(emg: np.ndarray) -> dict[int, str]:
    """Channels, from 0, that are no electrodes' signals, and why. Those that never change are told elsewhere."""
    return {c: seen.why for c in range(emg.shape[1]) if look(emg[:20_000, c]).why  # which judges nearly every channel
            and (seen := look(emg[:, c])).changes and seen.why}


def tells(values: np.ndarray, labels: np.ndarray) -> bool:
    """Whether a column of steps knows the movement: far better than always naming the most frequent one."""
    different, which = np.unique(values, return_inverse=True)
    classes, where = np.unique(labels, return_inverse=True)
    if len(different) > MOST or len(classes) < 2:
        return False
    counts = np.zeros((len(different), len(classes)))
    np.add.at(counts, (which.reshape(-1), where), 1)
    chance, right = counts.sum(axis=0).max() / len(labels), counts.max(axis=1).sum() / len(labels)
    return bool(right >= chance + 0.6 * (1 - chance))


class Clock(NamedTuple):
    """The rates that time stamps tell: samples over the time from first to last, and 1 / the median step."""

    rate_hz: float
    step_hz: float
    unit: str
    back: tuple[int, ...]  # samples at which time runs back

    @property
    def agrees(self) -> bool:
        return _near(self.rate_hz, self.step_hz)


def clock(times: np.ndarray, name: int | str = "", rate_hz: float = 0.0) -> Clock | None:
    """What a column of times tells; None where it does not rise.

    Args:
        times: (T,).
        name: of the column, which may name its unit: "t_ms", "Time [s]".
        rate_hz: the unit is that in which one of the two rates is this one; 0: by the name, or the first of s, ms, us
            and ns in which EMG may have been recorded.
    """
    steps = np.diff(np.asarray(times, np.float64).reshape(-1))
    steps, back = steps[np.isfinite(steps)], tuple((np.flatnonzero(steps < 0) + 1).tolist())
    ahead = steps[steps >= 0]
    if not (ahead > 0).any():
        return None
    mean, median = len(ahead) / ahead.sum(), 1 / max(float(np.median(ahead)), 1e-300)
    named = re.search(r"(?i)(?:[\W_]|^)(s|sec|seconds?|ms|msec|milli\w*|us|µs|μs|micro\w*|ns|nano\w*)\W*$", str(name))
    short = {"m": "ms", "u": "us", "µ": "us", "μ": "us", "n": "ns", "s": "s"}
    own = named and ("us" if named[1].lower().startswith("micro") else short[named[1][0].lower()])
    units = [own, *_SCALES] if own else [*_SCALES]
    fits = [unit for unit in units if (_near(mean / _SCALES[unit], rate_hz) or _near(median / _SCALES[unit], rate_hz)
                                       if rate_hz else unit == own or _LIKELY_HZ[0] <= mean / _SCALES[unit]
                                       <= _LIKELY_HZ[1])]
    unit = next(iter(fits), own or "s")
    return Clock(mean / _SCALES[unit], median / _SCALES[unit], unit, back)


def about_clock(path: Path, name: int | str, times: np.ndarray, rate_hz: float) -> list[str]:
    """Doubts about the rate of a file with a column of times.

    Raises:
        InputError: neither of the two rates that the times tell is `rate_hz`, or the times come in packets and the
            steps inside these were taken for the rate.
    """
    found = clock(times, name, rate_hz)
    if found is None:
        raise InputError(f"{path}: column {name} does not rise, so it is no time: leave time out")
    by_span, by_step = _near(found.rate_hz, rate_hz), _near(found.step_hz, rate_hz)
    steps = np.diff(np.asarray(times, np.float64).reshape(-1)) * _SCALES[found.unit]
    gaps = int(np.sum(steps > 1.9 / rate_hz))
    packets = gaps and len(steps) / (gaps + 1) / rate_hz < _PACKET_S and found.rate_hz < 0.8 * rate_hz
    rates = f"{len(steps) + 1} samples in {steps[steps >= 0].sum():g} s, which is {found.rate_hz:g} Hz"
    if not (by_span or by_step) or by_step and packets:
        what = (f"steps by {1 / found.step_hz:g} s, which is {found.step_hz:g} Hz" if found.agrees else
                f"has {rates}, and its median step says {found.step_hz:g} Hz: stamps come in packets, or samples lack")
        raise InputError(f"{path}: column {name} {what}, and rate_hz is {rate_hz:g}: time has to be in s, ms, us or "
                         "ns, or rate_hz is wrong")
    notes = [f"{path.name}: time in column {name} runs back {len(found.back)} times, first at sample {found.back[0]}: "
             "were files joined, or rows mixed up?"] if found.back else []
    if by_span and not by_step:
        notes.append(f"{path.name}: column {name} has {rates}, and its median step says {found.step_hz:g} Hz: stamps "
                     "come in packets, so lost samples cannot be seen")
    elif gaps:
        notes.append(f"{path.name}: {gaps} gaps in column {name}: samples were lost"
                     + ("" if by_span else f" ({rates})"))
    return notes


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= _NEAR * abs(other)


def of(recording: Recording) -> list[str]:
    """Everything that is odd about one readable recording, each in a line."""
    lines = [f"channel {c + 1} {why}: is it an electrode?" for c, why in channels(recording.emg).items()]
    share = health.envelope(recording)
    if share:
        samples = 0.3 * recording.rate_hz
        return [*lines, f"rectified envelopes: never negative, and {100 * share:.0f} % of their power is below "
                        f"{health.SLOW_HZ:g} Hz. Filters of raw EMG (high-pass, notch) and features of its waveform "
                        f"(zero crossings, slope changes, AR) say little here; 300 ms are {samples:.0f} samples"]
    return lines + [line for line in (about_amplitude(health.amplitude(recording), recording.file.reader),) if line]


def about_amplitude(rms_v: float, reader: str = "table") -> str:
    """A remark on an implausible amplitude, such as millivolts read as volts; "" for a plausible one."""
    if health.is_likely(rms_v) or not rms_v:
        return ""
    shown = f"{health.volts(rms_v)} RMS in movements, where surface EMG has {health.volts(health.SMALLEST)} to " \
            f"{health.volts(health.LARGEST)}: "
    if reader == "ninapro":  # whose files state no unit
        return shown + "these are no volts. Each channel is standardised, so decoders do not mind"
    other = next((word for word, volts in (("millivolts", 1e-3), ("microvolts", 1e-6))
                  if health.is_likely(rms_v * volts)), "of a unit of the device's own")
    what = f"are these volts {other}? " if rms_v > health.LARGEST else "was the unit taken for a smaller one? "
    return shown + what + ("their channels.tsv and files say which they are" if reader == "bids" else
                           "unit in recordings.toml says which they are")
