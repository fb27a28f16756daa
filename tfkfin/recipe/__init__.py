"""Recipes: reads the options of `tfkfin.recipe.options` from TOML and command lines, strictly.

An unknown key is an error that names the nearest known one. A wheel carries `pipelines/` inside the package, so that
its users have the shipped recipes too.
"""

import difflib
import json
import re
import tomllib
from operator import attrgetter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tfkfin.base.errors import InputError
from tfkfin.base.files import read_toml, shipped
from tfkfin.recipe.options import Classifier, Filter, Fin, Launch, Recipe, Split, Window
from tfkfin.recipe.removed import RECIPES, RemovedError

_HOST = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # C:\ is none
_MOST = 8  # wrong options that are explained at once
_DEEPEST = 8  # tables inside tables: bounds the recursion over what users give
__all__ = ["Classifier", "Filter", "Fin", "InputError", "Launch", "Recipe", "Split", "Window", "fields", "load",
           "parse_setting", "replaced", "values"]


def load(pipeline: str | Path | None = None, settings: dict[str, Any] | None = None, own: bool = True) -> Recipe:
    """Reads a recipe from a TOML file, or a shipped one by name, and applies dotted `settings` over it.

    Args:
        own: False: it may be a stranger's, so that no host that it names itself is contacted.

    Raises:
        InputError: no such file, not TOML, an unknown key (the nearest is named), an unfit value, or a host.
    """
    options, where = {}, "the default recipe"
    if pipeline is not None:
        path = _find(pipeline)
        where = str(path)
        options = read_toml(path, "a TOML recipe")
    recipe = _validated(_merged(options, settings or {}), where, settings or {})
    for key, value in (("source.data", recipe.source.data), ("fin.pretrained", recipe.fin.pretrained)):
        if not own and key not in (settings or {}) and _HOST.match(value):
            raise InputError(f"{where}: {key} names a host, {value[:200]}, which a recipe may not choose: if you trust "
                             f"it, give --set {key}=... yourself")
    return recipe


def replaced(recipe: Recipe, **settings: Any) -> Recipe:
    """A copy with dotted keys set: `replaced(recipe, **{"window.stride_ms": 50})`."""
    return _validated(_merged(recipe.model_dump(mode="json"), settings), "settings")


def parse_setting(text: str) -> tuple[str, Any]:
    """`key=value` of a command line -> (key, value); the value is TOML where it can be, otherwise text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set takes key=value, such as window.stride_ms=50. Received: {text!r}")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()
    except RecursionError:
        raise InputError(f"--set {key.strip()}: its value is nested too deep") from None


def _find(pipeline: str | Path) -> Path:
    path = Path(pipeline)
    may_be_shipped = len(path.parts) == 1 or path.parts[0] == "pipelines"
    candidates = [path, shipped("pipelines") / path.name, shipped("pipelines") / f"{path.name}.toml"]
    for candidate in candidates if may_be_shipped else candidates[:1]:
        if candidate.exists() and not candidate.is_dir():
            return candidate
    if may_be_shipped and path.stem in RECIPES:
        raise InputError(f"the recipe {path.stem} was removed: {RECIPES[path.stem]}")
    known = ", ".join(sorted(p.stem for p in shipped("pipelines").glob("*.toml")))
    raise InputError(f"no recipe {str(pipeline)!r}; shipped are: {known}")


def _merged(options: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    try:
        options = json.loads(json.dumps(options, default=str))
    except RecursionError:
        raise InputError("the recipe is nested too deep: no option is") from None
    for key, value in settings.items():
        *tables, name = key.split(".")
        if len(tables) > _DEEPEST:
            raise InputError(f"unknown key {key[:80]!r}: no option is that deep")
        if tables[:1] == ["tune"]:
            tables, name = ["tune"], key.removeprefix("tune.")
        table = options
        for part in tables:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise InputError(f"{key!r}: {part!r} is a value, not a table")
        table[name] = value
    return options


def _validated(options: dict[str, Any], where: str, settings: dict[str, Any] | None = None) -> Recipe:
    try:
        return Recipe.model_validate(options)
    except ValidationError as error:
        found = error.errors()
        if all(any(key.startswith(_key(e)) for key in settings or {}) for e in found):
            where = "--set"
        more = f"; and {len(found) - _MOST} more" if len(found) > _MOST else ""
        raise InputError(f"{where}: {'; '.join(map(_explain, found[:_MOST]))}{more}") from None


def _key(error: dict[str, Any]) -> str:
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, RemovedError):
        return cause.key
    return ".".join(str(part) for part in error["loc"] if not isinstance(part, int))


def fields(section: type[BaseModel] = Recipe, prefix: str = "") -> dict[str, Any]:
    """Every dotted key of a recipe with its default."""
    found = {}
    for name, field in section.model_fields.items():
        if isinstance(field.default, BaseModel):
            found |= fields(type(field.default), f"{prefix}{name}.")
        else:
            found[prefix + name] = field.default
    return found


def values(recipe: Recipe) -> dict[str, Any]:
    """Every dotted key of a recipe with its value."""
    return {key: attrgetter(key)(recipe) for key in fields()}


def _explain(error: dict[str, Any]) -> str:
    key = _key(error)
    if error["type"] == "extra_forbidden":
        known = list(fields()) + list(Recipe.model_fields)
        tails = {name.rpartition(".")[2]: name for name in known}
        near = difflib.get_close_matches(key, known, 1, 0.5)
        near = near or [tails[t] for t in difflib.get_close_matches(key.rpartition(".")[2], tails, 1, 0.5)]
        return f"unknown key {key!r}" + (f": did you mean {near[0]!r}?" if near else "")
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:  # about several options, which it names itself
        return message
    received = "" if "Received" in message or isinstance(error["input"], dict) else f". Received: {error['input']!r}"
    return f"{key}: {message}{received}"
