"""Sentences of the reports, from texts.toml."""

from functools import cache
from pathlib import Path
from typing import Any

from tfkfin.base.files import read_toml


@cache
def _tables() -> dict[str, dict[str, Any]]:
    return read_toml(Path(__file__).with_name("texts.toml"), "the sentences of reports")


def text(key: str, /, **values: Any) -> str:
    """The sentence "table.name" with its {names} filled in."""
    table, _, name = key.partition(".")
    return _filled(_tables()[table][name], values)


def texts(key: str, /, **values: Any) -> list[str]:
    """As `text`, of a list of sentences."""
    table, _, name = key.partition(".")
    return [_filled(one, values) for one in _tables()[table][name]]


def _filled(template: str, values: dict[str, Any]) -> str:
    return template.replace("\n", " ").format(**values)
