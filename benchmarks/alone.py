"""One measurement in a process of its own; answers one line of JSON. `common.alone` runs it.

    PYTHONPATH=. python benchmarks/alone.py read FOLDER 0
"""

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

NAMES = ("ENT", "RMS", "VAR", "SSI")


def peak_mb() -> float:
    """The most memory that this process ever had resident. Its ru_maxrss would begin with its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024  # kB


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def opened(folder: str, **settings):
    """The dataset of a folder: all its subjects, repetitions 1, 3, 4, 6 to train, 300 ms every 10 ms."""
    from tfkfin import recipe
    from tfkfin.pipeline import dataset

    return dataset.open_dataset(recipe.load(None, {"window.stride_ms": 10, **settings}), folder)


def first_batch(folder: str) -> dict:
    """Seconds from an imported TensorFlow to the first batch of 64 windows with their targets."""
    import tensorflow as tf

    tf.zeros(1)
    began, began_cpu = time.perf_counter(), time.process_time()
    from tfkfin.pipeline import batches

    emg, targets = next(iter(batches.pooled(opened(folder), NAMES, 64, 1)))
    return {"seconds": time.perf_counter() - began, "cpu_s": time.process_time() - began_cpu, "windows": len(emg)}


def read(folder: str, share: str) -> dict:
    """Reads and windows every recording, `share` windows of each (0: all): peak memory and windows a second."""
    import tensorflow  # noqa: F401

    from tfkfin.pipeline import batches

    imported, dataset = peak_mb(), opened(folder)
    began, count = time.perf_counter(), 0
    for emg, _ in batches.pooled(dataset, NAMES, 64, 1, max_windows=int(share) * len(dataset.files)):
        count += len(emg)
    return {"peak_mb": peak_mb(), "imported_mb": imported, "windows": count,
            "windows_s": count / (time.perf_counter() - began)}


def waiting(folder: str, family: str, batch: str, share: str, steps: str, epochs: str) -> dict:
    """Share of the time that FINs of a family spend waiting for input, as the stage `imitate` trains them.

    `share` windows of each recording (0: all), at most `steps` steps an epoch. The first epoch, which reads the .mat
    files, counts from its second step on; later epochs count whole.
    """
    from tfkfin import recipe
    from tfkfin.fit import training
    from tfkfin.pipeline import batches
    from tfkfin.pipeline.batches import Spool
    from tfkfin.store import presets

    dataset, spool = opened(folder), Spool()
    bank = presets.new_bank(recipe.load(None, {"fin.family": family, "fin.pretrained": ""}).fin, NAMES, dataset.length,
                        dataset.channels)
    bank.compile(training.adam(1e-3, 2e-5), training.imitation_loss(bank), jit_compile=False)
    waited, total, done = [], [], 0
    for epoch in range(int(epochs)):
        began, waits = time.perf_counter(), 0.0
        data = iter(batches.pooled(dataset, NAMES, int(batch), 1, epoch, int(share) * len(dataset.files), spool=spool))
        if epoch == 0:
            bank.train_on_batch(*next(data))  # traces
            began = time.perf_counter()
        for _ in range(int(steps)):
            asked = time.perf_counter()
            given = next(data, None)
            waits += time.perf_counter() - asked
            if given is None:
                break
            bank.train_on_batch(*given)
            done += 1
        waited, total = [*waited, waits], [*total, time.perf_counter() - began]
    return {"first": waited[0] / total[0], "later": sum(waited[1:]) / sum(total[1:]) if total[1:] else None,
            "steps": done, "windows_s": done * int(batch) / sum(total)}


def classify(folder: str, subjects: str, epochs: str) -> dict:
    """The stage `classify` on full-size recordings: seconds a subject, memory after each, how often it was traced."""
    import keras

    from tfkfin import recipe
    from tfkfin.fit import stages
    from tfkfin.fit.run import Run, open_run

    resident, graphs, traced, finish, step = [], [], [], Run.finish, keras.Model.train_step

    def finished(self, *arguments):
        resident.append(resident_mb())
        graphs.append(len(traced))
        return finish(self, *arguments)

    def tracing(self, *arguments, **more):  # runs only while a graph is traced
        traced.append(1)
        return step(self, *arguments, **more)

    Run.finish, keras.Model.train_step = finished, tracing
    settings = {"source.kind": "recordings", "source.data": folder, "window.stride_ms": 10, "classify.epochs": epochs,
                "split.subjects": subjects, "split.test_repetitions": "2,5"}
    with tempfile.TemporaryDirectory() as made:
        run = open_run(recipe.load(None, settings), Path(made))
        began, began_cpu = time.perf_counter(), time.process_time()
        scores = stages.run_stage(run, "classify")
        total, cpu = time.perf_counter() - began, time.process_time() - began_cpu
        each = [run.done("classify", f"S{s}")["seconds"] for s in run.dataset.split.subjects]
    return {"seconds": each, "total_s": total, "cpu_s": cpu, "resident_mb": resident[: len(each)],
            "graphs": graphs[: len(each)],
            "windows": run.dataset.count(run.dataset.split.subjects[0], "train"),
            "accuracy": scores["accuracy"]["mean"], "peak_mb": peak_mb()}


def first_step(began: str) -> dict:
    """The demo's stage imitate, until its first training step is done: seconds since `began` (time.time())."""
    from tfkfin import train

    def done(self, batch, logs=None):
        print(json.dumps({"seconds": time.time() - float(began)}), flush=True)
        os._exit(0)

    with tempfile.TemporaryDirectory() as made:
        from tfkfin.fit import training

        training.Progress.on_train_batch_end = done
        train.main(["--stage", "imitate", "--pipeline", "pipelines/demo.toml", "--run", made])


def command(*arguments: str) -> dict:
    """`python -m tfkfin.train` with these arguments in this process: the most memory it had."""
    from tfkfin import train

    train.main(list(arguments))
    return {"peak_mb": peak_mb()}


def books(data: str, folder: str) -> dict:
    """Plans every person of a folder × 5 folds × 3 seeds, and accounts for all when each has a row: as `train` does.

    The rows are written in between, unmeasured, in place of fits.
    """
    from tfkfin import recipe
    from tfkfin.fit import units

    began = time.perf_counter()
    options = recipe.load(None, {"source.kind": "recordings", "source.data": data, "window.length_ms": 100,
                                 "window.stride_ms": 50})
    plan = units.open_plan(options, Path(folder), "classify", 5, 3)
    opened_s = time.perf_counter() - began
    for unit in plan.units():
        plan.ledger.put(plan.arguments(unit)["row"], {
            "accuracy": 0.5, "execution": 0.5, "false_per_minute": None, "classifier": 0.5, "svm": 0.5, "fin": None,
            "seconds": 60.0, "recipe_digest": "0" * 12, "fingerprint": "0" * 12})
    began = time.perf_counter()
    failed, results = plan.launch("local"), plan.publish()  # plans anew, finds all rows, adds them up
    seconds = time.perf_counter() - began
    if failed or results["missing"] or results["fits"] != 15 * len(plan.base.dataset.split.subjects):
        raise RuntimeError(f"{failed} failed, {len(results['missing'])} missing, {results['fits']} fits")
    return {"open_s": opened_s, "books_s": seconds, "peak_mb": peak_mb()}


def main() -> None:
    task, *rest = sys.argv[1:]
    result = {"first_batch": first_batch, "read": read, "waiting": waiting, "classify": classify,
              "first_step": first_step, "command": command, "books": books}[task](*rest)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
