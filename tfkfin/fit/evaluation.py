"""Evaluation of models on recordings: of a run's decoders, an exported decoder, or FINs alone."""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tfkfin import recipe as recipes
from tfkfin.base.answers import showing
from tfkfin.base.console import format_numbers, log
from tfkfin.base.errors import InputError
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.fit import board, metrics, scoring
from tfkfin.fit.run import Run
from tfkfin.fit.run_folder import RECIPE, fine_tuned
from tfkfin.fit.stages import finetune
from tfkfin.nets import fins
from tfkfin.nets.forward import Trunk
from tfkfin.pipeline.dataset import open_dataset
from tfkfin.pipeline.subject import Subject
from tfkfin.pipeline.windows import Windows, evenly, samples
from tfkfin.recordings import readers
from tfkfin.store import folders, presets


class Fins:
    """FINs alone, with their card."""

    def __init__(self, name: str | Path):
        self._trained, self.card = presets.load(name), folders.card(presets.find(name))

    def features(self, subject: Subject) -> np.ndarray:
        """Imitated features (N, C, F) of a subject's windows, of any number of channels."""
        emg, channels = subject.standardised(), subject.emg.shape[1]  # in float64, which the trunk does in float32
        nothing = np.zeros(channels)
        return self._trunk(channels).recording(emg, subject.windows.starts, nothing, nothing + 1)["features"]

    @functools.cache  # noqa: B019  one object a process
    def _trunk(self, channels: int) -> Trunk:
        return Trunk.of(fins.bank(fins.fins_of(self._trained), channels))


@dataclass(frozen=True)
class Case:
    """A model and the windows of one subject that it is scored on, `stride` samples apart.

    Attributes:
        synthetic: no person was recorded.
    """

    model: BaseDecoder | Fins
    subject: Subject
    stride: int
    synthetic: bool


def opened_run(folder: Path, data: str | None = None, subjects: tuple[int, ...] | None = None) -> tuple[Run, tuple]:
    """A run with its own recordings, or with those in `data`; and which subjects to score, by default all.

    Raises:
        InputError: no subject is fine-tuned, other subjects, or other recordings than the run's.
    """
    opened = Run(folder, recipes.load(folder / RECIPE))
    if not fine_tuned(folder):
        raise InputError(f"{folder} has fine-tuned nobody: run --stage finetune, or export its FINs and give --fin")
    if data is not None:
        opened.dataset = open_dataset(opened.recipe, data)
    elif opened.recipe.source.kind == "recordings":
        opened.claim()
    there = opened.dataset.split.subjects
    if unknown := set(subjects or ()) - set(there):
        raise InputError(f"{folder} knows subjects {format_numbers(there)}, not {format_numbers(unknown)}")
    return opened, subjects or there


def run_cases(folder: Path, data: str | None = None, subjects: tuple[int, ...] | None = None) -> Iterator[Case]:
    """A run's decoders on the test repetitions; arguments as of `opened_run`."""
    opened, subjects = opened_run(folder, data, subjects)
    dataset = opened.dataset
    for subject in dataset.subjects(subjects, context=opened.recipe.classifier.vote - 1):
        yield Case(finetune.load(opened, subject.number), subject.select(dataset.part("test")), dataset.stride,
                   dataset.synthetic)


