"""Options and values that earlier versions had. Recipes that hold them at their old default go on; others are refused.

Resolved recipes (`recipe.toml` of a run, `recipe` in a card) list every option of the version that wrote them.
"""

from typing import Any

# key -> (old default, what to use instead)
OPTIONS: dict[str, tuple[Any, str]] = {
    "fin.shared": (False, "train one network a feature: leave the option out"),
    "classifier.correlation_fin": ("", "use classifier.describe=correlations, the closed form"),
    "launch.input_service": ("", "leave it out: the training makes its own batches"),
}
# key of a list -> {value that it no longer takes: what to use instead}
VALUES = {
    "classifier.describe": {"imitated_correlations": "use correlations, the closed form"},
    "features.names": {"COR": "use classifier.describe=correlations, the closed form"},
}
# shipped recipe -> what to use instead
RECIPES = {"fin_correlation": "heads take correlations in closed form: classifier.describe=correlations"}


class RemovedError(ValueError):
    """A recipe asks for something that an earlier version had; `key` is the option."""

    def __init__(self, key: str, what: str, instead: str):
        super().__init__(f"{what} was removed: {instead}")
        self.key = key


def without_removed(recipe: Any) -> Any:
    """The tables of a recipe without removed options; what is no recipe is returned as it is.

    Raises:
        RemovedError: a removed option has another value than its old default, or an option has a removed value.
    """
    if not isinstance(recipe, dict):
        return recipe
    recipe = {name: dict(table) if isinstance(table, dict) else table for name, table in recipe.items()}
    for key, (default, instead) in OPTIONS.items():
        table, _, name = key.partition(".")
        own = recipe.get(table)
        if isinstance(own, dict) and name in own and own.pop(name) != default:
            raise RemovedError(key, key, instead)
    for key, values in VALUES.items():
        table, _, name = key.partition(".")
        own = recipe.get(table)
        given = own.get(name, ()) if isinstance(own, dict) else ()
        for value in given.split(",") if isinstance(given, str) else given if isinstance(given, list | tuple) else ():
            if isinstance(value, str) and value.strip() in values:
                raise RemovedError(key, f"{key}={value.strip()}", values[value.strip()])
    return recipe
