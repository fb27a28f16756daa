"""XDF, as LabRecorder writes it of the lab streaming layer (LSL); needs pyxdf (`formats`).

A column is a stream of numbers at a rate, (T, C), by the stream's name: "EMG", or "EMG:1-8" of it. All columns are at
the times of the first: its clock and theirs are compared by the offsets in the file. What a stream of text, or of one
number that comes at no rate, says are marks: annotations that last no time.

Specification: https://github.com/sccn/xdf/wiki/Specifications
"""

import io
import logging
import re
import struct
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np

from tfkfin.base import reading
from tfkfin.base.errors import InputError, refused_as
from tfkfin.recordings import checks
from tfkfin.recordings.formats import UNITS, VOLTS, Annotation, Format, Table, Wanted, package

TYPES = ("emg", "exg", "eeg")  # of streams of electrodes, the likeliest first
GAP_S = 0.5  # a step of stamps by more is a gap, and samples before and after do not continue each other
CLOCK, TOLD = 0.01, 5e-4  # shares of the stated rate that the true one may differ by: no clock is off by more; untold
_MOST_CHANNELS, _LONGEST_XML = 10_000, 1 << 22
_BYTES = {"int8": 1, "int16": 2, "int32": 4, "int64": 8, "float32": 4, "double64": 8, "string": 2}  # at least
_NUMBERS = {1: "<B", 4: "<I", 8: "<Q"}  # bytes of a length -> how it is written


class _Stream:
    """What the head of a stream says, and how many samples it has."""

    def __init__(self, number: int, head: ElementTree.Element):
        self.number, self.count = number, 0
        self.name, self.kind = (str(head.findtext(key) or "").strip() for key in ("name", "type"))
        self.channels, self.rate_hz = int(head.findtext("channel_count")), float(head.findtext("nominal_srate"))
        self.bytes = self.channels * _BYTES[head.findtext("channel_format")]
        self.marks = head.findtext("channel_format") == "string" or not self.rate_hz and self.channels == 1
        units = [str(one.findtext("unit") or "").strip() for one in head.iterfind("desc/channels/channel")]
        self.units = tuple(UNITS.get(unit.lower(), unit) for unit in units) if len(units) == self.channels else ()
        if not 0 < self.channels <= _MOST_CHANNELS or not 0 <= self.rate_hz < np.inf:
            raise ValueError(f"stream {self.name} has {self.channels} channels at {self.rate_hz:g} Hz")


def read(path: Path, wanted: Wanted) -> Table:
    """Streams by name, all at the times of the first; without names the one stream of electrodes."""
    pyxdf = package("pyxdf", path)
    streams, end = _content(path)
    cut = end < path.stat().st_size
    marks = [name for name, stream in streams.items() if stream.marks]
    names = [_electrodes(path, streams)] if wanted is None else [
        str(name) for name in wanted if name in streams and name not in marks]
    if not names:
        return Table({})
    if twins := [name for name in names[1:] if streams[name].kind.lower() in TYPES]:
        raise InputError(f"{path}: streams {names[0]} and {twins[0]} have a clock each: choose channels of one stream")
    checks.fits(path, sum(streams[one].count * (160 + 28 * streams[one].channels) for one in (*names, *marks)))
    logging.getLogger("pyxdf.pyxdf").disabled = True  # what it warns of is told here
    with refused_as(f"{path} is not a whole XDF file"):
        source: Any = io.BytesIO(reading.content(path, reading.size_of(path))[:end]) if cut else str(path)
        loaded = {one["info"]["stream_id"]: one for one in pyxdf.load_xdf(
            source, [streams[name].number for name in (*names, *marks)], jitter_break_threshold_seconds=GAP_S,
            jitter_break_threshold_samples=0)[0]}
        found = {name: loaded[streams[name].number] for name in (*names, *marks)}
        if lost := [name for name, one in found.items() if len(one["time_stamps"]) != streams[name].count]:
            raise InputError(f"{path} is damaged: {lost[0]} lacks samples")
        first, notes = found[names[0]], [f"{path.name} ends within a chunk: what is before is read"] * cut
        times = np.asarray(first["time_stamps"])
        if len(times) < 2 or not (np.diff(times) >= 0).all():
            raise InputError(f"{path}: {names[0]} has no samples, or times that run back")
        last = {name: np.searchsorted(found[name]["time_stamps"], times + 1e-9, "right") - 1 for name in names[1:]}
        columns = {names[0]: np.asarray(first["time_series"])} | {
            name: np.asarray(found[name]["time_series"])[np.maximum(place, 0)] for name, place in last.items()}
        units = {name: streams[name].units for name in names if any(streams[name].units)}
        if wanted is None:
            columns, units = _in_volts(columns, units, notes)
        rate, doubt = _rate(names[0], streams[names[0]].rate_hz, float(first["info"]["effective_srate"]), notes)
        events = _events(names[0], {name: found[name] for name in marks}, times, notes)
        seams = [int(start) for start, _ in first["info"]["segments"][1:]]
        notes += [f"{names[0]} has {len(seams)} gaps: what is before one and after it is read as two"] * bool(seams)
        return Table(columns, rate, units, events, notes, seams, True, doubt)