def model_cases(model: BaseDecoder | Fins, data: str, subjects: tuple[int, ...] | None, exercise: tuple[int, ...],
                repetitions: tuple[int, ...] | None = None, stride_ms: float = 50.0,
                windows: int = 0) -> Iterator[Case]:
    """An exported decoder, or FINs, on recordings.

    Args:
        subjects, repetitions: to score; None: all there are.
        windows: FINs are scored on at most so many, evenly spaced in the recordings; 0: on every one.
    """
    card, people = model.card, readers.by_subject(readers.find(data, subjects, exercise))
    for files in people.values():
        subject = scoring.windows_of(card, (readers.read(file) for file in files), stride_ms, rest=False)
        subject = subject.select(repetitions) if repetitions else subject
        if not len(subject.windows):
            raise InputError(f"{files[0].path} has no window" + (
                f" of repetitions {format_numbers(repetitions)}" if repetitions else ""))
        if isinstance(model, BaseDecoder):
            _check(card, subject, files[0].path)
            subject = replace(subject, mean=np.asarray(card["mean_v"]), sd=np.asarray(card["sd_v"]))  # for features
        elif windows:
            chosen = evenly(len(subject.windows), -(-windows // len(people)))
            subject = replace(subject, windows=subject.windows[chosen])
        synthetic = any(readers.header(file).synthetic for file in files)
        yield Case(model, subject, samples(stride_ms, card["rate_hz"]), synthetic)


def _check(card: dict, subject: Subject, path: Path) -> None:
    if subject.emg.shape[1] != card["channels"]:
        raise InputError(f"{path} has {subject.emg.shape[1]} channels, the model {card['channels']}")
    if unknown := sorted(set(subject.windows.movements.tolist()) - set(card["movements"])):
        raise InputError(f"{path} has movements {unknown} that are not the model's: {card['movements']}")


def judged(case: Case) -> tuple[dict, tuple[np.ndarray, np.ndarray]]:
    """Scores of a case; true and imitated features (N C, F)."""
    card, subject = case.model.card, case.subject
    names, scores = tuple(card["features"]), {}
    true = subject.features(names, card["length"], card["rate_hz"]).reshape(-1, len(names))
    if isinstance(case.model, Fins):
        imitated = case.model.features(subject)
    else:
        scores, outputs = scoring.score_decoder(case.model, subject, case.stride)
        imitated = outputs["features"]
    imitated = imitated.reshape(true.shape)
    return scores | {"fin": metrics.imitation(true, imitated, names)}, (true, imitated)


def evaluate(name: str, cases: Iterable[Case]) -> tuple[dict, dict]:
    """Scores of the model called `name` over all cases, as they are written to JSON; and figures by name."""
    found, features, trained, synthetic = {}, [], set(), False
    for case in cases:
        number, card = case.subject.number, case.model.card
        with showing(f"scoring S{number}"):
            one, pair = judged(case)
        log.info("S%d: R² %s", number, "  ".join(f"{n} {fin['r2']:.3f}" for n, fin in one["fin"].items()))
        found[str(number)] = one
        features += [pair] if card["kind"] == "fins" else []
        trained |= trained_on(card, case.subject.windows)
        synthetic |= case.synthetic
    summary = {"model": name, "synthetic": synthetic, "trained_on": sorted(trained),
               "subjects": {s: {n: fin["r2"] for n, fin in one["fin"].items()} for s, one in found.items()}}
    if features:
        true, imitated = (np.concatenate(arrays) for arrays in zip(*features, strict=True))
        fin = metrics.imitation(true, imitated, tuple(card["features"]))
        return (summary | {"fin": fin, "windows": len(true)},
                {"imitation": board.imitation_figure(true, imitated, tuple(card["features"]), fin)})
    movements, called = list(card["movements"]), card.get("names", {})
    counts = np.sum([one["confusion"] for one in found.values()], axis=0)
    summary |= scoring.three_numbers(found) | {
        "fin": scoring.mean_imitation([one["fin"] for one in found.values()]),
        "confusion": {"movements": movements, "counts": counts.tolist()}} | ({"names": called} if called else {})
    figure = board.confusion_figure(counts, movements, name, {int(m): n for m, n in called.items()})
    return summary, {"confusion": figure}


def trained_on(card: dict, windows: Windows) -> set[int]:
    """Repetitions among these windows that the model of a card was trained on, if these are its recordings.

    Where sessions are files of their own, their repetitions may all count from 1: then sessions have to agree too.
    """
    about, parts = card.get("dataset") or {}, ("train", "finetune") if card["kind"] == "decoder" else ("pretrain",)
    split, there = card.get("recipe", {}).get("split", {}), windows.repetitions
    if "train_sessions" in about and not split.get("repetitions_per_session"):
        there = there[np.isin(windows.sessions, about["train_sessions"])]
    return set(there.tolist()) & {r for part in parts for r in about.get(f"{part}_repetitions", ())}
