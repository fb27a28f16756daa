"""Text from outside (names of movements and people, cards, streams, servers) inside other languages: a function each.

Whoever writes such a text into a terminal, HTML, TOML, a shell, Markdown or a figure uses these, so that it is read as
text and never as a command, a tag or another line. A terminal that keeps lines apart itself uses `console.shown`.
"""

import html as markup
import json
import re
import shlex
from typing import Any

from tfkfin.base.console import shown
from tfkfin.base.errors import InputError


def line(text: Any, most: int = 500) -> str:
    """One line for a terminal or a log, of at most so many characters: what would steer a terminal is `?`."""
    words = " ".join(shown(text).split())
    return words if len(words) <= most else words[: most - 1] + "…"


def html(text: Any) -> str:
    """Text between tags of HTML, or inside a quoted attribute."""
    return markup.escape(line(text))


def toml(text: str) -> str:
    """A basic string of TOML, as a key or a value. What would steer a terminal that shows the file is escaped too."""
    quoted = json.dumps(str(text).encode("utf-8", "replace").decode(), ensure_ascii=False)
    return "".join(c if shown(c) == c and c not in "\n\t" else f"\\u{ord(c):04x}" for c in quoted)


def shell(text: Any) -> str:
    """One word of a shell, or the value of an option of sbatch, which ends with its line whatever the quotes.

    Raises:
        InputError: it holds a new line, or another control character.
    """
    if shown(text) != str(text) or not {"\n", "\t"}.isdisjoint(str(text)):
        raise InputError(f"{str(text)[:80]!r} holds control characters or new lines: no option of a shell may")
    return shlex.quote(str(text))


def markdown(text: Any, spans: bool = False) -> str:
    """Text inside a line or a cell of Markdown; `spans` keeps `code` as it is."""
    words = re.sub(r"\s", " ", shown(text))
    parts = re.split(r"(`[^`<>|]*`)", words) if spans else [words]
    return "".join(part if i % 2 else re.sub(r"([\\`*\[\]<>|&$~])", r"\\\1", part) for i, part in enumerate(parts))


def figure(text: Any) -> str:
    """Text of a figure, where matplotlib would read mathematics between two dollars."""
    return line(text).replace("$", r"\$")