def _in_volts(columns: dict, units: dict, notes: list[str]) -> tuple[dict, dict]:
    """Of the one stream of electrodes the channels in volts, if its units are known."""
    for name, its in units.items():
        volts = [i for i, unit in enumerate(its) if unit in VOLTS]
        if volts and len(volts) < len(its):
            notes.append(f"{name}: {len(its) - len(volts)} channels that are not in volts are left out")
            return {name: columns[name][:, volts]}, {name: tuple(its[i] for i in volts)}
    return columns, units


def _rate(name: str, stated: float, true: float, notes: list[str]) -> tuple[float | None, str]:
    """The rate, and what is in doubt where it is not known."""
    if not stated:
        return None, f"says no rate of {name}, of which {true:g} samples a second came"
    if abs(true / stated - 1) > CLOCK:
        return None, f"says that {name} is at {stated:g} Hz, and {true:g} samples a second came"
    if abs(true / stated - 1) > TOLD:
        notes.append(f"{true:.2f} samples of {name} came a second, by its stated rate {stated:g}")
    return stated, ""


def _events(name: str, marks: dict[str, Any], times: np.ndarray, notes: list[str]) -> list[Annotation]:
    """Marks at the numbers of the nearest samples of the stream `name`."""
    middles = np.concatenate([[1.5 * times[0] - 0.5 * times[1]], (times[1:] + times[:-1]) / 2,
                              [1.5 * times[-1] - 0.5 * times[-2]]])
    found, outside = [], 0
    for stream, one in marks.items():
        places = (np.searchsorted(middles, one["time_stamps"]) - 1).tolist()
        for place, (first, *_) in zip(places, one["time_series"], strict=True):
            text = first if isinstance(first, str) else f"{first:g}"
            outside += not 0 <= place < len(times)
            found += [Annotation(place, place, text.strip(), stream)] * (0 <= place < len(times))
    notes += [f"{outside} marks before or after {name} are left out"] * bool(outside)
    return sorted(found)


def _electrodes(path: Path, streams: dict[str, _Stream]) -> str:
    """The one stream of electrodes: of the likeliest type that there is, else the only one with a rate."""
    numeric = [name for name, stream in streams.items() if not stream.marks]
    fits = next((of for kind in TYPES if (of := [n for n in numeric if streams[n].kind.lower() == kind])), numeric)
    if len(fits) == 1:
        return fits[0]
    listed = ", ".join(f"{name} ({streams[name].kind or 'no type'}, {streams[name].channels} channels)"
                       for name in fits or streams)
    raise InputError(f"{path} has {'several streams that may be EMG' if fits else 'no stream of samples'}: {listed}. "
                     "channels = [\"NAME\"] in recordings.toml says which")


