"""The condition of electrodes: names of faults, a summary of many windows; `tfkfin.nets.quality` computes it."""

import numpy as np

FAULTS = ("none", "offset", "loud", "quiet", "noise", "slow", "hum", "clipped", "flat")
OFTEN = 0.25  # of windows from which on a fault is reported
REMEDY = "Look at electrodes and cables; one repetition of each movement (calibrate) restores most of what is lost"
UNLIKE = "electrodes are unlike those that the decoder learnt from"
OUTPUTS = ("quality", "quality_overall", "fault")


def summary(fault: np.ndarray) -> str:
    """What is wrong in a quarter of windows or more, in a sentence; "" where nothing is. `fault`: (N, C)."""
    shares = (np.asarray(fault)[..., None] == np.arange(1, len(FAULTS))).mean(axis=0)  # (C, faults)
    parts = [f"{what} ({', '.join(map(str, 1 + np.flatnonzero(shares[:, i] >= OFTEN)))})"
             for i, what in enumerate(FAULTS[1:]) if (shares[:, i] >= OFTEN).any()]
    return f"{UNLIKE}: {'; '.join(parts)}. {REMEDY}" if parts else ""


def wider(ranges: dict, others: dict) -> dict:
    """Ranges that hold what two hold: of a decoder, and of what it is calibrated on; and those that it had `first`."""
    return {"low": np.minimum(ranges["low"], others["low"]).tolist(),
            "high": np.maximum(ranges["high"], others["high"]).tolist(),
            "first": ranges.get("first") or {name: ranges[name] for name in ("low", "high")}}
