"""A process of its own that solves calibrations of a session, so that decisions do not wait for it."""

import multiprocessing
import os
import shutil
import signal
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from tfkfin.base.errors import InputError
from tfkfin.base.extras import load_tensorflow
from tfkfin.decoder.decoder import BaseDecoder

NICE = 3  # decisions come before it where they have no priority of their own


class Solver:
    """Solves calibrations of a decoder in another process, which ends with this one.

    Args:
        decoder: that decides now.
    """

    def __init__(self, decoder: BaseDecoder):
        context, folder = multiprocessing.get_context("spawn"), Path(tempfile.mkdtemp(prefix="tfkfin-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        decoder.save(folder)
        self._link, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other, folder), daemon=True)
        self._process.start()
        other.close()

    def wait(self) -> None:
        """Returns once the process has loaded and compiled what it needs."""
        self._asked()

    def __call__(self, folder: Path, subject: int, path: Path, session: int) -> tuple[Any, dict, dict]:
        """Calibrates the decoder on a recorded session; returns the new head's snapshot, the new card, the report.

        Raises:
            InputError: the calibration failed.
        """
        return self._asked((folder, subject, path, session))

    def _asked(self, request: tuple | None = None) -> Any:
        try:
            if request:
                self._link.send(request)
            found = self._link.recv()
        except (EOFError, OSError):
            raise InputError("the process that solves calibrations has ended") from None
        if isinstance(found, str):
            raise InputError(found)
        return found

    def take(self) -> None:
        """The new decoder decides from now on."""
        self._link.send(None)


def _work(link: Any, folder: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the terminal sends to both: the session ends this process
    if hasattr(os, "nice"):
        os.nice(NICE)
    load_tensorflow()
    from tfkfin.fit import calibration, scoring
    from tfkfin.recordings import readers

    decoder, new = BaseDecoder.load(folder), None
    silence = np.tile(np.asarray(decoder.card["mean_v"], np.float32), (decoder.length + decoder.stride, 1))
    decoder.inputs(silence, np.array([0, decoder.stride]))
    link.send(())
    while True:
        try:
            asked = link.recv()
        except EOFError:  # the session has ended
            return
        if asked is None:
            decoder = new
            continue
        try:
            data, subject, path, session = asked
            files = [file for file in readers.find(data, (subject,)) if file.path.samefile(path)]
            windows = scoring.windows_of(decoder.card, map(readers.read, files))
            new, report = calibration.calibrate(decoder, windows, session=session, where=str(path))
            report |= {"recording": str(path), "evidence": calibration.evidence(decoder, windows)}
            link.send((new.head.snapshot(), new.card, report))
        except Exception as error:  # the session tells it and goes on
            link.send(" ".join(str(error).split()) or type(error).__name__)