def _content(path: Path) -> tuple[dict[str, _Stream], int]:
    """Streams by name (and number, where several have one name), and where what is whole ends.

    Looks through a file without reading its samples, and checks that nothing takes more room than the file has.
    """
    by_number: dict[int, _Stream] = {}
    end, size = 4, reading.size_of(path)
    with refused_as(f"{path} is not a whole XDF file"), reading.opened(path) as file:
        if file.read(4) != b"XDF:":
            raise InputError(f"{path} is no XDF file: it does not begin as one")
        while size - end > 3 and (stop := _length(file) + file.tell()) <= size:
            tag, = struct.unpack("<H", file.read(2))
            number = struct.unpack("<I", file.read(4))[0] if tag in (2, 3, 4, 6) else 0
            if tag in (1, 2, 6):
                text = file.read(min(max(0, stop - file.tell()), _LONGEST_XML + 1))
                if len(text) > _LONGEST_XML or re.search(rb"<\0?!\0?[DE]", text):
                    raise InputError(f"{path} describes its streams with more than names and values")
                head = ElementTree.fromstring(text.decode("utf-8", "replace"))
                by_number |= {number: _Stream(number, head)} if tag == 2 else {}
            elif tag == 3:
                stream, count = by_number[number], _length(file)
                if count * (1 + stream.bytes) > stop - file.tell():
                    raise InputError(f"{path} is damaged: {count} samples of {stream.name} do not fit into their place")
                stream.count += count
            end = file.seek(stop)
    names = [stream.name for stream in by_number.values()]
    return {one.name if one.name and names.count(one.name) == 1 else f"{one.name}#{one.number}": one
            for one in by_number.values()}, end


def _length(file: BinaryIO) -> int:
    """A length: the number of its bytes, and these."""
    of = _NUMBERS[file.read(1)[0]]
    return struct.unpack(of, file.read(struct.calcsize(of)))[0]


class Writer:
    """Writes one recording: the stream EMG in volts, at a rate, and the stream Markers, what is done from when on.

    What is written is whole at any time: a process that ends early leaves a file that can be read.

    Args:
        path: which is not there yet.

    Raises:
        InputError: the file exists already, or cannot be written.
    """

    def __init__(self, path: Path, rate_hz: float, channels: int):
        with refused_as(f"{path} cannot be written", OSError):
            self._file = open(path, "xb", buffering=0)
        self._rate, self._count, self._last = rate_hz, 0, np.zeros(channels, np.float32)
        self._file.write(b"XDF:")
        self._chunk(1, b"<info><version>1.0</version></info>")
        each = "".join(f"<channel><label>{c + 1}</label><unit>volts</unit></channel>" for c in range(channels))
        for number, name, count, rate, of, more in ((1, "EMG", channels, rate_hz, "float32", each),
                                                    (2, "Markers", 1, 0.0, "string", "")):
            self._chunk(2, struct.pack("<I", number) + (
                f"<info><name>{name}</name><type>{name}</type><channel_count>{count}</channel_count>"
                f"<nominal_srate>{rate!r}</nominal_srate><channel_format>{of}</channel_format>"
                f"<desc><channels>{more}</channels></desc></info>").encode())

    def samples(self, volts: np.ndarray) -> None:
        """The next samples (n, C) in volts; in place of those that are not finite the last one before is written."""
        kept = np.concatenate([self._last[None], volts]).astype(np.float32)
        kept = kept[np.maximum.accumulate(np.where(np.isfinite(kept).all(axis=1), np.arange(len(kept)), 0))]
        rows = np.empty(len(volts), [("bytes", "u1"), ("time", "<f8"), ("volts", "<f4", volts.shape[1])])
        rows["bytes"], rows["time"], rows["volts"] = 8, (self._count + np.arange(len(volts))) / self._rate, kept[1:]
        self._chunk(3, struct.pack("<IBI", 1, 4, len(rows)) + rows.tobytes())
        self._count, self._last = self._count + len(volts), kept[-1]

    def mark(self, text: str, ahead: int) -> None:
        """What is done from a sample on, counted from the next one."""
        said, time = text.encode(), (self._count + ahead) / self._rate
        self._chunk(3, struct.pack("<IBBBdBI", 2, 1, 1, 8, time, 4, len(said)) + said)

    def close(self) -> None:
        self._file.close()

    def _chunk(self, tag: int, content: bytes) -> None:
        self._file.write(struct.pack("<BIH", 4, 2 + len(content), tag) + content)


FORMAT = Format(("xdf",), read, lambda path: [name for name, one in _content(path)[0].items() if not one.marks],
                lambda path: [name for name, one in _content(path)[0].items() if one.marks])
