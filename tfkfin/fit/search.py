"""Trials of a search: runs of a recipe with some fields set, scored on a held-out training repetition.

Test repetitions are in no trial's split: neither weights, nor statistics, nor the choice of the winner depend on them.
"""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfkfin import recipe as recipes
from tfkfin.base import reading
from tfkfin.base.errors import InputError
from tfkfin.base.files import write_text
from tfkfin.fit.device import set_up_worker
from tfkfin.fit.ledger import FailedTrial, Ledger, SearchState
from tfkfin.fit.run import Run, environment, open_run
from tfkfin.recipe import Recipe, removed

FIXED = ("protocol", "source", "split", "tune", "window.rest")  # tables and fields that decide which data a score is of
# Fields that a stage and those before it do not read.
UNUSED = {"classify": ("batches.", "fin.", "augment.", "imitate.", "finetune.", "pooled."), "finetune": ("pooled.",)}


def check(recipe: Recipe, stage: str) -> None:
    """Makes sure that every value of the [tune] table can be tried.

    Raises:
        InputError: no table, a key or value that the recipe refuses, a field that decides what is scored.
    """
    if not recipe.tune:
        raise InputError("the recipe has no [tune] table: take --pipeline tune_head, or name fields and values, as in "
                         "--set 'tune.classify.learning_rate=[3e-3,1e-2]'")
    known = recipes.fields()
    for key, values in recipe.tune.items():
        if not values:
            raise InputError(f"[tune] {key!r} has no values to try")
        if key in removed.OPTIONS:
            raise InputError(f"[tune] {key} was removed: {removed.OPTIONS[key][1]}")
        digests = [_set(recipe, {key: value}).digest for value in values]
        if key not in known:
            raise InputError(f"[tune] {key!r} is a table: name one of its fields, such as "
                             f"{next(name for name in known if name.startswith(key))!r}")
        if f"{key}.".startswith(tuple(f"{fixed}." for fixed in FIXED)):
            raise InputError(f"[tune] {key!r} decides what is scored, so scores would not compare: set it with --set")
        if key.startswith(UNUSED[stage]):
            raise InputError(f"[tune] {key!r} plays no part in the stage {stage}: take --stage finetune")
        for i, digest in enumerate(digests):
            if digest in digests[:i]:
                raise InputError(f"[tune] {key!r} names {values[i]!r} twice")
    for together in itertools.islice(itertools.product(*recipe.tune.values()), 1000):
        _set(recipe, dict(zip(recipe.tune, together, strict=True)))


def _set(recipe: Recipe, settings: dict[str, Any]) -> Recipe:
    try:
        return recipes.replaced(recipe, **settings)
    except InputError as error:
        raise InputError(f"[tune] {str(error).removeprefix('settings: ')}") from None


