"""Any board that BrainFlow supports: amplifiers over USB, Bluetooth or network, its synthetic and playback boards."""

import argparse
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from tfkfin.base.console import parse_numbers
from tfkfin.base.errors import InputError, refused_as
from tfkfin.base.extras import required
from tfkfin.live.sources import Chunk, LiveSource, channel_indices

POLL_S = 0.002  # between questions to BrainFlow for new samples
SILENT_S = 3.0  # without samples for this long, the board is restarted
VOLTS = 1e-6  # BrainFlow's samples are microvolts


class BrainFlowBoard(LiveSource):
    """A board of BrainFlow. When it falls silent, it is restarted until it answers.

    Args:
        board: its number or name, such as "synthetic" or "MYO_BOARD".
        parameters: fields of `BrainFlowInputParams`, such as serial_port or ip_address. The board "playback_file" needs
            `file`, which BrainFlow wrote, and `master_board`, the board that was recorded.
        channels: numbers from 1 among the board's EMG channels; () takes all.

    Raises:
        InputError: no brainflow, no such board or parameter, or a board that does not answer.
    """

    drifts, table = True, "brainflow"

    def __init__(self, board: str, parameters: Mapping[str, str] | None = None, channels: tuple[int, ...] = ()):
        warnings.filterwarnings("ignore", "pkg_resources is deprecated")  # which BrainFlow imports
        self._flow = required("brainflow.board_shim")
        self._flow.BoardShim.disable_board_logger()
        self._number, self._parameters, self._closed = self._number_of(board), dict(parameters or {}), False
        master = self._number_of(self._parameters.get("master_board", str(self._number)))
        if "master_board" in self._parameters:
            self._parameters["master_board"] = str(master)  # BrainFlow takes its number only
        shim, self._error = self._flow.BoardShim, required("brainflow.exit_codes").BrainFlowError
        with refused_as(f"BrainFlow's board {board} cannot give samples", self._error):
            self.rate_hz = float(shim.get_sampling_rate(master))
            try:
                rows = list(shim.get_emg_channels(master))
            except self._error:  # amplifiers without EMG channels have ExG channels
                rows = list(shim.get_exg_channels(master))
            self._stamps, self._count = shim.get_timestamp_channel(master), shim.get_package_num_channel(master)
        self._rows = [rows[i] for i in channel_indices(channels, len(rows), f"board {board}")]
        self.channels, self._last = len(self._rows), None
        self._board = self._started()
        self.described = f"BrainFlow's board {board}, {self.channels} channels at {self.rate_hz:g} Hz"

    @classmethod
    def open(cls, arguments: argparse.Namespace, card: dict) -> "BrainFlowBoard":
        pairs = [text.partition("=") for text in arguments.board_param or ()]
        if unfit := [name for name, equals, _ in pairs if not equals]:
            raise InputError(f"--board-param takes NAME=VALUE. Received: {unfit[0]!r}")
        if not arguments.board:
            raise InputError("--source brainflow needs --board, such as synthetic")
        return cls(arguments.board, {name: value for name, _, value in pairs},
                   parse_numbers(arguments.channels) if arguments.channels else ())

    def __iter__(self) -> Iterator[Chunk | None]:
        last, note = time.perf_counter(), ""
        self._board.get_board_data()  # samples from before the session
        while not self._closed:
            data = np.empty((0, 0))
            with suppress(self._error):
                data = self._board.get_board_data() if self._board else data
            now = time.perf_counter()
            if data.shape[1]:
                lost = number_gaps(data[self._count], self._last)
                last, self._last = now, int(data[self._count, -1])
                samples = np.ascontiguousarray(VOLTS * data[self._rows].T, np.float32)
                yield from self.chunks(samples, lost, time.time() - data[self._stamps, -1], note, bool(note))
                note = ""
            elif now - last > SILENT_S:
                last, note, self._last = now, "the board was silent, and is restarted", None
                self._release()
                with suppress(InputError):
                    self._board = self._started()
            else:
                yield None
                time.sleep(POLL_S)

    def close(self) -> None:
        self._closed = True
        self._release()

    def _number_of(self, board: str) -> int:
        ids = {one.name.removesuffix("_BOARD").lower(): one.value for one in self._flow.BoardIds}
        name = board.removesuffix("_BOARD").lower()
        if name.lstrip("-").isdecimal():
            return int(name)
        if name not in ids:
            raise InputError(f"BrainFlow has no board {board!r}: it has {', '.join(sorted(ids))}")
        return ids[name]

    def _started(self) -> Any:
        wanted = self._flow.BrainFlowInputParams()
        for name, value in self._parameters.items():
            if not hasattr(wanted, name):
                raise InputError(f"BrainFlow has no parameter {name!r}: it has {', '.join(sorted(vars(wanted)))}")
            setattr(wanted, name, type(getattr(wanted, name))(value))
        board = self._flow.BoardShim(self._number, wanted)
        with refused_as("the board does not answer", self._error):
            board.prepare_session()
            board.start_stream()
        return board

    def _release(self) -> None:
        board, self._board = self._board, None
        if board is not None:
            with suppress(self._error):  # it may have gone
                board.release_session()


def number_gaps(numbers: np.ndarray, last: int | None, modulus: int = 256) -> np.ndarray:
    """How many packages are missing before each of `numbers` (n,), which count up modulo `modulus` from `last`."""
    before = int(numbers[0] if last is None else last)
    return np.maximum(np.diff(numbers.astype(np.int64), prepend=before) % modulus - 1, 0)


SOURCE = BrainFlowBoard
