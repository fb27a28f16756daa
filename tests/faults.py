"""Every command that writes, under faults; afterwards the same command comes to what it comes to undisturbed.

    nice -n 19 python tests/faults.py --count 20                       so many of each fault for each command; seeded
    python tests/faults.py --command export --fault SIGKILL --count 1 --seed 7
    python tests/faults.py --everywhere --fault full            wherever in the code a file changes, once for each place

Faults: SIGKILL, SIGTERM and SIGINT at a moment that the seed chooses, before a change of a file or after some time; a
disk that is full from a change on (`full`; on a small tmpfs where root can mount one: `disk`), a disk that is mounted
to be read alone (`readonly`, which wants root too), files that may not grow (`size`), few open files (`files`), the
folder of recordings or of results gone (`vanish`), a clock that steps (`clock`), and two at once (`twice`).
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import numpy as np

sys.path[:0] = [str(Path(__file__).parent / room) for room in ("recordings", "serving")]
import fault_server  # noqa: E402
import hub_server  # noqa: E402

from tfkfin.store import folders  # noqa: E402

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
MOUNTED = ("disk", "readonly")
FAULTS = (*SIGNALS, "full", "size", "files", "vanish", "clock", "twice", *MOUNTED)
CODES = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}
LIGHT = ("scipy.io", "scipy.signal", "h5py", "matplotlib.pyplot", "rich.markdown", "requests", "edfio", "filelock",
         "huggingface_hub", "tfkfin.data", "tfkfin.recordings.download")
HEAVY = ("tensorflow", "keras", "sklearn.svm", "keras_tuner", "onnx", "tfkfin.fit.stages", "tfkfin.experiments.runner",
         "tfkfin.live.loop", *LIGHT)


# === What commands leave ===

def files(folder: Path) -> dict[str, str]:
    """Name -> digest of every file that users see."""
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file() and not hidden(path, folder)}


def hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith((".", "__pycache__")) for part in path.relative_to(folder).parts) or \
        path.name.endswith(".lock")


DIFFERS = ("seconds", "environment", "created", "version", "card_sha256", "time", "ready_s", "sha256")


def timeless(value):
    """Without what differs from run to run: times, and where it ran."""
    if isinstance(value, dict):
        return {key: timeless(one) for key, one in value.items() if key not in DIFFERS}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def results(name: str) -> Callable[[Path], object]:
    return lambda folder: timeless(json.loads((folder / name).read_text()))


def model(name: str) -> Callable[[Path], object]:
    """The newest version's card, where every version is as it was written; and what a server is told."""
    def found(folder: Path):
        versions = folders.versions(folder / name)
        altered = {version.name: folders.changed(version) for version in versions}
        config = folder / name / ".." / "models.config"
        return [*{tuple(names) for names in altered.values()}], timeless(folders.card(versions[-1])), \
            sorted(folders.checksums(versions[-1])), config.read_text() if config.is_file() else ""
    return found


def half(folder: Path) -> list[str]:
    """Files that users see and that are not whole."""
    import h5py
    from scipy.io import loadmat

    def png(path):
        if b"IEND" not in path.read_bytes()[-12:]:
            raise ValueError(path)

    def bdf(path):
        import edfio

        edfio.read_bdf(path)

    def zipped(path):
        if zipfile.ZipFile(path).testzip():
            raise ValueError(path)

    readers = {".json": lambda path: json.loads(path.read_text()), ".npz": lambda path: dict(np.load(path)),
               ".toml": lambda path: tomllib.loads(path.read_text()), ".npy": np.load, ".mat": loadmat, ".png": png,
               ".h5": lambda path: h5py.File(path).close(), ".keras": zipped, ".zip": zipped, ".bdf": bdf,
               ".html": lambda path: path.read_text().index("</html>")}
    broken = []
    for path in folder.rglob("*"):
        if not path.is_file() or hidden(path, folder) or "oracle" in path.parts:  # which KerasTuner writes
            continue
        try:
            readers.get(path.suffix, lambda path: None)(path)
        except Exception as error:
            broken.append(f"{path.relative_to(folder)}: {error}")
        if ".partial" in path.name:
            broken.append(str(path.relative_to(folder)))
    return broken + [f"{version.relative_to(folder)} is no whole version" for version in folder.glob("**/[0-9]*")
                     if version.is_dir() and (version / folders.CARD).is_file() and not hidden(version, folder)
                     and folders.changed(version)]


