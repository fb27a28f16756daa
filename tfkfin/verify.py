"""What a model's card says, computed anew: every figure that the data at hand allow, and which ones they do not.

`python -m tfkfin.models verify` is its command line.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfkfin.base.answers import paper
from tfkfin.base.console import InputError
from tfkfin.recipe import Recipe
from tfkfin.store import presets

THREE = ("accuracy", "execution", "false_per_minute")
# How far a figure may lie from the card's: other machines round otherwise, and a window on the border changes sides.
TOLERANCES = {"r2": 0.002, "paper_r2": 0.005, "paper_map": 0.5, "accuracy": 0.002, "execution": 0.002,
              "false_per_minute": 0.1, "mean_v": 1e-4, "sd_v": 1e-4}


@dataclass(frozen=True)
class Figure:
    """One figure of a card: its key there, what the card says, what was found, or why nothing was."""

    key: str
    said: Any
    found: Any = None
    why: str = ""

    @property
    def right(self) -> bool | None:
        """Whether both agree to `TOLERANCES`; None where nothing was found."""
        if self.why:
            return None
        if not isinstance(self.said, float) or not isinstance(self.found, float):
            return bool(self.said == self.found)
        return abs(self.said - self.found) <= TOLERANCES.get(self.key.rpartition(".")[2], 0.0)

    def as_dict(self) -> dict:
        return asdict(self) | {"right": self.right}


def verified(name: str | Path, data: str | Path | None = None) -> list[Figure]:
    """Every figure of a model's card.

    Args:
        name: as of `presets.find`.
        data: the recordings that the card was made from; None: where its recipe says that they are. Synthetic ones are
            made again.

    Raises:
        InputError: no such model, a file that is not as it was exported, or recordings that cannot be read.
    """
    version = presets.find(name)
    card = presets.card(version)
    if altered := presets.changed(version):
        raise InputError(f"{version}: not as it was exported: {', '.join(altered)}")
    with tempfile.TemporaryDirectory() as scratch:
        return list(_figures(version, card, data, Path(scratch)))


def _figures(version: Path, card: dict, data: str | Path | None, scratch: Path) -> Iterator[Figure]:
    yield _parameters(version, card)
    recipe = _recipe(version, card)
    fins, calibrated = card["kind"] == "fins", card.get("calibration")
    if not fins:
        yield from (Figure(f"fin_scores.{name}.r2", score["r2"], why="of the FINs before they were fine-tuned, which "
                           "are not in the model") for name, score in card.get("fin_scores", {}).items())
        spread = card["scores"].get("accuracy_over_subjects", {})
        yield from (Figure(f"scores.accuracy_over_subjects.{key}", spread[key], why="the other people's decoders are "
                           "not in the model") for key in ("mean", "std") if key in spread)
    if calibrated and calibrated.get("before"):
        yield from (Figure(f"calibration.before.{key}", calibrated["before"][key], why="the decoder before is not in "
                           "the model") for key in THREE)
    of = (_of_calibrated if calibrated else _of_recordings) if recipe is not None else None
    if recipe is not None and recipe.source.kind == "signals":
        yield from _of_fins(version, card, recipe, None)
    elif "updated" in card:
        yield from _unknown(card, "it was updated since it was scored")
    elif of is None or card.get("run") == "Python" and not calibrated:
        yield from _unknown(card, "it was fitted to signals in memory" if of else "its recipe is not in the card")
    elif (folder := _folder(recipe, data, bool(calibrated), scratch)) is None:
        yield from _unknown(card, "the recordings are not here: name their folder with --data")
    else:
        yield from of(version, card, recipe, folder, scratch)


def _recipe(version: Path, card: dict) -> Recipe | None:
    try:
        return Recipe.model_validate(card["recipe"]) if card.get("recipe") else None
    except ValueError as error:
        raise InputError(f"{version / presets.CARD} has a recipe that this tfkfin does not know: {error}") from None


def _parameters(version: Path, card: dict) -> Figure:
    from tfkfin.decoder.decoder import FILE
    from tfkfin.nets import saving

    kept = [path for path in (version / presets.FINS_FILE, version / "assets.extra" / FILE) if path.is_file()]
    if not kept:
        return Figure("parameters", card["parameters"], why="there is no Keras model in it")
    return Figure("parameters", card["parameters"], saving.load(kept[0]).count_params())


def _folder(recipe: Recipe, data: str | Path | None, calibrated: bool, scratch: Path) -> str | Path | None:
    """Where the recordings are; None if nobody knows."""
    if data is not None:
        return data
    if calibrated:
        return None  # those it was calibrated on are named nowhere
    if recipe.source.kind == "synthetic":
        from tfkfin.fit.run import synthesize

        synthesize(recipe.source.synthetic, scratch / "data")
        return scratch / "data"
    return recipe.source.data if recipe.source.data and Path(recipe.source.data).is_dir() else None


def _said(card: dict) -> dict[str, float | None]:
    """The scores of a card, by key."""
    scores = card["scores"]
    return {f"scores.{key}": scores[key] for key in THREE if key in scores} | {
        f"scores.fin.{name}.{key}": value for name, one in scores["fin"].items() for key, value in one.items()}


def _unknown(card: dict, why: str) -> Iterator[Figure]:
    about = card.get("dataset") or {}
    counted = {f"dataset.{key}": about[key] for key in ("windows", "channels", "movements") if key in about}
    yield from (Figure(key, value, why=why) for key, value in (counted | _said(card)).items())


def _of_fins(version: Path, card: dict, recipe: Recipe, dataset: Any) -> Iterator[Figure]:
    """FINs alone, on the test windows of the stage `imitate`."""
    from tfkfin.fit import metrics
    from tfkfin.fit.stages import imitate
    from tfkfin.fit.training import Predictor
    from tfkfin.nets import fins

    emg, true = imitate.sample(recipe, dataset, card["length"], "test", recipe.imitate.test_windows)
    bank = fins.bank(fins.fins_of(presets.load(version)), emg.shape[2])
    yield from _compared(card, {"fin": metrics.imitation(true, Predictor(bank)(emg), tuple(card["features"]))})


def _compared(card: dict, scores: dict) -> Iterator[Figure]:
    found = _said({"scores": {"fin": {}} | scores})
    yield from (Figure(key, value, found[key]) if key in found else Figure(key, value, why="no such score was found")
                for key, value in _said(card).items())


def _of_recordings(version: Path, card: dict, recipe: Recipe, folder: str | Path, scratch: Path) -> Iterator[Figure]:
    """A decoder on the test repetitions of its run's recordings, or FINs on them."""
    from tfkfin.fit import evaluation, fingerprint
    from tfkfin.pipeline.dataset import open_dataset

    dataset, about = open_dataset(recipe, folder), card["dataset"]
    now = dataset.describe()
    digest = fingerprint.of_files(dataset.files, scratch / "recordings.json")
    if about.get("fingerprint", digest) != digest:
        yield from _unknown(card, f"{folder} holds other recordings: their digest is {digest}, the card's "
                            f"{about['fingerprint']}")
        return
    counted = ("windows", "channels", "movements", "rate_hz", "subjects")
    yield from (Figure(f"dataset.{key}", about[key], now[key]) for key in counted)
    if card["kind"] == "fins":
        yield from _of_fins(version, card, recipe, dataset)
        return
    decoder = _decoder(version)
    subject = dataset.load(card["subject"], context=decoder.decision.memory)
    for key, own in (("mean_v", subject.mean), ("sd_v", subject.sd)):
        said, found = np.asarray(card[key]) / subject.sd, own / subject.sd
        worst = int(np.argmax(np.abs(said - found)))
        yield Figure(f"channel {worst + 1} in sd.{key}", float(said[worst]), float(found[worst]))
    found, _ = evaluation.judged(evaluation.Case(decoder, subject.select(dataset.part("test")), dataset.stride, False))
    yield from _compared(card, found)


