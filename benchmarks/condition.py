"""How often decisions say that an electrode is unlike training: on clean signals, and with faults; docs/lasting.md.

    python benchmarks/condition.py DIR [--sets biopatrec10mov4ch,myo_wrist] [--people 2]

DIR has a folder of recordings for each set. The recipe best learns from clean repetitions of one person; then its test
repetitions are decided, as they are and with the faults of `tfkfin.signal.faults`, of which those of one electrode are
given to the first. Of the electrodes that have the fault: % of windows in which it says that something is wrong, and in
brackets what, where it says so most often. The condition is computed by ranges of training alone; all these people
were used for development: docs/people.md.
"""

import argparse
from pathlib import Path

import numpy as np

import tfkfin
from tfkfin.recordings import readers
from tfkfin.signal import faults
from tfkfin.signal.condition import FAULTS

SETS = {"biopatrec10mov4ch": ((1, 3), (2,)), "intensity10": ((17, 18, 19), (20,)),
        "myo_wrist": ((1, 2, 3, 4), (5, 6)), "ninapro_db1": ((1, 3, 4, 6), (2, 5))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DIR")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--people", type=int, default=2, help="of a set, the first recording of each")
    asked = parser.parse_args()
    found: dict[str, dict[str, list]] = {fault: {} for fault in faults.FAULTS}
    for name in asked.sets.split(","):
        train, test = SETS[name]
        people = {one.subject: one for one in reversed(readers.find(asked.data / name))}
        for person in sorted(people)[: asked.people]:
            recording = readers.read(people[person])
            decoder, tested = tfkfin.Decoder.from_preset("best").fit(recording.select(train)), recording.select(test)
            mean, sd = (np.asarray(decoder.card[key]) for key in ("mean_v", "sd_v"))
            for fault in faults.FAULTS:
                signal = next(faults.spoilt(fault, tested.emg, mean, sd, tested.rate_hz, person))
                said = decoder.stream(signal, rate_hz=tested.rate_hz)["fault"]
                found[fault].setdefault(name, []).append(said[:, faults.places(fault, recording.num_channels)[0]])
        print(f"{name}: done", flush=True)
    print(f"\n| fault | {' | '.join(asked.sets.split(','))} |\n|---{'|---' * len(asked.sets.split(','))}|")
    for fault, of in found.items():
        cells = [np.concatenate([part.ravel() for part in parts]) for parts in of.values()]
        print(f"| {fault} | {' | '.join(map(cell, cells))} |")


def cell(said: np.ndarray) -> str:
    share, often = 100 * np.mean(said > 0), np.bincount(said[said > 0], minlength=1)
    return f"{share:.1f}" + (f" ({FAULTS[often.argmax()]})" if share >= 1 else "")


if __name__ == "__main__":
    main()
