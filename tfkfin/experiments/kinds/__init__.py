"""The experiments: a module each, registered as `EXPERIMENT`, is on the command line and in the report.

The first line of its docstring is its line in `--help`; experiments are sorted by these lines.
"""

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tfkfin.base import registry
from tfkfin.base.errors import InputError
from tfkfin.recipe import Recipe


def papers_models(recipe: Recipe) -> None:
    """Refuses recipes of other models than the paper's."""
    if recipe.split.between_sessions:
        raise InputError("the paper's experiments split repetitions of one session: take the experiment ladder")
    papers_heads(recipe)


def papers_heads(recipe: Recipe) -> None:
    """Refuses recipes of another classifier than the paper's, or with votes."""
    if recipe.classifier.kind != "conv" or recipe.classifier.vote != 1:
        raise InputError("the paper's experiments score its conv classifier window by window: take another recipe, or "
                         "--set classifier.kind=conv --set classifier.vote=1 --set finetune.epochs=3")


def finetuned(recipe: Recipe) -> None:
    papers_models(recipe)
    if not recipe.finetune.epochs:
        raise InputError("this experiment fine-tunes, and finetune.epochs is 0: give some, --set finetune.epochs=3")


@dataclass(frozen=True)
class Experiment:
    """An experiment; see `evaluation`, `estimators` and `report` for the objects that are passed.

    Attributes:
        fits: (evaluation) -> its fits; those that other experiments have finished are reused.
        result: (evaluation) -> its Result, once they are finished; plots go below the run folder.
        check: (recipe) raises InputError if the experiment cannot run it.
        work: (estimators, fit) -> scores and arrays of a fit; None: `Estimators.work`.
        pipeline: its default recipe; "": that of the paper's experiments, which "all" runs.
    """

    fits: Callable[..., Sequence]
    result: Callable
    check: Callable[[Recipe], None] = finetuned
    work: Callable | None = None
    pipeline: str = ""


def summaries() -> dict[str, str]:
    """Experiment -> first line of its docstring, in the order of these lines; nothing is imported for it."""
    found = {}
    for name in registry.names("experiments/kinds"):
        text = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
        found[name] = ast.get_docstring(ast.parse(text)).partition("\n")[0]
    return dict(sorted(found.items(), key=lambda item: item[1]))


def papers() -> tuple[str, ...]:
    """The paper's own experiments, which share a recipe."""
    return tuple(name for name in summaries() if not load(name).pipeline)


def load(name: str) -> Experiment:
    return registry.load("experiments/kinds", name, "EXPERIMENT")
