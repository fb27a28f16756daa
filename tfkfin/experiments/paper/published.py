"""The paper's figures, from published.toml.

Wu, Atashzar, Ghassemi, Alhanai 2025, "An LSTM Feature Imitation Network for Hand Movement Recognition from sEMG
Signals", arXiv 2405.19356.
"""

from pathlib import Path

from tfkfin.base.files import read_toml

_printed = read_toml(Path(__file__).with_suffix(".toml"), "the paper's figures")
SOURCE, COLUMN, ABSENT, GROUPS, OTHERS = (_printed[name] for name in ("SOURCE", "COLUMN", "ABSENT", "GROUPS", "OTHERS"))
TABLE_1, TABLE_2, TABLE_3 = (_printed[f"TABLE_{number}"] for number in (1, 2, 3))
FRACTIONS, HORIZONS_MS = _printed["FRACTIONS"], _printed["HORIZONS_MS"]
EXPERIMENT_4, EXPERIMENT_5, MORE_REPETITIONS = (
    _printed[name] for name in ("EXPERIMENT_4", "EXPERIMENT_5", "MORE_REPETITIONS"))


def accuracy(model: str, group: str) -> str:
    """The paper's accuracy of a model on a group, as printed, or `ABSENT`."""
    if model not in TABLE_2:
        return ABSENT
    mean, sd = TABLE_2[model][group]
    return f"{mean:.2f} ± {sd:.2f}"
