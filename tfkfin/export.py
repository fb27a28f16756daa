"""`python -m tfkfin.export`: a finished run becomes a SavedModel for any TF Serving, an ONNX file, or both."""

import argparse
from pathlib import Path
from types import SimpleNamespace

from tfkfin import recipe as recipes
from tfkfin.console import InputError, log, quiet_start, run
from tfkfin.fit.run import Run

FORMATS = ("savedmodel", "onnx", "both")
ONNX_FILE = "model.onnx"
EXAMPLES = """examples:
  python -m tfkfin.export runs/demo-1a2b3c
      the first subject's decoder, to savedmodels/demo-1a2b3c_s1/1
  python -m tfkfin.export runs/demo-1a2b3c --subject 2 --to savedmodels/demo_s2 --format both
      with model.onnx in the version folder, for onnxruntime
  python -m tfkfin.export runs/fin_bilstm --to savedmodels/fin_bilstm
      a run of the stage imitate alone: its FINs
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m tfkfin.export", description=__doc__, epilog=EXAMPLES,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("run", metavar="RUN", type=Path, help="run folder, as tfkfin.train printed it")
    p.add_argument("--subject", type=int, metavar="N", help="whose fine-tuned model (default: the run's first subject)")
    p.add_argument("--to", type=Path, metavar="DIR", help="model folder, which gets a new version "
                   "(default: savedmodels/<run>_s<N>)")
    p.add_argument("--format", choices=FORMATS, default="savedmodel", help="default: savedmodel")
    return p


def export(run_folder: str | Path, subject: int | None = None, to: str | Path | None = None,
           format: str = "savedmodel") -> Path:
    """Exports a run's fine-tuned decoder of one subject, or the FINs of a run of the stage `imitate` alone.

    Args:
        run_folder: as `tfkfin.train` made it. Its recordings are not needed.
        subject: whose decoder; None is the run's first subject.
        to: model folder; None is savedmodels/<run>_s<N> (FINs: savedmodels/<run>) below the current folder.
        format: "savedmodel", "onnx" (a folder of its own, as servers cannot load it) or "both".

    Returns:
        The new version folder.

    Raises:
        InputError: no run, a stage or subject that is not finished, or a folder that does not fit.
    """
    from tfkfin.serving import layout

    if format not in FORMATS:
        raise InputError(f"`format` must be one of {FORMATS}. Received: format={format!r}")
    opened = open_finished(Path(run_folder))
    subject = _subject(opened, subject)
    model = Path(to) if to is not None else _default_folder(opened, subject, format)
    if format == "onnx" and any(v.joinpath("saved_model.pb").is_file() for v in layout.shelf.versions(model)):
        raise InputError(f"{model} holds SavedModels, and a server cannot load a version of ONNX alone: "
                         "take --format both or another folder")
    with layout.new_version(model) as (folder, number):
        _fill(folder, model.name, number, opened, subject, format)
    if format != "onnx":
        layout.add_to_config(model)
    return model / str(number)


def open_finished(folder: Path) -> Run:
    """A run as its folder tells of it, without its recordings.

    Raises:
        InputError: no run folder, or no stage finished in it.
    """
    if not (folder / "recipe.toml").is_file():
        raise InputError(f"{folder} is no run folder (it has no recipe.toml): python -m tfkfin.train makes one")
    opened = Run(folder, recipes.load(folder / "recipe.toml"))
    if opened.done("imitate") is None:
        raise InputError(f"{folder} has no finished stage yet: python -m tfkfin.train --stage finetune --run {folder}")
    about = opened.results().get("dataset")
    if opened.recipe.source.kind != "signals":
        if about is None:
            raise InputError(f"{folder}/results.json names no dataset: run tfkfin.train on it once more")
        from tfkfin.pipeline.windows import samples

        window, rate = opened.recipe.window, about["rate_hz"]
        opened.dataset = SimpleNamespace(channels=about["channels"], movements=tuple(about["movements"]), rate_hz=rate,
                                         length=samples(window.length_ms, rate), stride=samples(window.stride_ms, rate))
    return opened


def _subject(opened: Run, subject: int | None) -> int | None:
    """The subject whose model is exported, or None for FINs alone."""
    about = opened.results().get("dataset") or {"subjects": []}
    finished = [s for s in about["subjects"] if opened.done("finetune", f"S{s}") is not None]
    if subject is None and not finished:
        log.info("%s has fine-tuned nobody: its FINs alone are exported", opened.folder)
    elif subject is None:
        subject = finished[0]
        log.info("subject %d of %s (choose with --subject)", subject, ", ".join(map(str, finished)))
    elif subject not in finished:
        raise InputError(f"{opened.folder} has no fine-tuned model of subject {subject}: it has "
                         f"{', '.join(map(str, finished)) or 'none'}")
    return subject


def _default_folder(opened: Run, subject: int | None, format: str) -> Path:
    name = opened.folder.resolve().name + (f"_s{subject}" if subject is not None else "")
    return Path("savedmodels", name + ("_onnx" if format == "onnx" else ""))


def _fill(folder: Path, name: str, number: int, opened: Run, subject: int | None, format: str) -> None:
    """Writes everything of a version into its folder, the card last."""
    from tfkfin.serving import bundle

    made = bundle.fins(opened) if subject is None else bundle.decoder(opened, subject)
    if format != "onnx":
        made.save(folder, name)
    if format != "savedmodel":
        made.save_onnx(folder / ONNX_FILE)
    made.describe(folder, {"name": name, "version": number, "format": format})


def main(argv: list[str]) -> None:
    arguments = parser().parse_args(argv)
    open_finished(arguments.run)  # whatever is unfit is said before TensorFlow loads
    with quiet_start():
        import tensorflow as tf

        tf.zeros(1)
    log.info("%s", export(arguments.run, arguments.subject, arguments.to, arguments.format))


if __name__ == "__main__":
    run(main)
