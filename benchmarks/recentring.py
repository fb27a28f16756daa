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
from tfkfin.experiments.kinds.ladder import decisions
from tfkfin.experiments.ladder import rungs
from tfkfin.experiments.ladder.rows import PRIOR, PRIORS, ROWS, BaselineModel, BaselineRow
from tfkfin.experiments.ladder.rungs import SessionPart, Trial
from tfkfin.fit import metrics
from tfkfin.recordings import readers

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


def accuracies(row: BaselineRow, people: dict[int, list[SessionPart]]) -> dict[int, float]:
    """{prior: mean accuracy over people, %}. What is trained does not depend on the prior."""
    model, found = BaselineModel(row, recipes.load("ladder")), {prior: [] for prior in PRIORS}
    for person, parts in people.items():
        own = {prior: [] for prior in PRIORS}
        for part in parts:
            fitted = model.fit([other for other in parts if other is not part] or [
                other for one, theirs in people.items() if one != person for other in theirs])
            for fitted.centring_.prior in PRIORS:
                trial = Trial("0", part, part.repetitions)
                true, decided, *_ = decisions(trial, model.answers(fitted, trial), 0.0)
                own[fitted.centring_.prior].append(metrics.window_accuracy(true, decided))
        for prior, values in own.items():
            found[prior].append(100 * np.mean(values))
    return {prior: float(np.mean(values)) for prior, values in found.items()}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("sets", nargs="+", choices=SETS)
    p.add_argument("--data", type=Path, required=True)
    arguments = p.parse_args()
    found: dict[str, list[dict[int, float]]] = {}
    for name in arguments.sets:
        people = training(arguments.data, name)
        for row in PRIOR:
            found.setdefault(row, []).append(accuracies(ROWS[row], people))
            print(name, row, "  ".join(f"{prior}: {value:.1f}" for prior, value in found[row][-1].items()), flush=True)
    for row, sets in found.items():
        mean = {prior: np.mean([one[prior] for one in sets]) for prior in PRIORS}
        print(f"{row}: {max(mean, key=mean.get)}, mean {max(mean.values()):.2f} %")


if __name__ == "__main__":
    main()
