"""What `make.py` asked an earlier tfkfin, and what `tests/test_before.py` asks it today.

Only what users call: command lines, and `tfkfin.read` and `tfkfin.Decoder`. Answers are {name: array}, or what a
command writes as JSON.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import tfkfin
from tfkfin.base.files import shipped

HERE = Path(__file__).parent
FOLDERS, ARRAYS, SCORES = HERE / "folders.tar.xz", HERE / "answers.npz", HERE / "answers.json"

RATE, LENGTH, STRIDE = 1000, 100, 20  # Hz, samples
SMALL = {"window.rate_hz": RATE, "window.length_ms": LENGTH, "window.stride_ms": STRIDE, "features.names": "ENT,RMS",
         "fin.units": 4, "fin.pretrained": ""}
BY_GRADIENTS = SMALL | {
    "fin.layers": 1, "classifier.filters": [8, 6], "classifier.copies": 4, "split.test_repetitions": 2,
    "imitate.windows_per_epoch": 128, "imitate.learning_rate": 0.02, "classify.batch_size": 16,
    "finetune.windows_per_epoch": 32}
DEMO = BY_GRADIENTS | {
    "source.synthetic.movements": 3, "source.synthetic.repetitions": 3, "source.synthetic.channels": 3,
    "source.synthetic.rate_hz": RATE, "source.synthetic.hold_s": 0.8, "source.synthetic.rest_s": 0.4,
    "source.synthetic.seed": 8, "imitate.epochs": 2, "classifier.vote": 3, "classifier.reject": 0.35,
    "augment.gain": 0.1}
OWN = BY_GRADIENTS | {"split.subjects": 2, "imitate.epochs": 3, "imitate.schedule": "cosine",
                      "window.train_stride_ms": 0}
SESSIONS = SMALL | {"fin.layers": 2, "imitate.epochs": 2, "imitate.windows_per_epoch": 512,
                    "imitate.learning_rate": 0.01, "split.train_sessions": "1-2", "split.test_sessions": "3-4",
                    "classifier.lags": [1, 3], "classifier.vote": 2}
TOLERANCE = 2e-6  # other instruction sets differ by half of it; decisions are written to 1e-6
OF_THE_DAY = {"seconds", "environment", "model", "run", "created", "tfkfin"}  # parts of JSON that nobody holds equal
MODELS = ("demo", "best")  # that servers load


class Place:
    """The folders that were kept, unpacked where they were not made, and a folder to work in.

    Attributes:
        people, days: recordings: two people in Ninapro's layout; four days of one, in files of NumPy.
        to: empty at first.
        stranger: a process without tfkfin, where there is one.
    """

    def __init__(self, kept: Path, to: Path, stranger: "Stranger | None" = None):
        self.kept, self.to, self.stranger = kept, to, stranger
        self.people, self.days = kept / "people", kept / "days"

    def run(self, name: str, *without: str) -> Path:
        """A copy of a run folder; patterns say what of it is not there, as if it had been ended before."""
        run = Path(shutil.copytree(self.kept / "trained" / name, self.to / name))
        for path in (path for pattern in without for path in list(run.glob(pattern))):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return run

    def day(self, number: int) -> Any:
        return tfkfin.read(self.days / f"p1_day{number}.npy")

    def of_model(self, name: str) -> tuple[Path, Path]:
        """A model folder, and recordings for it."""
        return self.kept / "models" / name, self.people if name == "demo" else self.days


def unpack(folder: Path) -> Path:
    with tarfile.open(FOLDERS) as archive:
        archive.extractall(folder, filter="data")
    return folder


def command(name: str, *words) -> Any:
    """`python -m tfkfin.<name>` in this process; what it writes as JSON where it is told `--json FILE`."""
    words = [str(word) for word in words]
    import_module(f"tfkfin.{name}").main(words)
    return json.loads(Path(words[words.index("--json") + 1]).read_text()) if "--json" in words else None


def settings(options: dict) -> list[str]:
    return [word for key, value in options.items() for word in ("--set", f"{key}={value}")]


def trained(run: Path, *words, stage: str = "finetune") -> dict:
    """A run's results.json after the command that began it."""
    command("train", "--stage", stage, "--run", run, *words)
    return json.loads((run / "results.json").read_text())


def demo(run: Path) -> dict:
    return trained(run, *settings(DEMO))


