"""Runs a page of the documentation as a reader would: its blocks in order, in the current folder.

`python docs_session.py PAGE`: ```python blocks share their names, ```bash blocks are run by bash, and a code block with
a caption is the file of that name. What a page takes for granted stands in a comment, <!-- setup. ```console is what a
reader cannot be asked to run: servers, 18 GB, log-ins.
"""

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

BLOCK = re.compile(r"^(?:```|<!-- )(?:\{code-block\} )?(python|bash|setup)\n(?::caption: (\S+)\n\n)?(.*?)^(?:```|-->)$",
                   re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> Iterator[tuple[str, str | None, str, int]]:
    """Language, file's name or None, text, first line."""
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        yield match[1], match[2], match[3], text.count("\n", 0, match.start(3)) + 1


def main(page: Path) -> None:
    names: dict = {"__name__": "__main__"}
    for language, file, text, line in blocks(page):
        where = f"{page.name}, line {line}"
        print(f"== {where}", flush=True)
        if file:
            Path(file).write_text(text, encoding="utf-8")
            importlib.invalidate_caches()
        elif language in ("bash", "setup"):
            if subprocess.run(["bash", "-euo", "pipefail", "-c", text]).returncode:
                sys.exit(f"{where} failed")
        else:
            exec(compile("\n" * (line - 1) + text, str(page), "exec"), names)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
