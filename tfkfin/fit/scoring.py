"""The one scoring: windows are decided in order of time and compared with the movements that were made.

Stages, commands, calibration and experiments score through this module; `tfkfin.fit.metrics` has the formulas. Whole
models are evaluated here too: a run's decoders, an exported decoder, or FINs alone.
"""

import functools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tfkfin import recipe as recipes
from tfkfin.base.answers import showing
from tfkfin.base.console import format_numbers, log
from tfkfin.base.errors import InputError
from tfkfin.decoder.decision import REJECTED, Decision
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.fit import board, metrics
from tfkfin.fit.run import RECIPE, Run
from tfkfin.fit.run_folder import fine_tuned
from tfkfin.nets import fins
from tfkfin.nets.forward import Trunk
from tfkfin.pipeline.dataset import open_dataset
from tfkfin.pipeline.subject import Subject
from tfkfin.pipeline.windows import Windows, evenly, samples
from tfkfin.recordings import readers
from tfkfin.recordings.recording import Recording
from tfkfin.store import folders, presets

LEARNT = "S%d: the model was calibrated on repetitions %s, or their labels taught its FINs: they are %s"
THREE_NUMBERS = ("accuracy", "execution", "false_per_minute")


def windows_of(card: dict, recordings: Iterable[Recording], stride_ms: float = 0, rest: bool | None = None,
               labelled: bool = True) -> Subject:
    """One person's recordings as a model takes them: resampled, filtered and cut into windows as its card says.

    Args:
        card: of a decoder or of FINs.
        stride_ms: between windows; 0: the decoder's own.
        rest: whether windows of rest count; None: where rest is a class of the decoder.
        labelled: False takes recordings without cues too, each as one execution of some movement.

    Raises:
        InputError: a recording without cues where labels are needed.
    """
    without = []

    def known() -> Iterator[Recording]:
        for one in recordings:
            if not one.cued and not labelled:
                without.append(one.path)
                one = replace(one, labels=np.full_like(one.labels, card["movements"][-1]),
                              repetitions=np.ones_like(one.repetitions), cued=True)
            yield one

    rest = 0 in card.get("movements", ()) if rest is None else rest
    window = recipes.Window(length_ms=1000 * card["length"] / card["rate_hz"], rest=rest, rate_hz=card["rate_hz"],
                            stride_ms=stride_ms or card["stride_ms"])
    context = card.get("decision", {}).get("vote", 1) - 1
    return replace(Subject.of(known(), window, card.get("filter"), context=context), cued=not without)


def decide(probabilities: np.ndarray, segments: Iterable[np.ndarray], decision: Decision,
           labels: Sequence[int]) -> np.ndarray:
    """Decides windows segment by segment, as a stream would: the labels (N,) int64, -1 where rejected.

    Args:
        probabilities: (N, G) of the windows and of those before each segment that a vote averages over.
        segments: the windows' indices in order of time, both as of `Subject.with_context`.
        labels: of the G classes, as in the files.
    """
    decided = np.empty(len(probabilities), np.int64)
    for rows in segments:
        decided[rows], _ = decision(probabilities[rows], labels)
    return decided


def score(windows: Windows, decided: np.ndarray, labels: Sequence[int], stride_s: float, reject: float = 0.0) -> dict:
    """Scores of the decisions (N,) on windows in order of time, `stride_s` apart; a rejected decision is wrong.

    Returns:
        `accuracy` of all windows, `execution` and `false_per_minute` as `metrics` has them, `confusion` (G, G) of
        decisions made, and with `reject` how many windows were decided and how many of these correctly.
    """
    true, made = windows.movements, decided != REJECTED
    right = decided == true
    scores = {"accuracy": float(np.mean(right)),
              "execution": metrics.execution_accuracy(true, decided, windows.segments),
              "false_per_minute": metrics.false_activations(true, decided, stride_s),
              "confusion": metrics.confusion(true[made], decided[made], list(labels)).tolist()}
    if reject:
        scores["rejection"] = {"threshold": reject, "decided": float(made.mean()),
                               "accuracy": float(right[made].mean()) if made.any() else None}
    return scores


