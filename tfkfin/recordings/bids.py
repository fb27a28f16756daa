"""Writes recordings as a BIDS dataset of EMG: BDF or EDF with the sidecars that BIDS 1.11 requires.

Metadata that recordings do not have (filters, electrodes, mains) are "n/a". `tfkfin.recordings.readers.bids` reads the
dataset back with the same labels and repetitions, and signals to one step of the format's resolution.
"""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from tfkfin import __version__
from tfkfin.base.console import unfinished
from tfkfin.base.errors import InputError
from tfkfin.base.files import bury, making, partial_of, replacing, write_json, write_text
from tfkfin.recordings import events, formats
from tfkfin.recordings.readers.bids import default_name
from tfkfin.recordings.recording import Recording

VERSION, TASK = "1.11.1", "movements"
_COLUMNS = {
    "onset": {"Description": "Start of the movement", "Units": "s"},
    "duration": {"Description": "Duration of the movement", "Units": "s"},
    "trial_type": {"Description": "Name of the movement"},
    "value": {"Description": "Number of the movement; 0 is rest"},
    "repetition": {"Description": "Number of the movement's repetition"},
}


def write(recordings: Iterable[Recording], folder: Path, name: str, kind: str = "bdf") -> list[Path]:
    """Writes a new dataset and returns its signal files.

    Args:
        recordings: each of one subject and session; several of the same become its runs.
        folder: the dataset's; it must not exist, or be empty.
        name: the dataset's.
        kind: "bdf", 24 bits a sample, or "edf", 16 bits.

    Raises:
        InputError: the folder is not empty, or edfio is not installed.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already, and nothing in it is overwritten: choose another folder")
    partial, written = partial_of(folder), []
    unfinished.add(partial)
    with making(folder.parent):
        bury(folder)
        try:
            written = _write_all(recordings, partial, name, kind)
            if folder.is_dir():
                folder.rmdir()
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            unfinished.discard(partial)
    return [folder / path.relative_to(partial) for path in written]


def _write_all(recordings: Iterable[Recording], folder: Path, name: str, kind: str) -> list[Path]:
    runs, written, people, names = {}, [], {}, {}
    for recording in recordings:
        people[f"sub-{recording.subject:02d}"] = None
        names |= recording.names
        edges = [0, *recording.seams, len(recording.labels)]
        for begin, end in zip(edges, edges[1:], strict=False):
            place = recording.subject, recording.file.session
            runs[place] = runs.get(place, 0) + 1
            written.append(_write_run(recording, slice(begin, end), runs[place], folder, kind))
    _write_dataset(folder, name, people, names, written)
    return written


def _write_dataset(folder: Path, name: str, people: Sequence[str], names: dict[int, str], written: list[Path]) -> None:
    levels = {"Levels": {named: f"movement {number}" for number, named in sorted(names.items())}} if names else {}
    write_json(folder / f"task-{TASK}_events.json", _COLUMNS | {"trial_type": _COLUMNS["trial_type"] | levels})
    write_text(folder / "participants.tsv", "participant_id\n" + "".join(f"{one}\n" for one in people))
    write_text(folder / "README.md", f"# {name}\n\nSurface EMG of {len(people)} people, {len(written)} files, written "
               f"by tfkfin {__version__}. Movements and repetitions are in the files `*_events.tsv`.\n")
    write_json(folder / "dataset_description.json", {  # written last: only with it is the folder a dataset
        "Name": name, "BIDSVersion": VERSION, "DatasetType": "raw",
        "GeneratedBy": [{"Name": "tfkfin", "Version": __version__}]})


def _write_run(recording: Recording, part: slice, run: int, folder: Path, kind: str) -> Path:
    ids = [f"sub-{recording.subject:02d}", f"ses-{recording.file.session:02d}"]
    stem = "_".join([*ids, f"task-{TASK}", f"run-{run:02d}"])
    beside = folder.joinpath(*ids, "emg")
    beside.mkdir(parents=True, exist_ok=True)
    emg, rate = recording.emg[part], recording.rate_hz
    channels = [f"EMG{c + 1:02d}" for c in range(emg.shape[1])]
    path = beside / f"{stem}_emg.{kind}"
    with replacing(path) as partial:
        _write_signals(partial, emg, rate, channels, kind)
    write_text(beside / f"{stem}_channels.tsv", "name\ttype\tunits\tsampling_frequency\n" + "".join(
        f"{name}\tEMG\tuV\t{rate:.15g}\n" for name in channels))
    rows = (f"{start / rate:.9g}\t{(stop - start) / rate:.9g}\t{recording.names.get(movement, default_name(movement))}"
            f"\t{movement}\t{repetition or 'n/a'}\n" for start, stop, movement, repetition in
            events.from_samples(recording.labels[part], recording.repetitions[part]))
    write_text(beside / f"{stem}_events.tsv", "onset\tduration\ttrial_type\tvalue\trepetition\n" + "".join(rows))
    write_json(beside / f"{stem}_emg.json", {
        "TaskName": TASK, "TaskDescription": "Hand movements, held and repeated.", "SamplingFrequency": rate,
        "EMGChannelCount": len(channels), "RecordingDuration": len(emg) / rate, "RecordingType": "continuous",
        "PowerLineFrequency": "n/a", "SoftwareFilters": "n/a", "HardwareFilters": "n/a", "EMGReference": "n/a",
        "EMGGround": "n/a", "EMGPlacementScheme": "Other",
        "EMGPlacementSchemeDescription": "not known from the source recordings"}
        | ({"Synthetic": True} if recording.synthetic else {}))
    return path


def _write_signals(path: Path, emg: np.ndarray, rate: float, channels: list[str], kind: str) -> None:
    """Microvolts in records of about a second; the last record is filled up with the last value."""
    edfio = formats.package("edfio", path)
    samples = max(1, round(rate))
    padded = np.pad(emg.astype(np.float64) * 1e6, ((0, -len(emg) % samples), (0, 0)), "edge")
    signal, file = (edfio.BdfSignal, edfio.Bdf) if kind == "bdf" else (edfio.EdfSignal, edfio.Edf)
    signals = [signal(np.ascontiguousarray(padded[:, c]), rate, label=name, physical_dimension="uV")
               for c, name in enumerate(channels)]
    file(signals, data_record_duration=samples / rate).write(path)