@dataclass(frozen=True)
class Search:
    """One search in one folder; `open_search` makes it.

    Attributes:
        base: a run of the recipe in the search's folder, which also holds synthetic recordings where it asks for them.
        train: training repetitions of the trials; `held_out` is the one that they are scored on.
    """

    base: Run
    stage: str
    train: tuple[int, ...]
    held_out: int

    def trial(self, settings: dict[str, Any]) -> Run:
        """The run of a trial, not opened; settings and split decide its folder, so equal trials share one."""
        recipe, split, source = self.base.recipe, self.base.recipe.split, self.base.recipe.source
        fewer = {f"split.{name}": [r for r in getattr(split, name) if r != self.held_out]
                 for name in ("pretrain_repetitions", "finetune_repetitions")}
        data = source.data if source.kind == "recordings" else str(self.base.folder.absolute() / "data")
        recipe = _set(recipe, settings | fewer | {
            "split.train_repetitions": self.train, "split.test_repetitions": [self.held_out],
            "split.test_sessions": split.train_sessions,
            "source.kind": "recordings", "source.data": data, "tune": {}})
        return Run(self.base.folder / "trials" / recipe.digest, recipe)

    def score(self, settings: dict[str, Any]) -> float:
        """Runs or resumes a trial, or reads its finished score; returns its mean accuracy.

        Raises:
            InputError: the settings do not fit the recordings; a file beside the trial says so.
        """
        import keras

        from tfkfin.fit.stages import run_stage

        trial, ledger = self.trial(settings), self.base.ledger
        key = f"trials/{trial.folder.name}"
        with ledger.lock(key):  # tasks of a launcher may have equal trials
            try:
                trial = open_run(trial.recipe, trial.folder)
                if trial.done(self.stage) is None or not trial.results():
                    keras.utils.clear_session()
                    run_stage(trial, self.stage)
            except InputError as error:
                ledger.put(f"{key}.failed", {"error": str(error)})
                raise
            ledger.path(f"{key}.failed", ".json").unlink(missing_ok=True)
        return trial.scores(self.stage)["accuracy"]["mean"]

    def rows(self, proposed: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Settings and scores of the proposed trials, each once: best first, failed ones last."""
        rows = {}
        for settings in proposed:
            trial = self.trial(settings)
            key = f"trials/{trial.folder.name}"
            rows[key] = row = {"settings": settings, "folder": key}
            if (scores := trial.done(self.stage)) is not None:
                row |= {"accuracy": scores["accuracy"], "seconds": sum(trial.ledger.of("results")["seconds"].values())}
            else:
                row |= self.base.ledger.get(f"{key}.failed", kind=FailedTrial) or {"error": "not finished"}
        return sorted(rows.values(), key=lambda row: -row["accuracy"]["mean"] if "accuracy" in row else 1)

    def begin(self, options: dict[str, Any]) -> bool:
        """Notes the options of the search; False if it has finished already.

        Raises:
            InputError: the folder holds a search of another kind.
        """
        state = state_of(self.base.folder)
        before = state.get("options", options)
        if differing := sorted(k for k in options if options[k] != before.get(k) and k != "max_trials"):
            raise InputError(f"{self.base.folder} holds another search (it differs in {', '.join(differing)}): "
                             "give another folder with --run")
        if state.get("complete") and before == options:
            return False
        self.base.ledger.put("tuning", {"complete": False, "options": options})
        return True

    def finish(self, proposed: list[dict[str, Any]], options: dict[str, Any]) -> None:
        """Writes best.toml and tuning.json.

        Raises:
            InputError: every trial failed; the message is the first one's.
        """
        rows, recipe, folder = self.rows(proposed), self.base.recipe, self.base.folder
        best = rows[0]
        if "error" in best:
            raise InputError(f"every trial failed; with {described(best['settings'])}: {best['error']}")
        text = (f"# The best of {len(rows)} trials: accuracy {100 * best['accuracy']['mean']:.2f} % of the stage "
                f"{self.stage} on repetition {self.held_out},\n# held out of the training repetitions.\n\n"
                + _set(recipe, best["settings"] | {"tune": {}}).to_toml())
        best = best | {"recipe": _keep(folder, text)}
        self.base.ledger.put("tuning", {
            "complete": True, "options": options, "stage": self.stage, "held_out": self.held_out,
            "train_repetitions": list(self.train), "tune": recipe.tune, "recipe_digest": recipe.digest,
            "best": best, "trials": rows, "dataset": self.base.dataset.describe(), "environment": environment()})


def work(folder: str, data: str, stage: str, held_out: int, device: str, settings: dict[str, Any]) -> None:
    """Runs one trial of the search in a folder, in any process that sees the folder.

    Raises:
        InputError: the settings do not fit the recordings.
    """
    set_up_worker(device)
    recipe = recipes.load(Path(folder, "recipe.toml"), {"source.data": data})
    open_search(recipe, Path(folder), stage, held_out).score(settings)


def _keep(folder: Path, text: str) -> str:
    """Writes best.toml, or best-2.toml and so on where another one is there; returns the name."""
    for i in range(1, 1000):
        path = folder / (f"best-{i}.toml" if i > 1 else "best.toml")
        if not path.exists():
            write_text(path, text)
        if reading.text(path) == text:
            return path.name
    raise InputError(f"{folder} has 999 different best recipes: give another folder with --run")


def state_of(folder: Path) -> dict[str, Any]:
    """The content of tuning.json, {} before there is one."""
    return Ledger(folder).get("tuning", kind=SearchState) or {}


def described(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def combinations(recipe: Recipe) -> int:
    return math.prod(len(values) for values in recipe.tune.values())


def open_search(recipe: Recipe, folder: Path, stage: str, held_out: int | None) -> Search:
    """Opens the folder and chooses the repetition to hold out.

    Raises:
        InputError: what `open_run` and `open_dataset` raise, or there is no such repetition to hold out.
    """
    if recipe.source.kind == "signals":
        raise InputError("source.kind = 'signals' has no movements to decode: tune on recordings")
    base = open_run(recipe, folder)
    there = base.dataset.split.train_repetitions
    held_out = there[-1] if held_out is None else held_out
    if held_out not in there or len(there) < 2:
        raise InputError(f"--held-out takes one of two or more training repetitions: {held_out} of {list(there)}")
    for name in ("pretrain_repetitions", "finetune_repetitions"):
        if stage == "finetune" and getattr(recipe.split, name) == (held_out,):
            raise InputError(f"split.{name} is {held_out} alone: hold out another one with --held-out")
    return Search(base, stage, tuple(r for r in there if r != held_out), held_out)
