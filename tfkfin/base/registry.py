"""Kinds of things that register themselves by being there: a module in a room is a kind, and its file says all of it.

    models/fins    FIN families (`FAMILY`)      models/heads    heads (`HEAD`)      fit/stages    stages (`STAGE`)
    models/descriptions    of whole windows (`DESCRIPTION`)      recordings/readers    layouts of folders (`READER`)
    recordings/formats    kinds of files (`FORMAT`)        experiments/kinds    experiments (`EXPERIMENT`)
    launch    launchers (`LAUNCHER`)      live/sources    live signals (`SOURCE`)

Names are known without importing anything, so that recipes and `--help` can check them in no time.
"""

import importlib
from typing import Any

from tfkfin.base.files import PACKAGE


def names(room: str) -> tuple[str, ...]:
    """The kinds in a room, such as "nets/heads", sorted."""
    return tuple(sorted(path.stem for path in (PACKAGE / room).glob("*.py") if not path.stem.startswith("_")))


def load(room: str, name: str, attribute: str) -> Any:
    """What the module of a kind says of it.

    Raises:
        ValueError: there is no such kind.
    """
    if name not in names(room):
        raise ValueError(f"`{attribute.lower()}` must be one of {names(room)}. Received: {name!r}")
    return getattr(importlib.import_module(f"tfkfin.{room.replace('/', '.')}.{name}"), attribute)
