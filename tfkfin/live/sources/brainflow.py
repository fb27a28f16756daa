"""Any board that BrainFlow knows: amplifiers over USB, Bluetooth and the network, its synthetic and playback boards."""

import argparse
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tfkfin.base.console import InputError, parse_numbers
from tfkfin.live.outputs import needed
from tfkfin.live.sources import Chunk, Kind, Source, chosen
from tfkfin.live.sources._gaps import counted

POLL_S = 0.002  # BrainFlow is asked so often whether there are samples
SILENT_S = 3.0  # without any, the board is begun anew
VOLTS = 1e-6  # BrainFlow's samples are microvolts


class Board(Source):
    """A board of BrainFlow; one that falls silent is begun anew until it answers.

    Args:
        board: its number or name, such as "synthetic" or "MYO_BOARD".
        parameters: fields of `BrainFlowInputParams`, such as serial_port or ip_address; of the board "playback_file"
            `file`, as BrainFlow wrote it, and `master_board`, which board that was.
        channels: numbers from 1 among the board's EMG channels; () takes all.

    Raises:
        InputError: no brainflow, no such board or parameter, a board that does not answer.
    """

    drifts = True

    def __init__(self, board: str, parameters: Mapping[str, str] | None = None, channels: tuple[int, ...] = ()):
        self._flow = needed("brainflow.board_shim")
        self._flow.BoardShim.disable_board_logger()
        self._number, self._parameters, self._ended = self._numbered(board), dict(parameters or {}), False
        master = self._numbered(self._parameters.get("master_board", str(self._number)))
        if "master_board" in self._parameters:  # which board a recording is of: BrainFlow knows it by its number
            self._parameters["master_board"] = str(master)
        shim, self._error = self._flow.BoardShim, needed("brainflow.exit_codes").BrainFlowError
        try:
            self.rate_hz = float(shim.get_sampling_rate(master))
            there = self._emg(shim, master)
            self._stamps, self._count = shim.get_timestamp_channel(master), shim.get_package_num_channel(master)
        except self._error as error:
            raise InputError(f"BrainFlow's board {board} cannot give samples: {error}") from None
        self._which = [there[i] for i in chosen(channels, len(there), f"board {board}")]
        self.channels, self._last = len(self._which), None
        self._board = self._begun()
        self.described = f"BrainFlow's board {board}, {self.channels} channels at {self.rate_hz:g} Hz"

    def __iter__(self) -> Iterator[Chunk | None]:
        last, note = time.perf_counter(), ""
        self._board.get_board_data()  # what came while nobody was ready
        while not self._ended:
            try:
                data = self._board.get_board_data() if self._board else np.empty((0, 0))
            except self._error:
                data = np.empty((0, 0))
            now = time.perf_counter()
            if data.shape[1]:
                last = now
                yield from self._chunks(data, now, note)
                note = ""
            elif now - last > SILENT_S:
                last, note, self._last = now, "the board was silent, and is begun anew", None
                self._released()
                try:
                    self._board = self._begun()
                except InputError:
                    yield None
            else:
                yield None
                time.sleep(POLL_S)

    def close(self) -> None:
        self._ended = True
        self._released()

    def _chunks(self, data: np.ndarray, now: float, note: str) -> Iterator[Chunk]:
        samples = np.ascontiguousarray(VOLTS * data[self._which].T, np.float32)
        lost = counted(data[self._count], self._last)
        self._last = int(data[self._count, -1])
        late = time.time() - data[self._stamps, -1]
        edges = [0, *np.flatnonzero(lost[1:]) + 1, len(samples)]
        for start, stop in zip(edges, edges[1:], strict=False):
            after = (len(samples) - stop) / self.rate_hz
            yield Chunk(samples[start:stop], now, late + after, int(lost[start]), begins=bool(note) and not start,
                        note="" if start else note)

    def _numbered(self, board: str) -> int:
        ids = {one.name.removesuffix("_BOARD").lower(): one.value for one in self._flow.BoardIds}
        name = board.removesuffix("_BOARD").lower()
        if name.lstrip("-").isdecimal():
            return int(name)
        if name not in ids:
            raise InputError(f"BrainFlow has no board {board!r}: it has {', '.join(sorted(ids))}")
        return ids[name]

    def _emg(self, shim: Any, master: int) -> list[int]:
        try:
            return list(shim.get_emg_channels(master))
        except self._error:  # amplifiers that name theirs otherwise
            return list(shim.get_exg_channels(master))

    def _begun(self) -> Any:
        wanted = self._flow.BrainFlowInputParams()
        for name, value in self._parameters.items():
            if not hasattr(wanted, name):
                raise InputError(f"BrainFlow has no parameter {name!r}: it has {', '.join(sorted(vars(wanted)))}")
            setattr(wanted, name, type(getattr(wanted, name))(value))
        board = self._flow.BoardShim(self._number, wanted)
        try:
            board.prepare_session()
            board.start_stream()
        except self._error as error:
            raise InputError(f"the board does not answer: {error}") from None
        return board

    def _released(self) -> None:
        board, self._board = self._board, None
        if board is not None:
            try:
                board.release_session()
            except self._error:
                pass  # it is gone


def _open(arguments: argparse.Namespace, card: dict) -> Board:
    pairs = [text.partition("=") for text in arguments.board_param or ()]
    if unfit := [name for name, equals, _ in pairs if not equals]:
        raise InputError(f"--board-param takes NAME=VALUE. Received: {unfit[0]!r}")
    if not arguments.board:
        raise InputError("--source brainflow needs --board, such as synthetic")
    return Board(arguments.board, {name: value for name, _, value in pairs},
                 parse_numbers(arguments.channels) if arguments.channels else ())


def _options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--board", metavar="NAME", help="brainflow: the board's name or number")
    group.add_argument("--board-param", metavar="NAME=VALUE", action="append", help="brainflow: such as "
                       "serial_port=/dev/ttyUSB0; may be given again")


SOURCE = Kind(_open, _options)