def mean_and_sd(values: dict) -> dict:
    """Scores by subject -> `mean`, `std` and `per_subject`, keyed as JSON does; None where there are none."""
    known = [v for v in values.values() if v is not None]
    return {"mean": float(np.mean(known)) if known else None, "std": float(np.std(known)) if known else None,
            "per_subject": {str(s): v for s, v in values.items()}}


def three_numbers(every: dict[int, dict]) -> dict:
    """`accuracy` a window, `execution` and `false_per_minute` over subjects, from each one's `score`."""
    return {name: mean_and_sd({s: one[name] for s, one in every.items()}) for name in THREE_NUMBERS}


def mean_imitation(every: list[dict]) -> dict:
    """The mean over subjects of each score of `metrics.imitation`."""
    return {name: {key: float(np.mean([one[name][key] for one in every])) for key in scores}
            for name, scores in every[0].items()}


class Fins:
    """FINs alone, with their card."""

    def __init__(self, name: str | Path):
        trained, self.card = presets.load(name), folders.card(presets.find(name))
        self._trunk = functools.cache(lambda channels: Trunk.of(fins.bank(fins.fins_of(trained), channels)))

    def features(self, subject: Subject) -> np.ndarray:
        """Imitated features (N, C, F) of a subject's windows, of any number of channels."""
        emg, channels = subject.standardised(), subject.emg.shape[1]  # in float64, which the trunk does in float32
        nothing = np.zeros(channels)
        return self._trunk(channels).recording(emg, subject.windows.starts, nothing, nothing + 1)["features"]


