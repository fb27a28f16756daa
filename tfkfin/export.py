"""`python -m tfkfin.export`: a finished run becomes a SavedModel for any TF Serving, an ONNX or a LiteRT file.

examples:
  python -m tfkfin.export runs/demo-1a2b3c
      the first subject's decoder, to savedmodels/demo-1a2b3c_s1/1
  python -m tfkfin.export runs/demo-1a2b3c --subject 2 --to savedmodels/demo_s2 --format both
      with model.onnx and stream.onnx in the version folder, for onnxruntime
  python -m tfkfin.export runs/best-1a2b3c --format onnx --precision int8
      a smaller model.onnx; its ranges are measured on windows of the run's training repetitions
  python -m tfkfin.export runs/own-1a2b3c --format litert
      model.tflite, for small machines: FINs without recurrence, no log-covariances
  python -m tfkfin.export runs/fin_bilstm --to savedmodels/fin_bilstm
      a run of the stage imitate or pooled alone: its FINs
"""

import argparse
from pathlib import Path

from tfkfin import recipe as recipes
from tfkfin.base.answers import answer_path, command_line, parsed
from tfkfin.base.console import log, run
from tfkfin.base.errors import InputError
from tfkfin.base.extras import load_tensorflow
from tfkfin.base.options import add_options
from tfkfin.fit.run_folder import fine_tuned, finished, results
from tfkfin.store import card, folders

PRECISIONS = ("float32", "float16", "int8")
ALONE = {"onnx": "ONNX", "litert": "LiteRT"}  # formats that no server loads
FORMATS = ("savedmodel", "onnx", "both", "litert")


def parser() -> argparse.ArgumentParser:
    p = command_line("export", "RUN [options]", str(__doc__))
    add_options(p, "export", format=FORMATS, precision=PRECISIONS)
    return p


def export(run_folder: str | Path, subject: int | None = None, to: str | Path | None = None,
           format: str = "savedmodel", precision: str = "float32") -> Path:
    """Exports a run's fine-tuned decoder of one subject, or the FINs of a run of `imitate` or `pooled` alone.

    Args:
        run_folder: as `tfkfin.train` made it. Its recordings are not needed.
        subject: whose decoder; None is the run's first subject.
        to: model folder; None is savedmodels/<run>_s<N> (FINs: savedmodels/<run>) below the current folder.
        format: "savedmodel", "onnx" (a folder of its own, as servers cannot load it) or "both"; or "litert", as "onnx".
        precision: of a decoder in format "onnx": "float32", "float16" or "int8", for which the run's recordings are
            needed.

    Returns:
        The new version folder.

    Raises:
        InputError: no run, a stage or subject that is not finished, or a folder that does not fit.
    """
    if format not in FORMATS:
        raise InputError(f"`format` must be one of {FORMATS}. Received: format={format!r}")
    if precision not in PRECISIONS or precision != "float32" and format != "onnx":
        raise InputError(f"`precision` must be one of {PRECISIONS}, and float32 unless the format is onnx. Received: "
                         f"precision={precision!r}, format={format!r}")
    run_folder = Path(run_folder)
    source, own = finished(run_folder, subject)
    is_decoder = own["kind"] == "decoder"
    if subject is None:
        log.info("%s", f"subject {own['subject']} of {', '.join(map(str, fine_tuned(run_folder)))} (choose with "
                 "--subject)" if is_decoder else f"{run_folder} has fine-tuned nobody: its FINs alone are exported")
    if (precision != "float32" or format == "litert") and not is_decoder:
        raise InputError(f"--format {format} --precision {precision} is for decoders: {run_folder} holds FINs alone")
    name, smaller = run_folder.resolve().name, f"_{precision}" * (precision != "float32")
    tail = f"_s{own['subject']}" if is_decoder else ""
    model = Path(to or Path("savedmodels", name + tail + f"_{format}" * (format in ALONE) + smaller))
    if format in ALONE and any((v / folders.SAVED_MODEL).is_file() for v in folders.versions(model)):
        raise InputError(f"{model} holds SavedModels, and a server cannot load a version of {ALONE[format]} alone: "
                         "take --format both or another folder")
    from tfkfin.decoder.decoder import BaseDecoder
    from tfkfin.nets import saving
    from tfkfin.serving import version

    about = {"run": name} | (card.of_decoder if is_decoder else card.of_fins)(own, results(run_folder))
    if not is_decoder:
        return version.publish(about, saving.load(source / folders.FINS_FILE.name), model, format)
    windows = None
    if precision == "int8":
        from tfkfin.fit.run import Run
        from tfkfin.pipeline.windows import evenly

        dataset = Run(run_folder, recipes.load(run_folder / "recipe.toml", {})).dataset
        part = dataset.load(own["subject"], dataset.part("train"))
        windows = part.volts(dataset.length, evenly(len(part.windows), version.CALIBRATION))
    return version.publish(about | {"precision": precision}, BaseDecoder.load(source).model, model, format, windows)


def main(argv: list[str]) -> None:
    arguments = parsed(parser(), argv)
    finished(arguments.run, arguments.subject)  # what is unfit is an error before TensorFlow loads
    load_tensorflow()
    answer_path(export(arguments.run, arguments.subject, arguments.to, arguments.format, arguments.precision))


if __name__ == "__main__":
    run(main)
