"""`python -m tfkfin.evaluate`: scores a run, a SavedModel or FINs on recordings."""

import argparse
from pathlib import Path

import numpy as np

from tfkfin import recipe as recipes
from tfkfin.console import InputError, log, parse_numbers, quiet_start, run

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
    from tfkfin.models import presets as zoo
    from tfkfin.pipeline import dataset
    from tfkfin.recordings.readers import ninapro

    trained = zoo.load(name)
    length, names = trained.input_shape[1], zoo.features(trained)
    rate = zoo.rate_hz(name)
    window = recipes.Window(length_ms=1000 * length / rate, stride_ms=stride_ms, rate_hz=rate)
    files = ninapro.find(data, subjects, exercise)
    true, imitated, by_subject, predictors = [], [], {}, {}
    for file in files:
        subject, rate = dataset.whole(file, window)
        count = len(subject.windows)
        share = min(count, -(-max_windows // len(files))) if max_windows else count
        chosen = np.unique(np.linspace(0, count - 1, share).astype(int))
        targets = subject.features(names, length, rate)[chosen]
        channels = subject.emg.shape[1]
        if channels not in predictors:
            predictors[channels] = training.Predictor(fin.bank(fin.fins_of(trained), channels))
        outputs = np.concatenate([predictors[channels](subject.cut(length, part))
                                  for part in np.array_split(chosen, -(-len(chosen) // 256))])
        true.append(targets.reshape(-1, len(names)))
        imitated.append(outputs.reshape(-1, len(names)))
        by_subject[str(file.subject)] = {n: metrics.r2(targets[..., i], outputs[..., i]) for i, n in enumerate(names)}
        said = "  ".join(f"{n} {v:.3f}" for n, v in by_subject[str(file.subject)].items())
        log.info("S%d: R² %s", file.subject, said)
    true, imitated = np.concatenate(true), np.concatenate(imitated)
    scores = {"model": str(name), "fin": metrics.imitation(true, imitated, names), "subjects": by_subject,
              "windows": len(true)}
    return scores, (true, imitated, names)


def evaluate_run(folder: Path, data: str | None) -> dict:
    """Scores a run's fine-tuned models on the test repetitions of its own, or of other, recordings."""
    from tfkfin.fit import metrics, stages
    from tfkfin.fit.run import Run
    from tfkfin.pipeline.dataset import open_dataset

    recipe = recipes.load(folder / "recipe.toml")
    opened = Run(folder, recipe)
    if data is not None:
        opened.dataset = open_dataset(recipe, data)
    loaded, scores = stages.Finetuned(opened), {}
    matrix = np.zeros((len(opened.dataset.movements),) * 2, np.int64)
    for subject in opened.dataset.subjects():
        true, labels, outputs = loaded.test(subject)
        predicted = outputs["probabilities"].argmax(axis=1)
        matrix += metrics.confusion(labels, predicted, list(range(len(matrix))))
        scores[subject.number] = {"accuracy": float(np.mean(predicted == labels)),
                                  "fin": metrics.imitation(true, outputs["features"], recipe.features.names)}
    return _summary(scores, matrix, opened.dataset.movements, recipe.features.names)


def evaluate_saved(folder: Path, arguments: argparse.Namespace) -> dict:
    """Scores a SavedModel, raw volts in, on whole recordings or some of their repetitions."""
    import tensorflow as tf

    from tfkfin.fit import metrics
    from tfkfin.models import presets as zoo
    from tfkfin.pipeline import dataset, splits
    from tfkfin.recordings.readers import ninapro

    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    _, length, channels = serve.structured_input_signature[1]["emg"].shape
    card = zoo.card(folder)
    names, movements, rate = tuple(card["features"]), tuple(card["movements"]), float(card["rate_hz"])
    window = recipes.Window(length_ms=1000 * length / rate, stride_ms=arguments.stride_ms, rate_hz=rate)
    scores, matrix = {}, np.zeros((len(movements),) * 2, np.int64)
    for file in ninapro.find(arguments.data, _numbers(arguments.subjects), arguments.exercise):
        subject, _ = dataset.whole(file, window)
        if subject.emg.shape[1] != channels:
            raise InputError(f"{file.path} has {subject.emg.shape[1]} channels, the model {channels}")
        if arguments.repetitions:
            subject = subject.select(_numbers(arguments.repetitions))
        if unknown := sorted(set(subject.windows.movements.tolist()) - set(movements)):
            raise InputError(f"{file.path} has movements {unknown} that the model does not know: {list(movements)}")
        windows = splits.select(subject.windows, np.unique(subject.windows.repetitions))
        volts, labels, features = subject.emg * subject.sd + subject.mean, [], []
        for part in np.array_split(windows.starts, max(1, len(windows) // 128)):
            answer = serve(emg=tf.constant(volts[part[:, None] + np.arange(length)], tf.float32))
            labels.append(answer["label"].numpy())
            features.append(answer["features"].numpy())
        labels, imitated = np.concatenate(labels), np.concatenate(features)
        standardised = (volts - np.asarray(card["mean_v"])) / np.asarray(card["sd_v"])
        true = dataset.features.extract(standardised.astype(np.float32), windows.starts, length, names, rate)
        matrix += metrics.confusion(windows.movements, labels, list(movements))
        scores[file.subject] = {"accuracy": float(np.mean(labels == windows.movements)),
                                "fin": metrics.imitation(true, imitated, names)}
    return _summary(scores, matrix, movements, names)


def _summary(scores: dict[int, dict], matrix: np.ndarray, movements: tuple[int, ...], names: tuple[str, ...]) -> dict:
    accuracies = [s["accuracy"] for s in scores.values()]
    return {
        "accuracy": {"mean": float(np.mean(accuracies)), "std": float(np.std(accuracies)),
                     "per_subject": {str(number): s["accuracy"] for number, s in scores.items()}},
        "fin": {n: {k: float(np.mean([s["fin"][n][k] for s in scores.values()]))
                    for k in ("r2", "paper_r2", "paper_map")} for n in names},
        "confusion": {"movements": list(movements), "counts": matrix.tolist()},
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
    is_run = folder is not None and (folder / "recipe.toml").is_file()
    if arguments.data is None and not is_run:
        raise InputError("name the folder of recordings with --data DIR")
    if folder is not None and not folder.exists():
        raise InputError(f"{folder} is not there")
    with quiet_start():
        import tensorflow as tf

        tf.zeros(1)
    from tfkfin.fit import board
    from tfkfin.models import presets as zoo

    figures = {}
    if arguments.fin is not None:
        scores, (true, imitated, names) = evaluate_fin(arguments.fin, arguments.data, _numbers(arguments.subjects),
                                                       arguments.exercise, arguments.stride_ms, arguments.windows)
        figures["imitation"] = board.imitation_figure(true, imitated, names, scores["fin"])
    else:
        scores = evaluate_run(folder, arguments.data) if is_run else evaluate_saved(zoo.find(folder), arguments)
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

    console = Console()
    table = Table("feature", "R²", "paper R²", "paper MAP %")
    for name, score in scores["fin"].items():
        table.add_row(name, f"{score['r2']:.4f}", f"{score['paper_r2']:.4f}", f"{score['paper_map']:.1f}")
    console.print(table)
    if "accuracy" in scores:
        table = Table("subject", "accuracy %")
        for subject, value in scores["accuracy"]["per_subject"].items():
            table.add_row(f"S{subject}", f"{100 * value:.1f}")
        table.add_section()
        table.add_row("mean ± sd", f"{100 * scores['accuracy']['mean']:.1f} ± {100 * scores['accuracy']['std']:.1f}")
        console.print(table)


if __name__ == "__main__":
    run(main)
