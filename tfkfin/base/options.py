"""Options of commands: `options.toml` has a table for each command, and in it one for each option."""

import argparse
import functools
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfkfin.base.console import numeric
from tfkfin.base.files import PACKAGE

_TYPES = {"int": int, "float": float, "path": Path}
_YES_OR_NO = "yes_or_no"  # an action: --option or --no-option


@functools.cache
def _tables() -> dict[str, dict[str, dict[str, Any]]]:
    return tomllib.loads((PACKAGE / "options.toml").read_text("utf-8"))


def add_options(parser: argparse._ActionsContainer, table: str, prefix: str = "", **choices: Sequence[str]) -> None:
    """Adds the options of a table to a parser or a group of one.

    Args:
        prefix: what "{prefix}" in a help text stands for.
        choices: those that code knows, by option.
    """
    for name, option in _tables()[table].items():
        option = dict(option)
        more: dict[str, Any] = {"choices": choices[name.lstrip("-")]} if name.lstrip("-") in choices else {}
        if kind := option.get("type"):
            more["type"] = _TYPES[kind] if isinstance(kind, str) else numeric(type(kind[0]), *kind)
        if removed := option.pop("removed", None):
            more["type"] = functools.partial(_still_there, removed)
        if option.get("action") == _YES_OR_NO:
            more["action"] = argparse.BooleanOptionalAction
        if "help" in option:
            more["help"] = option["help"].replace("{prefix}", prefix)
        parser.add_argument(name, **option | more)


def _still_there(removed: dict[str, str], value: str) -> str:
    """A value, unless it is one that was removed, for which `removed` says what to do instead."""
    if value in removed:
        raise argparse.ArgumentTypeError(f"{value} was removed: {removed[value]}")
    return value
