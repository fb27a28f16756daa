"""A run: one recipe on one data set, in a folder that holds what its stages have finished. Killed, it resumes there."""

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tfkfin import __version__
from tfkfin import recipe as recipes
from tfkfin.base import files, machine, reading
from tfkfin.base.console import log
from tfkfin.base.errors import InputError
from tfkfin.base.files import read_json, write_json, write_text
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.fit.ledger import Fingerprint, Ledger, Results, ShippedFins, of_item
from tfkfin.recipe import Recipe
from tfkfin.store import folders, presets

RECIPE = "recipe.toml"
# a start may be killed before it writes recipe.toml
_OF_A_START = ("recordings.json", "fingerprint.json", "fins.json", "run.lock")


@dataclass
class Run:
    """One recipe on one data set in one folder. Open it with `open_run`.

    Attributes:
        folder: holds recipe.toml, results.json, tensorboard/ and one checkpoint folder a stage.
        recipe: resolved; `source.data` names the folder of recordings, if any.
        profile: whether the first epoch of each fine-tuning is profiled.
        beside: another run's recordings.json, as of `fingerprint`.
        strategy: how the stage imitate is shared among GPUs; see `tfkfin.fit.device`.
    """

    folder: Path
    recipe: Recipe
    profile: bool = False
    beside: Path | None = None
    strategy: str = "default"
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def ledger(self) -> Ledger:
        """Entries of stages (<stage>/stage), of their subjects (<stage>/S1), and of the run (results, fingerprint)."""
        return Ledger(self.folder)

    def stage_folder(self, stage: str) -> Path:
        path = self.folder / stage
        path.mkdir(parents=True, exist_ok=True)
        return path

    def board(self, name: str) -> str:
        return str(self.folder / "tensorboard" / name)

    @property
    def data(self) -> str | Path:
        """The folder of the recordings; synthetic ones are made on first use and kept in the run folder."""
        if self.recipe.source.kind == "recordings":
            return self.recipe.source.data
        from tfkfin.recordings import synthetic

        options, folder = self.recipe.source.synthetic, self.folder / "data"
        if not (folder / "complete").exists():
            log.info("Synthesising %d subjects in the layout of Ninapro DB2", options.subjects)
            for part in folder.rglob("*.mat"):  # of an earlier start of this run, which was killed
                part.unlink()
            synthetic.synthesize(folder, range(1, options.subjects + 1), **options.model_dump(exclude={"subjects"}))
            (folder / "complete").touch()
        return folder

    @cached_property
    def dataset(self):
        """The recordings under the recipe."""
        from tfkfin.pipeline.dataset import open_dataset

        return open_dataset(self.recipe, self.data)

    @cached_property
    def fingerprint(self) -> str:
        """Of the content of this run's recordings."""
        named = [(f"S{s} E{file.exercise}" + (f" session {file.session}" if file.session > 1 else "") +
                  (f" file {i}" if i else ""), path)
                 for s, own in self.dataset.files.items() for file in own for i, path in enumerate(file.paths)]
        return fingerprint(named, self.folder / "recordings.json", self.beside)

    def note(self) -> None:
        """Writes which recordings, and then which recipe, the folder belongs to.

        Raises:
            InputError: as `claim`; or labels of what is tested here taught the FINs that the recipe starts from.
        """
        if self.recipe.source.kind == "recordings":
            self.claim()
        if not (self.folder / RECIPE).is_file():
            own = self._shipped_fins and presets.find(self._shipped_fins)
            for person in self.dataset.split.subjects if self.learnt_from else ():
                tested = self.dataset.load(person, self.dataset.part("test"))
                if self.learnt_from & set(tested.repetition_digests.tolist()):
                    raise InputError(f"labels of repetitions of subject {person} that are tested here taught the FINs "
                                     f"of {self.recipe.fin.pretrained}: test others (split.test_repetitions), or start "
                                     "from other FINs (fin.pretrained)")
            self.ledger.put("fins", {"network": self.recipe.fin.version} | (
                {"version": int(own.name), "sha256": reading.sha256(own / folders.FINS_FILE)} if own else {}))
            write_text(self.folder / RECIPE, self.recipe.to_toml())

    def claim(self) -> None:
        """Makes sure that what is finished here was made from the recordings that the recipe names now.

        Raises:
            InputError: other recordings, or the same files with other content; a new folder is named.
        """
        before = self.ledger.get("fingerprint", "give another folder with --run", Fingerprint)
        if before is None:
            if any(self.folder.glob("*/stage.json")):
                raise InputError(f"{self.folder} does not say which recordings it belongs to: an older tfkfin made it, "
                                 "or it was removed while a run wrote there. Remove it, or give another folder with "
                                 "--run")
            self.ledger.put("fingerprint", {"recordings": self.fingerprint})
        elif before["recordings"] != self.fingerprint:
            raise InputError(f"{self.folder} holds a run on other recordings, or on these before they were changed: "
                             f"give another folder, such as --run {self.folder}-{self.fingerprint[:6]}")

    @cached_property
    def fin(self) -> recipes.Fin:
        """The recipe's FINs, as this run began with them: their network and, of "auto", the shipped version.

        Raises:
            InputError: the shipped model was changed meanwhile.
        """
        began, folder = self.ledger.get("fins", kind=ShippedFins), self._shipped_fins
        if began is None:  # it has not begun, or an older tfkfin began it
            began = {"network": 1, "version": 1} if (self.folder / RECIPE).is_file() else {"network": 2}
        options = self.recipe.fin.of_version(began["network"])
        if folder is None or "version" not in began:
            return options
        own = folder / str(began["version"])
        if not own.is_dir() or began.get("sha256") not in (
                None, reading.sha256(own / folders.FINS_FILE)):
            raise InputError(f"{self.folder} began with version {began['version']} of the shipped FINs {folder.name}, "
                             "which is gone or was changed: give another folder with --run")
        return options.model_copy(update={"pretrained": str(own)})

    @cached_property
    def learnt_from(self) -> set[str]:
        """Repetitions whose labels the FINs that this run starts from learnt from, by their digests."""
        return set() if self.recipe.source.kind == "signals" else set(presets.learnt_from(self.recipe))

    @property
    def _shipped_fins(self) -> Path | None:
        """The model folder of the shipped FINs that the recipe asks for."""
        folder = files.shipped("savedmodels") / f"fin_{self.recipe.fin.family}"
        asked = self.recipe.fin.pretrained == "auto" and self.recipe.features.names
        return folder if asked and folder.is_dir() else None

    @cached_property
    def length(self) -> int:
        """Samples a window."""
        window = self.recipe.window
        if self.recipe.source.kind == "signals":
            return round(window.length_ms * window.rate_hz / 1000)
        return self.dataset.length

    def card(self) -> dict:
        """What cards of this run's models have in common, as of `folders.made_by`."""
        signals = self.recipe.source.kind == "signals"
        return folders.made_by(self.recipe, self.length, (self.recipe.window if signals else self.dataset).rate_hz)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Locks this run for this process, and removes files that killed processes have half written.

        Raises:
            InputError: another process works on it, or its folder was removed meanwhile.
        """
        lock = self.ledger.lock("run")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(f"{self.folder}: another process works on this run: wait for it, or give another folder "
                             "with --run") from None
        except (OSError, NotImplementedError) as error:  # a disk without locks, or that cannot be written
            log.info("%s cannot be locked (%s): finished results can still be shown", self.folder, error)
        try:
            for partial in self.folder.rglob(".[0-9]*.partial.*") if lock.is_locked else ():
                if files.is_dead(partial) or time.time() - partial.stat().st_mtime > 3600:
                    partial.unlink(missing_ok=True)  # younger ones a task on another machine may write now
            yield
        except Exception as error:
            self._is_there(lock, error)
            raise
        else:
            self._is_there(lock)
        finally:
            lock.release()

    def _is_there(self, lock: FileLock, error: Exception | None = None) -> None:
        """Raises InputError if the folder was removed while its lock was held: later writes have made it anew."""
        noted = (self.folder / RECIPE).is_file() and (
            self.recipe.source.kind != "recordings" or self.ledger.get("fingerprint") is not None)
        if lock.is_locked and not (noted and os.path.exists(lock.lock_file)):
            raise InputError(f"{self.folder} was removed while this run wrote there, and is incomplete now: remove it, "
                             "and give the command again") from error

    def done(self, stage: str, item: str = "stage") -> dict | None:
        """The scores of a stage, or of one of its subjects ("S1"); None while it is not finished."""
        return self.ledger.get(f"{stage}/{item}", kind=of_item(item))

    def scores(self, stage: str, item: str = "stage") -> dict:
        """As `done`, of what was finished before.

        Raises:
            FileNotFoundError: its file was removed since.
        """
        return self.ledger.of(f"{stage}/{item}", of_item(item))

    def finish(self, stage: str, scores: dict, item: str = "stage") -> dict:
        """Marks a stage, or one of its subjects, as finished."""
        return self.ledger.put(f"{stage}/{item}", scores)

    def decoder(self, subject: int) -> BaseDecoder:
        """A subject's fine-tuned decoder.

        Raises:
            InputError: the run has not fine-tuned that subject, or an older tfkfin did.
        """
        if self.done("finetune", f"S{subject}") is None:
            raise InputError(f"{self.folder} has no fine-tuned model of subject {subject}: run --stage finetune")
        return BaseDecoder.load(self.folder / "finetune" / f"S{subject}")

    def results(self) -> dict:
        return self.ledger.get("results", kind=Results) or {}

    def publish(self, stage: str, scores: dict) -> dict:
        """Merges a stage's scores into results.json."""
        before = self.results()
        results = before | scores | {
            "stage": stage, "protocol": self.recipe.protocol, "recipe_digest": self.recipe.digest,
            "seconds": before.get("seconds", {}) | {name: round(s, 2) for name, s in self.seconds.items()},
            "environment": environment()}
        if self.recipe.source.kind != "signals":
            results["dataset"] = self.dataset.describe() | {"fingerprint": self.fingerprint}
        if before and {**before, "environment": 0} == json.loads(json.dumps({**results, "environment": 0})):
            return before  # nothing new: a finished run can be shown from a read-only disk
        return self.ledger.put("results", results)