def _of_calibrated(version: Path, card: dict, recipe: Recipe, folder: str | Path, scratch: Path) -> Iterator[Figure]:
    """A calibrated decoder on the repetitions that it did not learn from."""
    from tfkfin.decoder.decoder import Decoder
    from tfkfin.fit import calibration, scoring
    from tfkfin.recordings import readers

    said, decoder = card["calibration"], Decoder.load(version)
    files = calibration.files_of(folder, card, said["subject"])
    subject = scoring.windows_of(card, map(readers.read, files))
    windows = subject.windows[subject.windows.sessions == said["session"]] if said["session"] else subject.windows
    known = np.isin(windows.repetitions, said["repetitions"])
    used = known & np.isin(windows.movements, said.get("movements", windows.movements))
    if "windows" in said:
        yield Figure("calibration.windows", said["windows"], int(used.sum()))
    found = scoring.score_decoder(decoder, replace(subject, windows=windows[~known]))[0] if not known.all() else {}
    yield from _compared(card, found)


def _decoder(version: Path) -> Any:
    from tfkfin.serving.engines import Exported

    return Exported(version, "savedmodel" if (version / presets.SAVED_MODEL).is_file() else "onnx")


def show(name: str, figures: list[Figure]) -> None:
    """A table on the terminal, and one line.

    Raises:
        InputError: a figure is not as the card says.
    """
    from rich.table import Table

    def text(value: Any) -> str:
        return f"{value:.4f}" if isinstance(value, float) else "-" if value is None else str(value)

    console, table = paper(), Table("figure", "card", "found", "", box=None)
    for one in figures:
        table.add_row(one.key, text(one.said), text(one.found), {True: "as it says", False: "NOT as it says",
                                                                 None: one.why}[one.right])
    console.print(table)
    found, wrong = [one for one in figures if one.right is not None], [one for one in figures if one.right is False]
    if wrong:
        raise InputError(f"{name}: {len(wrong)} of {len(found)} figures are not as the card says: "
                         + ", ".join(f"{one.key} {text(one.said)}, found {text(one.found)}" for one in wrong))
    console.print(f"{len(found)} of {len(figures)} figures were computed anew, and are as the card says; every file "
                  "has its SHA-256", soft_wrap=True)


