"""The table of every option of a recipe, from tfkfin/recipe/options.py: key, default, values, comment."""

import ast
import io
import tokenize
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import BaseModel

from tfkfin.recipe import fields
from tfkfin.recipe import options as source
from tfkfin.recipe.options import Recipe


def comments() -> dict[tuple[str, str], str]:
    """(class, field) -> the comment at the end of the field's last line."""
    text = Path(source.__file__).read_text(encoding="utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    said = {token.start[0]: (token.string.lstrip("# "), not token.line[: token.start[1]].strip()) for token in tokens
            if token.type == tokenize.COMMENT}
    for line in sorted(said, reverse=True):  # a comment on a line of its own goes on with the one above
        if said[line][1] and line - 1 in said:
            said[line - 1] = (f"{said[line - 1][0]} {said[line][0]}", said[line - 1][1])
    return {(node.name, line.target.id): said.get(line.end_lineno, ("",))[0] for node in ast.parse(text).body
            if isinstance(node, ast.ClassDef) for line in node.body if isinstance(line, ast.AnnAssign)}


def rows(section: type[BaseModel] = Recipe, prefix: str = ""):
    """Yields tables: (heading, what the section says of itself, rows of key, default, comment)."""
    said, own = comments(), []
    for name, field in section.model_fields.items():
        if not isinstance(field.default, BaseModel):
            about = [said.get((section.__name__, name), "")]
            if get_origin(field.annotation) is Literal:
                about.insert(0, "one of " + ", ".join(f"`{value}`" for value in get_args(field.annotation)))
            own.append((prefix + name, field.default, "; ".join(text for text in about if text)))
    yield prefix.rstrip(".") or "top of the recipe", (section.__doc__ or "").partition("\n")[0], own
    for name, field in section.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield from rows(type(field.default), f"{prefix}{name}.")


def text() -> str:
    lines = []
    for heading, about, table in rows():
        lines += [f"## {heading}", "", about, "", "| key | default | what it is |", "|---|---|---|"]
        for key, default, comment in table:
            shown = ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)
            cells = (f"`{key}`", f"`{shown}`" if shown not in ("", "{}") else "", comment.replace("|", "\\|"))
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    missing = [key for key in fields() if f"`{key}`" not in "\n".join(lines)]
    if missing:
        raise ValueError(f"options without a row: {missing}")
    return "\n".join(lines)


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text(), encoding="utf-8")
