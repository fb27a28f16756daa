"""Ninapro's databases, from `ninapro.toml`."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tfkfin.base.files import read_toml


class Database(NamedTuple):
    """What the files of a database do not contain about it; ninapro.toml explains the fields."""

    rate_hz: float
    channels: int
    subjects: int
    movements: Sequence[int]
    fewer: Sequence[int] = ()
    sides: Mapping[str, int] = {}
    acquisitions: int = 1
    archive: str = ""
    folder: str = ""
    cite: Sequence[str] = ()
    train: str = ""


@cache
def databases() -> dict[str, Database]:
    """Every database, by name."""
    facts = read_toml(Path(__file__).with_name("ninapro.toml"))
    papers, _ = facts.pop("papers"), facts.pop("names")
    return {name: Database(**of | {"cite": [papers[key] for key in of.get("cite", ())]}) for name, of in facts.items()}


@cache
def movement_names(movements: int) -> Sequence[str]:
    """Of the exercise that has so many; () where tfkfin does not know them."""
    return read_toml(Path(__file__).with_name("ninapro.toml"))["names"].get(str(movements), ())
