"""`python -m tfkfin.models`: lists models, shows their cards, and shares them on the Hugging Face Hub.

examples:
  python -m tfkfin.models list
      the shipped models and those exported below ./savedmodels
  python -m tfkfin.models show fin_bilstm
      a model's card; checks its files against their SHA-256
  python -m tfkfin.models show savedmodels/demo_s1/1
  python -m tfkfin.models push demo_s1 hf://me/my-decoder
      to the Hugging Face Hub (extra: hub; log in with hf auth login)
  python -m tfkfin.models pull hf://me/my-decoder
      a new version below ./savedmodels; wherever a model is named, hf://me/my-decoder is one too
"""

import argparse
import shutil
from pathlib import Path

from tfkfin.base import reading
from tfkfin.base.answers import answer, answer_path, command_line, paper, parsed
from tfkfin.base.console import run, shown
from tfkfin.base.errors import InputError
from tfkfin.base.files import shipped
from tfkfin.base.options import add_options
from tfkfin.store import card, folders, hub, presets

__path__: list[str] = []  # modules that were in a package of this name are found by `base.moved`


def parser() -> argparse.ArgumentParser:
    p = command_line("models", "list", str(__doc__))
    commands = p.add_subparsers(prog=p.prog, required=True, metavar="list|show|push|pull", dest="command")
    for name, what in (("list", "one line a model"), ("show", "a model's card"),
                       ("push", "a model to the Hugging Face Hub"), ("pull", "a model from the Hugging Face Hub")):
        add_options(commands.add_parser(name, help=what), f"models-{name}")
    return p


def show_list(places: list[Path]) -> None:
    from rich.table import Column, Table

    table = Table("name", *(Column(head, overflow="fold") for head in ("what it is", "input", "score")),
                  Column("parameters", justify="right"), box=None)
    every = []
    found = {}  # newest version -> model; a model in two of the folders is shown once
    for model in (model for place in places for model in folders.models(place)):
        found.setdefault(folders.newest(model).resolve(), model)
    for version, model in found.items():
        about = folders.card(version) if (version / folders.CARD).is_file() else {"summary": "no card"}
        table.add_row(f"{model.name}\nversion {version.name}",
                      *(str(about.get(key, ""))[:200] for key in ("summary", "input", "score")),
                      f"{about['parameters']:,}" if isinstance(about.get("parameters"), int) else "")
        every.append({"name": model.name, "version": int(version.name), "folder": version} | {
            key: about.get(key) for key in ("kind", "summary", "input", "score", "parameters")})
    answer(every)
    paper().print(table if table.row_count else f"no models in {', '.join(map(str, places))}")


def show_card(name: str) -> None:
    from rich.markdown import Markdown

    version, console = presets.find(name), paper()
    altered, readme = folders.changed(version), version / folders.README
    if readme.is_file():
        text = folders.without_front_matter(reading.content(readme)).decode("utf-8", "replace")
        console.print(Markdown(shown(text), hyperlinks=False))  # where a link leads is shown
    if altered:
        raise InputError(f"{version}: not as it was exported: {', '.join(altered)}")
    answer({"folder": version} | (folders.card(version) if (version / folders.CARD).is_file() else {}))
    console.print(f"\n{version}: every file is as it was exported (SHA-256)", soft_wrap=True)


def pull(name: str, to: Path | None) -> Path:
    """The new version folder."""
    source, model = hub.pull(name), to or Path("savedmodels", hub.named(name)[0].rpartition("/")[2])
    with folders.new_version(model) as (folder, number):
        shutil.copytree(source, folder, dirs_exist_ok=True)
        if altered := folders.changed(folder):
            raise InputError(f"{folder} is not a whole copy: {', '.join(altered)}")
        about = folders.card(folder) | {"name": model.name, "version": number, "pulled": name}
        card.write(folder, about)
    if about.get("format") != "onnx":
        folders.add_to_config(model)
    return model / str(number)


def main(argv: list[str]) -> None:
    if argv[:1] == ["verify"]:
        raise InputError("models verify was removed: models show checks every file's SHA-256, and evaluate computes "
                         "the scores of a model")
    arguments = parsed(parser(), argv)
    if arguments.command == "show":
        show_card(arguments.name)
    elif arguments.command == "push":
        answer_path(hub.push(presets.find(arguments.name), arguments.to, arguments.private))
    elif arguments.command == "pull":
        answer_path(pull(arguments.name, arguments.to))
    elif unfit := [folder for folder in arguments.folder if not folder.is_dir()]:
        raise InputError(f"{unfit[0]} is no folder")
    else:
        show_list(arguments.folder or [shipped("savedmodels"), Path("savedmodels")])


if __name__ == "__main__":
    run(main)