# === The commands ===

@dataclass(frozen=True)
class Command:
    """A command that writes.

    Attributes:
        argv: its words; {url} is the stand-in's of the site of Ninapro.
        right: what it has come to, equal each time.
        needs: folders of the template that it reads.
        heavy: it takes TensorFlow.
        once: what it wrote is not written again: given once more it is refused, and `right` holds all the same.
        result: where its results go, for folders that vanish.
    """

    argv: str
    right: Callable[[Path], object]
    needs: tuple[str, ...] = ()
    heavy: bool = True
    once: bool = False
    result: str = ""


TINY = " ".join(f"--set {word}" for word in (
    "window.length_ms=100", "window.stride_ms=60", "classify.epochs=2", "classifier.filters=[4]", "fin.units=2",
    "fin.layers=1", "fin.pretrained=", "imitate.windows_per_epoch=32", "imitate.validation_windows=16",
    "imitate.test_windows=16", "imitate.batch_size=16", "imitate.epochs=2", "finetune.windows_per_epoch=32",
    "finetune.epochs=1", "finetune.batch_size=16", "features.names=RMS,VAR"))
WINDOWS = "--set window.length_ms=100 --set window.stride_ms=60"
BEST = f"--pipeline best_fins --data data {WINDOWS}"
PLAIN = f"{BEST} --set classifier.describe=correlations"
COMMANDS = {
    "synthesize": Command("data synthesize made --subjects 1-3 --movements 2 --repetitions 2 --channels 3 --hold 0.3 "
                          "--rest 0.2", lambda folder: files(folder / "made"), heavy=False, once=True, result="made"),
    "sheet": Command("data sheet own --write", lambda folder: files(folder / "own"), ("own",), False, once=True),
    "bids": Command("data bids data --to bids", lambda folder: files(folder / "bids"), ("data",), False, once=True,
                    result="bids"),
    "plot": Command("data plot data --subject 1 --movement 1 --to a.png", lambda folder: files(folder)["a.png"],
                    ("data",), False, once=True),
    "download": Command("data download db2 --subjects 1-2 --url {url} --to db2 --stall 2",
                        lambda folder: {name: digest for name, digest in files(folder / "db2").items()
                                        if name.endswith(".mat")}, (), False, result="db2"),
    "pull": Command("models pull hf://somebody/one", model("savedmodels/one"), (), False, result="savedmodels"),
    "push": Command("models push model hf://somebody/two", lambda folder: PUSHED(), ("model",), False),
    "train best": Command(f"train --stage finetune {BEST} --run run", results("run/results.json"), ("data",),
                          result="run"),
    "train": Command(f"train --stage finetune --data data --run run {TINY}", results("run/results.json"), ("data",),
                     result="run"),
    "train synthetic": Command(f"train --stage classify --pipeline demo --run run {TINY} --set imitate.epochs=1 "
                               "--set source.synthetic.movements=2 --set source.synthetic.hold_s=0.5",
                               results("run/results.json"), (), result="run"),
    "evaluate": Command("evaluate run --json scores.json", results("scores.json"), ("data", "run")),
    "export": Command("export run --to savedmodels/m", model("savedmodels/m"), ("data", "run"), result="savedmodels"),
    "export onnx": Command("export run --to savedmodels/o --format onnx", model("savedmodels/o"), ("data", "run"),
                           result="savedmodels"),
    "export litert": Command("export litert --to savedmodels/l --format litert", model("savedmodels/l"),
                             ("data", "litert"), result="savedmodels"),
    "calibrate": Command("calibrate model --data data --subject 2 --repetitions 1 --to savedmodels/c",
                         model("savedmodels/c"), ("data", "model"), result="savedmodels"),
    "tune": Command(f"tune --stage classify {BEST} --run search --set tune.features.names=[[\"RMS\"],[\"VAR\"]]",
                    results("search/tuning.json"), ("data",), result="search"),
    "experiments": Command(f"experiments imitation --data data {TINY} --run lab", results("lab/results.json"),
                           ("data",), result="lab"),
    "ladder": Command(f"experiments ladder --data data --pipeline ladder {WINDOWS} --set classify.epochs=1 --run lab",
                      results("lab/results.json"), ("data",), result="lab"),
    "live": Command("live --model model --source synthetic --speed 0 --seconds 1.5 --jsonl all.jsonl --json live.json",
                    lambda folder: whole_lines(folder / "all.jsonl"), ("model",), once=True),
    "live adapt": Command("live --model model --source synthetic --speed 0 --seconds 8 --adapt --to savedmodels/a",
                          lambda folder: model("savedmodels/a")(folder)[0], ("model",), result="savedmodels"),
    "live calibrate": Command("live --model model --source synthetic --speed 2 --calibrate kept --hold-s 0.6 "
                              "--rest-s 0.3 --seconds 50 --to savedmodels/l", lambda folder: model("savedmodels/l")(
                                  folder)[0], ("model",), result="savedmodels"),
}