def own(run: Path, people: Path, to: Path) -> dict:
    return {"results": trained(run, "--pipeline", "own", "--data", people, *settings(OWN)),
            "evaluated": evaluated(run, "--data", people, to=to)}


def imitated(run: Path, people: Path) -> dict:
    """What the FINs of the same run come to, whose stage `imitate` is done or goes on."""
    found = trained(run, "--pipeline", "own", "--data", people, *settings(OWN), stage="imitate")
    return {key: found[key] for key in ("fin", "recipe_digest")}


def sessions(run: Path, days: Path) -> dict:
    return trained(run, "--pipeline", "best_fins", "--data", days, *settings(SESSIONS))


def by_its_recipe(place: Place) -> dict:
    """A finished run whose recipe.toml is given in place of all that was set, with the recordings where they are."""
    run = place.run("sessions")
    return trained(run, "--pipeline", run / "recipe.toml", "--data", place.days)


def where_it_was_made(place: Place, name: str) -> Path:
    """A run of days whose recipe.toml names them where they are, as if it had been trained there."""
    run = place.run(name)
    lines = (run / "recipe.toml").read_text().splitlines()
    (run / "recipe.toml").write_text("\n".join(
        f"data = {json.dumps(str(place.days))}" if line.startswith("data = ") else line for line in lines) + "\n")
    return run


def evaluated(model: Path, *words, to: Path) -> dict:
    return command("evaluate", model, *words, "--json", to / "scores.json", "--plots", to / "plots")


def streamed(model: Path, *words, to: Path) -> dict:
    """`evaluate --stream`: its scores, and every decision."""
    found = command("evaluate", model, "--stream", *words, "--json", to / "scores.json", "--decisions",
                    to / "decisions.jsonl")
    lines = [json.loads(line) for line in (to / "decisions.jsonl").read_text().splitlines()]
    return {"scores": found} | {name: np.array([line[name] for line in lines])
                                for name in ("session", "label", "probability")}


def on_command(model: Path, *words, to: Path) -> dict:
    """`calibrate`, and `evaluate` of the version that it writes."""
    said = command("calibrate", model, *words, "--json", to / "said.json")
    everything = "--repetitions", "1-99"  # or what it was calibrated on is not scored
    return {"said": said, "scores": evaluated(Path(said["model"]), *words[:2], *everything, to=to)}


def volts(recording: Any) -> tuple[np.ndarray, np.ndarray]:
    """Some windows (10, L, C) of a recording, and all of it (T, C)."""
    emg = recording.emg
    return np.stack([emg[start : start + LENGTH] for start in range(700, 9700, 900)]), emg


