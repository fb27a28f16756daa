"""Options of commands: `options.toml` has a table for each command, and in it one for each option."""

import argparse
import functools
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfkfin.base.console import numeric
from tfkfin.base.files import PACKAGE

_TYPES = {"int": int, "path": Path}


@functools.cache
def _tables() -> dict[str, dict[str, dict[str, Any]]]:
    return tomllib.loads((PACKAGE / "options.toml").read_text("utf-8"))


def add_options(parser: argparse._ActionsContainer, table: str, **choices: Sequence[str]) -> None:
    """Adds the options of a table to a parser or a group of one; `choices` has those that code knows, by option."""
    for name, option in _tables()[table].items():
        more: dict[str, Any] = {"choices": choices[name.lstrip("-")]} if name.lstrip("-") in choices else {}
        if kind := option.get("type"):
            more["type"] = _TYPES[kind] if isinstance(kind, str) else numeric(type(kind[0]), *kind)
        parser.add_argument(name, **option | more)
