"""Makes what tests/test_before.py holds tfkfin to. It was run once, with the tfkfin of commit ffafefd:

    PYTHONPATH=tests python -m golden_before.make

    folders.tar.xz   people/ and days/: synthetic recordings; nobody was recorded
                     trained/demo          the recipe `demo`, small, on two people, with augmentation; all stages done
                     trained/classified    the recipe `own`, which ended after `classify`, before `finetune`
                     trained/imitating     the same, which ended after the first of three epochs of `imitate`
                     trained/sessions      the recipe `best` on four days: learnt on two, tested on two
                     saved/fitted          `best`, fitted to days 1 and 2 from Python
                     saved/calibrated      for day 3, with labels       saved/unlabelled   without
                     saved/updated         calibrated for day 3, and updated by windows of another repetition
                     saved/carried         carried on from day 3, of which nothing was told
                     saved/linear          dense FINs of one trunk, a linear head, rest as a movement, a filter
                     saved/imitated        `best` with correlations that a FIN imitates
                     models/demo, best     SavedModel and ONNX of trained/demo's and trained/sessions' first decoder
                     models/linear         LiteRT of saved/linear
    answers.npz, answers.json    what it answered then, each answer under the name of what was asked (see `asking.py`)

Made anew, they would say what tfkfin answers now, and hold nothing to what it answered before. Run folders are kept
without TensorBoard's files, plots and locks, which are only ever written, and without recordings.json, which knows
files of the machine where it was made.
"""

import shutil
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
from golden_before import asking

import tfkfin

WORK = Path(tempfile.gettempdir(), "tfkfin_before")  # its name is in recipes and cards, and nothing is there later


def people() -> None:
    asking.command("data", "synthesize", WORK / "people", "--subjects", "1,2", "--seed", 8, "--rate", asking.RATE,
                   "--hold", 0.8, "--rest", 0.4, "--movements", 3, "--repetitions", 3, "--channels", 3)