def whole_lines(path: Path) -> bool:
    """What was decided before a session ended is in whole lines."""
    return all(json.loads(line)["window"] == i for i, line in enumerate(path.read_text().splitlines(True))
               if line.endswith("\n"))


def PUSHED() -> dict:
    return {name: hashlib.sha256(content).hexdigest() for name, content in HUB.commits["somebody/two"][-1].items()}


# === Trials ===

@dataclass
class Bench:
    """The zygotes, a template of what commands need, and what they come to undisturbed."""

    folder: Path
    url: str
    environment: dict[str, str]
    zygotes: dict[bool, subprocess.Popen] = field(default_factory=dict)
    known: dict[str, dict] = field(default_factory=dict)

    def zygote(self, heavy: bool) -> subprocess.Popen:
        heavy = heavy or True in self.zygotes
        if heavy not in self.zygotes:
            words = [sys.executable, str(Path(__file__).with_name("faults_zygote.py")), *(HEAVY if heavy else LIGHT)]
            with open(self.folder / "zygote.log", "a") as log:
                self.zygotes[heavy] = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                                       env=os.environ | self.environment, stderr=log)
        return self.zygotes[heavy]

    def close(self) -> None:
        for zygote in self.zygotes.values():
            with zygote:
                zygote.kill()

    def run(self, command: Command, folder: Path, **trial) -> tuple[dict, str]:
        """The zygote's answer, and what was said on stderr."""
        argv = command.argv.format(url=self.url).split()
        told = {"argv": argv, "folder": str(folder)} | trial
        zygote = self.zygote(command.heavy)
        zygote.stdin.write(json.dumps(told) + "\n")
        zygote.stdin.flush()
        if not (line := zygote.stdout.readline()):
            raise RuntimeError((self.folder / "zygote.log").read_text()[-3000:])
        answer = json.loads(line)
        if {70, 71} & set(answer["codes"]):
            answer["said"] += (self.folder / "zygote.log").read_text()[-2000:]
        return answer, answer["said"]

    def fresh(self, command: Command, where: Path) -> Path:
        """A folder with what a command needs; the stand-ins' sites are as at first."""
        HUB.commits.pop("somebody/two", None)
        where.mkdir(parents=True, exist_ok=True)
        for name in command.needs:
            shutil.copytree(self.needed(name), where / name)
        return where

    def needed(self, name: str) -> Path:
        """A folder of the template, made on first use by the commands themselves."""
        made = self.folder / "template" / name
        made.parent.mkdir(exist_ok=True)
        if not made.exists():
            makers = {"data": Command("data synthesize data --subjects 1-2 --movements 2 --repetitions 6 --channels 3 "
                                      "--hold 0.5 --rest 0.3", files, heavy=False),
                      "run": Command(f"train --stage finetune {BEST} --run run", files),
                      "litert": Command(f"train --stage finetune {PLAIN} --run litert", files),
                      "model": Command("export run --to model", files)}
            if name == "own":
                made.mkdir(parents=True)
                lines = ["a,b,m", *(f"{i % 7},{i % 5},{i // 50 % 3}" for i in range(300))]
                (made / "p1.csv").write_text("\n".join(lines))
                return made
            for before in {"run": ("data",), "litert": ("data",), "model": ("data", "run")}.get(name, ()):
                self.needed(before)
            answer, said = self.run(makers[name], made.parent)
            if answer["codes"] != [0]:
                raise RuntimeError(f"{name}: {answer} {said}")
        return made

    def undisturbed(self, name: str) -> dict:
        """Answer of the zygote and `right` of a command that nothing disturbs."""
        if name not in self.known:
            command, folder = COMMANDS[name], self.folder / f"undisturbed-{name}".replace(" ", "-")
            self.fresh(command, folder)
            answer, said = self.run(command, folder)
            if answer["codes"] != [0] or half(folder):
                raise RuntimeError(f"{name}: {answer} {said} {half(folder)}")
            self.known[name] = answer | {"right": command.right(folder)}
        return self.known[name]


