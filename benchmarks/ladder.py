"""Makes the ladder's tables on all development sets, and chooses `best` by the rule of docs/people.md.

    python benchmarks/ladder.py DIR --to runs/ladder [--sets biopatrec10mov4ch,wear30] [--rows best,tdar_lda]
    python benchmarks/ladder.py DIR --to runs/ladder --only-tables

DIR has a folder for each set. Each set is a run of `python -m tfkfin.experiments ladder` in a folder of its own, which
goes on when started again. The tables are Markdown, accuracy a window in %, mean over people; the last lines say which
row the rule chooses, and why others are not admitted.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from tfkfin.experiments.kinds.ladder import titled

NOTE = "All these people were used for development: docs/people.md."
SETS = {  # settings of the split; of larger sets the first people and some of the days, for time
    "biopatrec10mov4ch": ("train_repetitions=1,3", "test_repetitions=2"),
    "intensity10": ("repetitions_per_session=4", "train_sessions=3,5", "test_sessions=1"),
    "wear30": ("repetitions_per_session=4", "train_sessions=1-5", "test_sessions=6,9,12,15,18,21,24,27,30"),
    "multiday": ("repetitions_per_session=1", "train_sessions=1-5", "test_sessions=6-16"),
    "myo_wrist": ("subjects=1-4", "repetitions_per_session=6", "train_sessions=1-2", "test_sessions=3"),
    "myo_many": ("subjects=1-4", "repetitions_per_session=4", "train_sessions=1", "test_sessions=2-3"),
    "ninapro_db1": ("subjects=1-3", "train_repetitions=1,3,4,6,7,8,9", "test_repetitions=2,5,10"),
}
ROWS = ("best_fins", "best_fins_adapt", "no_fins", "no_fins_adapt", "fins_alone", "fins_alone_adapt", "closed_form",
        "closed_form_adapt", "tdar_lda", "tdar_lda_centred", "tdar_cov_lda", "tdar_cov_lda_centred", "cov_lda",
        "hierarchical")
RUNGS = ("repetition-1", "repetition-2", "session-0", "session-0u", "session-1", "person-0", "person-0u", "person-1")
NAMES = {  # in tables
    "no_fins": "best", "no_fins_adapt": "best, adapting", "best_fins": "best + FINs",
    "best_fins_adapt": "best + FINs, adapting", "fins_alone": "FINs alone", "fins_alone_adapt": "FINs alone, adapting",
    "closed_form": "closed form", "closed_form_adapt": "closed form, adapting", "tdar_lda": "usual features, LDA",
    "tdar_lda_centred": "usual features, LDA, recentred", "tdar_cov_lda": "usual + log-cov, LDA",
    "tdar_cov_lda_centred": "usual + log-cov, LDA, recentred", "cov_lda": "log-cov, LDA",
    "hierarchical": "usual + log-cov, hierarchical"}
# Candidates, simpler ones first: not adapting before adapting, then fewer head inputs.
CANDIDATES = ("fins_alone", "no_fins", "best_fins", "closed_form", "fins_alone_adapt", "no_fins_adapt",
              "best_fins_adapt", "closed_form_adapt")
FLOOR, MOST_BELOW, TIE = "tdar_lda", 2.0, 0.25  # the row that none may fall below, by how many points; ranks


def cells(folder: Path, way: str = "rungs") -> dict[str, dict[str, dict[str, float]]]:
    """{set: {rung: {row: accuracy a window, %}}} of the runs that are there."""
    found = {}
    for name in SETS:
        if (folder / name / "results.json").is_file():
            rungs = json.loads((folder / name / "results.json").read_text())[way]
            found[name] = {rung: {row: 100 * one["window"]["mean"] for row, one in rungs[rung].items()
                                  if one["window"]["mean"] is not None} for rung in RUNGS if rung in rungs}
    return found


def table(rungs: dict[str, dict[str, float]]) -> list[str]:
    rows = list(next(iter(rungs.values())))
    best = {rung: max(one.values()) for rung, one in rungs.items()}
    lines = [f"| decoder | {' | '.join(map(titled, rungs))} |", "|---" * (len(rungs) + 1) + "|"]
    for row in rows:
        shown = (f"**{one[row]:.1f}**" if one[row] >= best[rung] - 0.05 else f"{one[row]:.1f}"
                 for rung, one in rungs.items())
        lines.append(f"| {NAMES.get(row, row)} | {' | '.join(shown)} |")
    return lines


def chosen(found: dict[str, dict[str, dict[str, float]]]) -> tuple[str, dict[str, float], dict[str, float]]:
    """The row that the rule chooses, mean ranks, and by how much each candidate is below `FLOOR` at its worst."""
    there = [row for row in CANDIDATES if all(row in one for rungs in found.values() for one in rungs.values())]
    ranks, deficit = [], dict.fromkeys(there, -np.inf)
    for rungs in found.values():
        ranks.append(np.mean([rankdata([-one[row] for row in there]) for one in rungs.values()], axis=0))
        for one in rungs.values():
            deficit = {row: max(most, one[FLOOR] - one[row]) for row, most in deficit.items()}
    rank = dict(zip(there, np.mean(ranks, axis=0).tolist(), strict=True))
    admitted = [row for row in there if deficit[row] <= MOST_BELOW]
    if not admitted:
        return min(there, key=deficit.get), rank, deficit
    least = min(rank[row] for row in admitted)
    return next(row for row in admitted if rank[row] <= least + TIE), rank, deficit


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", type=Path)
    p.add_argument("--to", type=Path, required=True)
    p.add_argument("--sets", default=",".join(SETS))
    p.add_argument("--rows", default=",".join(ROWS))
    p.add_argument("--only-tables", action="store_true", help="of the runs that are there")
    arguments = p.parse_args()
    for name in () if arguments.only_tables else arguments.sets.split(","):
        settings = [part for setting in SETS[name] for part in ("--set", f"split.{setting}")]
        subprocess.run([sys.executable, "-m", "tfkfin.experiments", "ladder", "--data", arguments.data / name, "--run",
                        arguments.to / name, "--rows", arguments.rows, "--set", f"source.note={NOTE}", *settings],
                       check=True)
    for way, title in (("rungs", "each window decided by itself"), ("smoothed", "smoothed alike")):
        for name, rungs in cells(arguments.to, way).items():
            print(f"\n{name}, {title}:\n", *table(rungs), sep="\n")
    row, rank, deficit = chosen(cells(arguments.to))
    print(f"\n| candidate | mean rank | at worst below {NAMES[FLOOR]}, points |\n|---|---|---|")
    for name in sorted(rank, key=rank.get):
        print(f"| {NAMES[name]} | {rank[name]:.2f} | {deficit[name]:.1f} |")
    admitted = "" if deficit[row] <= MOST_BELOW else " No candidate is admitted; it has the smallest greatest deficit."
    print(f"\nThe rule chooses {NAMES[row]}.{admitted}")


if __name__ == "__main__":
    main()