def days() -> None:
    """One person's twelve repetitions become four days of three, between which electrodes change in loudness."""
    asking.command("data", "synthesize", WORK / "whole", "--subjects", 3, "--seed", 8, "--movements", 3,
                   "--repetitions", 12, "--channels", 2, "--rate", asking.RATE, "--hold", 0.8, "--rest", 0.4)
    whole = tfkfin.read(WORK / "whole")[0]
    changes = np.flatnonzero(np.diff(whole.labels, prepend=0))
    begins, ends = (changes[(whole.labels[changes] > 0) == held] for held in (True, False))
    edges = [0, *((ends[:-1] + begins[1:]) // 2), len(whole.labels)]
    (WORK / "days").mkdir()
    for day, gains in enumerate(((1, 1), (0.8, 1.2), (1.1, 0.9), (0.7, 1.2)), 1):
        rows = np.concatenate([np.arange(a, b) for a, b, begin in zip(edges, edges[1:], begins, strict=False)
                               if (whole.repetitions[begin] + 2) // 3 == day])
        repetitions = np.where(whole.labels[rows] > 0, (whole.repetitions[rows] - 1) % 3 + 1, 0)
        emg = np.round(whole.emg[rows] * gains * 2**24) / 2**24  # converters count; it packs well
        np.save(WORK / "days" / f"p1_day{day}.npy",
                np.column_stack([emg, whole.labels[rows], repetitions]).astype(np.float32))
    (WORK / "days" / "recordings.toml").write_text(
        f'rate_hz = {asking.RATE}\nunit = "V"\nfiles = "p{{subject}}_day{{session}}.npy"\nchannels = [1, 2]\n'
        'label = 3\nrepetition = 4\n\n[movements]\n1 = "fist"\n2 = "open hand"\n3 = "point"\n')


class Ended(BaseException):
    """As a kill ends a command, right after it has written a checkpoint."""


def imitating(run: Path) -> None:
    save = tf.train.CheckpointManager.save

    def once(*words, **options):
        save(*words, **options)
        raise Ended

    tf.train.CheckpointManager.save = once
    try:
        asking.own(run, WORK / "people", WORK)
    except Ended:
        pass
    finally:
        tf.train.CheckpointManager.save = save


def trained() -> dict:
    """What the run of `own` comes to that nothing ends."""
    runs = WORK / "trained"
    asking.demo(runs / "demo")
    imitating(runs / "imitating")
    for stage in ("imitate", "classify"):
        asking.command("train", "--stage", stage, "--run", runs / "classified", "--pipeline", "own", "--data",
                       WORK / "people", *asking.settings(asking.OWN))
    asking.sessions(runs / "sessions", WORK / "days")
    return asking.own(WORK / "own", WORK / "people", WORK)


def fitted(data, **options) -> tfkfin.Decoder:
    """The recipe `best` with other settings, from Python."""
    from tfkfin import recipe  # of the tfkfin that makes these; users fit recipes as they ship

    decoder = tfkfin.Decoder.from_preset("best")
    decoder.recipe = recipe.load("best", asking.SMALL | {"fin.layers": 2, "classifier.lags": [1, 3]} | options)
    return decoder.fit(data)


def saved() -> None:
    to, fins = WORK / "saved", str(WORK / "trained" / "sessions" / "imitate")
    first, second, third, _ = tfkfin.read(WORK / "days")
    decoder = fitted([first, second], **{"fin.pretrained": fins})
    made = {"fitted": decoder, "calibrated": decoder.calibrate(third),
            "unlabelled": decoder.calibrate(third, labelled=False)}
    made["updated"] = decoder.calibrate(third).update(*asking.held(third, 2))
    session = decoder.session()
    session.stream(third.emg)
    made["carried"] = session.carried()
    made["linear"] = fitted([first, second], **{
        "fin.family": "dense", "fin.shared": True, "classifier.kind": "linear", "classifier.describe": "correlations",
        "window.rest": True, "filter.high_pass_hz": 20, "filter.notch_hz": 50, "classifier.vote": 3,
        "classifier.reject": 0.3})
    asking.command("train", "--stage", "imitate", "--pipeline", "fin_correlation", "--run", WORK / "correlation",
                   *asking.settings({"fin.units": 4, "fin.layers": 2, "window.length_ms": asking.LENGTH,
                                     "window.rate_hz": asking.RATE, "imitate.epochs": 1,
                                     "imitate.windows_per_epoch": 512, "imitate.validation_windows": 64,
                                     "imitate.test_windows": 64}))
    made["imitated"] = fitted([first, second], **{
        "fin.pretrained": fins, "classifier.describe": "imitated_correlations",
        "classifier.correlation_fin": str(WORK / "correlation" / "imitate")})
    for name, one in made.items():
        one.save(to / name)
    made["linear"].export(WORK / "models" / "linear", "litert")


def models() -> None:
    for run, name in (("demo", "demo"), ("sessions", "best")):
        asking.command("export", WORK / "trained" / run, "--to", WORK / "models" / name, "--format", "both")


def pack() -> None:
    """The folders, in an order and with times that say nothing of when they were made."""
    thrown = ("tensorboard", "plots", "recordings.json")

    def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        name = Path(entry.name).name
        if name in thrown or name.endswith(".lock") and entry.isfile():
            return None
        entry.mtime = entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(asking.FOLDERS, "w:xz", preset=9) as archive:
        for name in ("people", "days", "trained", "saved", "models"):
            archive.add(WORK / name, name, filter=kept)


def main() -> None:
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # as tests do
    shutil.rmtree(WORK, ignore_errors=True)
    people()
    days()
    answers = {"own": trained()}
    saved()
    models()
    pack()
    shutil.rmtree(WORK)  # whatever is asked is asked of copies
    with tempfile.TemporaryDirectory() as folder:
        kept = asking.unpack(Path(folder, "kept"))
        stranger = asking.Stranger(kept, Path(folder))
        for i, (name, ask) in enumerate(asking.QUESTIONS.items()):
            if "|" not in name and name != "own":
                to = Path(folder, str(i))
                to.mkdir()
                answers[name] = ask(asking.Place(kept, to, stranger))
        stranger.end()
    asking.write(answers)


if __name__ == "__main__":
    main()
