"""Run folders by name: which one a command line means, what a run has finished in it, and its scores as tables.

`Run` works inside one.
"""

import argparse
from pathlib import Path

from tfkfin import recipe as recipes
from tfkfin.base import options
from tfkfin.base.answers import paper
from tfkfin.base.errors import InputError
from tfkfin.base.files import read_json
from tfkfin.recipe import Recipe
from tfkfin.store import card, folders, presets, schema

RECIPE, RESULTS = "recipe.toml", "results.json"


def add_options(parser: argparse.ArgumentParser, prefix: str = "") -> None:
    """Adds the options that `resolve` reads, and `--device`; `prefix` is that of the default run folder's name."""
    options.add_options(parser, "run", prefix)


def resolve(arguments: argparse.Namespace) -> tuple[Recipe, Path]:
    """The recipe and the run folder, by default runs/<recipe>-<digest>, of a command line.

    `arguments`: of a parser with `add_options`.
    """
    settings = dict(recipes.parse_setting(text) for text in arguments.settings)
    if arguments.subjects is not None:
        settings["split.subjects"] = arguments.subjects
    name = arguments.pipeline or ("own" if arguments.data else "demo")
    if arguments.data is not None:
        from tfkfin.recordings.remote import url_of

        folder = url_of(arguments.data) or str(Path(arguments.data).absolute())
        settings |= {"source.kind": "recordings", "source.data": folder}
    recipe = recipes.load(name, settings, own=False)
    if recipe.source.kind == "recordings" and not recipe.source.data:
        raise InputError(f"recipe {name} works on recordings: name their folder with --data DIR")
    stem = Path(name).stem + (f"-{Path(recipe.source.data).name}" if recipe.source.data else "")
    return recipe, Path(arguments.run or Path("runs", f"{stem}-{recipe.digest}"))


def is_run(folder: Path) -> bool:
    return (folder / RECIPE).is_file()


def results(folder: Path) -> dict:
    """What results.json holds, {} where there is none."""
    return read_json(folder / RESULTS) or {}


def fine_tuned(folder: Path) -> list[int]:
    """The subjects that the stage finetune of a run has finished."""
    return sorted(int(path.stem[1:]) for path in folder.glob("finetune/S*.json"))


def finished(folder: Path, subject: int | None = None) -> tuple[Path, dict]:
    """The folder inside a run that holds what is exported of it, and its card: a subject's decoder, or the FINs.

    Raises:
        InputError: no run folder, nothing finished in it, or not by this version of tfkfin.
    """
    if not is_run(folder):
        raise InputError(f"{folder} is no run folder (it has no {RECIPE}): python -m tfkfin.train makes one")
    trained = [stage for stage in ("pooled", "imitate") if (folder / stage / "stage.json").is_file()]
    if not trained:
        raise InputError(f"{folder} has no finished stage yet: python -m tfkfin.train --stage finetune --run {folder}")
    subjects = fine_tuned(folder)
    if subject is None and subjects:
        subject = subjects[0]
    elif subject is not None and subject not in subjects:
        raise InputError(f"{folder} has no fine-tuned model of subject {subject}: it has "
                         f"{', '.join(map(str, subjects)) or 'none'}")
    source = folder / trained[0] if subject is None else folder / "finetune" / f"S{subject}"
    own = read_json(source / folders.CARD) or {}
    if "scores" not in own:
        again = source / "stage.json" if subject is None else source.parent
        raise InputError(f"{source} was made by an older tfkfin: remove {again} and give the command that made the run "
                         "once more")
    return source, schema.checked(own, source / folders.CARD)


def find_decoder(model: Path, subject: int | None = None) -> tuple[Path, dict, Path]:
    """A decoder in a run, a model folder or a version folder: its folder, its card, and the model folder it belongs to.

    Args:
        subject: whose decoder of a run; None: the first one's.

    Raises:
        InputError: no such decoder.
    """
    if is_run(model):
        source, own = finished(model, subject)
        if own["kind"] != "decoder":
            raise InputError(f"{model} has fine-tuned nobody: run --stage finetune")
        name = model.resolve().name
        about = {"run": name, "format": "savedmodel"} | card.of_decoder(own, results(model))
        return source, about, Path("savedmodels", f"{name}_s{own['subject']}")
    version = presets.find(model)
    return version, folders.decoder_card(version), version.parent


def show_scores(fin: dict | None, imitation: str, columns: list[tuple[str, dict]], accuracy: str) -> None:
    """Prints tables titled `imitation`, of R² by feature, and `accuracy`, by subject; an empty one is left out.

    `columns`: titles with what `scoring.mean_and_sd` gives.
    """
    from rich.table import Table

    if fin:
        table = Table("feature", "R²", title=imitation, min_width=len(imitation))
        for name, scores in fin.items():
            table.add_row(name, f"{scores['r2']:.4f}")
        paper().print(table)
    if columns:
        table = Table("subject", *(title for title, _ in columns), title=accuracy, min_width=len(accuracy))
        for subject in columns[0][1]["per_subject"]:
            table.add_row(f"S{subject}", *(_percent(c["per_subject"].get(subject)) for _, c in columns))
        table.add_section()
        table.add_row("mean ± sd", *(
            "-" if c["mean"] is None else f"{_percent(c['mean'])} ± {_percent(c['std'])}" for _, c in columns))
        paper().print(table)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