HUB = hub_server.Hub()


@contextmanager
def bench():
    """Yields a `Bench`."""
    global HUB
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
        site = stack.enter_context(fault_server.running())
        stack.enter_context(patch("socketserver.BaseServer.handle_error"))  # a client that was killed hangs up
        HUB, address = stack.enter_context(hub_server.hub())
        environment = {"HF_ENDPOINT": address, "HF_TOKEN": "none", "HF_HOME": str(folder / "hf"),
                       "no_proxy": "127.0.0.1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                       "TFKFIN_CACHE": str(folder / "cache"), "TF_CPP_MIN_LOG_LEVEL": "3", "MPLBACKEND": "agg",
                       "HF_HUB_DISABLE_XET": "1"}
        made = Bench(folder, site.url, environment)
        stack.callback(made.close)
        from tfkfin.base.files import shipped

        own = shipped("savedmodels") / "fin_dense" / "1"
        HUB.commits["somebody/one"] = [{path.relative_to(own).as_posix(): path.read_bytes() for path in own.rglob("*")
                                        if path.is_file()}]
        site.files = {f"/DB2_Preproc/DB2_s{n}.zip": content for n, content in archives(folder).items()}
        yield made


def archives(folder: Path) -> dict[int, bytes]:
    from tfkfin.recordings import synthetic

    made = {}
    for subject, path in enumerate(synthetic.synthesize(folder / "site", (1, 2), movements=2, repetitions=2, channels=4,
                                                        hold_s=0.3, rest_s=0.3), 1):
        with zipfile.ZipFile(folder / "a.zip", "w") as archive:
            archive.write(path, f"DB2_s{subject}/S{subject}_E1_A1.mat")
        made[subject] = (folder / "a.zip").read_bytes()
    return made


PLACED = (*SIGNALS, "full", "vanish")
LIMITS = {"size": (0, 1, 30, 100, 300, 1000, 2000, 4096, 8192, 20_000, 50_000, 200_000),
          "files": (8, 63, *range(64, 100, 4))}


