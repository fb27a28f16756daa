"""Sessions kept in the project's own recording format: `recordings.toml` and a .npz a session."""

from pathlib import Path

import numpy as np
import tomli_w

from tfkfin.base.console import InputError, log
from tfkfin.base.files import replacing, write_text
from tfkfin.live.outputs import Output
from tfkfin.live.scoring import UNKNOWN
from tfkfin.recordings.events import count_repetitions
from tfkfin.recordings.sheet import SHEET

FILES = "subject{subject}_session{session}.npz"


def fits(folder: Path, rate_hz: float, names: dict[int, str]) -> str:
    """The sheet of a folder that sessions at a rate may be added to.

    Raises:
        InputError: it holds other recordings.
    """
    sheet = {"rate_hz": float(rate_hz), "unit": "V", "files": FILES, "channels": ["emg"], "label": "label",
             "repetition": "repetition"} | ({"movements": {str(m): name for m, name in names.items()}} if names else {})
    text, there = tomli_w.dumps(sheet), folder / SHEET
    if there.is_file():
        if there.read_text("utf-8") != text:
            raise InputError(f"{there} is of other recordings: give another folder")
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} holds something else: give another folder")
    return text


def save(folder: Path, subject: int, rate_hz: float, names: dict[int, str], emg: np.ndarray, labels: np.ndarray,
         repetitions: np.ndarray) -> tuple[Path, int]:
    """Writes a new session of a person; its file and number. Nothing that is there is changed.

    Args:
        emg: (T, C) volts; samples that are not finite are left out.
        labels, repetitions: (T,), 0 at rest.

    Raises:
        InputError: the folder holds other recordings.
    """
    text = fits(folder, rate_hz, names)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / SHEET).is_file():
        write_text(folder / SHEET, text)
    before = [int(path.stem.rpartition("session")[2]) for path in folder.glob(f"subject{subject}_session*.npz")]
    session = max(before, default=0) + 1
    path, whole = folder / FILES.format(subject=subject, session=session), np.isfinite(emg).all(axis=1)
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez(file, emg=emg[whole].astype(np.float32), label=labels[whole].astype(np.int16),
                 repetition=repetitions[whole].astype(np.int16))
    return path, session


class Recorder(Output):
    """Keeps the samples while it is switched on, with what was truly done where that is known, and writes them."""

    def __init__(self, folder: Path, subject: int, rate_hz: float, names: dict[int, str]):
        self._to = folder, subject, rate_hz, names
        self._parts: list | None = None

    @property
    def on(self) -> bool:
        return self._parts is not None

    def switch(self, on: bool) -> str:
        """Begins a recording, or ends and writes it; what there is to say of that."""
        if on:
            try:
                fits(self._to[0], *self._to[2:])
            except InputError as error:
                return f"not recorded: {error}"
        parts, self._parts = self._parts, [] if on else None
        if on or not parts:
            return ""
        emg, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        labels = np.where(labels == UNKNOWN, 0, labels)
        return f"recorded: {save(*self._to, emg, labels, count_repetitions(labels.astype(np.int16)))[0]}"

    def samples(self, volts: np.ndarray, labels: np.ndarray) -> None:
        if self._parts is not None:
            self._parts.append((np.array(volts, np.float32), np.array(labels)))

    def close(self) -> None:
        if said := self.switch(False):
            log.info("%s", said)
