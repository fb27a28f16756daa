"""`python -m tfkfin.evaluate`: scores a run, a SavedModel or FINs on recordings."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from tfkfin import recipe as recipes
from tfkfin.console import InputError, format_numbers, log, parse_numbers, quiet_start, run

EXAMPLES = """examples:
  python -m tfkfin.evaluate runs/demo-1a2b3c --json scores.json
      a finished run, on its own test repetitions
  python -m tfkfin.evaluate savedmodels/demo_s1 --data DB2 --subjects 1 --repetitions 2,5
      an exported model, on any recordings with its channels
  python -m tfkfin.evaluate --fin bilstm --data DB2 --json fin.json
      the shipped FINs, zero-shot: they have never seen these recordings
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m tfkfin.evaluate", description=__doc__, epilog=EXAMPLES,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", nargs="?", help="a run folder, or a SavedModel (its version folder or the one above)")
    p.add_argument("--fin", metavar="NAME_OR_DIR", help="FINs to score instead: bilstm, conv or a model folder")
    p.add_argument("--data", metavar="DIR", help="folder of recordings (default: the run's own)")
    p.add_argument("--subjects", metavar="1-25", help="default: all there are")
    p.add_argument("--repetitions", metavar="2,5", help="SavedModel: repetitions to score (default: all there are)")
    p.add_argument("--exercise", type=int, default=1, help="the k of S{n}_E{k}_A1.mat (default: 1)")
    p.add_argument("--stride-ms", type=float, default=50.0, help="between windows, but for a run (default: 50)")
    p.add_argument("--windows", type=int, default=2000, help="FINs: how many windows, spread over the "
                   "recordings (default: 2000; 0: every one)")
    p.add_argument("--json", metavar="FILE", type=Path, help="where to write the scores")
    p.add_argument("--plots", metavar="DIR", type=Path, help="where to write PNG plots (default: beside --json)")
    return p