def open_run(recipe: Recipe, folder: Path, profile: bool = False, beside: Path | None = None) -> Run:
    """Makes a run folder, or opens the one that the same recipe made on the same data.

    Raises:
        InputError: the folder holds another recipe's run or something else, and is not changed; or memory cannot hold
            the recipe's batches.
    """
    noted = folder / RECIPE
    if noted.is_file():
        old = recipes.load(noted)
        if old.digest != recipe.digest:
            differing = sorted(key for key in recipes.fields() if attrgetter(key)(old) != attrgetter(key)(recipe))
            raise InputError(f"{folder} holds a run of another recipe (it differs in {', '.join(differing)}): "
                             "give another folder with --run")
    elif folder.exists() and (not folder.is_dir() or any(
            path.name not in _OF_A_START and ".partial." not in path.name for path in folder.iterdir())):
        raise InputError(f"{folder} is there and is no run folder: give another one with --run")
    opened = Run(folder, recipe, profile, beside)
    if recipe.source.kind == "recordings":
        opened.dataset  # noqa: B018  unfit recordings are refused before a folder is made
    _afford(opened)
    with cleared(folder):
        folder.mkdir(parents=True, exist_ok=True)
        opened.note()
    return opened


@contextmanager
def cleared(folder: Path) -> Iterator[None]:
    """Removes a run folder that the block has made, if the block fails before any stage has begun.

    A folder that another process works on, which began at the same time, stays.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except Exception:
        if new and folder.is_dir() and {path.name for path in folder.iterdir() if path.is_dir()} <= {"data"}:
            with suppress(Timeout, OSError, NotImplementedError), Ledger(folder).lock("run").acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
            for path in new[1:]:
                with suppress(OSError):  # it is not empty
                    path.rmdir()
        raise


def _afford(run: Run) -> None:
    """Makes sure that memory holds a batch of windows and the FINs' units for it, the least that training takes."""
    recipe, fin, window = run.recipe, run.recipe.fin, run.recipe.window
    if recipe.source.kind == "recordings":
        channels, length = run.dataset.channels, run.length
    else:
        kind = recipe.source.kind == "synthetic"
        channels = recipe.source.synthetic.channels if kind else 1
        rate = window.rate_hz or recipe.source.synthetic.rate_hz
        length = max(1, round(window.length_ms * rate / 1000))
    sizes = {"imitate.batch_size": recipe.imitate.batch_size, "finetune.batch_size": recipe.finetune.batch_size,
             "imitate.validation_windows": recipe.imitate.validation_windows / fin.units,
             "imitate.test_windows": recipe.imitate.test_windows / fin.units}  # of these the volts alone are held
    for name, windows in sizes.items():
        machine.afford(4 * windows * length * channels * fin.units, f"a batch of {name} windows of {length} samples",
                       f"lower {name}, window.length_ms or fin.units")