def faulty(fault: str, rng: random.Random, known: dict, command: Command, folder: Path, at: int | None) -> dict:
    """What a trial is told of its fault; which is at the limit or the change of a file `at`, None: as the seed says."""
    if fault in LIMITS:
        return {"fault": fault, "at": rng.choice(LIMITS[fault]) if at is None else at}
    by_time = at is None and fault in SIGNALS and (rng.random() > 0.6 or not known["events"])
    at = at or rng.randint(1, max(1, known["events"]))
    if by_time:
        return {"signal": int(getattr(signal, fault)), "after_s": rng.uniform(0.02, 1.1 * known["seconds"])}
    if fault in SIGNALS:
        return {"fault": "kill", "signal": int(getattr(signal, fault)), "at": at}
    if fault == "vanish":
        gone = rng.choice([*command.needs, *([command.result] if command.result else [])] or ["nothing"])
        return {"fault": "vanish", "at": at, "gone": str(folder / gone)}
    if fault == "clock":
        return {"fault": "clock", "steps": [rng.choice([0, 0, 0, 3600, -3600, 86400 * 400, -86400 * 400, -1, 1])
                                            for _ in range(5000)]}
    return {"fault": fault, "at": at} if fault == "full" else {"times": 2} if fault == "twice" else {}


def trial(made: Bench, name: str, fault: str, seed: int, at: int | None = None) -> str:
    """What is wrong with how a command bears a fault; "" if nothing is."""
    command, rng = COMMANDS[name], random.Random(f"{name} {fault} {seed} {at}")
    folder = made.folder / f"{name} {fault} {seed} {at}".replace(" ", "-")
    known = made.undisturbed(name)
    with small_disk(folder, fault, rng):
        made.fresh(command, folder)
        if fault == "disk":
            fill(folder, rng)
        with unwritable(folder, fault):
            answer, said = made.run(command, folder, **faulty(fault, rng, known, command, folder, at))
        if wrong := ended(fault, command, answer, said) or "; ".join(left(fault, folder)):
            return wrong
        (folder / "filling").unlink(missing_ok=True)
        for need in command.needs:
            if fault == "vanish":  # the user puts back what is gone
                shutil.copytree(made.needed(need), folder / need, dirs_exist_ok=True)
        again, told = made.run(command, folder)
        removed = fault == "vanish" and command.result and re.search("is there (already|and)|[Rr]emove it", told)
        if removed and again["codes"] == [2]:
            shutil.rmtree(folder / command.result)  # what was at work when it vanished has written again
            again, told = made.run(command, folder)
        if again["codes"] != [0] and not (command.once and again["codes"] == [2] and "there already" in told):
            return f"once more: {again['codes']}: {told[-600:]} (at first {answer['codes']}: {said[-200:]})"
        if (right := command.right(folder)) != known["right"]:
            return f"once more it comes to something else: {differing(right, known['right'])} (at first {said[-300:]})"
        if broken := half(folder) + left("once more", folder):
            return "once more: " + "; ".join(broken)
    shutil.rmtree(folder, ignore_errors=True)
    return ""


def differing(one, other) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        return ", ".join(f"{key}: {differing(one.get(key), other.get(key))}" for key in one.keys() | other.keys()
                         if one.get(key) != other.get(key))
    return f"{str(one)[:300]}, not {str(other)[:300]}"


def ended(fault: str, command: Command, answer: dict, said: str) -> str:
    """What is wrong with a command's end."""
    codes = answer["codes"]
    fit = {0, 2}
    if fault in SIGNALS:
        fit = {0, CODES[fault], *([] if said else [-getattr(signal, fault)])}  # before it has begun
    elif fault in ("clock",):
        fit = {0}
    elif fault == "twice" and 0 not in codes:
        return f"neither of two ended well: {said[-600:]}"
    if not set(codes) <= fit:
        return f"exit codes {codes}: {said[-800:]}"
    if "Traceback" in said or "unforeseen" in said:
        return f"a traceback: {said[-800:]}"
    if 2 in codes and not re.search(r"^error: \S", said, re.MULTILINE):
        return f"no word: {said[-800:]}"
    return ""