def evaluate_fin(name: str, data: str, subjects: tuple[int, ...] | None = None, exercise: int = 1,
                 stride_ms: float = 50.0, max_windows: int = 2000) -> tuple[dict, tuple]:
    """Zero-shot imitation on any folder of recordings, each standardised by its own statistics.

    Returns:
        {"fin": {feature: {"r2", ...}}, "subjects": {subject: {feature: r2}}, ...}, and (true, imitated) (N, C·F).
    """
    from tfkfin.fit import metrics, training
    from tfkfin.models import fins as fin
    from tfkfin.models import presets
    from tfkfin.pipeline import dataset
    from tfkfin.recordings import readers

    trained = presets.load(name)
    length, names = trained.input_shape[1], presets.features(trained)
    rate = presets.rate_hz(name)
    window = recipes.Window(length_ms=1000 * length / rate, stride_ms=stride_ms, rate_hz=rate)
    files = readers.find(data, subjects, exercise)
    subjects = readers.by_subject(files)
    true, imitated, by_subject, predictors = [], [], {}, {}
    for number, own in subjects.items():
        subject, rate = dataset.whole(own, window)
        count = len(subject.windows)
        share = min(count, -(-max_windows // len(subjects))) if max_windows else count
        chosen = np.unique(np.linspace(0, count - 1, share).astype(int))
        targets = subject.features(names, length, rate)[chosen]
        channels = subject.emg.shape[1]
        if channels not in predictors:
            predictors[channels] = training.Predictor(fin.bank(fin.fins_of(trained), channels))
        outputs = np.concatenate([predictors[channels](subject.cut(length, part))
                                  for part in np.array_split(chosen, -(-len(chosen) // 256))])
        true.append(targets.reshape(-1, len(names)))
        imitated.append(outputs.reshape(-1, len(names)))
        by_subject[str(number)] = {n: metrics.r2(targets[..., i], outputs[..., i]) for i, n in enumerate(names)}
        said = "  ".join(f"{n} {v:.3f}" for n, v in by_subject[str(number)].items())
        log.info("S%d: R² %s", number, said)
    true, imitated = np.concatenate(true), np.concatenate(imitated)
    scores = {"model": str(name), "fin": metrics.imitation(true, imitated, names), "subjects": by_subject,
              "windows": len(true), "synthetic": any(readers.header(file).synthetic for file in files)}
    return scores, (true, imitated, names)


def evaluate_run(folder: Path, data: str | None) -> dict:
    """Scores a run's fine-tuned decoders on the test repetitions of its own, or of other, recordings."""
    from tfkfin.fit.run import Run
    from tfkfin.fit.stages import finetune
    from tfkfin.pipeline.dataset import open_dataset

    recipe = recipes.load(folder / "recipe.toml")
    opened = Run(folder, recipe)
    if data is not None:
        opened.dataset = open_dataset(recipe, data)
    elif recipe.source.kind == "recordings":
        opened.claim()
    dataset = opened.dataset
    scores = {subject.number: _scored(finetune.load(opened, subject.number),
                                      subject.select(dataset.part("test")), dataset.stride)
              for subject in dataset.subjects(memory=recipe.classifier.vote - 1)}
    return _summary(scores, dataset.movements, recipe.features.names, dataset.synthetic)


def evaluate_saved(folder: Path, arguments: argparse.Namespace) -> dict:
    """Scores a SavedModel, raw volts in, on whole recordings or some of their repetitions."""
    from tfkfin.pipeline import dataset
    from tfkfin.recordings import readers
    from tfkfin.serving.engines import Exported

    decoder = Exported(folder, "savedmodel")
    card, rate = decoder.card, float(decoder.card["rate_hz"])
    window = recipes.Window(length_ms=1000 * decoder.length / rate, stride_ms=arguments.stride_ms, rate_hz=rate)
    scores, seen, synthetic = {}, set(), False
    files = readers.find(arguments.data, _numbers(arguments.subjects), arguments.exercise)
    for number, own in readers.by_subject(files).items():
        subject, _ = dataset.whole(own, window, decoder.decision.memory)
        if subject.emg.shape[1] != decoder.channels:
            raise InputError(f"{own[0].path} has {subject.emg.shape[1]} channels, the model {decoder.channels}")
        wanted = _numbers(arguments.repetitions) or np.unique(subject.windows.repetitions)
        subject = subject.select(wanted)
        if unknown := sorted(set(subject.windows.movements.tolist()) - set(card["movements"])):
            raise InputError(f"{own[0].path} has movements {unknown} that the model does not know: {card['movements']}")
        seen |= set(subject.windows.repetitions.tolist())
        synthetic |= any(readers.header(file).synthetic for file in own)
        subject = replace(subject, mean=np.asarray(card["mean_v"]), sd=np.asarray(card["sd_v"]))  # true features' too
        stride = dataset.windows.samples(arguments.stride_ms, rate)
        scores[number] = _scored(decoder, subject, stride)
    about = card.get("dataset") or {}
    learnt = sorted(seen & {*about.get("train_repetitions", ()), *about.get("finetune_repetitions", ())})
    summary = _summary(scores, tuple(card["movements"]), tuple(card["features"]), synthetic)
    return summary | {"trained_on": learnt}


def _scored(decoder, part, stride: int) -> dict:
    """Scores of a decoder on a subject's windows, decided in order of time."""
    from tfkfin.fit import metrics
    from tfkfin.fit.scores import decided, score
    from tfkfin.models.decoder import BATCH

    kept, names, rate = {}, tuple(decoder.card["features"]), float(decoder.card["rate_hz"])

    def probabilities(every) -> np.ndarray:
        starts, rows = every.windows.starts, np.arange(decoder.length)
        parts = [decoder(every.emg[chosen[:, None] + rows])
                 for chosen in np.array_split(starts, max(1, -(-len(starts) // BATCH)))]
        own = np.isin(starts, part.windows.starts)
        kept["features"] = np.concatenate([one["features"] for one in parts])[own]
        return np.concatenate([one["probabilities"] for one in parts])

    movements = tuple(decoder.card["movements"])
    labels, _ = decided(part, probabilities, decoder.decision, movements, stride)
    true = part.features(names, decoder.length, rate)
    return score(part.windows.movements, labels, movements, decoder.decision.reject) | {
        "fin": metrics.imitation(true, kept["features"], names)}


def _summary(scores: dict[int, dict], movements: tuple[int, ...], names: tuple[str, ...], synthetic: bool) -> dict:
    accuracy = {str(s): one["accuracy"] for s, one in scores.items()}
    return {
        "accuracy": {"mean": float(np.mean(list(accuracy.values()))), "std": float(np.std(list(accuracy.values()))),
                     "per_subject": accuracy},
        "fin": {n: {k: float(np.mean([one["fin"][n][k] for one in scores.values()]))
                    for k in ("r2", "paper_r2", "paper_map")} for n in names},
        "confusion": {"movements": list(movements),
                      "counts": np.sum([one["confusion"] for one in scores.values()], axis=0).tolist()},
        "synthetic": synthetic,
    }


def _numbers(text: str | None) -> tuple[int, ...] | None:
    try:
        return parse_numbers(text) if text is not None else None
    except ValueError as error:
        raise InputError(str(error)) from None


def main(argv: list[str]) -> None:
    arguments = parser().parse_args(argv)
    if (arguments.fin is None) == (arguments.model is None):
        raise InputError("give either a run or SavedModel to score, or --fin NAME_OR_DIR")
    folder = Path(arguments.model) if arguments.model else None
    if folder is not None and not folder.exists():
        raise InputError(f"{folder} is not there: give a run folder or a model folder")
    is_run = folder is not None and (folder / "recipe.toml").is_file()
    if arguments.data is None and not is_run:
        raise InputError("name the folder of recordings with --data DIR")
    with quiet_start():
        import tensorflow as tf

        tf.zeros(1)
    from tfkfin.fit import board
    from tfkfin.models import presets

    figures = {}
    if arguments.fin is not None:
        scores, (true, imitated, names) = evaluate_fin(arguments.fin, arguments.data, _numbers(arguments.subjects),
                                                       arguments.exercise, arguments.stride_ms, arguments.windows)
        figures["imitation"] = board.imitation_figure(true, imitated, names, scores["fin"])
    else:
        scores = evaluate_run(folder, arguments.data) if is_run else evaluate_saved(presets.find(folder), arguments)
        confusion = scores["confusion"]
        figures["confusion"] = board.confusion_figure(np.array(confusion["counts"]), confusion["movements"],
                                                      str(arguments.model))
    show(scores)
    _keep(scores, figures, arguments)


def _keep(scores: dict, figures: dict, arguments: argparse.Namespace) -> None:
    from tfkfin.files import write_json


    plots = arguments.plots or (arguments.json.parent if arguments.json else None)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.json, scores)
    if plots:
        plots.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            stem = arguments.json.stem if arguments.json else Path(arguments.fin or arguments.model).name
            figure.savefig(plots / f"{stem}_{name}.png", dpi=110, bbox_inches="tight")


def show(scores: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    console, what = Console(), "synthetic recordings" if scores.get("synthetic") else None
    table = Table("feature", "R²", title=what and f"Imitation ({what})")
    for name, score in scores["fin"].items():
        table.add_row(name, f"{score['r2']:.4f}")
    console.print(table)
    if "accuracy" in scores:
        table = Table("subject", "accuracy %", title=what and f"Accuracy ({what})")
        for subject, value in scores["accuracy"]["per_subject"].items():
            table.add_row(f"S{subject}", f"{100 * value:.1f}")
        table.add_section()
        table.add_row("mean ± sd", f"{100 * scores['accuracy']['mean']:.1f} ± {100 * scores['accuracy']['std']:.1f}")
        console.print(table)
    if scores.get("synthetic"):
        console.print("Nobody was recorded: these scores say nothing about people.")
    if scores.get("trained_on"):
        console.print(f"The model was trained on repetitions {format_numbers(scores['trained_on'])}: if these are the "
                      "recordings that it was made from, choose others with --repetitions.")


if __name__ == "__main__":
    run(main)
