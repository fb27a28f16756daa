"""Sessions written in the project's own recording format: `recordings.toml` and one .npz file a session."""

from pathlib import Path

import numpy as np
import tomli_w

from tfkfin.base.console import log
from tfkfin.base.errors import InputError
from tfkfin.base.files import replacing, write_text
from tfkfin.live.outputs import LiveOutput
from tfkfin.live.scoring import UNKNOWN
from tfkfin.recordings.recording import count_repetitions
from tfkfin.recordings.sheet import SHEET

FILES = "subject{subject}_session{session}.npz"


def check_folder(folder: Path, rate_hz: float, names: dict[int, str]) -> str:
    """Checks that sessions at this rate can be added to a folder; returns the text of its recordings.toml.

    Raises:
        InputError: it holds other recordings, or something else.
    """
    sheet = {"rate_hz": float(rate_hz), "unit": "V", "files": FILES, "channels": ["emg"], "label": "label",
             "repetition": "repetition"} | ({"movements": {str(m): name for m, name in names.items()}} if names else {})
    text, path = tomli_w.dumps(sheet), folder / SHEET
    if path.is_file():
        if path.read_text("utf-8") != text:
            raise InputError(f"{path} is of other recordings: give another folder")
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} holds something else: give another folder")
    return text


def save(folder: Path, subject: int, rate_hz: float, names: dict[int, str], emg: np.ndarray, labels: np.ndarray,
         repetitions: np.ndarray) -> tuple[Path, int]:
    """Writes a new session of a person, beside the earlier ones; returns its file and its number.

    Args:
        names: of movements.
        emg: (T, C) volts; samples that are not finite are left out.
        labels, repetitions: (T,), 0 at rest.

    Raises:
        InputError: the folder holds other recordings, or something else.
    """
    text = check_folder(folder, rate_hz, names)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / SHEET).is_file():
        write_text(folder / SHEET, text)
    earlier = [int(path.stem.rpartition("session")[2]) for path in folder.glob(f"subject{subject}_session*.npz")]
    session = max(earlier, default=0) + 1
    path, finite = folder / FILES.format(subject=subject, session=session), np.isfinite(emg).all(axis=1)
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez(file, emg=emg[finite].astype(np.float32), label=labels[finite].astype(np.int16),
                 repetition=repetitions[finite].astype(np.int16))
    return path, session


class Recorder(LiveOutput):
    """Records samples, with their true labels where these are known, while it is switched on."""

    def __init__(self, folder: Path, subject: int, rate_hz: float, names: dict[int, str]):
        self._to = folder, subject, rate_hz, names
        self._parts: list | None = None

    @property
    def on(self) -> bool:
        return self._parts is not None

    def switch(self, on: bool) -> str:
        """Starts a recording, or ends it and writes it; returns a note for people."""
        if on:
            try:
                check_folder(self._to[0], *self._to[2:])
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
        if note := self.switch(False):
            log.info("%s", note)
