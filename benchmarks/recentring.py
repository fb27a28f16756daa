"""Chooses how many windows earlier sessions count as where the ladder's recentred rows follow a stream (`rows.PRIOR`).

    PYTHONPATH=. python benchmarks/recentring.py SET... --data DIR

Each training session of a set is decided by a row that is trained on the person's other training sessions or, where
there is one session a person, on the training repetitions of the others. Accuracy a window is the mean over people,
then over sets. Test sessions and test repetitions are not used.
"""

import argparse
from pathlib import Path

import numpy as np

from tfkfin import recipe as recipes
from tfkfin.experiments.ladder import baselines, rungs
from tfkfin.experiments.ladder.adapter import BaselineModel
from tfkfin.experiments.ladder.rows import PRIORS, ROWS, BaselineRow
from tfkfin.experiments.ladder.rungs import Group, SessionPart, Trial
from tfkfin.experiments.ladder.table import decisions
from tfkfin.fit import metrics
from tfkfin.recordings import readers

ROWS_OF = {"tdar_lda_centred": baselines.ZScored, "tdar_cov_lda_centred": baselines.ZScored,
           "riemann_lda_centred": baselines.RecentredTangentSpace}
SETS = {  # of repetitions: how many a session has, 0: there is one session; training sessions, training repetitions
    "wear30": (4, (1, 2, 3, 4, 5), None), "intensity10": (4, (3, 5), None), "biopatrec10mov4ch": (0, None, (1, 3)),
    "myo_wrist": (6, (1, 2), None)}


def training(folder: Path, name: str) -> dict[int, list[SessionPart]]:
    """The training sessions of everybody in a set."""
    each, sessions, repetitions = SETS[name]
    people = {}
    for person, files in readers.by_subject(readers.find(folder / name)).items():
        parts = rungs.sessions(person, map(readers.read, files), each)
        people[person] = [part.select(repetitions or part.repetitions) for part in parts
                          if not sessions or part.session in sessions]
    return people


def accuracy(row: BaselineRow, people: dict[int, list[SessionPart]]) -> float:
    model, found = BaselineModel(row, recipes.load("ladder")), {person: [] for person in people}
    for person, parts in people.items():
        for part in parts:
            others = [other for other in parts if other is not part] or [
                other for one, theirs in people.items() if one != person for other in theirs]
            group = Group(person, tuple(others), (Trial("0", part, part.repetitions),))
            ((trial, answers),) = model.decide(group)
            true, decided, *_ = decisions(trial, answers, 0.0)
            found[person].append(metrics.window_accuracy(true, decided))
    return float(np.mean([np.mean(one) for one in found.values()]))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("sets", nargs="+", choices=SETS)
    p.add_argument("--data", type=Path, required=True)
    arguments = p.parse_args()
    found: dict[tuple[str, int], list[float]] = {}
    for name in arguments.sets:
        people = training(arguments.data, name)
        for row, centring in ROWS_OF.items():
            for prior in PRIORS:
                tried = BaselineRow(row, ROWS[row].describe, lambda c=centring, n=prior: baselines.SessionLDA(
                    lambda: c(n)))
                found.setdefault((row, prior), []).append(100 * accuracy(tried, people))
            print(name, row, " ".join(f"{prior}: {found[row, prior][-1]:.1f}" for prior in PRIORS), flush=True)
    for row in ROWS_OF:
        best = max(PRIORS, key=lambda prior: np.mean(found[row, prior]))
        print(f"{row}: {best}, mean {np.mean(found[row, best]):.2f}")


if __name__ == "__main__":
    main()
