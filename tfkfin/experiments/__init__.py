"""The paper's experiments, reproduced and questioned: `python -m tfkfin.experiments --help`."""
