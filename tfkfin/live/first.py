"""Day one, without a decoder: cued repetitions of movements are recorded, and a decoder is fitted to them."""

import argparse
from pathlib import Path

from tfkfin import recipe as recipes
from tfkfin.base import registry
from tfkfin.base.console import log
from tfkfin.base.errors import InputError
from tfkfin.live.calibration import Cued, check_folder, cues, save
from tfkfin.live.outputs import Terminal
from tfkfin.recordings import readers

UNSAID = {"channels": 8, "rate_hz": 2000.0}  # of a synthetic person, where no decoder says them


def movements(text: str | None) -> dict[int, str]:
    """Numbers from 1 and names of movements "fist,open hand".

    Raises:
        InputError: fewer than two, or one twice.
    """
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"name two movements or more, each once: --movements fist,open. Received: {text or 'none'}")
    return dict(enumerate(names, 1))


def record(arguments: argparse.Namespace, folder: Path) -> Path:
    """Asks for every movement on the terminal, and writes what is done as a new session into a folder.

    Args:
        arguments: options of the source, and `movements`, `cued`, `hold_s`, `rest_s`, `subject` as of `tfkfin live`.

    Returns:
        The new file.

    Raises:
        InputError: no such source, the source ended before, or the folder holds other recordings.
    """
    names = movements(arguments.movements)
    source = registry.load("live/sources", arguments.source, "SOURCE").open(arguments, UNSAID | {"movements": [*names]})
    check_folder(folder, source.rate_hz, names)
    log.info("%s", source.described)
    cued = Cued(source, cues([*names], arguments.cued, arguments.hold_s, arguments.rest_s))
    terminal, last = Terminal(names), None
    try:
        for _ in cued:
            if cued.cue != last:
                last = cued.cue
                terminal.cue(last)
            if cued.done:
                return save(folder, arguments.subject or 1, cued.rate_hz, names, *cued.recorded())[0]
    finally:
        cued.close()
    raise InputError("the signal ended before every movement was done: nothing was written")


def fitted(arguments: argparse.Namespace) -> Path:
    """Records a session into `arguments.calibrate`, fits the recipe `best` to the person's sessions there, rest too.

    Returns:
        The folder of the new version.
    """
    from tfkfin.fit import trainers
    from tfkfin.serving import version

    log.info("%s", record(arguments, arguments.calibrate))
    files = readers.find(arguments.calibrate, (arguments.subject or 1,))
    card, network = trainers.fit(recipes.load("best", {"window.rest": True}), list(map(readers.read, files)))
    made = version.publish(card, network, arguments.to or Path("savedmodels", arguments.calibrate.resolve().name))
    log.info("fitted to %d sessions: %s", len(files), made)
    return made
