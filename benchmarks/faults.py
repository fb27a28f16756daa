"""What faults of electrodes cost a decoder that is not calibrated to them: the table of docs/lasting.md.

    python benchmarks/faults.py DIR [--sets biopatrec10mov4ch] [--people 4] [--rows best,tdar_lda] [--json FILE]

DIR has a folder of recordings for each set. Decoders learn from clean repetitions; then one electrode or all of them are
spoilt throughout the test repetitions. Accuracy a window in %, each window by itself, mean over people and, where one
electrode is spoilt, over electrodes. All these people were used for development: docs/people.md.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import tfkfin
from tfkfin.experiments.ladder import rows as ladder
from tfkfin.experiments.ladder.baselines import Uncentred
from tfkfin.pipeline.subject import Subject
from tfkfin.recipe import Window
from tfkfin.recordings import readers

SETS = {"biopatrec10mov4ch": ((1, 3), (2,)), "intensity10": ((17, 18, 19), (20,)), "wear30": ((1, 2, 3), (4,)),
        "myo_wrist": ((1, 2, 3, 4), (5, 6)), "myo_many": ((1, 2, 3), (4,)), "ninapro_db1": ((1, 3, 4, 6), (2, 5))}
ROWS = ("best", "best, electrodes not estimated", "tdar_lda")


def _tone(emg, sd, rate):
    return 2 * np.sqrt(2) * sd * np.sin(2 * np.pi * 50 / rate * np.arange(len(emg)))[:, None]


# (signal (T, C), sd of each channel in training, Hz) -> the spoilt signal; of one electrode and of all
FAULTS = {"dead": lambda emg, sd, rate: 0 * emg, "offset": lambda emg, sd, rate: emg + 2 * sd,
          "hum": lambda emg, sd, rate: emg + _tone(emg, sd, rate), "gain 3": lambda emg, sd, rate: 3 * emg,
          "gain 0.3": lambda emg, sd, rate: 0.3 * emg, "inverted": lambda emg, sd, rate: -emg}
OF_ALL = ("offset", "hum", "gain 3", "gain 0.3")


def spoilt(emg: np.ndarray, sd: np.ndarray, rate: float):
    """(fault, signal) of every fault, of each electrode in turn and of all."""
    yield "clean", emg
    for name, fault in FAULTS.items():
        for j in range(emg.shape[1]):
            changed = emg.copy()
            changed[:, [j]] = fault(emg[:, [j]], sd[[j]], rate)
            yield f"{name}, one electrode", changed
        if name in OF_ALL:
            yield f"{name}, all", fault(emg, sd, rate)


def deciding(row: str, train: list, window: Window):
    """(volts (T, C), starts (N,)) -> labels, learnt from recordings."""
    if row.startswith("best"):
        decoder = tfkfin.Decoder.from_preset("best", **{"classifier.lost_electrode": row == "best"}).fit(train)
        return lambda emg, starts: decoder.over(emg, starts)["label"]
    describe = ladder.ROWS[row].describe
    taught = Subject.of(train, window)
    length = round(window.length_ms * taught.rate_hz / 1000)

    def described(emg, starts):
        parts = [describe(((emg[starts[i : i + ladder.CHUNK, None] + np.arange(length)] - taught.mean) / taught.sd)
                          .astype(np.float32), taught.rate_hz) for i in range(0, len(starts), ladder.CHUNK)]
        return np.concatenate(parts)

    from tfkfin.nets.lda import lda
    model = lda().fit(described(taught.emg, taught.windows.starts), taught.windows.movements)
    return lambda emg, starts: model.predict(described(emg, starts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DIR")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--people", type=int, default=4, help="of a set at most")
    parser.add_argument("--rows", default=";".join(ROWS), help="separated by semicolons")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    window, found = Window(stride_ms=50), {}
    for name in asked.sets.split(","):
        train, test = SETS[name]
        files = {}
        for one in readers.find(asked.data / name):
            files.setdefault(one.subject, []).append(one)
        for own in [files[who] for who in list(files)[: asked.people]]:
            recordings = [readers.read(one) for one in own]
            taught = [one.select(train) for one in recordings]
            tested = Subject.of([one.select(test) for one in recordings], window)
            sd = Subject.of(taught, window).sd
            for row in asked.rows.split(";"):
                decide = deciding(row, taught, window)
                for fault, emg in spoilt(tested.emg, sd, tested.rate_hz):
                    right = np.mean(decide(emg, tested.windows.starts) == tested.windows.movements)
                    found.setdefault((name, row), {}).setdefault(fault, []).append(100 * right)
        print(f"{name}: done", flush=True)
    faults = list(next(iter(found.values())))
    print(f"\n| set, row | {' | '.join(faults)} |\n|---{'|---' * len(faults)}|")
    for (name, row), of in found.items():
        print(f"| {name}, {row} | {' | '.join(f'{np.mean(of[fault]):.1f}' for fault in faults)} |")
    if asked.json:
        asked.json.write_text(json.dumps({f"{name}, {row}": of for (name, row), of in found.items()}, indent=1))


if __name__ == "__main__":
    main()
