"""`python -m tfkfin.models`: what models there are, and what is said of each."""

import argparse
from pathlib import Path

from tfkfin.console import InputError, run
from tfkfin.files import shipped
from tfkfin.models import presets

EXAMPLES = """examples:
  python -m tfkfin.models list
      the shipped models and those exported below ./savedmodels
  python -m tfkfin.models show fin_bilstm
      one model's card; its files are checked against their digests
  python -m tfkfin.models show savedmodels/demo_s1/1
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m tfkfin.models", description=__doc__, epilog=EXAMPLES,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = p.add_subparsers(required=True, metavar="list|show", dest="command")
    one = commands.add_parser("list", help="one line a model")
    one.add_argument("folder", nargs="*", type=Path, metavar="DIR", help="folders of models (default: the shipped "
                     "ones and ./savedmodels)")
    two = commands.add_parser("show", help="a model's card")
    two.add_argument("name", metavar="NAME", help="a shipped model, one of ./savedmodels, a model or a version folder")
    return p


def show_list(folders: list[Path]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "version", "what it is", "input", "parameters", "score", box=None)
    found = {}  # newest version -> model; one that is in two of the folders is shown once
    for model in (model for folder in folders for model in presets.models(folder)):
        found.setdefault(presets.newest(model).resolve(), model)
    for version, model in found.items():
        card = presets.card(version) if (version / presets.CARD).is_file() else {"summary": "no card"}
        table.add_row(model.name, version.name, *(card.get(key, "") for key in ("summary", "input")),
                      f"{card['parameters']:,}" if "parameters" in card else "", card.get("score", ""))
    Console().print(table if table.row_count else f"no models in {', '.join(map(str, folders))}")


def show_card(name: str) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    version, console = presets.find(name), Console()
    altered, readme = presets.changed(version), version / presets.README
    if readme.is_file():
        console.print(Markdown(readme.read_text(encoding="utf-8")))
    if altered:
        raise InputError(f"{version}: not as it was exported: {', '.join(altered)}")
    console.print(f"\n{version}: every file is as it was exported (SHA-256)", soft_wrap=True)


def main(argv: list[str]) -> None:
    arguments = parser().parse_args(argv)
    if arguments.command == "show":
        show_card(arguments.name)
        return
    for folder in arguments.folder:
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder")
    show_list(arguments.folder or [shipped("savedmodels"), Path("savedmodels")])


if __name__ == "__main__":
    run(main)