def left(fault: str, folder: Path) -> list[str]:
    """What is half where users look; after SIGTERM and SIGINT, and after errors, also what is hidden."""
    broken = half(folder)
    if fault not in ("SIGKILL", "vanish", "files"):  # to remove a folder takes an open file
        broken += [str(path.relative_to(folder)) for path in folder.rglob("*") if ".partial" in path.name
                   and not path.name.endswith(".lock")]
    return [f"half: {broken[:4]}"] if broken else []


@contextmanager
def small_disk(folder: Path, fault: str, rng: random.Random):
    """For faults of disks a tmpfs at `folder`."""
    if fault not in MOUNTED:
        yield
        return
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def unwritable(folder: Path, fault: str):
    """For the fault `readonly` nothing can be written to the tmpfs at `folder`."""
    if fault == "readonly":
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    yield
    if fault == "readonly":
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)


def can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return done.returncode == 0


def fill(folder: Path, rng: random.Random) -> None:
    """Leaves a little room."""
    leave = rng.choice([0, 4096, 8192, 20_000, 100_000, 1_000_000])
    free = shutil.disk_usage(folder).free
    with open(folder / "filling", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - leave))


def fits(name: str, fault: str) -> bool:
    """Whether a fault means something for a command."""
    command = COMMANDS[name]
    if fault == "vanish":
        return bool(command.needs or command.result)
    return True


def everywhere(made: Bench, names: list[str], faults: list[str], seed: int):
    """Yields command, fault, seed and where: each place in the code where commands change files, and each limit."""
    seen = set()
    for name in names:
        new = {place: at for place, at in made.undisturbed(name).get("places", {}).items() if place not in seen}
        print(f"{name}: {len(new)} places that no command before came to", flush=True)
        seen |= new.keys()
        yield from ((name, fault, seed, at) for at in new.values() for fault in faults
                    if fault in PLACED and fits(name, fault))
        yield from ((name, fault, seed, limit) for fault, limits in LIMITS.items() if fault in faults
                    for limit in limits)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5, help="trials of each fault for each command (default: 5)")
    parser.add_argument("--command", choices=COMMANDS, action="append", help="default: every one")
    parser.add_argument("--fault", choices=FAULTS, action="append", help="default: every one")
    parser.add_argument("--seed", type=int, default=0, help="the first (default: 0)")
    parser.add_argument("--everywhere", action="store_true", help="in place of --count: once wherever in the code a "
                        f"command changes a file ({', '.join(PLACED)}), and at every limit ({', '.join(LIMITS)})")
    options = parser.parse_args()
    faults = options.fault or [fault for fault in FAULTS if fault not in MOUNTED or can_mount()]
    done, wrong, names = Counter(), 0, options.command or list(COMMANDS)
    stopped, said_at = "", time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end with the verdict so far
    with bench() as made, suppress(KeyboardInterrupt):
        stopped = "stopped: "
        trials = everywhere(made, names, faults, options.seed) if options.everywhere else (
            (name, fault, seed, None) for seed in range(options.seed, options.seed + options.count) for name in names
            for fault in faults if fits(name, fault))
        for name, fault, seed, at in trials:
            if time.monotonic() - said_at > 15:
                said_at = time.monotonic()
                print(f"{done.total()} trials, {wrong} wrong; now {name}, {fault}", file=sys.stderr, flush=True)
            found = trial(made, name, fault, seed, at)
            done[fault] += 1
            if found:
                wrong += 1
                print(f"{name}, {fault}, --seed {seed}{'' if at is None else f', at {at}'}: {found}", flush=True)
        stopped = ""
    print(f"{stopped}{done.total()} trials of {len(names)} commands ({dict(done)}): {wrong} wrong")
    return 1 if wrong else 130 if stopped else 0


if __name__ == "__main__":
    sys.exit(main())