@dataclass(frozen=True)
class Case:
    """A model and the windows of one subject that it is scored on, `stride` samples apart.

    Attributes:
        synthetic: no person was recorded.
        left_out: repetitions that are not scored, since the model learnt from them.
    """

    model: BaseDecoder | Fins
    subject: Subject
    stride: int
    synthetic: bool
    left_out: Collection[int] = ()


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
        yield Case(opened.decoder(subject.number), subject.select(dataset.part("test")), dataset.stride,
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
        subject = windows_of(card, (readers.read(file) for file in files), stride_ms, rest=False)
        subject = subject.select(repetitions) if repetitions else subject
        if not len(subject.windows):
            raise InputError(f"{files[0].path} has no window" + (
                f" of repetitions {format_numbers(repetitions)}" if repetitions else ""))
        subject, left_out = unlearnt(card, subject, bool(repetitions))
        if isinstance(model, BaseDecoder):
            check(card, subject, str(files[0].path), "model")
            subject = replace(subject, mean=np.asarray(card["mean_v"]), sd=np.asarray(card["sd_v"]))  # for features
        elif windows:
            chosen = evenly(len(subject.windows), -(-windows // len(people)))
            subject = replace(subject, windows=subject.windows[chosen])
        synthetic = any(readers.header(file).synthetic for file in files)
        yield Case(model, subject, samples(stride_ms, card["rate_hz"]), synthetic, left_out)


def learnt(card: dict, subject: Subject) -> np.ndarray:
    """Which windows (N,) lie in repetitions that the model of a card was calibrated on, or that labels taught its FINs.
    """
    return np.isin(subject.repetition_digests, np.array(card.get("learnt_from", []), "U16"))


def taught(card: dict, subject: Subject) -> list[str]:
    """What `learnt` goes by in the card of the model of this card once these windows have taught it too."""
    return sorted({*card.get("learnt_from", ()), *subject.repetition_digests.tolist()} - {""})


def unlearnt(card: dict, subject: Subject, asked: bool = False) -> tuple[Subject, set[int]]:
    """The subject without windows that the model of a card has `learnt`, and the repetitions that these lie in.

    They stay where they were `asked` for or there are no others.
    """
    windows, known = subject.windows, learnt(card, subject)
    kept, numbers = asked or known.all(), set(windows.repetitions[known].tolist())
    if numbers:
        log.info(LEARNT, subject.number, format_numbers(numbers), "scored all the same" if kept else "not scored")
    return (subject, set()) if kept else (replace(subject, windows=windows[~known]), numbers)


def check(card: dict, subject: Subject, where: str, what: str) -> None:
    """Makes sure that a decoder of this card (`what`, for messages) can decide a person's recordings (`where`).

    Raises:
        InputError: other channels than the decoder's, or a movement that is none of its.
    """
    if subject.emg.shape[1] != card["channels"]:
        raise InputError(f"{where} has {subject.emg.shape[1]} channels, the {what} {card['channels']}")
    if unknown := sorted(set(subject.windows.movements.tolist()) - set(card["movements"])):
        raise InputError(f"{where} has movements {unknown} that are not the {what}'s: {card['movements']}")


def judged(case: Case) -> tuple[dict, tuple[np.ndarray, np.ndarray]]:
    """Scores of a case; true and imitated features (N C, F)."""
    model, card, subject, scores = case.model, case.model.card, case.subject, {}
    names = tuple(card["features"])
    true = subject.features(names, card["length"], card["rate_hz"])
    true = true.reshape(true.shape[0] * true.shape[1], len(names))  # there may be none
    if isinstance(model, Fins):
        imitated = model.features(subject)
    else:
        every, segments, own = subject.with_context(model.decision.memory, case.stride)  # decided in order of time
        outputs = model.over(every.emg, every.windows.starts)
        decided = decide(outputs["probabilities"], segments, model.decision, model.movements)[own]
        scores = score(subject.windows, decided, model.movements, case.stride / card["rate_hz"], model.decision.reject)
        imitated = outputs["features"][own]
    imitated = imitated.reshape(true.shape)
    return scores | {"fin": metrics.imitation(true, imitated, names)}, (true, imitated)


def evaluate(name: str, cases: Iterable[Case]) -> tuple[dict, dict]:
    """Scores of the model called `name` over all cases, as they are written to JSON; and figures by name."""
    found, features, trained, left_out, synthetic = {}, [], set(), set(), False
    for case in cases:
        number, card, rows = case.subject.number, case.model.card, case.subject.windows
        with showing(f"scoring S{number}"):
            one, pair = judged(case)
        log.info("S%d: R² %s", number, "  ".join(f"{n} {fin['r2']:.3f}" for n, fin in one["fin"].items()))
        found[str(number)] = one
        features += [pair] if card["kind"] == "fins" else []
        trained |= trained_on(card, rows, number) | set(rows.repetitions[learnt(card, case.subject)].tolist())
        left_out |= set(case.left_out)
        synthetic |= case.synthetic
    summary = {"model": name, "synthetic": synthetic, "trained_on": sorted(trained), "left_out": sorted(left_out),
               "subjects": {s: {n: fin["r2"] for n, fin in one["fin"].items()} for s, one in found.items()}}
    if features:
        true, imitated = (np.concatenate(arrays) for arrays in zip(*features, strict=True))
        fin = metrics.imitation(true, imitated, tuple(card["features"]))
        return (summary | {"fin": fin, "windows": len(true)},
                {"imitation": board.imitation_figure(true, imitated, tuple(card["features"]), fin)})
    movements, called = list(card["movements"]), card.get("names", {})
    counts = np.sum([one["confusion"] for one in found.values()], axis=0)
    summary |= three_numbers(found) | {"fin": mean_imitation([one["fin"] for one in found.values()]), "confusion": {
        "movements": movements, "counts": counts.tolist()}} | ({"names": called} if called else {})
    figure = board.confusion_figure(counts, movements, name, {int(m): n for m, n in called.items()})
    return summary, {"confusion": figure}


def trained_on(card: dict, windows: Windows, person: int | None = None) -> set[int]:
    """Repetitions among these windows that the model of a card was trained on, if these are its recordings.

    Where sessions are files of their own, their repetitions may all count from 1: then sessions have to agree too.

    Args:
        person: whose windows these are.
    """
    about, parts = card.get("dataset") or {}, ("train", "finetune") if card["kind"] == "decoder" else ("pretrain",)
    split, there = card.get("recipe", {}).get("split", {}), windows.repetitions
    own = [card.get("subject", person)] if card["kind"] == "decoder" else about.get("pretrain_subjects", [person])
    if person not in (None, *own):
        return set()
    if "train_sessions" in about and not split.get("repetitions_per_session"):
        there = there[np.isin(windows.sessions, about["train_sessions"])]
    return set(there.tolist()) & {r for part in parts for r in about.get(f"{part}_repetitions", ())}
