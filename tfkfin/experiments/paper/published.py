"""The paper's figures, as data: Wu, Atashzar, Ghassemi, Alhanai 2025, "Feature imitating networks" for sEMG.

Source of every number: arXiv 2405.19356, the table or section named beside it. All are of Ninapro DB2
(exercise B: 12 channels, 17 movements), by the protocol that `optimistic` describes.
"""

SOURCE = "Wu, Atashzar, Ghassemi, Alhanai 2025, arXiv 2405.19356"
COLUMN = "paper: Ninapro DB2"
ABSENT = "not in the paper"

# Table 1: feature -> R² and MAP in %, each (mean, sd). By the authors' code both are means of clipped ratios.
TABLE_1 = {
    "ENT": {"r2": (0.98, 0.10), "map": (95.17, 11.78)},
    "RMS": {"r2": (0.99, 0.08), "map": (95.33, 9.47)},
    "SSI": {"r2": (0.96, 0.14), "map": (88.62, 14.43)},
    "VAR": {"r2": (0.98, 0.12), "map": (92.97, 13.06)},
}

# Table 2: model -> group of subjects -> accuracy in % (mean, sd). Groups: 1-25, 26-40, 1-40.
TABLE_2 = {
    "cnn1": {"within": (29.40, 2.00), "cross": (25.13, 1.94), "all": (27.80, 1.98)},
    "cnn2": {"within": (64.64, 7.70), "cross": (77.90, 7.19), "all": (69.61, 9.86)},
    "svm": {"within": (53.59, 6.47), "cross": (52.91, 7.70), "all": (52.94, 8.42)},
    "scratch": {"within": (34.57, 8.35), "cross": (45.41, 6.33), "all": (38.64, 9.25)},
    "fin": {"within": (65.70, 7.50), "cross": (80.06, 6.21), "all": (71.80, 9.89)},
}

# Table 3: model -> epochs, seconds an epoch (on the authors' GPU).
TABLE_3 = {"cnn1": (31, 12.0), "cnn2": (12, 0.46), "scratch": (5, 291.0), "fin": (4, 58.0), "imitate": (3, 98.0)}

FRACTIONS = (20, 40, 60, 80, 100)  # %, section 4.4
EXPERIMENT_4 = "a plot: flat"
MORE_REPETITIONS = "more are better"  # section 4.4; no figures
HORIZONS_MS = (0, 50, 100, 150, 200, 250, 300)  # section 4.5; 0 is the fine-tuned decoder of Table 2
EXPERIMENT_5 = "a plot: about -15"

GROUPS = {"within": "within (paper: subjects 1-25)", "cross": "cross (paper: subjects 26-40)",
          "all": "all (paper: subjects 1-40)"}

# Better published accuracies in % on DB2's 17 movements (300 ms windows but where noted), for orientation.
OTHERS = {"TC-HGR": 81.65, "TEMGNet": 82.93, "coherence + polynomial SVM": 85.1, "TraHGR (200 ms)": 88.91}


def accuracy(model: str, group: str) -> str:
    """The paper's accuracy of a model on a group, as printed, or `ABSENT`."""
    if model not in TABLE_2:
        return ABSENT
    mean, sd = TABLE_2[model][group]
    return f"{mean:.2f} ± {sd:.2f}"
