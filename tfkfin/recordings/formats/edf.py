"""EDF, EDF+, BDF and BDF+: signals by name with their own unit and rate, and annotations; needs edfio (`formats`)."""

from pathlib import Path

from tfkfin.base.errors import InputError, refused_as
from tfkfin.recordings.formats import VOLTS, Annotation, Format, Table, Wanted, package


def read(path: Path, wanted: Wanted) -> Table:
    """Signals by name, or by number from 1; without names all that are in volts."""
    file = _open(path)
    with refused_as(f"{path} is damaged"):  # such as a physical range of 0, or annotations that are not text
        signals = {i + 1: signal for i, signal in enumerate(file.signals)} | {s.label: s for s in file.signals}
        if len(signals) < 2 * len(file.signals):
            signals = {key: signal for key, signal in signals.items() if isinstance(key, int)}
        names = [s.label if s.label in signals else i + 1 for i, s in enumerate(file.signals)]
        units = {name: str(signals[name].physical_dimension).strip() for name in names}
        volts = [name for name in names if units[name] in VOLTS] or [name for name in names if not units[name]]
        chosen = [name for name in (volts if wanted is None else wanted) if name in signals]
        rates = {signals[name].sampling_frequency for name in chosen}
        if len(rates) > 1:
            raise InputError(f"{path} has signals at {', '.join(f'{rate:g}' for rate in sorted(rates))} Hz: choose "
                             "channels of one rate")
        if file.reserved[4:5] == "D" and not file.is_continuous:
            raise InputError(f"{path} has gaps (it is discontinuous): split it into files without gaps")
        events = [Annotation(e.onset, e.onset + (e.duration or 0), e.text.strip()) for e in file.annotations]
        columns = {name: signals[name].data for name in chosen}
        units = {name: unit for name in chosen if (unit := signals[name].physical_dimension.strip())}
        return Table(columns, rates.pop() if rates else None, units, events)


def _open(path: Path):
    edfio = package("edfio", path)
    with refused_as(f"{path} is not a whole {path.suffix[1:].upper()} file"):
        reader = edfio.read_bdf if path.suffix.lower() == ".bdf" else edfio.read_edf
        return reader(path, header_encoding="latin-1")


FORMAT = Format(("edf", "bdf"), read, lambda path: [signal.label for signal in _open(path).signals])