def environment() -> dict[str, Any]:
    """Versions and machine, for results.json."""
    return {"tfkfin": __version__, "python": platform.python_version(), "cpus": os.cpu_count(),
            "machine": platform.machine(), "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            **{name: version(name) for name in ("tensorflow", "keras", "numpy", "scipy", "tensorboard")}}


def fingerprint(files: Iterable[tuple[str, Path]], kept: Path, beside: Path | None = None) -> str:
    """12 hex digits of the content of (name, path) of recordings, in any order and wherever they lie.

    A file is read once; later its digest is taken from `kept`, as long as size, times and inode are unchanged.

    Args:
        kept: a JSON file with digests of files that were read before, which is updated.
        beside: another such file, of another run.
    """
    named = {str(path): name for name, path in files}
    known = _known(kept)
    trusted = (_known(beside) if beside else {}) | known

    def entry(path: str) -> list:
        reading.size_of(Path(path))
        stat = Path(path).stat()
        now = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        before = trusted.get(path)
        if isinstance(before, list) and len(before) == 5 and before[:4] == now:
            return before
        return [*now, reading.sha256(Path(path))]

    with ThreadPoolExecutor() as pool:  # hashing frees the GIL
        entries = dict(zip(named, pool.map(entry, named), strict=True))
    if entries != known:
        with suppress(OSError):  # on a read-only disk they are read each time
            write_json(kept, {"files": entries})
    parts = sorted(f"{named[path]} {one[4]}" for path, one in entries.items())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _known(kept: Path) -> dict:
    """Digests of files that were read before; none where the JSON file is damaged, for it can be made again."""
    with suppress(ValueError, AttributeError, TypeError):
        return dict((read_json(kept) or {}).get("files", {}))
    return {}
