"""Kinds of things that register themselves: a module in a room's folder, or an entry point of an installed package.

    room                   attribute       entry point group      what it is
    nets/fins              FAMILY          tfkfin.fins            families of FINs
    nets/heads             HEAD            tfkfin.heads           heads
    nets/descriptions      DESCRIPTION     tfkfin.descriptions    what heads get of whole windows
    recordings/readers     READER          tfkfin.readers         layouts of folders of recordings
    recordings/formats     FORMAT          tfkfin.formats         kinds of files that hold columns
    live/sources           SOURCE          tfkfin.sources         live signals
    fit/stages             STAGE                                  stages of training
    experiments/kinds      EXPERIMENT                             experiments
    launch                 LAUNCHER                               launchers

An entry point names the object itself (`short = my_package.short:FAMILY`). Names are known without importing anything,
so that recipes and `--help` can check them at once.
"""

import importlib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from tfkfin.base.errors import InputError
from tfkfin.base.files import PACKAGE

OPEN = ("nets/fins", "nets/heads", "nets/descriptions", "recordings/readers", "recordings/formats", "live/sources")


def names(room: str) -> tuple[str, ...]:
    """The kinds in a room, such as "nets/heads", sorted: tfkfin's own and those of installed packages."""
    return tuple(sorted({*_own(room), *_installed(room)}))


def load(room: str, name: str, attribute: str) -> Any:
    """The object that describes a kind: `attribute` of tfkfin's own module, or what the entry point names.

    Raises:
        ValueError: there is no such kind.
        InputError: an installed package's kind cannot be imported.
    """
    if name in _own(room):
        return getattr(importlib.import_module(f"tfkfin.{room.replace('/', '.')}.{name}"), attribute)
    if name not in _installed(room):
        raise ValueError(f"`{attribute.lower()}` must be one of {names(room)}. Received: {name!r}")
    point = _installed(room)[name]
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        package = point.dist.name if point.dist else point.module
        raise InputError(f"{name!r} of the installed package {package} cannot be loaded: {error}") from None


@cache
def _own(room: str) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in (PACKAGE / room).glob("*.py") if not path.stem.startswith("_")))


@cache
def _installed(room: str) -> dict[str, EntryPoint]:
    """Entry points of other packages by name; tfkfin's own kinds cannot be replaced."""
    if room not in OPEN:
        return {}
    found = {point.name: point for point in entry_points(group=f"tfkfin.{room.rpartition('/')[2]}")}
    if taken := sorted(set(found) & set(_own(room))):
        point = found[taken[0]]
        raise InputError(f"the installed package {point.dist.name if point.dist else point.module} calls a kind of "
                         f"{room} {taken[0]!r}, which is a name of tfkfin's own: rename or uninstall it")
    return found
