"""What the experiments share: fits and who learns from what, estimators, the paper's numbers, plots, the report."""