def held(recording: Any, repetition: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows (N, L, C) inside a movement of a repetition, every 100 samples, and the movements (N,)."""
    inside = np.where(recording.repetitions == repetition, recording.labels, 0)
    starts = [start for start in range(0, len(inside) - LENGTH, LENGTH)
              if inside[start] and (inside[start : start + LENGTH] == inside[start]).all()]
    return np.stack([recording.emg[start : start + LENGTH] for start in starts]), inside[starts].astype(int)


def under(name: str, answers: dict) -> dict:
    return {f"{name}/{key}": answers[key] for key in ("probabilities", "label", "features")}


def decides(decoder: tfkfin.Decoder, recording: Any) -> dict:
    """Windows each for itself, and a short stretch."""
    windows, emg = volts(recording)
    return {"predicted": decoder.predict(windows), **under("windows", decoder(windows)),
            **under("short", decoder.stream(emg[:600]))}


def streams(decoder: tfkfin.Decoder, recording: Any) -> dict:
    """A stretch so long that FINs without recurrence compute each sample once."""
    emg = recording.emg[:3000]
    return {**under("long", decoder.stream(emg)), "in mV": decoder.predict(1e3 * emg, RATE, "mV")}


def session(decoder: tfkfin.Decoder, recording: Any, stride: int = 0) -> dict:
    """A session in two stretches, and what is carried on from it."""
    windows, emg = volts(recording)
    going = decoder.session(stride)
    found = under("first", going.stream(emg[:5000])) | under("second", going.stream(emg[5000:]))
    carried = going.carried()
    return found | {"moved": going.moved, "carried": carried.card.get("carried", 0),
                    "carried/probabilities": carried(windows)["probabilities"]}


def adapts(decoder: tfkfin.Decoder, recording: Any) -> dict:
    """All at once, as it is and going on to learn; it stays what it is."""
    windows, emg = volts(recording)
    return under("adapt=False", decoder.stream(emg, adapt=False)) | under(
        "adapt=True", decoder.stream(emg, adapt=True)) | {"after": decoder(windows)["probabilities"]}


def calibrates(decoder: tfkfin.Decoder, recording: Any, **how: Any) -> dict:
    """From a repetition; scored, before and after, on the others."""
    new = decoder.calibrate(recording, **how)
    return {"probabilities": new(volts(recording)[0])["probabilities"], "said": new.card["calibration"]}


def learns(decoder: tfkfin.Decoder, recording: Any) -> dict:
    """Updates in place by windows and by a stretch; then all of it is taken back."""
    windows, emg = volts(recording)
    shown, labels = held(recording, 2)
    found = {"before": decoder(windows)["probabilities"]}
    decoder.update(shown, labels)
    found["by windows"] = decoder(windows)["probabilities"]
    decoder.update(emg[700:1100], int(labels[0]))
    found |= {"by a stretch": decoder(windows)["probabilities"], "count": decoder.card["updated"]}
    decoder.revert()
    return found | {"reverted": decoder(windows)["probabilities"], "count before": decoder.card.get("updated", 0)}


# What each decoder that was saved is asked of the fourth day.
SAVED: dict[str, dict[str, Callable]] = {
    "fitted": {"decides": decides, "streams": streams, "session": session, "adapts": adapts, "calibrates": calibrates,
               "calibrates by some movements": partial(calibrates, movements=(1, 3)),
               "calibrates without labels": partial(calibrates, labelled=False), "learns": learns},
    "calibrated": {"decides": decides, "streams": streams, "session": partial(session, stride=STRIDE // 2),
                   "calibrates": calibrates, "learns": learns},
    "unlabelled": {"decides": decides, "calibrates": calibrates},
    "updated": {"decides": decides, "learns": learns},
    "carried": {"decides": decides, "calibrates": calibrates},
    "linear": {"decides": decides, "streams": streams}}


def of_saved(place: Place, name: str) -> dict:
    decoder, day = tfkfin.Decoder.from_preset(place.kept / "saved" / name), place.day(4)
    found = {f"{what}/{key}": value for what, does in SAVED[name].items() for key, value in does(decoder, day).items()}
    decoder.save(place.to / "again")
    again = tfkfin.Decoder.from_preset(place.to / "again")
    return found | {"card": again.card, "again": again(volts(day)[0])["probabilities"]}


def of_export(place: Place, name: str) -> dict:
    """What is in a version folder, as Keras and as commands use it."""
    model, data = place.of_model(name)
    decoder, recording = tfkfin.Decoder.from_preset(model), tfkfin.read(data)[-1]
    return {**decides(decoder, recording), **streams(decoder, recording), "scores": evaluated(
        model, "--data", data, "--repetitions", "2", "--stride-ms", STRIDE, to=place.to)}


def of_engine(place: Place, name: str, engine: str) -> dict:
    model, data = place.of_model(name)
    return streamed(model, "--data", data, "--subjects", "1", "--stride-ms", 5 * STRIDE, "--engine", engine,
                    to=place.to)


def exported(place: Place, format: str = "savedmodel") -> dict:
    """A decoder that was saved, exported today, as TensorFlow or ONNX Runtime decide by its graphs."""
    decoder = tfkfin.Decoder.from_preset(place.kept / "saved" / "linear")
    return streamed(decoder.export(place.to / "mine", format), "--data", place.days, "--engine", format, "--stride-ms",
                    5 * STRIDE, to=place.to)


class Stranger:
    """A process without tfkfin: what TensorFlow and ONNX Runtime make of the exports; then it serves them.

    It is `tests/serving/standin.py` that serves, as TF Serving would.
    """

    def __init__(self, kept: Path, to: Path):
        self.ready, self.answers, asked = to / "ready.json", to / "answers.npz", to / "asked.npz"
        place = Place(kept, to)
        np.savez(asked, **{f"{name}/{what}": emg for name in MODELS for what, emg in zip(
            ("windows", "stretch"), volts(tfkfin.read(place.of_model(name)[1])[-1]), strict=True)})
        self.log = (to / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", STRANGER, str(kept / "models"), str(asked), str(self.answers), str(self.ready),
             str(HERE.parent / "serving")], stdout=self.log, stderr=self.log, cwd=to,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
                "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"})

    def has(self, file: Path) -> Path:
        end = time.monotonic() + 300
        while not file.is_file():
            if self.process.poll() is not None or time.monotonic() > end:
                self.log.seek(0)
                raise RuntimeError(self.log.read()[-2000:])
            time.sleep(0.05)
        return file

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()


STRANGER = """
import os, runpy, sys
sys.modules["tfkfin"] = None
import numpy as np, onnxruntime, tensorflow as tf
models, asked, answers, ready, serving = sys.argv[1:]
asked, found = dict(np.load(asked)), {}
for name in sorted({key.split("/")[0] for key in asked}):
    version = f"{models}/{name}/1"
    loaded = tf.saved_model.load(version)
    windows, stretch = asked[f"{name}/windows"], asked[f"{name}/stretch"][None, :3000]
    for signature, file, emg in (("serving_default", "model.onnx", windows), ("stream", "stream.onnx", stretch)):
        for key, value in loaded.signatures[signature](emg=tf.constant(emg)).items():
            found[f"{name}/{signature}/{key}"] = value.numpy()
        session = onnxruntime.InferenceSession(f"{version}/{file}", providers=["CPUExecutionProvider"])
        for output, value in zip(session.get_outputs(), session.run(None, {"emg": emg})):
            found[f"{name}/{file}/{output.name}"] = value
    found[f"{name}/features"] = loaded.signatures["features"](emg=tf.constant(windows))["features"].numpy()
    for key, value in loaded.signatures["about"](emg=tf.constant(0.0)).items():
        if key != "names":
            found[f"{name}/about/{key}"] = value.numpy()
np.savez(answers + ".partial.npz", **found)
os.replace(answers + ".partial.npz", answers)
sys.path.insert(0, serving)
sys.argv = ["standin.py", "--models", models, "--ready", ready]
runpy.run_path(serving + "/standin.py", run_name="__main__")
"""


def without_tfkfin(place: Place) -> dict:
    with np.load(place.stranger.has(place.stranger.answers)) as found:
        return dict(found)


def served(place: Place) -> dict:
    """`python -m tfkfin.client` on a recording, over REST and gRPC."""
    urls, found = json.loads(place.stranger.has(place.stranger.ready).read_text()), {}
    for name, url, file in (("demo", urls["rest"], place.people / "DB2_s2" / "S2_E1_A1.mat"),
                            ("best", urls["grpc"], place.days / "p1_day4.npy")):
        said = command("client", "--url", url, "--model", name, "--data", file, "--repetitions", 2, "--quiet", "--json",
                       place.to / "said.json")
        found |= {f"{name}/{key}": np.array([one[key] for one in said["decided"]]) for key in ("label", "probability")}
        found |= {f"{name}/{key}": said[key] for key in ("accuracy", "windows", "decisions")}
    return found


def fits(place: Place) -> dict:
    """The recipe `best_fins` as it ships, with the first FINs that shipped, fitted to two days from Python."""
    first = shipped("savedmodels") / "fin_conv" / "1"
    new = tfkfin.Decoder.from_preset("best_fins", **{"fin.pretrained": str(first)})
    decoder = new.fit([place.day(1), place.day(2)])
    emg = np.repeat(volts(place.day(4))[1], 2, axis=0)  # it decides at 2000 Hz
    return under("stream", decoder.stream(emg[:4000], rate_hz=2 * RATE)) | {name: np.array(decoder.card[name])
                                                          for name in ("mean_v", "sd_v", "movements")}


def starts_from(place: Place) -> dict:
    """A new run that starts from FINs of a run that was made before, and keeps them as they are."""
    fins = {"imitate.epochs": 0, "fin.pretrained": place.run("demo") / "imitate"}
    found = trained(place.to / "new", "--pipeline", "own", "--data", place.people, *settings(BY_GRADIENTS | fins),
                    stage="imitate")
    return {"fin": found["fin"]}


# Each question of a place. What comes after | is another way to the same answer.
QUESTIONS: dict[str, Callable[[Place], dict]] = {
    "demo": lambda place: demo(place.run("demo")),
    "demo|one person lacks": lambda place: demo(place.run("demo", "results.json", "finetune/stage.json",
                                                         "finetune/S2*")),
    "demo evaluated": lambda place: evaluated(place.run("demo"), to=place.to),
    "own|after imitate and classify": lambda place: own(place.run("classified"), place.people, place.to),
    "own imitated": lambda place: imitated(place.run("classified"), place.people),
    "own imitated|after an epoch": lambda place: imitated(place.run("imitating"), place.people),
    "sessions": lambda place: sessions(place.run("sessions"), place.days),
    "sessions|by its recipe": by_its_recipe,
    "sessions|after imitate": lambda place: sessions(place.run("sessions", "results.json", "classify/*", "finetune/*"),
                                                     place.days),
    "sessions evaluated": lambda place: evaluated(where_it_was_made(place, "sessions"), to=place.to),
    "sessions streamed": lambda place: streamed(where_it_was_made(place, "sessions"), "--stride-ms", 5 * STRIDE,
                                                to=place.to),
    "sessions adapting": lambda place: streamed(where_it_was_made(place, "sessions"), "--adapt", to=place.to),
    "sessions calibrated": lambda place: on_command(
        place.run("sessions"), "--data", place.days, "--session", 4, "--to", place.to / "mine", to=place.to),
    "starts from FINs": starts_from,
    "fits": fits,
    **{f"saved {name}": partial(of_saved, name=name) for name in SAVED},
    "exported": exported,
    "exported|as ONNX": partial(exported, format="onnx"),
    **{f"export {name}": partial(of_export, name=name) for name in MODELS},
    **{f"export {name} by {engine}": partial(of_engine, name=name, engine=engine)
       for name, engine in (*product(MODELS, ("savedmodel", "onnx")), ("demo", "native"), ("linear", "litert"))},
    "without tfkfin": without_tfkfin,
    "served": served,
}
SLOW = ("demo|one person lacks", "sessions|after imitate", "fits", "exported|as ONNX")


def write(answers: dict[str, dict]) -> None:
    """Keeps answers: question -> what was answered."""
    np.savez_compressed(ARRAYS, **{f"{question}: {key}": value for question, found in answers.items()
                                   for key, value in found.items() if isinstance(value, np.ndarray)})
    scores = {question: rest for question, found in answers.items() if (rest := {
        key: value for key, value in found.items() if not isinstance(value, np.ndarray)})}
    SCORES.write_text(json.dumps(lasting(scores), indent=1) + "\n")


def lasting(value: Any) -> Any:
    """Without parts that tell of the day and the machine."""
    if isinstance(value, dict):
        return {key: lasting(one) for key, one in value.items() if key not in OF_THE_DAY}
    return [lasting(one) for one in value] if isinstance(value, list) else value


def kept(question: str) -> dict:
    """What was answered to a question then."""
    with np.load(ARRAYS) as arrays:
        found = {name.partition(": ")[2]: arrays[name] for name in arrays if name.partition(": ")[0] == question}
    found |= json.loads(SCORES.read_text()).get(question, {})
    if not found:
        raise KeyError(f"nothing was kept of {question!r}")
    return found


def differences(then: Any, now: Any, where: str = "") -> list[str]:
    """What is not as it was. Whole numbers, words and shapes are equal, others to `TOLERANCE`; more may be told now."""
    if isinstance(then, dict):
        gone = [f"{where}/{key} is gone" for key in then.keys() - now.keys() - OF_THE_DAY]
        return gone + [one for key in then.keys() & now.keys() - OF_THE_DAY
                       for one in differences(then[key], now[key], f"{where}/{key}")]
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        return [one for i, pair in enumerate(zip(then, now, strict=True)) for one in differences(*pair, f"{where}/{i}")]
    if isinstance(then, np.ndarray | float) and isinstance(now, np.ndarray | float | int):
        then, now = np.asarray(then), np.asarray(now)
        if (then.shape, then.dtype) != (now.shape, now.dtype):
            return [f"{where} is {now.dtype} {now.shape}, and was {then.dtype} {then.shape}"]
        apart = np.abs(then.astype(float) - now)
        allowed = TOLERANCE * np.maximum(1, np.abs(then)) if then.dtype.kind == "f" else 0
        return [f"{where} differs by {apart.max():.2g}"] if not (apart <= allowed).all() else []
    return [] if then == now and type(then) is type(now) else [f"{where} is {now!r}, and was {then!r}"]
